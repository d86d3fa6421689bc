//! Taking the home, and first of all finishing or undoing what an earlier process left half done.

use crate::backup::exchange::{self, Resumed};
use crate::backup::restore;
use crate::backup::set_aside;
use crate::commands::context::Context;
use crate::error::Error;
use crate::home::Home;
use crate::home::journal::{self, Entry, Journal, Operation};
use crate::home::lock::{self, HomeLock, LockError, OperationLock};
use crate::home::progress::{Progress, Reporter};
use crate::postgres::cluster::{self, ClusterState};
use crate::postgres::private::PrivateServer;
use crate::postgres::{Access, Credentials, Endpoint, install};
use crate::protocol::control;
use crate::setup::uninstall;
use crate::supervisor;
use crate::sys::process::Signal;
use crate::sys::{env_vars, replace};
use crate::upgrade::host::Host;
use crate::upgrade::steps::{self, Resumption, State, Step};
use crate::upgrade::{UpgradeError, Work, finish};
use std::time::{Duration, Instant};

/// What becomes of a purge that was interrupted after it had removed something. Only a command that
/// makes a new instance out of nothing may finish it; another one was not meant to lose anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purges {
    Finish,
    Refuse,
}

/// Takes the home; what was interrupted is finished or undone, with one line that says so.
/// `command` is what others are told who want the home meanwhile.
pub async fn take_home(
    context: &Context<'_>,
    command: &str,
    url: Option<&str>,
    purges: Purges,
    reporter: &dyn Reporter,
) -> Result<HomeLock, Error> {
    let home = &context.home;
    let lock = HomeLock::take(home, command, url)?;
    match journal::unfinished(home)? {
        None => {}
        Some(Entry { operation: Operation::Setup, .. }) => {}
        Some(entry @ Entry { operation: Operation::Purge, .. }) => {
            if purges == Purges::Refuse && uninstall::has_begun(&entry) {
                return Err(Error::refused("a purge of this home was interrupted, and part of it is gone already")
                    .hint("finish it: leoflow uninstall --purge")
                    .hint("finish it and begin anew: leoflow lite start"));
            }
            if uninstall::resume_purge(home, entry)? == uninstall::Resumed::TakenBack {
                let text = "forgot a purge that was interrupted before it removed anything";
                reporter.report(Progress::Note(text.to_owned()));
                if let Some(entry) = journal::unfinished(home)? {
                    finish_exchange(home, entry, reporter).await?;
                }
                remove_strays(home, reporter).await?;
                return Ok(lock);
            }
            let text = "finished the purge that was interrupted; nothing is left of what was here";
            reporter.report(Progress::Note(text.to_owned()));
            // The lock went with the home.
            drop(lock);
            home.create().map_err(|error| Error::io("create", home.root(), &error))?;
            return Ok(HomeLock::take(home, command, url)?);
        }
        Some(entry @ Entry { operation: Operation::Restore | Operation::RestoreUndo, .. }) => {
            finish_exchange(home, entry, reporter).await?;
        }
        Some(Entry { operation: Operation::Upgrade, .. }) => {
            let is_anothers = finish_upgrade_of_stopped(context, false, reporter).await?;
            if is_anothers && purges == Purges::Finish {
                return Err(hand_on(context));
            }
        }
    }
    put_back_cluster(home, reporter)?;
    remove_strays(home, reporter).await?;
    Ok(lock)
}

/// What a restore that did not come through had set aside because it could not be read.
pub fn put_back_cluster(home: &Home, reporter: &dyn Reporter) -> Result<(), Error> {
    if set_aside::pending(home).is_none() {
        return Ok(());
    }
    supervisor::end_leftovers(home).map_err(|error| {
        Error::failed("what an earlier run left cannot be ended").cause(error).hint("leoflow doctor")
    })?;
    set_aside::put_back(home).map_err(|error| Error::io("move", &home.postgres_data(), &error))?;
    let text = "took back a restore that was interrupted: the datastore that could not be read is in its place again";
    reporter.report(Progress::Note(text.to_owned()));
    Ok(())
}

/// What became of an upgrade that was interrupted.
pub struct Settled {
    pub text: String,
    /// Another version than this program is in force now.
    pub is_anothers: bool,
}

/// The version that is in force now does what this one was told to do. Comes back only when it cannot.
fn hand_on(context: &Context<'_>) -> Error {
    let program = context.home.bin().join("leoflow");
    let arguments: Vec<_> = env_vars::arguments().into_iter().skip(1).collect();
    // The lock is let go by the exec.
    let error = replace::replace_self(&program, "leoflow", &arguments, &[]);
    Error::io("run", &program, &error)
}

/// Another process may still be at it: it is waited for, and what it leaves is finished. Whether another
/// version than this program is in force now.
pub async fn finish_upgrade_of_stopped(
    context: &Context<'_>,
    abort: bool,
    reporter: &dyn Reporter,
) -> Result<bool, Error> {
    let home = &context.home;
    let _alone = wait_for_operation(home, reporter).await?;
    let Some(entry) = interrupted_upgrade(home)? else { return Ok(false) };
    supervisor::end_leftovers(home).map_err(|error| {
        Error::failed("what an earlier run left cannot be ended").cause(error).hint("leoflow doctor")
    })?;
    if let Ok(Resumption::Back(state) | Resumption::Leave(state)) = steps::resumption(&entry) {
        // It may be the one that does not start.
        finish::take_back_postgres(&state)?;
    }
    let (_, server) = private(home).await?;
    let settled = finish_upgrade(context, Host::stopped(server, None), entry, abort, reporter).await?;
    reporter.report(Progress::Note(settled.text));
    Ok(settled.is_anothers)
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

/// `None` when this very process has it.
pub async fn wait_for_operation(home: &Home, reporter: &dyn Reporter) -> Result<Option<OperationLock>, Error> {
    let own = std::process::id() as i32;
    let deadline = Instant::now() + OPERATION_PATIENCE;
    let mut told = false;
    loop {
        match OperationLock::take(home, "leoflow upgrade --resume") {
            Err(LockError::Held { holder: Some(holder) }) if holder.process.pid == own => return Ok(None),
            Err(LockError::Held { .. }) if Instant::now() < deadline => {
                if !std::mem::replace(&mut told, true) {
                    give_up_harmless(home);
                    reporter.report(Progress::Started("Waiting for an upgrade that is under way".to_owned()));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            taken => return Ok(Some(taken?)),
        }
    }
}

/// Finishes an upgrade, or takes it back. The caller has the operation to itself.
pub async fn finish_upgrade(
    context: &Context<'_>,
    host: Host,
    entry: Entry,
    abort: bool,
    reporter: &dyn Reporter,
) -> Result<Settled, Error> {
    let home = &context.home;
    let way = steps::resumption(&entry).map_err(|detail| {
        Error::failed("run/journal.json is of an upgrade that this version does not understand")
            .cause(detail)
            .hint("run the leoflow that began it; `leoflow versions` lists what is there")
    })?;
    let config = crate::commands::release::upgrade_worker::config(context)?;
    let installation =
        install::installed(home).ok_or_else(|| Error::failed("PostgreSQL's files are gone").hint("leoflow setup"))?;
    let mut work = Work {
        home,
        access: Access { endpoint: Endpoint::for_home(home), credentials: Credentials::require(home)?, installation },
        port: config.port,
        config: &config,
        own_version: context.version,
        host,
        reporter,
        no_rollback: false,
        details: Vec::new(),
        paused: None,
        pause: None,
    };
    let mut journal = Journal::resume(home, entry);
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
    clean_up(home, Some(&work.access), reporter).await?;
    Ok(Settled { text, is_anothers: in_force.is_some_and(|version| version != context.version) })
}

/// For a command that needs a release that stays: a change of release that was interrupted is finished or undone
/// first, at once where it had changed nothing. One that is under way is left to whoever is at it.
pub async fn settle_change(context: &Context<'_>, look_only: bool) -> Result<(), Error> {
    let Some(entry) = interrupted_upgrade(&context.home)? else { return Ok(()) };
    let change = journal::change_under_way(&context.home);
    let told = change.as_ref().map(ToString::to_string).unwrap_or_default();
    if change.is_some_and(|change| change.by.is_some()) {
        return Err(Error::failed(told)
            .hint("wait for its end: leoflow upgrade --resume")
            .hint("what it does: leoflow lite logs upgrade -f"));
    }
    if look_only && !matches!(steps::resumption(&entry), Ok(Resumption::Forget(_))) {
        return Err(Error::failed(told).hint("leoflow upgrade --resume"));
    }
    if let Some(text) = crate::commands::release::upgrade_worker::take_up(context, false).await? {
        context.printer.note(text);
    }
    Ok(())
}

/// For a command that decides by what is there: what was interrupted is finished before it looks.
pub async fn finish_first(context: &Context<'_>, command: &str) -> Result<(), Error> {
    if interrupted(context)?.is_some() || is_set_aside(context) {
        take_home(context, command, None, Purges::Refuse, context.printer).await?;
    }
    Ok(())
}

/// For a command that only looks: it cannot tell what there will be.
pub fn refuse_interrupted(context: &Context<'_>) -> Result<(), Error> {
    if is_set_aside(context) {
        return Err(Error::failed("a restore was interrupted, and what it had set aside has to be put back first")
            .hint("leoflow lite start puts it back"));
    }
    match interrupted(context)? {
        None => Ok(()),
        Some(entry) => {
            Err(Error::failed(format!("a {} was interrupted, and has to be finished first", entry.operation))
                .hint("leoflow lite start finishes it"))
        }
    }
}

/// By a restore that did not come through; not by one that is under way.
fn is_set_aside(context: &Context<'_>) -> bool {
    set_aside::pending(&context.home).is_some() && control::status_of(&context.home).is_none()
}

fn interrupted(context: &Context<'_>) -> Result<Option<Entry>, Error> {
    Ok(journal::unfinished(&context.home)?.filter(|entry| entry.operation != Operation::Setup))
}

async fn finish_exchange(home: &Home, entry: Entry, reporter: &dyn Reporter) -> Result<(), Error> {
    supervisor::end_leftovers(home).map_err(|error| {
        Error::failed("what an earlier run left cannot be ended").cause(error).hint("leoflow doctor")
    })?;
    let (access, server) = private(home).await?;
    let what = match entry.operation {
        Operation::RestoreUndo => "undoing of a restore",
        _ => "restore",
    };
    let resumed = exchange::resume(home, &access, entry).await?;
    drop(server);
    let text = match resumed {
        Resumed::Finished => format!("finished the {what} that was interrupted"),
        Resumed::TakenBack(None) => format!("took back the {what} that had failed; everything is as it was before it"),
        Resumed::TakenBack(Some(why)) => {
            format!("took back the {what} that was interrupted; everything is as it was before it: {why}")
        }
    };
    reporter.report(Progress::Note(text));
    tell_conflicts(home, reporter);
    Ok(())
}

/// What had been put into the workspace while an exchange was interrupted, and was in its way.
pub fn tell_conflicts(home: &Home, reporter: &dyn Reporter) {
    for folder in exchange::conflicts(home) {
        reporter.report(Progress::Warning(format!("what was in the way in the workspace is in {}", folder.display())));
    }
}

/// What a restore or a verification has left that was killed before it changed anything. One that is
/// at work has the operation to itself.
async fn remove_strays(home: &Home, reporter: &dyn Reporter) -> Result<(), Error> {
    if !restore::has_strays(home) {
        return Ok(());
    }
    let _alone = match OperationLock::take(home, "cleaning up") {
        Ok(lock) => lock,
        Err(LockError::Held { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    clean_up(home, None, reporter).await
}

/// Removes strays from the home, and from the cluster: the one that answers, or a private one. The
/// caller has the operation to itself. What cannot be removed is said, and is in nobody's way.
pub async fn clean_up(home: &Home, access: Option<&Access>, reporter: &dyn Reporter) -> Result<(), Error> {
    // Until an exchange is through, its folder looks like a stray's, and holds what was in force.
    if !restore::has_strays(home) || journal::unfinished(home)?.is_some() {
        return Ok(());
    }
    let removed = match access {
        Some(access) => restore::remove_strays(home, Some(access)).await,
        None if cluster::state(home) != ClusterState::Ready => restore::remove_strays(home, None).await,
        None => match private(home).await {
            Ok((access, _server)) => restore::remove_strays(home, Some(&access)).await,
            // It has more to tell when it is started for work; the folders stay as a reminder.
            Err(_) => return Ok(()),
        },
    };
    reporter.report(match removed {
        Ok(()) => Progress::Note("removed what an interrupted restore or verification had left".to_owned()),
        Err(error) => {
            Progress::Warning(format!("what an interrupted restore or verification left cannot be removed: {error}"))
        }
    });
    Ok(())
}

/// A server for the moment. The caller holds the home's lock.
async fn private(home: &Home) -> Result<(Access, PrivateServer), Error> {
    let installation =
        install::installed(home).ok_or_else(|| Error::failed("PostgreSQL's files are gone").hint("leoflow setup"))?;
    let access = Access { endpoint: Endpoint::for_home(home), credentials: Credentials::require(home)?, installation };
    let server = PrivateServer::start(home, &access.installation, &access.endpoint, &access.credentials).await?;
    Ok((access, server))
}
