//! `~/.leoflow`: where things are, who may touch them, and what was left half done.

mod belongings;
pub mod config_files;
mod home_error;
pub mod instances;
pub mod journal;
pub mod lock;
pub mod operations;
pub mod progress;
mod resolve;
pub mod upkeep;

pub use belongings::{check_workspace, foreign};
pub use home_error::HomeError;
pub use resolve::{absolute_workspace, all_instances, resolve};

use crate::sys::files;
use std::io;
use std::path::{Path, PathBuf};

/// The prefix of folders that a restore makes in a workspace on another file system than the home.
pub const RESTORE_IN_WORKSPACE: &str = ".leoflow-restore-";

/// Everything Leoflow owns: one home, one instance. The names below are the layout of the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn exists(&self) -> bool {
        self.root.is_dir()
    }

    pub fn config(&self) -> PathBuf {
        self.root.join("config.yaml")
    }

    /// What became of the scheduled backups and verifications. Not in `backups/`, which may not be writable.
    pub fn upkeep(&self) -> PathBuf {
        self.run().join("upkeep.json")
    }

    /// The same by older releases.
    pub fn older_upkeep(&self) -> PathBuf {
        self.backups().join("upkeep.json")
    }

    /// Held while that is changed.
    pub fn upkeep_lock(&self) -> PathBuf {
        self.run().join("upkeep.lock")
    }

    /// Why the service's last start failed.
    pub fn service_failure(&self) -> PathBuf {
        self.run().join("service-failure.json")
    }

    /// Where the data is, when it is not under the home.
    pub fn datastore(&self) -> PathBuf {
        self.root().join("datastore.json")
    }

    pub fn receipt(&self) -> PathBuf {
        self.root.join("setup.json")
    }

    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    pub fn versions(&self) -> PathBuf {
        self.root.join("versions")
    }

    pub fn postgres(&self) -> PathBuf {
        self.root.join("managed-postgres")
    }

    pub fn postgres_installs(&self) -> PathBuf {
        self.postgres().join("install")
    }

    /// Of a restore that set the cluster aside and is not through.
    pub fn set_aside_note(&self) -> PathBuf {
        self.postgres().join("set-aside.json")
    }

    /// The port that the last start was asked for, where that is not the configured one.
    pub fn asked_port(&self) -> PathBuf {
        self.run().join("port")
    }

    pub fn postgres_data(&self) -> PathBuf {
        self.postgres().join("data")
    }

    pub fn postgres_credentials(&self) -> PathBuf {
        self.postgres().join("credentials.json")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The logs of tasks: history, kept by uninstall.
    pub fn task_logs(&self) -> PathBuf {
        self.root.join("task-logs")
    }

    /// Managed Pythons, our Python package, and compiled modules.
    pub fn python(&self) -> PathBuf {
        self.root.join("python")
    }

    /// Environments of projects: each whole or absent, and never changed.
    pub fn environments(&self) -> PathBuf {
        self.root.join("venvs")
    }

    /// Airflow's web UI, by its version.
    pub fn ui(&self) -> PathBuf {
        self.root.join("ui")
    }

    /// Programs of others that we use.
    pub fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub fn lock(&self) -> PathBuf {
        self.run().join("lite.lock")
    }

    /// Held by whoever changes `config.yaml`, for that moment.
    pub fn config_lock(&self) -> PathBuf {
        self.run().join("config.lock")
    }

    /// Held by the one long operation under way: backup, restore, uninstall.
    pub fn operation_lock(&self) -> PathBuf {
        self.run().join("operation.lock")
    }

    /// The settings that the running server has begun with.
    pub fn in_force(&self) -> PathBuf {
        self.run().join("in-force.json")
    }

    /// The address that the supervisor listens at: 0.0.0.0 is another than the one this machine reaches it by.
    pub fn host(&self) -> PathBuf {
        self.run().join("host")
    }

    /// One file for each command that the server was asked for.
    pub fn operations(&self) -> PathBuf {
        self.run().join("operations")
    }

    /// How far a backup of all instances has come.
    pub fn backup_of_all(&self) -> PathBuf {
        self.run().join("backup-all.json")
    }

    /// Automatic backups, and what is remembered of their proofs.
    pub fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    /// What a restore stages, and what it has replaced.
    pub fn restore(&self) -> PathBuf {
        self.root.join("restore")
    }

    pub fn control_socket(&self) -> PathBuf {
        self.run().join("control.sock")
    }

    pub fn api_socket(&self) -> PathBuf {
        self.run().join("api.sock")
    }

    /// Where a server on trial is asked, before it gets the listeners.
    pub fn trial_socket(&self) -> PathBuf {
        self.run().join("trial.sock")
    }

    /// What a supervisor tells the one that takes its place, by `exec`.
    pub fn handover(&self) -> PathBuf {
        self.run().join("handover.json")
    }

    /// What an upgrade downloads and unpacks, and what it tells.
    pub fn upgrade(&self) -> PathBuf {
        self.root.join("upgrade")
    }

    pub fn notify_socket(&self) -> PathBuf {
        self.run().join("notify.sock")
    }

    /// One folder for each task that runs.
    pub fn running_tasks(&self) -> PathBuf {
        self.run().join("tasks")
    }

    /// What is wrong for now with the Pythons of running processes.
    pub fn python_notes(&self) -> PathBuf {
        self.run().join("python")
    }

    /// Held by the one agent of this home.
    pub fn agent_lock(&self) -> PathBuf {
        self.run().join("agent.lock")
    }

    pub fn journal(&self) -> PathBuf {
        self.run().join("journal.json")
    }

    /// The children of the supervisor that runs or ran last, for the next one to end what is left.
    pub fn processes(&self) -> PathBuf {
        self.run().join("processes.json")
    }

    /// Removes the folders again that `create` has made, when nothing is in them but the files of locks.
    /// Only empty folders go, and only while nobody has the home.
    pub fn remove_if_unused(&self) {
        let Ok(_held) = lock::HomeLock::take(self, "leoflow", None) else { return };
        for file in [self.lock(), self.operation_lock(), self.config_lock()] {
            let _ = std::fs::remove_file(file);
        }
        for folder in [self.restore(), self.run(), self.logs(), self.root.clone()] {
            let _ = std::fs::remove_dir(folder);
        }
    }

    /// Removes what writes that were killed have left beside their files. The caller holds the lock.
    pub fn tidy(&self) -> io::Result<()> {
        for folder in [
            &self.root,
            &self.run(),
            &self.postgres(),
            &self.postgres_installs(),
            &self.bin(),
            &self.backups(),
            &self.ui(),
        ] {
            files::remove_temporary_neighbours(folder)?;
        }
        for version in std::fs::read_dir(self.versions()).into_iter().flatten().flatten() {
            files::remove_temporary_neighbours(&version.path())?;
        }
        Ok(())
    }

    /// Makes a folder of it, 0700. A home that somebody has removed is not made anew.
    pub fn create_folder(&self, path: &Path) -> io::Result<()> {
        files::create_private_dir_in(&self.root, path)
    }

    /// The folders that have to be there before anything else, each 0700.
    pub fn create(&self) -> io::Result<()> {
        files::create_private_dir(&self.root)?;
        files::create_private_dir(&self.run())?;
        files::create_private_dir(&self.logs())
    }
}
