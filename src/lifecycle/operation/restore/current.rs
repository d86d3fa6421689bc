//! The current state that a restore replaces, as far as it is readable.

use super::{COMMAND, Force};
use crate::backup::restore::quarantine;
use crate::operation::instance::{self, StoppedInstance};
use crate::operation::open::Datastore;
use crate::operation::summary::Summary;
use crate::operation::{OperationContext, OperationError};
use leoflow_base::home::Home;
use leoflow_base::home::lock::HomeLock;
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_base::sys::fs::files;
use leoflow_postgres::fatal_message::{self, Cause};
use leoflow_processes::supervisor::last_lines;
use std::path::PathBuf;

/// The state of this home before the restore.
#[derive(Default)]
pub struct CurrentState {
    /// The opened datastore; `None` if it is missing or unreadable.
    pub opened: Option<Datastore>,
    /// Summary of the state to be replaced.
    pub before: Summary,
    /// Why the datastore cannot be read, on one line; `None` if it can.
    pub unreadable: Option<String>,
}

impl CurrentState {
    /// Reads the current state. With `Force::Yes`, damage is recorded in `unreadable` instead of returned.
    pub async fn read(
        &mut self,
        context: &OperationContext<'_>,
        home_lock: Option<HomeLock>,
        force: Force,
    ) -> Result<(), OperationError> {
        match read_present(context, home_lock).await {
            Ok((datastore, summary)) => (self.opened, self.before) = (Some(datastore), summary),
            Err(error) if force == Force::Yes && (error.is_damage() || has_failed_for_damage(context.home)) => {
                self.unreadable = Some(error.to_string().replace('\n', " "));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Opens the datastore and summarizes it.
async fn read_present(
    context: &OperationContext<'_>,
    home_lock: Option<HomeLock>,
) -> Result<(Datastore, Summary), OperationError> {
    let datastore = open(context, home_lock).await?;
    context.clean_up(Some(&datastore.access)).await?;
    let summary = Summary::of_current(context, &datastore).await?;
    Ok((datastore, summary))
}

/// True when a running instance has failed because its datastore is damaged.
fn has_failed_for_damage(home: &Home) -> bool {
    let has_failed = control::status_of(home).is_some_and(|status| status.state == InstanceState::Failed);
    let message = fatal_message::last(&last_lines(home, "postgres", LAST_LINES));
    has_failed && message.is_some_and(|message| message.cause == Cause::Damaged)
}

/// Number of log lines searched for the reason of a failure.
const LAST_LINES: usize = 100;

/// Opens the datastore with the home's lock if the caller has it.
pub async fn open(context: &OperationContext<'_>, home_lock: Option<HomeLock>) -> Result<Datastore, OperationError> {
    match home_lock {
        Some(home_lock) => Datastore::open_held(context.home, home_lock).await,
        None => Datastore::open(context, COMMAND).await,
    }
}

/// Opens the datastore for exclusive use. Stops a running instance first, which it returns in `stopped`.
pub async fn open_exclusively(
    context: &OperationContext<'_>,
    datastore: Datastore,
    stopped: &mut Option<StoppedInstance>,
) -> Result<Datastore, OperationError> {
    if !datastore.is_of_running_instance {
        return Ok(datastore);
    }
    drop(datastore);
    instance::refuse_in_terminal(context.home)?;
    instance::stop(context, stopped)?;
    let datastore = Datastore::open(context, COMMAND).await?;
    if datastore.is_of_running_instance {
        *stopped = None;
        return Err(OperationError::StartedMeanwhile);
    }
    Ok(datastore)
}

/// An unreadable config.yaml, moved away. Dropping this before `keep` moves it back.
pub struct MovedConfig {
    config: PathBuf,
    kept_copy: PathBuf,
    existed: bool,
    is_kept: bool,
}

impl MovedConfig {
    /// Copies config.yaml, if it exists, to the quarantine path and replaces it by an empty file.
    pub fn begin(home: &Home) -> Result<Self, OperationError> {
        // Write to a symlink's target, not over the link.
        let config = home.config().canonicalize().unwrap_or_else(|_| home.config());
        let kept_copy = quarantine::quarantine_path(home, "config.yaml");
        let existed = config.exists();
        if existed {
            std::fs::copy(&config, &kept_copy).map_err(OperationError::io("move", &config))?;
        }
        files::write_atomic(&config, b"", 0o600).map_err(OperationError::io("move", &config))?;
        Ok(Self { config, kept_copy, existed, is_kept: false })
    }

    /// Keeps the copy of the unreadable file and returns its path; `None` if there was no file.
    pub fn keep(mut self) -> Option<PathBuf> {
        self.is_kept = true;
        self.existed.then(|| self.kept_copy.clone())
    }
}

impl Drop for MovedConfig {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // If this fails, the copy remains, and later commands report the empty config.yaml with hints.
        let _ = if self.existed {
            std::fs::rename(&self.kept_copy, &self.config)
        } else {
            std::fs::remove_file(&self.config)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_missing_config_is_not_reported_as_kept() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        fs::create_dir_all(home.postgres()).unwrap();
        assert_eq!(MovedConfig::begin(&home).unwrap().keep(), None);
        fs::write(home.config(), "port: [").unwrap();
        let kept = MovedConfig::begin(&home).unwrap().keep().unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), "port: [");
    }
}
