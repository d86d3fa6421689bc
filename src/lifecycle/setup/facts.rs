//! Reads the present state of a home. Changes nothing.

use super::receipt::{Receipt, ReceiptError};
use super::{install_self, scaffold};
use leoflow_base::airflow_minors::preferred_ui;
use leoflow_base::config::{self, Config, ConfigError, DatastoreSetting};
use leoflow_base::home::journal::{self, JournalError, Operation};
use leoflow_base::home::{Home, instances};
use leoflow_base::sys::fs::files;
use leoflow_components::web_ui::{self, UiSource};
use leoflow_postgres::acquire::Sources;
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_postgres::location::{self, Kind, Location, LocationError};
use leoflow_postgres::{Installation, install};
use leoflow_python::{self as python, PackageSource};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFact {
    Absent,
    Present(Box<Config>),
}

/// Everything that the plan depends on.
#[derive(Debug, Clone)]
pub struct Facts {
    pub home: PathBuf,
    pub instance_name: Option<String>,
    pub config: ConfigFact,
    pub receipt: Option<Receipt>,
    pub cluster: ClusterState,
    /// The `datastore` setting in `config.yaml`.
    pub datastore: DatastoreSetting,
    /// Location of the data if it is not under the home.
    pub location: Option<Location>,
    /// True when `config.yaml` names that location, and without a location.
    pub location_is_configured: bool,
    pub credentials_present: bool,
    pub installation: Option<Installation>,
    /// True when setup would download PostgreSQL, the slowest step.
    pub postgres_needs_network: bool,
    /// True when the Python packages for DAGs are present, or turned off.
    pub packages_present: bool,
    /// True when Airflow's web UI is present, or turned off.
    pub ui_present: bool,
    /// The version that the links in `bin/` point to.
    pub installed_version: Option<String>,
    pub own_version: String,
    /// True when the installed binary of this version is identical to the running one.
    pub own_version_is_installed: bool,
    pub workspace: PathBuf,
    pub workspace_exists: bool,
    /// True when the workspace is empty or contains only the starter project, as after an interrupted run.
    pub workspace_is_empty: bool,
    /// True after the instance's first start.
    pub has_started: bool,
    /// Steps that an interrupted run had started.
    pub unfinished: Option<Vec<String>>,
}

#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Location(#[from] LocationError),
}

/// Whether `gather` compares the installed binary with the running one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstalledBinary {
    /// Compares the content of both files.
    Compare,
    /// Assumes that they differ, without reading them.
    Ignore,
}

/// Gathers the facts. `workspace` applies if the config names none.
pub(crate) fn gather(
    home: &Home,
    own_version: &str,
    workspace: &Path,
    binary: InstalledBinary,
) -> Result<Facts, FactsError> {
    // Without the override files: setup must not write their values into `config.yaml`.
    let config = config::read_file(&home.config())?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone()).unwrap_or_else(|| workspace.to_owned());
    let location = location::recorded(home)?;
    Ok(Facts {
        home: home.root().to_owned(),
        instance_name: instances::name_of(home).filter(|name| name != instances::DEFAULT),
        receipt: Receipt::load(home)?,
        cluster: cluster::state(home),
        location_is_configured: location.is_none() || location::is_configured(home)?,
        datastore: config.as_ref().map(|config| config.datastore.clone()).unwrap_or_default(),
        credentials_present: home.postgres_credentials().exists()
            || location.as_ref().is_some_and(|location| location.kind == Kind::External),
        location,
        installation: install::installed(home),
        postgres_needs_network: Sources::for_home(home).need_network(),
        packages_present: python::installed_packages(home).is_some()
            || PackageSource::from_environment() == PackageSource::None,
        ui_present: web_ui::installed(home, preferred_ui()).is_some() || UiSource::from_environment() == UiSource::None,
        installed_version: install_self::installed_version(home),
        own_version: own_version.to_owned(),
        own_version_is_installed: binary == InstalledBinary::Compare && install_self::is_installed(home, own_version),
        workspace_exists: workspace.exists(),
        workspace_is_empty: scaffold::is_untouched(&workspace),
        workspace,
        has_started: home.running_settings().exists(),
        unfinished: journal::unfinished(home)?
            .filter(|entry| entry.operation == Operation::Setup)
            .map(|entry| entry.steps.into_iter().take(entry.at + 1).collect()),
        config: match config {
            Some(config) => ConfigFact::Present(Box::new(config)),
            None => ConfigFact::Absent,
        },
    })
}

/// True when `config.yaml` exists but is empty, for example after a crash.
pub fn config_is_blank(home: &Home) -> bool {
    files::read_text(&home.config(), 1024 * 1024).ok().flatten().is_some_and(|text| text.trim().is_empty())
}
