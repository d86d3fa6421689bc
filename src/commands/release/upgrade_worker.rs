//! The worker of `leoflow upgrade`: in a session of its own, with the operation to itself.

use super::upgrade_facts::{self, Looked};
use super::wanted_release::{kept, source, target, version_of};
use crate::build_info::build_info;
use crate::cli::report::{PipeSink, Report};
use crate::cli::upgrade_args::Upgrade;
use crate::commands::context::Context;
use crate::config::Config;
use crate::error::Error;
use crate::error::upgrade::WHAT_WAS_DONE;
use crate::home::Home;
use crate::home::lock::OperationLock;
use crate::home::progress::{Progress, Reporter};
use crate::protocol::log;
use crate::recovery;
use crate::sys::{env_vars, stdio};
use crate::upgrade::host::Host;
use crate::upgrade::plan::{Database, Facts, Instance, Plan, plan, plan_kept};
use crate::upgrade::signature;
use crate::upgrade::smoke::{KnownFaults, ServerEndpoint, Smoke};
use crate::upgrade::{self, Notes, Outcome, ReleaseSource, Status, UpgradeError, Work, program, stage};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

pub async fn run(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    log::start("upgrade", context.log_level());
    tell(work(context, args).await)
}

/// The last word over the pipe, which is waited for.
pub fn tell(done: Result<Outcome, Error>) -> Result<u8, Error> {
    stdio::set_stdout_blocking(true);
    match done {
        Ok(mut outcome) => {
            let error = problem(&mut outcome);
            let code = error.as_ref().map_or(0, Error::exit_code);
            PipeSink.send(&Report::Done { result: result(&outcome), error });
            Ok(code)
        }
        Err(error) => {
            PipeSink.send(&Report::Failed(error.clone()));
            Err(error)
        }
    }
}

/// Over the pipe, and into `logs/upgrade.log`.
pub struct LoggedSink;

impl Reporter for LoggedSink {
    fn report(&self, progress: Progress) {
        match &progress {
            Progress::Finished(text) | Progress::Note(text) => info!("{text}"),
            Progress::Warning(text) => warn!("{text}"),
            _ => {}
        }
        PipeSink.report(progress);
    }
}

async fn work(context: &Context<'_>, args: &Upgrade) -> Result<Outcome, Error> {
    let home = &context.home;
    let cancelled = cancelled()?;
    // A terminal that is held up holds up nobody else.
    stdio::set_stdout_blocking(false);
    let _alone = OperationLock::take(home, "leoflow upgrade")?;
    refuse_interrupted(home)?;
    let config = context.recovery().running_config()?;
    let target = target(args.version.as_deref(), Some(&config))?;
    if let Some(about) = kept(context, &target, &args.from, &upgrade_facts::installed_version(context)?) {
        let looked = upgrade_facts::look(context).await?;
        let planned = plan_kept(&looked.facts, &about.migrations, &version_of(&about)?)?;
        return change(context, &config, looked, planned, ReleaseSource::Kept, args.no_rollback, cancelled).await;
    }
    let source = source(&args.from, Some(&config))?;
    let manifest = source.manifest(&signature::trusted(home, build_info().public_key)).await?;
    let Looked { mut facts, datastore } = upgrade_facts::look(context).await?;
    let mut planned = plan(&facts, &manifest, &target)?;
    if facts.database == Database::Applied(Vec::new()) {
        // Set up and never started: it gets the tables that a start would make, to have something to back up.
        let installed = stage::program_of(home, &facts.installed);
        let program = if installed.exists() { installed } else { env_vars::current_exe().map_err(Error::failed)? };
        program::migrate(&program, home, None).map_err(UpgradeError::from)?;
        facts.database = upgrade_facts::database(&datastore.connect().await?).await?;
        planned = plan(&facts, &manifest, &target)?;
    }
    change(
        context,
        &config,
        Looked { facts, datastore },
        planned,
        ReleaseSource::Fetched(&source),
        args.no_rollback,
        cancelled,
    )
    .await
}

/// Follows a plan, on what was looked at. The caller has the operation to itself.
pub async fn change(
    context: &Context<'_>,
    config: &Config,
    Looked { facts, datastore }: Looked,
    plan: Plan,
    release_source: ReleaseSource<'_>,
    no_rollback: bool,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, Error> {
    let home = &context.home;
    let (access, held) = datastore.into_parts();
    let host = match held {
        Some((server, lock)) => Host::stopped(server, Some(lock)),
        None => Host::live(home).map_err(Error::failed)?.ok_or_else(crate::cli::api::not_running)?,
    };
    let mut cancelled = std::pin::pin!(cancelled);
    LoggedSink.report(Progress::Started("Checking what works now".to_owned()));
    let known = tokio::select! {
        known = known_faults(&facts, config, release_source) => known?,
        () = &mut cancelled => return Err(UpgradeError::Cancelled.into()),
    };
    let mut work = Work {
        home,
        access,
        config,
        own_version: context.version,
        host,
        reporter: &LoggedSink,
        no_rollback,
        notes: Notes::default(),
    };
    Ok(upgrade::upgrade(&mut work, plan, release_source, known, cancelled).await?)
}

/// Completes when the one who watches asks to give up. From here on TERM does nothing else.
pub fn cancelled() -> Result<impl Future<Output = ()>, Error> {
    let mut told = signal(SignalKind::terminate()).map_err(Error::failed)?;
    Ok(async move {
        let _ = told.recv().await;
    })
}

pub fn refuse_interrupted(home: &Home) -> Result<(), Error> {
    recovery::refuse_beside_a_rollback(home)?;
    match recovery::interrupted_upgrade(home)? {
        Some(_) => Err(Error::failed("an upgrade was interrupted").hint("leoflow upgrade --resume")),
        None => Ok(()),
    }
}

/// For all that is asked; a release that does not answer is no reason not to leave it.
const KNOWN_FAULTS_LIMIT: Duration = Duration::from_secs(120);

/// Collects the faults of the running release.
async fn known_faults(facts: &Facts, config: &Config, to: ReleaseSource<'_>) -> Result<KnownFaults, Error> {
    if facts.instance != Instance::Healthy {
        return Ok(KnownFaults::default());
    }
    let smoke = Smoke {
        config,
        endpoint: ServerEndpoint::Open,
        version: facts.installed.to_string(),
        known: KnownFaults::default(),
        releases: None,
        config_file: None,
    };
    if matches!(to, ReleaseSource::Installed) {
        // The way back asks little of a server that may be the reason for it.
        let import_errors = tokio::time::timeout(IMPORT_ERRORS_LIMIT, smoke.import_errors()).await;
        return Ok(KnownFaults { import_errors: import_errors.ok().and_then(Result::ok), ..KnownFaults::default() });
    }
    let asked = tokio::time::timeout(KNOWN_FAULTS_LIMIT, smoke.known_faults()).await;
    asked.unwrap_or_else(|_| Err(format!("it did not answer within {} s", KNOWN_FAULTS_LIMIT.as_secs()))).map_err(
        |reason| {
            Error::failed("the instance does not say which DAG files it cannot import")
                .cause(reason)
                .hint("leoflow smoke")
        },
    )
}

const IMPORT_ERRORS_LIMIT: Duration = Duration::from_secs(10);

fn result(outcome: &Outcome) -> serde_json::Value {
    let mut value = serde_json::to_value(outcome).unwrap_or_default();
    let (new, old) = (&outcome.new_version, &outcome.previous_version);
    let notes: String = outcome.notes.iter().map(|note| format!("\n  {note}")).collect();
    match (outcome.status, &outcome.problem) {
        (Status::Upgraded, _) => value["message"] = format!("Leoflow is {new} now (it was {old})").into(),
        (Status::RolledBack, None) => value["message"] = format!("Leoflow is {new} again (it was {old}){notes}").into(),
        _ => {}
    }
    value
}

/// What the command fails with; its last line is the way on, or back.
fn problem(outcome: &mut Outcome) -> Option<Error> {
    let fault = outcome.fault.take()?;
    let was_cancelled = matches!(fault, UpgradeError::Cancelled);
    let (new, old) = (&outcome.new_version, &outcome.previous_version);
    let forward = format!("forward again: leoflow upgrade {old}");
    let (message, hint) = match outcome.status {
        Status::Upgraded => return None,
        Status::Failed if was_cancelled => {
            return Some(Error::signal(2, format!("it was cancelled: nothing was changed, {old} goes on as before")));
        }
        Status::Failed => (format!("nothing was changed, {old} goes on as before: the way to {new} failed"), None),
        Status::RolledBack => (format!("{old} is in force again, with everything: the upgrade to {new} failed"), None),
        Status::UpgradedWithProblem => {
            (format!("{new} is in force, and something is wrong with it"), Some("the way back: leoflow rollback"))
        }
        Status::RolledBackWithProblem => {
            (format!("{new} is in force again, and something is wrong with it"), Some(forward.as_str()))
        }
    };
    let Error { kind, message: what, cause, hints, .. } = fault.into();
    let cause = [Some(what), cause].into_iter().flatten().collect::<Vec<_>>().join("\n");
    let mut base = Error { kind, hints, ..Error::failed(message).cause(cause) };
    let hint = hint.unwrap_or(WHAT_WAS_DONE);
    // The last word, said once.
    base.hints.retain(|other| other != hint);
    Some(base.hint(hint))
}

/// `--resume` and `--abort`.
pub async fn resume(context: &Context<'_>, abort: bool) -> Result<u8, Error> {
    let text = context.recovery().take_up(abort).await?;
    context.printer.line(text.as_deref().unwrap_or("No upgrade was interrupted"));
    Ok(0)
}
