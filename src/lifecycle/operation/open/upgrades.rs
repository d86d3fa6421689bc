//! Finishes or undoes interrupted upgrades and rollbacks.

use super::access;
use super::datastore::private_server;
use crate::operation::{DryRun, OperationContext, OperationError, Reversal};
use crate::upgrade::failure_policy::{self, FinishAction, Undoing};
use crate::upgrade::finish::{self, Conclusion};
use crate::upgrade::host::Host;
use crate::upgrade::steps::{self, Direction, State, UnknownChange};
use crate::upgrade::{Notes, StepRunner, UpgradeContext, UpgradeError};
use leoflow_base::config::{self, Config};
use leoflow_base::home::Home;
use leoflow_base::home::journal::{self, Entry, JournalError, Operation};
use leoflow_base::home::lock::{self, HomeLock, LockError, OperationLock};
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::process::Signal;
use std::time::{Duration, Instant};

/// How an interrupted upgrade was settled.
pub struct SettledUpgrade {
    pub text: String,
    pub installed: InstalledRelease,
}

/// The installed release after recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstalledRelease {
    /// The release of this program.
    Own,
    Other,
}

/// Whether the user asked to roll an interrupted upgrade back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    Yes,
    No,
}

/// The journal entry of a running or interrupted upgrade or rollback.
pub(crate) fn interrupted_upgrade(home: &Home) -> Result<Option<Entry>, JournalError> {
    Ok(journal::unfinished(home)?.filter(|entry| entry.operation == Operation::Upgrade))
}

/// Terminates a running upgrade or rollback that has changed nothing yet.
fn cancel_unchanged(home: &Home) {
    let entry = interrupted_upgrade(home).ok().flatten();
    if let Some(Ok((_, FinishAction::Discard))) = entry.as_ref().map(planned_action)
        && let Some(holder) = lock::operation_holder(home)
        && ["leoflow upgrade", "leoflow rollback"].contains(&holder.command.as_str())
    {
        holder.process.signal(Signal::Terminate);
    }
}

/// The state of an interrupted upgrade, and how to finish it.
fn planned_action(entry: &Entry) -> Result<(State, FinishAction), UnknownChange> {
    let (state, step) = steps::read(entry)?;
    let undoing = if state.undo_reason.is_some() { Undoing::Begun } else { Undoing::NotBegun };
    let action = failure_policy::after_interruption(step, undoing);
    Ok((state, action))
}

/// The command that returns to the release before the change.
fn reversal(state: &State) -> Reversal {
    match state.direction {
        Direction::Up => Reversal::RollBack,
        Direction::Down => Reversal::Upgrade(state.plan.from.clone()),
    }
}

/// Describes how the upgrade or rollback was finished.
fn conclusion_text(state: &State, conclusion: &Conclusion) -> String {
    let (from, to) = (&state.plan.from, &state.plan.to);
    let change = match state.direction {
        Direction::Up => "upgrade",
        Direction::Down => "rollback",
    };
    match conclusion {
        Conclusion::Discarded => format!("discarded the interrupted {change} to {to}: nothing had changed"),
        Conclusion::SnapshotRestored => format!("reverted the interrupted {change} to {to}; nothing has changed"),
        Conclusion::MigrationsUndone => {
            format!("rolled back the failed upgrade to {to}; {from} is installed again with all data")
        }
        Conclusion::UndoFailed { .. } => {
            format!("the upgrade to {to} failed, but {to} stays: its migrations cannot be undone")
        }
        Conclusion::Completed { .. } => format!("finished the interrupted {change} to {to}"),
    }
}

/// How long to wait for another process's operation.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

impl OperationContext<'_> {
    /// Finishes or undoes an interrupted upgrade or rollback of a stopped instance, after a process that still performs
    /// it has ended. The caller holds the home's lock.
    pub(super) async fn finish_upgrade_of_stopped(&self, abort: Abort) -> Result<InstalledRelease, OperationError> {
        let _operation_lock = self.wait_for_operation().await?;
        let Some(entry) = interrupted_upgrade(self.home)? else { return Ok(InstalledRelease::Own) };
        self.end_leftovers()?;
        if let Ok((state, FinishAction::RestoreSnapshot | FinishAction::UndoMigrations)) = planned_action(&entry) {
            // The private server must start with the old PostgreSQL: the new one may be the part that fails.
            finish::remove_new_postgres(&state)?;
        }
        let (_, server) = private_server(self.home).await?;
        let settled = self.finish_upgrade(Host::stopped(server, None), entry, abort).await?;
        self.note(settled.text);
        Ok(settled.installed)
    }

    /// Takes the operation lock, with retries for `OPERATION_TIMEOUT`; `None` when this process already holds it.
    pub(super) async fn wait_for_operation(&self) -> Result<Option<OperationLock>, OperationError> {
        let own_pid = std::process::id() as i32;
        let deadline = Instant::now() + OPERATION_TIMEOUT;
        let mut is_reported = false;
        loop {
            match OperationLock::take(self.home, "leoflow upgrade --resume") {
                Err(LockError::Held { holder: Some(holder) }) if holder.process.pid == own_pid => return Ok(None),
                Err(LockError::Held { .. }) if Instant::now() < deadline => {
                    if !std::mem::replace(&mut is_reported, true) {
                        cancel_unchanged(self.home);
                        self.reporter.report(Progress::Started("Waiting for another operation".to_owned()));
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => return Ok(Some(outcome?)),
            }
        }
    }

    /// Finishes or undoes an upgrade. The caller holds the operation lock.
    async fn finish_upgrade(&self, host: Host, entry: Entry, abort: Abort) -> Result<SettledUpgrade, OperationError> {
        let (state, action) = planned_action(&entry)?;
        if abort == Abort::Yes && action == FinishAction::Complete {
            return Err(OperationError::TooLateToAbort { to: state.plan.to.clone(), reversal: reversal(&state) });
        }
        let config = self.running_config()?;
        let mut upgrade_context = self.upgrade_context(&config, host)?;
        if action == FinishAction::Complete {
            upgrade_context.host.open(&state.new_program).map_err(UpgradeError::from)?;
        }
        let mut run = StepRunner::resume(upgrade_context, entry, state);
        let conclusion = finish::end(&mut run, action).await?;
        let StepRunner { context: upgrade_context, state, .. } = run;
        if matches!((&conclusion, state.direction), (Conclusion::Completed { .. }, Direction::Down)) {
            super::rollbacks::note_finished(self.home);
        }
        let text = conclusion_text(&state, &conclusion);
        let installed = self.installed_after(&state, conclusion)?;
        // Removes the leftovers of an interrupted rehearsal.
        self.clean_up(Some(&upgrade_context.access)).await?;
        Ok(SettledUpgrade { text, installed })
    }

    fn upgrade_context<'a>(&'a self, config: &'a Config, host: Host) -> Result<UpgradeContext<'a>, OperationError> {
        let access = access(self.home)?;
        Ok(UpgradeContext {
            home: self.home,
            access,
            config,
            own_version: self.version,
            host,
            reporter: self.reporter,
            no_rollback: false,
            notes: Notes::default(),
        })
    }

    /// Returns the installed release. Fails if the new one stays but no longer runs.
    fn installed_after(&self, state: &State, conclusion: Conclusion) -> Result<InstalledRelease, OperationError> {
        match conclusion {
            Conclusion::UndoFailed { exit_error: Some(source) }
            | Conclusion::Completed { exit_error: Some(source) } => {
                Err(OperationError::NewReleaseExited { source, reversal: reversal(state) })
            }
            Conclusion::UndoFailed { .. } | Conclusion::Completed { .. }
                if state.plan.to.to_string() != self.version =>
            {
                Ok(InstalledRelease::Other)
            }
            _ => Ok(InstalledRelease::Own),
        }
    }

    /// Finishes or undoes an interrupted upgrade or rollback, for a command that needs a stable release. In a dry run,
    /// only discards an upgrade that had changed nothing. Fails if another process is performing the operation.
    pub async fn settle_change(&self, dry_run: DryRun) -> Result<(), OperationError> {
        self.settle_rollback(dry_run).await?;
        let Some(entry) = interrupted_upgrade(self.home)? else { return Ok(()) };
        let change = journal::change_under_way(self.home);
        let description = change.as_ref().map(ToString::to_string).unwrap_or_default();
        if change.is_some_and(|change| change.by.is_some()) {
            return Err(OperationError::ChangeInProgress(description));
        }
        if dry_run == DryRun::Yes && !matches!(planned_action(&entry), Ok((_, FinishAction::Discard))) {
            return Err(OperationError::ChangeInterrupted(description));
        }
        if let Some(text) = self.finish_interrupted(Abort::No).await? {
            self.note(text);
        }
        Ok(())
    }

    /// Finishes or undoes an interrupted upgrade and returns a message; `None` when there was none, or when the result
    /// was already reported.
    pub async fn finish_interrupted(&self, abort: Abort) -> Result<Option<String>, OperationError> {
        if interrupted_upgrade(self.home)?.is_none() {
            return Ok(None);
        }
        let Some(host) = Host::live(self.home).map_err(OperationError::Instance)? else {
            let _home_lock = HomeLock::take(self.home, "leoflow upgrade --resume", None)?;
            self.finish_upgrade_of_stopped(abort).await?;
            return Ok(Some("The interrupted operation is settled".to_owned()));
        };
        // Another process may still be performing the upgrade.
        let _operation_lock = self.wait_for_operation().await?;
        match interrupted_upgrade(self.home)? {
            Some(entry) => {
                let settled = self.finish_upgrade(host, entry, abort).await?;
                Ok(Some(settled.text))
            }
            None => Ok(None),
        }
    }

    /// The configuration, with the address of the running instance, because the file may have changed since its start.
    pub fn running_config(&self) -> Result<Config, OperationError> {
        // Requests to the server need the secret that signs its tokens.
        let loaded = self.with_warnings_reported(config::load_with_secrets(&self.home.config())?);
        let loaded = loaded.ok_or(OperationError::NoConfig)?;
        Ok(match lock::holder(self.home).and_then(|holder| holder.address()) {
            Some((host, port)) => Config { host, port, ..loaded.config },
            None => loaded.config,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_way_back_depends_on_the_direction_of_the_change() {
        let reversal = |direction: &str, from: &str, to: &str| {
            let state: State = serde_json::from_value(json!({
                "direction": direction, "snapshot": "", "new_program": "", "had_program": true, "migrations_run": [],
                "plan": {
                    "from": from, "to": to, "live": true, "schema_from": 1, "schema_to": 1, "migrations": [],
                    "program": {"url": "", "sha256": "", "size": 0}, "components": [], "needs_bytes": 0,
                    "running_tasks": 0, "warnings": [], "notes": "",
                },
            }))
            .unwrap();
            reversal(&state)
        };
        assert_eq!(reversal("up", "0.1.0", "0.2.0"), Reversal::RollBack);
        // `leoflow rollback` would leave 0.1.0 for a still older release.
        assert_eq!(reversal("down", "0.2.0", "0.1.0"), Reversal::Upgrade("0.2.0".parse().unwrap()));
    }
}
