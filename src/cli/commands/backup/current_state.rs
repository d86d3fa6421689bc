//! The current state that a restore replaces, as far as it is readable.

use super::restore_target::Force;
use super::state_summary::{self, Summary};
use crate::commands::lite::restart::WasRunning;
use crate::commands::lite::stop;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use leoflow_base::home::Home;
use leoflow_base::home::lock::{self, HomeLock};
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::backup::restore::quarantine;
use leoflow_postgres::fatal_message::{self, Cause};
use leoflow_processes::supervisor::last_lines;
use std::path::PathBuf;

pub const COMMAND: &str = "leoflow lite restore";

/// The state of this home before the restore.
pub struct CurrentState {
    /// The opened datastore; `None` if it is missing or unreadable.
    pub opened: Option<Datastore>,
    /// Summary of the state to be replaced.
    pub before: Summary,
    /// Why the datastore cannot be read; `None` if it can.
    pub unreadable: Option<Error>,
}

impl CurrentState {
    /// Reads the current state. With `Force::Yes`, damage is recorded in `unreadable` instead of returned.
    pub async fn read(
        &mut self,
        context: &Context<'_>,
        home_lock: Option<HomeLock>,
        force: Force,
    ) -> Result<(), Error> {
        match read_present(context, home_lock).await {
            Ok((datastore, summary)) => (self.opened, self.before) = (Some(datastore), summary),
            Err(error) if force == Force::Yes && (error.is_damage || has_failed_for_damage(context)) => {
                self.unreadable = Some(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Opens the datastore and summarizes it.
async fn read_present(context: &Context<'_>, home_lock: Option<HomeLock>) -> Result<(Datastore, Summary), Error> {
    let datastore = open(context, home_lock).await?;
    context.recovery().clean_up(Some(&datastore.access)).await?;
    let summary = state_summary::summarize(context, &datastore).await?;
    Ok((datastore, summary))
}

/// True when a running instance has failed because its datastore is damaged.
fn has_failed_for_damage(context: &Context<'_>) -> bool {
    let has_failed = control::status_of(&context.home).is_some_and(|status| status.state == InstanceState::Failed);
    let message = fatal_message::last(&last_lines(&context.home, "postgres", LAST_LINES));
    has_failed && message.is_some_and(|message| message.cause == Cause::Damaged)
}

/// Number of log lines searched for the reason of a failure.
const LAST_LINES: usize = 100;

/// Opens the datastore with the home's lock if the caller has it.
pub async fn open(context: &Context<'_>, home_lock: Option<HomeLock>) -> Result<Datastore, Error> {
    match home_lock {
        Some(home_lock) => Ok(Datastore::open_held(&context.home, home_lock).await?),
        None => Ok(Datastore::open(&context.recovery(), COMMAND).await?),
    }
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
    pub fn begin(home: &Home) -> Result<Self, Error> {
        // Write to a symlink's target, not over the link.
        let config = home.config().canonicalize().unwrap_or_else(|_| home.config());
        let kept_copy = quarantine::quarantine_path(home, "config.yaml");
        let failed = |error| Error::io("move", &config, &error);
        let existed = config.exists();
        if existed {
            std::fs::copy(&config, &kept_copy).map_err(failed)?;
        }
        files::write_atomic(&config, b"", 0o600).map_err(failed)?;
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

/// Opens the datastore for exclusive use. Stops a running instance first, and returns it for its restart.
pub async fn open_exclusively(
    context: &Context<'_>,
    datastore: Datastore,
) -> Result<(Datastore, Option<WasRunning>), Error> {
    if !datastore.is_of_running_instance {
        return Ok((datastore, None));
    }
    drop(datastore);
    refuse_in_terminal(context)?;
    let was_running = WasRunning::of(context);
    stop::stop_with_tasks(context)?;
    match Datastore::open(&context.recovery(), COMMAND).await {
        Ok(datastore) if datastore.is_of_running_instance => {
            Err(Error::failed("Leoflow was started in the meantime; nothing was changed")
                .hint("run the same command again"))
        }
        Ok(datastore) => Ok((datastore, Some(was_running))),
        Err(error) => {
            drop(was_running.restart(context));
            Err(error.into())
        }
    }
}

/// Refuses an instance in the foreground, which only the user of its terminal may stop. Also fails if another process
/// holds the home's lock.
pub fn refuse_in_terminal(context: &Context<'_>) -> Result<(), Error> {
    match control::status_of(&context.home) {
        Some(status) if !status.detached => {
            Err(Error::refused(format!("Leoflow runs in a terminal (pid {})", status.pid))
                .hint("press Ctrl-C there, or run `leoflow lite stop`; then run the same command again"))
        }
        Some(_) => Ok(()),
        None => match lock::holder(&context.home).filter(|_| lock::is_held(&context.home).unwrap_or(false)) {
            Some(holder) => Err(lock::LockError::Held { holder: Some(holder) }.into()),
            None => Ok(()),
        },
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
