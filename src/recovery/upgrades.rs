//! Upgrades and rollbacks that did not come to their end.

use super::{Recovery, access};
use crate::config::{self, Config};
use crate::error::Error;
use crate::home::Home;
use crate::home::journal::{self, Entry, Journal, Operation};
use crate::home::lock::{self, HomeLock, LockError, OperationLock};
use crate::home::progress::Progress;
use crate::sys::process::Signal;
use crate::upgrade::host::Host;
use crate::upgrade::steps::{self, Resumption, State, Step};
use crate::upgrade::{UpgradeError, Work, finish};
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
    if let Some(Ok(Resumption::Forget(_))) = entry.as_ref().map(steps::resumption)
        && let Some(holder) = lock::operation_holder(home)
        && ["leoflow upgrade", "leoflow rollback"].contains(&holder.command.as_str())
    {
        holder.process.signal(Signal::Terminate);
    }
}

const OPERATION_PATIENCE: Duration = Duration::from_secs(60);

impl Recovery<'_> {
    /// Another process may still be at it: it is waited for, and what it leaves is finished. Whether another
    /// version than this program is in force now.
    pub async fn finish_upgrade_of_stopped(&self, abort: bool) -> Result<bool, Error> {
        let _alone = self.wait_for_operation().await?;
        let Some(entry) = interrupted_upgrade(self.home)? else { return Ok(false) };
        self.end_leftovers()?;
        if let Ok(Resumption::Back(state) | Resumption::Leave(state)) = steps::resumption(&entry) {
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
        let way = steps::resumption(&entry).map_err(|detail| {
            Error::failed("run/journal.json is of an upgrade that this version does not understand")
                .cause(detail)
                .hint("run the leoflow that began it; `leoflow versions` lists what is there")
        })?;
        let config = self.running_config()?;
        let access =
            access(self.home).ok_or_else(|| Error::failed("PostgreSQL's files are gone").hint("leoflow setup"))??;
        let mut work = Work {
            home: self.home,
            access,
            port: config.port,
            config: &config,
            own_version: self.version,
            host,
            reporter: self.reporter,
            no_rollback: false,
            details: Vec::new(),
            paused: None,
            pause: None,
        };
        let mut journal = Journal::resume(self.home, entry);
        let (mut in_force, mut lost) = (None, None);
        let text = match way {
            Resumption::Forget(state) => {
                finish::forget_program(&work, &state);
                // Its journal is what reminds of them.
                finish::forget_rehearsal(&work, &state).await;
                journal.remove()?;
                format!("forgot the upgrade to {} that was interrupted before it changed anything", state.plan.to)
            }
            Resumption::Back(state) => {
                finish::go_back(&mut work, &state, journal.is_past(Step::Snapshot.name())).await?;
                journal.remove()?;
                format!(
                    "took back the upgrade to {} that was interrupted; everything is as it was before it",
                    state.plan.to
                )
            }
            Resumption::Leave(state) => {
                let mut state = state;
                match finish::leave(&mut work, &state).await {
                    Ok(()) => {
                        journal.remove()?;
                        let State { plan, .. } = *state;
                        format!("left {} again, which had failed; {} is in force, with everything", plan.to, plan.from)
                    }
                    Err(fault) if !fault.is_of_the_schema() => return Err(fault.into()),
                    Err(fault) => {
                        finish::stay(&mut work, &mut journal, &mut state, &fault).await?;
                        lost = finish::complete(&mut work, &mut journal, &state).await?;
                        journal.finish()?;
                        in_force = Some(state.plan.to.to_string());
                        format!("{} stays, which had failed: it cannot be gone back from by itself", state.plan.to)
                    }
                }
            }
            Resumption::Forward(state) if abort => {
                let to = &state.plan.to;
                return Err(Error::refused(format!(
                    "{to} has been at work already: the upgrade cannot be taken back any more"
                ))
                .hint("leoflow upgrade --resume")
                .hint("then go back, with your data: leoflow rollback"));
            }
            Resumption::Forward(state) => {
                work.host.open(&state.new_program).map_err(UpgradeError::from)?;
                lost = finish::complete(&mut work, &mut journal, &state).await?;
                journal.finish()?;
                in_force = Some(state.plan.to.to_string());
                format!("finished the upgrade to {} that was interrupted", state.plan.to)
            }
        };
        if let Some(fault) = lost {
            return Err(Error::from(fault).hint("leoflow lite start").hint("the way back: leoflow rollback"));
        }
        // The rehearsal may have been cut off.
        self.clean_up(Some(&work.access)).await?;
        Ok(Settled { text, is_anothers: in_force.is_some_and(|version| version != self.version) })
    }

    /// For a command that needs a release that stays: a change of release that was interrupted is finished or undone
    /// first, at once where it had changed nothing. One that is under way is left to whoever is at it.
    pub async fn settle_change(&self, look_only: bool) -> Result<(), Error> {
        let Some(entry) = interrupted_upgrade(self.home)? else { return Ok(()) };
        let change = journal::change_under_way(self.home);
        let told = change.as_ref().map(ToString::to_string).unwrap_or_default();
        if change.is_some_and(|change| change.by.is_some()) {
            return Err(Error::failed(told)
                .hint("wait for its end: leoflow upgrade --resume")
                .hint("what it does: leoflow lite logs upgrade -f"));
        }
        if look_only && !matches!(steps::resumption(&entry), Ok(Resumption::Forget(_))) {
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
        let path = self.home.config();
        let loaded = config::load(&path)?.ok_or_else(|| Error::failed("config.yaml is gone").hint("leoflow setup"))?;
        for warning in &loaded.warnings {
            let text = format!("{}:{}: {}", path.display(), warning.line, warning.message);
            self.reporter.report(Progress::Warning(text));
        }
        Ok(match lock::holder(self.home).and_then(|holder| holder.address()) {
            Some((host, port)) => Config { host, port, ..loaded.config },
            None => loaded.config,
        })
    }
}
