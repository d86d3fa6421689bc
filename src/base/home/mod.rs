//! `~/.leoflow`: its layout, locks, ownership and the journal of unfinished operations.

pub mod backup_names;
pub mod config_files;
mod home_error;
pub mod instances;
pub mod journal;
pub mod lock;
pub mod operations;
mod ownership;
pub mod progress;
mod resolve;
pub mod shared;
pub mod upkeep;

pub use home_error::HomeError;
pub use ownership::{check_workspace, foreign};
pub use resolve::{absolute_workspace, all_instances, all_instances_and_incomplete, option_for, resolve};

use crate::sys::fs::files;
use std::io;
use std::path::{Path, PathBuf};

/// Prefix of the folders that a restore creates in a workspace on another file system than the home.
pub const RESTORE_IN_WORKSPACE: &str = ".leoflow-restore-";
/// A folder of `task-logs/` with the logs of deleted runs, until they are removed. It is never the folder of a DAG:
/// those have no comma in their names.
pub const DELETED_TASK_LOGS: &str = ",deleted";

/// A folder that mkfs creates at the root of a file system, and that belongs to the system.
pub const LOST_AND_FOUND: &str = "lost+found";

/// A home: the folder with everything that one instance owns. The methods return the paths in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

/// The content of [`Home::running_tasks_datastore`] after a restore: no folder belongs to the datastore.
pub const RESTORED: &[u8] = b"restored";

impl Home {
    /// The home's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True when the home's folder exists.
    pub fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// The settings and secrets.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.yaml")
    }

    /// Written by a command that creates the instance, and removed at its end.
    pub fn creating(&self) -> PathBuf {
        self.run().join("creating")
    }

    /// The results of scheduled backups and verifications. Not in `backups/`, because that folder may be unwritable.
    pub fn upkeep(&self) -> PathBuf {
        self.run().join("upkeep.json")
    }

    /// The path of the same file in older releases.
    pub(crate) fn legacy_upkeep(&self) -> PathBuf {
        self.backups().join("upkeep.json")
    }

    /// Locked while `upkeep.json` is changed.
    pub(crate) fn upkeep_lock(&self) -> PathBuf {
        self.run().join("upkeep.lock")
    }

    /// Why the service's last start failed.
    pub fn service_failure(&self) -> PathBuf {
        self.run().join("service-failure.json")
    }

    /// The record of the location of the data; without this file the data is under the home.
    pub fn datastore(&self) -> PathBuf {
        self.root().join("datastore.json")
    }

    /// The record of what setup has done.
    pub fn receipt(&self) -> PathBuf {
        self.root.join("setup.json")
    }

    /// Links to the installed version's program.
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The programs of the retained releases, a folder for each version.
    pub fn versions(&self) -> PathBuf {
        self.root.join("versions")
    }

    /// The managed PostgreSQL: its installs, its data and its password.
    pub fn postgres(&self) -> PathBuf {
        self.root.join("managed-postgres")
    }

    /// PostgreSQL's program files, by version.
    pub fn postgres_installs(&self) -> PathBuf {
        self.postgres().join("install")
    }

    /// Written by a restore that has moved an unreadable cluster away and is not finished.
    pub fn quarantine_note(&self) -> PathBuf {
        self.postgres().join("set-aside.json")
    }

    /// The port of the last start, if it was not the configured one.
    pub fn requested_port(&self) -> PathBuf {
        self.run().join("port")
    }

    /// The data folder of the managed PostgreSQL (its cluster).
    pub fn postgres_data(&self) -> PathBuf {
        self.postgres().join("data")
    }

    /// The passwords of the managed PostgreSQL.
    pub fn postgres_credentials(&self) -> PathBuf {
        self.postgres().join("credentials.json")
    }

    /// The logs of Leoflow's processes.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Task logs, which uninstall keeps.
    pub fn task_logs(&self) -> PathBuf {
        self.root.join("task-logs")
    }

    /// Managed Pythons, our Python package, and compiled modules.
    pub fn python(&self) -> PathBuf {
        self.root.join("python")
    }

    /// Project environments: each complete or absent, and immutable.
    pub fn environments(&self) -> PathBuf {
        self.root.join("venvs")
    }

    /// Airflow's web UI, by its version.
    pub fn ui(&self) -> PathBuf {
        self.root.join("ui")
    }

    /// Third-party programs, such as uv.
    pub fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// Locks, sockets and other files about running processes.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The lock file of the home; see [`lock`].
    pub fn lock(&self) -> PathBuf {
        self.run().join("lite.lock")
    }

    /// Locked in place of the home's folder where folders cannot be locked.
    pub(crate) fn folder_lock(&self) -> PathBuf {
        self.run().join("home.lock")
    }

    /// Locked while `config.yaml` is changed.
    pub(crate) fn config_lock(&self) -> PathBuf {
        self.run().join("config.lock")
    }

    /// Locked by the running long operation, such as a backup or an upgrade.
    pub fn operation_lock(&self) -> PathBuf {
        self.run().join("operation.lock")
    }

    /// The settings that the running server started with.
    pub fn running_settings(&self) -> PathBuf {
        self.run().join("in-force.json")
    }

    /// The address that the supervisor listens on; with 0.0.0.0, clients on this machine use another one.
    pub fn host(&self) -> PathBuf {
        self.run().join("host")
    }

    /// One file for each command that the server started.
    pub fn operations(&self) -> PathBuf {
        self.run().join("operations")
    }

    /// The progress of a backup of all instances.
    pub fn backup_of_all(&self) -> PathBuf {
        self.run().join("backup-all.json")
    }

    /// Backups, automatic ones and by default those made by hand, with the results of their verifications and the
    /// record of the scheduled jobs.
    pub fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    /// The staged files of a restore and those that it replaced.
    pub fn restore(&self) -> PathBuf {
        self.root.join("restore")
    }

    /// The socket for commands to the supervisor.
    pub fn control_socket(&self) -> PathBuf {
        self.run().join("control.sock")
    }

    /// The socket of the server's API for processes of this machine.
    pub fn api_socket(&self) -> PathBuf {
        self.run().join("api.sock")
    }

    /// The private socket of the candidate server.
    pub fn trial_socket(&self) -> PathBuf {
        self.run().join("trial.sock")
    }

    /// The state that a supervisor hands to its successor by `exec`.
    pub fn handover(&self) -> PathBuf {
        self.run().join("handover.json")
    }

    /// The downloads, records and logs of upgrades.
    pub fn upgrade(&self) -> PathBuf {
        self.root.join("upgrade")
    }

    /// The socket for notifications to the supervisor.
    pub fn notify_socket(&self) -> PathBuf {
        self.run().join("notify.sock")
    }

    /// One folder for each running task.
    pub fn running_tasks(&self) -> PathBuf {
        self.run().join("tasks")
    }

    /// The id of the datastore that the folders of running tasks belong to; [`RESTORED`] after a restore.
    pub fn running_tasks_datastore(&self) -> PathBuf {
        self.run().join("tasks-datastore")
    }

    /// Current problems of the Pythons of running processes.
    pub fn python_notes(&self) -> PathBuf {
        self.run().join("python")
    }

    /// Locked by the running agent, which starts tasks.
    pub fn agent_lock(&self) -> PathBuf {
        self.run().join("agent.lock")
    }

    /// The journal of a running or interrupted operation; see [`journal`].
    pub fn journal(&self) -> PathBuf {
        self.run().join("journal.json")
    }

    /// The children of the current or last supervisor, so that the next one can stop leftovers.
    pub fn processes(&self) -> PathBuf {
        self.run().join("processes.json")
    }

    /// Removes the folders created by `create` if they contain nothing but lock files and no process holds the home.
    /// `command` names the holder of the lock in other processes' messages.
    pub fn remove_if_unused(&self, command: &str) {
        let Ok(_lock) = lock::HomeLock::take(self, command, None) else { return };
        for file in [self.lock(), self.folder_lock(), self.operation_lock(), self.config_lock()] {
            let _ = std::fs::remove_file(file);
        }
        for folder in [self.restore(), self.run(), self.logs(), self.root.clone()] {
            let _ = std::fs::remove_dir(folder);
        }
    }

    /// Removes the temporary files of interrupted writes. The caller holds the home's lock.
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

    /// Creates a folder of the home with mode 0700. Does not recreate a removed home.
    pub fn create_folder(&self, path: &Path) -> io::Result<()> {
        files::create_private_dir_in(&self.root, path)
    }

    /// Creates the folders that are needed before anything else, each with mode 0700.
    pub fn create(&self) -> io::Result<()> {
        files::create_private_dir(&self.root)?;
        files::create_private_dir(&self.run())?;
        files::create_private_dir(&self.logs())
    }
}
