//! The steps of a setup.

use leoflow_base::config::DatastoreSetting;
use leoflow_postgres::{MAJOR, NEWEST};
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes `config.yaml` with secrets, the admin's password, the workspace and the port.
    WriteConfig,
    /// Adds missing keys to `config.yaml`; comments and other keys stay.
    CompleteConfig {
        keys: Vec<&'static str>,
    },
    SetPort {
        port: u16,
    },
    AcquirePostgres,
    /// Installs the newest minor version; on failure the installed one stays.
    UpdatePostgres {
        from: String,
    },
    /// Packages that DAG files may import.
    AcquirePackages,
    /// Airflow's web UI; everything else works without it.
    AcquireUi,
    CreateCluster,
    /// Writes the `datastore` setting of a home that has no datastore yet.
    SetDatastore {
        setting: DatastoreSetting,
    },
    /// Uses an external server or a container.
    UseDatastore {
        setting: DatastoreSetting,
    },
    InstallBinary {
        version: String,
    },
    MakeWorkspace {
        path: PathBuf,
    },
    /// Uses an existing empty folder as the workspace.
    AdoptWorkspace {
        path: PathBuf,
    },
    WriteReceipt,
}

pub const MAKE_WORKSPACE: &str = "make-workspace";

impl Step {
    /// Name in the journal and in checkpoints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::WriteConfig => "write-config",
            Self::CompleteConfig { .. } => "complete-config",
            Self::AcquirePostgres => "acquire-postgres",
            Self::UpdatePostgres { .. } => "update-postgres",
            Self::AcquirePackages => "acquire-packages",
            Self::AcquireUi => "acquire-ui",
            Self::CreateCluster => "create-cluster",
            Self::SetDatastore { .. } => "set-datastore",
            Self::UseDatastore { .. } => "use-datastore",
            Self::InstallBinary { .. } => "install-binary",
            Self::SetPort { .. } => "set-port",
            Self::MakeWorkspace { .. } => MAKE_WORKSPACE,
            Self::AdoptWorkspace { .. } => "adopt-workspace",
            Self::WriteReceipt => "write-receipt",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteConfig => f.write_str("write config.yaml with new secrets and an admin password"),
            Self::CompleteConfig { keys } => write!(f, "add {} to config.yaml", keys.join(", ")),
            Self::AcquirePostgres => write!(f, "get PostgreSQL {MAJOR}"),
            Self::UpdatePostgres { from } => write!(f, "update PostgreSQL from {from} to {NEWEST}"),
            Self::AcquirePackages => f.write_str("get jinja2 and pendulum for DAGs"),
            Self::AcquireUi => f.write_str("get Airflow's web UI"),
            Self::CreateCluster => f.write_str("create the datastore"),
            Self::SetDatastore { setting } => write!(f, "set datastore to {setting} in config.yaml"),
            Self::UseDatastore { setting } => write!(f, "store the data in {setting}"),
            Self::InstallBinary { version } => write!(f, "install leoflow {version}"),
            Self::SetPort { port } => write!(f, "set port to {port} in config.yaml"),
            Self::MakeWorkspace { path } => write!(f, "create the workspace {}", path.display()),
            Self::AdoptWorkspace { path } => write!(f, "use the empty folder {} as the workspace", path.display()),
            Self::WriteReceipt => f.write_str("write setup.json"),
        }
    }
}
