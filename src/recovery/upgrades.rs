//! Upgrades and rollbacks that did not come to their end.

use super::{Recovery, access};
use crate::config::{self, Config};
use crate::error::Error;
use crate::home::Home;
use crate::home::journal::{self, Entry, Journal, Operation};
use crate::home::lock::{self, HomeLock, LockError, OperationLock};
use crate::home::progress::Progress;
use crate::sys::process::Signal;
use crate::upgrade::ending::{self, Ending};
use crate::upgrade::finish::{self, Ended};
use crate::upgrade::host::Host;
use crate::upgrade::steps::{self, Direction, State};
use crate::upgrade::{Notes, UpgradeError, Work};
use std::time::{Duration, Instant};

/// What became of an upgrade that was interrupted.
pub struct Settled {
    pub text: String,
    /// Another version than this program is in force now.
    pub is_anothers: bool,
}

/// An upgrade or a rollback that is under way, or was interrupted.
pub fn interrupted_upgrade(home: &Home) -> Result<Option<Entry>, Error> {
    Ok(journal::unfinished(home)?.filter(|entry| entry.operation == Operation::Upgrade))
}

/// An upgrade that has changed nothing yet gives up when it is told to.
fn give_up_harmless(home: &Home) {
    let entry = interrupted_upgrade(home).ok().flatten();
    if let Some(Ok((_, Ending::Forget))) = entry.as_ref().map(ending_of)
        && let Some(holder) = lock::operation_holder(home)
        && ["leoflow upgrade", "leoflow rollback"].contains(&holder.command.as_str())
    {
        holder.process.signal(Signal::Terminate);
    }
}

/// What an interrupted upgrade was doing, and how it ends.
fn ending_of(entry: &Entry) -> Result<(State, Ending), String> {
    let (state, step) = steps::read(entry)?;
    let ending = ending::of_interruption(step, state.leaving.is_some());
    Ok((state, ending))
}

const OPERATION_PATIENCE: Duration = Duration::from_secs(60);

impl Recovery<'_> {
    /// Another process may still be at it: it is waited for, and what it leaves is finished. Whether another
    /// version than this program is in force now.
    pub async fn finish_upgrade_of_stopped(&self, abort: bool) -> Result<bool, Error> {
        let _alone = self.wait_for_operation().await?;
        let Some(entry) = interrupted_upgrade(self.home)? else { return Ok(false) };
        self.end_leftovers()?;
        if let Ok((state, Ending::GoBack | Ending::Leave)) = ending_of(&entry) {
            // It may be the one that does not start.
            finish::take_back_postgres(&state)?;
        }
        let (_, server) = self.private_server().await?;
        let settled = self.finish_upgrade(Host::stopped(server, None), entry, abort).await?;
        self.reporter.report(Progress::Note(settled.text));
        Ok(settled.is_anothers)
    }

    /// `None` when this very process has it.
    pub async fn wait_for_operation(&self) -> Result<Option<OperationLock>, Error> {
        let own = std::process::id() as i32;
        let deadline = Instant::now() + OPERATION_PATIENCE;
        let mut told = false;
        loop {
            match OperationLock::take(self.home, "leoflow upgrade --resume") {
                Err(LockError::Held { holder: Some(holder) }) if holder.process.pid == own => return Ok(None),
                Err(LockError::Held { .. }) if Instant::now() < deadline => {
                    if !std::mem::replace(&mut told, true) {
                        give_up_harmless(self.home);
                        self.reporter.report(Progress::Started("Waiting for an upgrade that is under way".to_owned()));
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                taken => return Ok(Some(taken?)),
            }
        }
    }

    /// Finishes an upgrade, or takes it back. The caller has the operation to itself.
    pub async fn finish_upgrade(&self, host: Host, entry: Entry, abort: bool) -> Result<Settled, Error> {
        let (mut state, ending) = ending_of(&entry).map_err(|detail| {
            Error::failed("run/journal.json is of an upgrade that this version does not understand")
                .cause(detail)
                .hint("run the leoflow that began it; `leoflow versions` lists what is there")
        })?;
        if abort && ending == Ending::Complete {
            let text = format!("{} has been at work already: the upgrade cannot be taken back any more", state.plan.to);
            return Err(Error::refused(text)
                .hint("leoflow upgrade --resume")
                .hint("then go back, with your data: leoflow rollback"));
        }
        let config = self.running_config()?;
        let access =
            access(self.home).ok_or_else(|| Error::failed("PostgreSQL's files are gone").hint("leoflow setup"))??;
        let mut work = Work {
            home: self.home,
            access,
            config: &config,
            own_version: self.version,
            host,
            reporter: self.reporter,
            no_rollback: false,
            notes: Notes::default(),
        };
        if ending == Ending::Complete {
            work.host.open(&state.new_program).map_err(UpgradeError::from)?;
        }
        let journal = Journal::resume(self.home, entry);
        let ended = finish::end(&mut work, journal, &mut state, ending).await?;
        if matches!((&ended, state.direction), (Ended::Completed { .. }, Direction::Down)) {
            super::rollbacks::note_finished(self.home);
        }
        let (from, to) = (&state.plan.from, &state.plan.to);
        let (what, way_on) = match state.direction {
            Direction::Up => ("upgrade", "to roll back: leoflow rollback".to_owned()),
            Direction::Down => ("rollback", format!("forward again: leoflow upgrade {from}")),
        };
        let text = match &ended {
            Ended::Forgotten => format!("forgot the {what} to {to} that was interrupted before it changed anything"),
            Ended::WentBack => {
                format!("took back the {what} to {to} that was interrupted; everything is as it was before it")
            }
            Ended::Left => format!("left {to} again, which had failed; {from} is in force, with everything"),
            Ended::Stayed { .. } => format!("{to} stays, which had failed: it cannot be gone back from by itself"),
            Ended::Completed { .. } => format!("finished the {what} to {to} that was interrupted"),
        };
        let in_force = match ended {
            Ended::Stayed { lost: Some(fault) } | Ended::Completed { lost: Some(fault) } => {
                return Err(Error::from(fault).hint("leoflow lite start").hint(way_on));
            }
            Ended::Stayed { .. } | Ended::Completed { .. } => Some(to.to_string()),
            Ended::Forgotten | Ended::WentBack | Ended::Left => None,
        };
        // The rehearsal may have been cut off.
        self.clean_up(Some(&work.access)).await?;
        Ok(Settled { text, is_anothers: in_force.is_some_and(|version| version != self.version) })
    }

    /// For a command that needs a release that stays: a change of release that was interrupted is finished or undone
    /// first, at once where it had changed nothing. One that is under way is left to whoever is at it.
    pub async fn settle_change(&self, look_only: bool) -> Result<(), Error> {
        self.settle_rollback(look_only).await?;
        let Some(entry) = interrupted_upgrade(self.home)? else { return Ok(()) };
        let change = journal::change_under_way(self.home);
        let told = change.as_ref().map(ToString::to_string).unwrap_or_default();
        if change.is_some_and(|change| change.by.is_some()) {
            return Err(Error::failed(told)
                .hint("wait for its end: leoflow upgrade --resume")
                .hint("what it does: leoflow lite logs upgrade -f"));
        }
        if look_only && !matches!(ending_of(&entry), Ok((_, Ending::Forget))) {
            return Err(Error::failed(told).hint("leoflow upgrade --resume"));
        }
        if let Some(text) = self.take_up(false).await? {
            self.reporter.report(Progress::Note(text));
        }
        Ok(())
    }

    /// What became of an upgrade that was interrupted, for people; `None` when there was none, or it was said already.
    pub async fn take_up(&self, abort: bool) -> Result<Option<String>, Error> {
        if interrupted_upgrade(self.home)?.is_none() {
            return Ok(None);
        }
        let Some(host) = Host::live(self.home).map_err(Error::failed)? else {
            let _held = HomeLock::take(self.home, "leoflow upgrade --resume", None)?;
            self.finish_upgrade_of_stopped(abort).await?;
            return Ok(Some("What was interrupted is settled".to_owned()));
        };
        // Whoever is still at it is waited for.
        let _alone = self.wait_for_operation().await?;
        match interrupted_upgrade(self.home)? {
            Some(entry) => {
                let settled = self.finish_upgrade(host, entry, abort).await?;
                Ok(Some(settled.text))
            }
            None => Ok(None),
        }
    }

    /// The configuration, with the address at which the instance serves, where it runs: the file may say another by
    /// now.
    pub fn running_config(&self) -> Result<Config, Error> {
        // Who asks a server needs the secret that its tokens are made with.
        let loaded = self.telling(config::load_with_secrets(&self.home.config())?);
        let loaded = loaded.ok_or_else(|| Error::failed("config.yaml is gone").hint("leoflow setup"))?;
        Ok(match lock::holder(self.home).and_then(|holder| holder.address()) {
            Some((host, port)) => Config { host, port, ..loaded.config },
            None => loaded.config,
        })
    }
}
