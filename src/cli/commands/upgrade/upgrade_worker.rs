//! The worker of `leoflow upgrade`: runs in its own session and holds the operation lock.

use super::target_release::{kept, source, target, version_of};
use super::upgrade_args::Upgrade;
use super::upgrade_facts::{self, FactsAndDatastore};
use crate::context::Context;
use crate::error::Error;
use crate::error::upgrade::SEE_UPGRADE_LOG;
use crate::recovery;
use crate::terminal::report::{PipeSink, Report};
use leoflow_base::build_info::build_info;
use leoflow_base::config::Config;
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::log;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::stdio;
use leoflow_lifecycle::upgrade::host::Host;
use leoflow_lifecycle::upgrade::plan::{Database, Instance, Plan, UpgradeFacts, plan, plan_kept};
use leoflow_lifecycle::upgrade::release::signature;
use leoflow_lifecycle::upgrade::release::{program, stage};
use leoflow_lifecycle::upgrade::smoke::{KnownFaults, ServerEndpoint, Smoke};
use leoflow_lifecycle::upgrade::{self, Notes, Outcome, ReleaseSource, Status, UpgradeContext, UpgradeError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

pub async fn run(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    log::start("upgrade", context.log_level());
    send_result(perform(context, args).await)
}

/// Sends the result over the pipe, and waits until it is written.
pub fn send_result(work_result: Result<Outcome, Error>) -> Result<u8, Error> {
    stdio::set_stdout_writes(stdio::Writes::Block);
    match work_result {
        Ok(mut outcome) => {
            let error = command_error(&mut outcome);
            let code = error.as_ref().map_or(0, Error::exit_code);
            PipeSink.send(&Report::Done { result: result_json(&outcome), error });
            Ok(code)
        }
        Err(error) => {
            PipeSink.send(&Report::Failed(error.clone()));
            Err(error)
        }
    }
}

/// Reports over the pipe and to `logs/upgrade.log`.
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

/// Plans the upgrade and applies it.
async fn perform(context: &Context<'_>, args: &Upgrade) -> Result<Outcome, Error> {
    let home = &context.home;
    let cancelled = cancelled()?;
    // A terminal that does not read must not block the upgrade.
    stdio::set_stdout_writes(stdio::Writes::Fail);
    let _operation_lock = OperationLock::take(home, "leoflow upgrade")?;
    refuse_interrupted(home)?;
    let config = context.recovery().running_config()?;
    let target = target(args.version.as_deref(), Some(&config))?;
    if let Some(about) = kept(context, &target, &args.from, &upgrade_facts::installed_version(context)?) {
        let gathered = upgrade_facts::gather(context).await?;
        let planned = plan_kept(&gathered.facts, &about.migrations, &version_of(&about)?)?;
        return apply_plan(context, &config, gathered, planned, ReleaseSource::Kept, args.no_rollback, cancelled).await;
    }
    let source = source(&args.from, Some(&config))?;
    let manifest = source.manifest(&signature::trusted(home, build_info().public_key)).await?;
    let FactsAndDatastore { mut facts, datastore } = upgrade_facts::gather(context).await?;
    let mut planned = plan(&facts, &manifest, &target)?;
    if facts.database == Database::Applied(Vec::new()) {
        // Leoflow is set up but was never started. Creates the tables, so that there is something to back up.
        let installed = stage::program_of(home, &facts.installed);
        let program = if installed.exists() { installed } else { env_vars::current_exe().map_err(Error::failed)? };
        program::migrate(&program, home, None).map_err(UpgradeError::from)?;
        facts.database = upgrade_facts::database(&datastore.connect().await?).await?;
        planned = plan(&facts, &manifest, &target)?;
    }
    apply_plan(
        context,
        &config,
        FactsAndDatastore { facts, datastore },
        planned,
        ReleaseSource::Fetched(&source),
        args.no_rollback,
        cancelled,
    )
    .await
}

/// Applies a plan. The caller holds the operation lock.
pub async fn apply_plan(
    context: &Context<'_>,
    config: &Config,
    FactsAndDatastore { facts, datastore }: FactsAndDatastore,
    plan: Plan,
    release_source: ReleaseSource<'_>,
    no_rollback: bool,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, Error> {
    let home = &context.home;
    let (access, server_and_lock) = datastore.into_parts();
    let host = match server_and_lock {
        Some((server, lock)) => Host::stopped(server, Some(lock)),
        None => Host::live(home).map_err(Error::failed)?.ok_or_else(crate::api_client::not_running)?,
    };
    let mut cancelled = std::pin::pin!(cancelled);
    LoggedSink.report(Progress::Started("Checking the running release".to_owned()));
    let known = tokio::select! {
        known = known_faults(&facts, config, release_source) => known?,
        () = &mut cancelled => return Err(UpgradeError::Cancelled.into()),
    };
    let mut upgrade_context = UpgradeContext {
        home,
        access,
        config,
        own_version: context.version,
        host,
        reporter: &LoggedSink,
        no_rollback,
        notes: Notes::default(),
    };
    Ok(upgrade::upgrade(&mut upgrade_context, plan, release_source, known, cancelled).await?)
}

/// Completes when the watching command cancels with SIGTERM, which has no other effect from here on.
pub fn cancelled() -> Result<impl Future<Output = ()>, Error> {
    let mut terminated = signal(SignalKind::terminate()).map_err(Error::failed)?;
    Ok(async move {
        let _ = terminated.recv().await;
    })
}

/// Refuses while another change of release is interrupted.
pub fn refuse_interrupted(home: &Home) -> Result<(), Error> {
    recovery::refuse_during_rollback(home)?;
    match recovery::interrupted_upgrade(home)? {
        Some(_) => Err(Error::failed("an upgrade was interrupted").hint("leoflow upgrade --resume")),
        None => Ok(()),
    }
}

/// Time limit of collecting all known faults; an upgrade must not wait longer for a release that does not respond.
const KNOWN_FAULTS_LIMIT: Duration = Duration::from_secs(120);

/// Collects the faults of the running release.
async fn known_faults(facts: &UpgradeFacts, config: &Config, to: ReleaseSource<'_>) -> Result<KnownFaults, Error> {
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
        // A rollback requests little, because the server may be the reason for it.
        let import_errors = tokio::time::timeout(IMPORT_ERRORS_LIMIT, smoke.import_errors()).await;
        return Ok(KnownFaults { import_errors: import_errors.ok().and_then(Result::ok), ..KnownFaults::default() });
    }
    let response = tokio::time::timeout(KNOWN_FAULTS_LIMIT, smoke.known_faults()).await;
    response.unwrap_or_else(|_| Err(format!("no response within {} s", KNOWN_FAULTS_LIMIT.as_secs()))).map_err(
        |reason| {
            Error::failed("failed to read the import errors of the running instance")
                .cause(reason)
                .hint("leoflow smoke")
        },
    )
}

/// Time limit of listing import errors before a rollback.
const IMPORT_ERRORS_LIMIT: Duration = Duration::from_secs(10);

/// The result for the watching command, with a message.
fn result_json(outcome: &Outcome) -> serde_json::Value {
    let mut value = serde_json::to_value(outcome).unwrap_or_default();
    let (new, old) = (&outcome.new_version, &outcome.previous_version);
    let notes: String = outcome.notes.iter().map(|note| format!("\n  {note}")).collect();
    match (outcome.status, &outcome.problem_text) {
        (Status::Upgraded, _) => value["message"] = format!("Upgraded from {old} to {new}").into(),
        (Status::RolledBack, None) => value["message"] = format!("Rolled back from {old} to {new}{notes}").into(),
        _ => {}
    }
    value
}

/// The error of the command, `None` if it succeeded; its last hint is the next step.
fn command_error(outcome: &mut Outcome) -> Option<Error> {
    let fault = outcome.error.take()?;
    let was_cancelled = matches!(fault, UpgradeError::Cancelled);
    let (new, old) = (&outcome.new_version, &outcome.previous_version);
    let forward = format!("to upgrade again: leoflow upgrade {old}");
    let (message, hint) = match outcome.status {
        Status::Upgraded => return None,
        Status::Failed if was_cancelled => {
            return Some(Error::signal(2, format!("cancelled: nothing was changed, {old} continues as before")));
        }
        Status::Failed => (format!("nothing was changed, {old} continues as before: the change to {new} failed"), None),
        Status::RolledBack => {
            (format!("the upgrade to {new} failed and was rolled back: {old} is running again with all data"), None)
        }
        Status::UpgradedWithProblem => {
            (format!("upgraded to {new}, but it has problems"), Some("to roll back: leoflow rollback"))
        }
        Status::RolledBackWithProblem => (format!("rolled back to {new}, but it has problems"), Some(forward.as_str())),
    };
    let Error { kind, message: fault_message, cause, hints, .. } = fault.into();
    let cause = [Some(fault_message), cause].into_iter().flatten().collect::<Vec<_>>().join("\n");
    let mut base = Error { kind, hints, ..Error::failed(message).cause(cause) };
    let hint = hint.unwrap_or(SEE_UPGRADE_LOG);
    // The hint is listed only once, at the end.
    base.hints.retain(|other| other != hint);
    Some(base.hint(hint))
}

/// `--resume` and `--abort`.
pub async fn resume(context: &Context<'_>, abort: bool) -> Result<u8, Error> {
    let text = context.recovery().finish_interrupted(abort).await?;
    context.printer.line(text.as_deref().unwrap_or("No interrupted upgrade; nothing to do"));
    Ok(0)
}
