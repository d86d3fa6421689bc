//! Applies the plan of an upgrade or a rollback, in its worker and under the operation lock.

use super::upgrade::gather_facts::FactsAndDatastore;
use super::worker_report::LoggedSink;
use crate::context::Context;
use crate::error::Error;
use crate::recovery;
use leoflow_base::config::Config;
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_lifecycle::upgrade::host::Host;
use leoflow_lifecycle::upgrade::plan::{Instance, UpgradeFacts, UpgradePlan};
use leoflow_lifecycle::upgrade::smoke::{KnownFaults, ServerEndpoint, Smoke, SmokeError};
use leoflow_lifecycle::upgrade::{self, Notes, Outcome, ReleaseSource, UpgradeContext, UpgradeError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A change of release to apply.
pub struct PlannedChange<'a> {
    pub plan: UpgradePlan,
    pub source: ReleaseSource<'a>,
    /// True with `--no-rollback`: a failed release stays for inspection.
    pub no_rollback: bool,
}

/// Applies a plan. The caller holds the operation lock.
pub async fn apply_plan(
    context: &Context<'_>,
    config: &Config,
    FactsAndDatastore { facts, datastore }: FactsAndDatastore,
    PlannedChange { plan, source, no_rollback }: PlannedChange<'_>,
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
        known = known_faults(&facts, config, source) => known?,
        () = &mut cancelled => return Err(UpgradeError::Cancelled.into()),
    };
    let upgrade_context = UpgradeContext {
        home,
        access,
        config,
        own_version: context.version,
        host,
        reporter: &LoggedSink,
        no_rollback,
        notes: Notes::default(),
    };
    Ok(upgrade::upgrade(upgrade_context, plan, source, known, cancelled).await?)
}

/// Returns a future that completes when the watching command cancels the upgrade or rollback with SIGTERM. From this
/// call on, SIGTERM has no other effect.
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

/// Time limit for collecting all known faults. The running release may not respond, and the upgrade must not wait
/// longer.
const KNOWN_FAULTS_LIMIT: Duration = Duration::from_secs(120);

/// Collects the faults of the running release, which do not count against the new one.
async fn known_faults(facts: &UpgradeFacts, config: &Config, to: ReleaseSource<'_>) -> Result<KnownFaults, Error> {
    if facts.instance != Instance::Healthy {
        return Ok(KnownFaults::default());
    }
    let smoke = Smoke {
        config,
        endpoint: ServerEndpoint::Public,
        version: facts.installed.to_string(),
        known: KnownFaults::default(),
        releases: None,
        config_file: None,
    };
    if matches!(to, ReleaseSource::RetainedOlder) {
        // A rollback only requests the import errors, because a faulty server may be the reason for the rollback.
        let import_errors = tokio::time::timeout(IMPORT_ERRORS_LIMIT, smoke.import_errors()).await;
        return Ok(KnownFaults { import_errors: import_errors.ok().and_then(Result::ok), ..KnownFaults::default() });
    }
    let response = tokio::time::timeout(KNOWN_FAULTS_LIMIT, smoke.known_faults()).await;
    response.unwrap_or(Err(SmokeError::NoAnswer(KNOWN_FAULTS_LIMIT))).map_err(|reason| {
        Error::failed("failed to read the import errors of the running instance").cause(reason).hint("leoflow smoke")
    })
}

/// Time limit of listing import errors before a rollback.
const IMPORT_ERRORS_LIMIT: Duration = Duration::from_secs(10);
