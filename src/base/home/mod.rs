//! `~/.leoflow`: its layout, locks, ownership and the journal of unfinished operations.

pub mod backup_names;
pub mod config_files;
pub mod disk_kinds;
pub mod failed_release;
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
use serde::{Deserialize, Serialize};
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    root: PathBuf,
}

/// The content of [`Home::running_tasks_datastore`] after a restore: no folder belongs to the datastore.
pub const RESTORED: &[u8] = b"restored";

/// Defines methods of a type that return a path: the name of a file in the folder that another method returns.
#[macro_export]
macro_rules! paths {
    ($type:ty: $($(#[$doc:meta])* $access:vis $name:ident = $folder:ident / $file:expr,)*) => {
        impl $type {
            $($(#[$doc])* $access fn $name(&self) -> std::path::PathBuf {
                self.$folder().join($file)
            })*
        }
    };
}

paths! { Home:
    /// The settings and secrets.
    pub config = root / "config.yaml",
    /// Written by a command that creates the instance, and removed at its end.
    pub creating = run / "creating",
    /// The results of scheduled backups and verifications. Not in `backups/`, because that folder may be unwritable.
    pub upkeep = run / "upkeep.json",
    /// The path of the same file in older releases.
    pub(crate) legacy_upkeep = backups / "upkeep.json",
    /// Locked while `upkeep.json` is changed.
    pub(crate) upkeep_lock = run / "upkeep.lock",
    /// Why the service's last start failed.
    pub service_failure = run / "service-failure.json",
    /// The record of the location of the data; without this file the data is under the home.
    pub datastore = root / "datastore.json",
    /// The record of what setup has done.
    pub receipt = root / "setup.json",
    /// What `leoflow bring` has made, a file for each repository.
    pub brought = root / "brought",
    /// The API tokens of the instance, without their texts.
    pub api_tokens = root / "api-tokens.json",
    /// Links to the installed version's program.
    pub bin = root / "bin",
    /// The programs of the retained releases, a folder for each version.
    pub versions = root / "versions",
    /// The managed PostgreSQL: its installs, its data and its password.
    pub postgres = root / "managed-postgres",
    /// PostgreSQL's program files, by version.
    pub postgres_installs = postgres / "install",
    /// Written by a restore that has moved an unreadable cluster away and is not finished.
    pub quarantine_note = postgres / "set-aside.json",
    /// The port of the last start, if it was not the configured one.
    pub requested_port = run / "port",
    /// The data folder of the managed PostgreSQL (its cluster).
    pub postgres_data = postgres / "data",
    /// The passwords of the managed PostgreSQL.
    pub postgres_credentials = postgres / "credentials.json",
    /// The logs of Leoflow's processes.
    pub logs = root / "logs",
    /// Task logs, which uninstall keeps.
    pub task_logs = root / "task-logs",
    /// Managed Pythons, our Python package, and compiled modules.
    pub python = root / "python",
    /// Project environments: each complete or absent, and immutable.
    pub environments = root / "venvs",
    /// Links to the virtual environments for editors, `.venv` in folders of projects.
    pub linked = root / "linked",
    /// Airflow's web UI, by its version.
    pub ui = root / "ui",
    /// Third-party programs, such as uv.
    pub tools = root / "tools",
    /// Locks, sockets and other files about running processes.
    pub run = root / "run",
    /// The lock file of the home; see [`lock`].
    pub lock = run / "lite.lock",
    /// Locked in place of the home's folder where folders cannot be locked.
    pub(crate) folder_lock = run / "home.lock",
    /// Locked while `config.yaml` is changed.
    pub(crate) config_lock = run / "config.lock",
    /// Locked by the running long operation, such as a backup or an upgrade.
    pub operation_lock = run / "operation.lock",
    /// Locked while backups are copied to other places.
    pub copies_lock = run / "copies.lock",
    /// A backup that is being fetched from another place.
    pub download = run / "download",
    /// The settings that the running server started with.
    pub running_settings = run / "in-force.json",
    /// The address that the supervisor listens on; with 0.0.0.0, clients on this machine use another one.
    pub host = run / "host",
    /// One file for each command that the server started.
    pub operations = run / "operations",
    /// The progress of a backup of all instances.
    pub backup_of_all = run / "backup-all.json",
    /// Backups, automatic ones and by default those made by hand, with the results of their verifications and the
    /// record of the scheduled jobs.
    pub backups = root / "backups",
    /// The staged files of a restore and those that it replaced.
    pub restore = root / "restore",
    /// The socket for commands to the supervisor.
    pub control_socket = run / "control.sock",
    /// The socket of the server's API for processes of this machine.
    pub api_socket = run / "api.sock",
    /// The private socket of the candidate server.
    pub trial_socket = run / "trial.sock",
    /// The state that a supervisor hands to its successor by `exec`.
    pub handover = run / "handover.json",
    /// The downloads, records and logs of upgrades.
    pub upgrade = root / "upgrade",
    /// The upgrades and rollbacks that were performed.
    pub upgrade_history = upgrade / "history.json",
    /// The record of a rollback that is not finished.
    pub rollback_record = upgrade / "rollback.json",
    /// The release that the last upgrade failed to switch to.
    pub failed_release = upgrade / "failed.json",
    /// The newest manifest of releases that was seen.
    pub newest_manifest = upgrade / "seen.json",
    /// The announced keys that sign releases.
    pub trusted_keys = upgrade / "trusted-keys.json",
    /// The programs that plan the upgrade to themselves.
    pub upgraders = upgrade / "upgrader",
    /// The socket for notifications to the supervisor.
    pub notify_socket = run / "notify.sock",
    /// One folder for each running task.
    pub running_tasks = run / "tasks",
    /// The code of DAG versions, to which the folders of running tasks link.
    pub running_tasks_code = run / "tasks-code",
    /// A socket for each keeper, which watches running tasks: PID.sock.
    pub keepers = run / "keepers",
    /// The id of the datastore that the folders of running tasks belong to; [`RESTORED`] after a restore.
    pub running_tasks_datastore = run / "tasks-datastore",
    /// Current problems of the Pythons of running processes.
    pub python_notes = run / "python",
    /// Locked by the running agent, which starts tasks.
    pub agent_lock = run / "agent.lock",
    /// The journal of a running or interrupted operation; see [`journal`].
    pub journal = run / "journal.json",
    /// The children of the current or last supervisor, so that the next one can stop leftovers.
    pub processes = run / "processes.json",
}

impl Home {
    /// The home's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True when the home's folder exists.
    pub fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// Removes the folders created by `create` if they contain nothing but lock files and no process holds the home.
    /// `command` names the holder of the lock in other processes' messages.
    pub fn remove_if_unused(&self, command: &str) {
        let Ok(_lock) = lock::HomeLock::take(self, command, None) else { return };
        for file in [self.lock(), self.folder_lock(), self.operation_lock(), self.copies_lock(), self.config_lock()] {
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
