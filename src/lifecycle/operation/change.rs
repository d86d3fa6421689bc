//! What upgrades and rollbacks share: the facts, and the application of a plan by a worker.

use super::open::{Datastore, interrupted_upgrade, refuse_during_rollback};
use super::{OperationContext, OperationError};
use crate::upgrade::host::Host;
use crate::upgrade::plan::{Instance, UpgradeFacts, UpgradePlan};
use crate::upgrade::smoke::{KnownFaults, ServerEndpoint, Smoke, SmokeError};
use crate::upgrade::{self, Notes, Outcome, ReleaseSource, UpgradeContext, UpgradeError, facts};
use leoflow_base::config::Config;
use leoflow_base::home::progress::{Progress, Reporter};
use std::time::Duration;

/// The facts that a change of release depends on, and the open datastore that they were read from.
pub struct Gathered {
    pub facts: UpgradeFacts,
    pub datastore: Datastore,
}

impl Gathered {
    /// Opens the datastore and gathers the facts. If Lite is stopped, its datastore is started for this. Other commands
    /// see `command` while this one holds the home.
    pub async fn open(context: &OperationContext<'_>, command: &str) -> Result<Self, OperationError> {
        let home = context.home;
        let datastore = Datastore::open(context, command).await?;
        let instance = match datastore.is_of_running_instance {
            true => facts::running_instance(home),
            false => Instance::Stopped,
        };
        let client = datastore.connect().await?;
        let config = context.config()?.map(|loaded| loaded.config);
        let facts = facts::gather(home, config.as_ref(), context.version, instance, &client).await?;
        Ok(Self { facts, datastore })
    }
}

impl OperationContext<'_> {
    /// Refuses while another change of release is interrupted.
    pub fn refuse_interrupted_change(&self) -> Result<(), OperationError> {
        refuse_during_rollback(self.home)?;
        match interrupted_upgrade(self.home)? {
            Some(_) => Err(OperationError::ChangeInterrupted("an upgrade was interrupted".to_owned())),
            None => Ok(()),
        }
    }
}

/// A change of release to apply.
pub struct Change<'a> {
    pub plan: UpgradePlan,
    pub source: ReleaseSource<'a>,
    /// True with `--no-rollback`: a failed release stays for inspection.
    pub no_rollback: bool,
    /// Reports the steps to the watching command.
    pub reporter: &'a dyn Reporter,
}

impl Change<'_> {
    /// Applies the plan. The caller holds the operation lock.
    pub async fn apply(
        self,
        context: &OperationContext<'_>,
        config: &Config,
        gathered: Gathered,
        cancelled: impl Future<Output = ()>,
    ) -> Result<Outcome, OperationError> {
        let Self { plan, source, no_rollback, reporter } = self;
        let home = context.home;
        let (access, server_and_lock) = gathered.datastore.into_parts();
        let host = match server_and_lock {
            Some((server, lock)) => Host::stopped(server, Some(lock)),
            None => Host::live(home).map_err(OperationError::Instance)?.ok_or(OperationError::NotRunning)?,
        };
        let mut cancelled = std::pin::pin!(cancelled);
        reporter.report(Progress::Started("Checking the running release".to_owned()));
        let known = tokio::select! {
            known = known_faults(&gathered.facts, config, source) => known?,
            () = &mut cancelled => return Err(UpgradeError::Cancelled.into()),
        };
        let upgrade_context = UpgradeContext {
            home,
            access,
            config,
            own_version: context.version,
            host,
            reporter,
            no_rollback,
            notes: Notes::default(),
        };
        Ok(upgrade::upgrade(upgrade_context, plan, source, known, cancelled).await?)
    }
}

/// Time limit for collecting all known faults. The running release may not respond, and the upgrade must not wait
/// longer.
const KNOWN_FAULTS_LIMIT: Duration = Duration::from_secs(120);
/// Time limit of listing import errors before a rollback.
const IMPORT_ERRORS_LIMIT: Duration = Duration::from_secs(10);

/// Collects the faults of the running release, which do not count against the new one.
async fn known_faults(
    facts: &UpgradeFacts,
    config: &Config,
    to: ReleaseSource<'_>,
) -> Result<KnownFaults, OperationError> {
    if facts.instance != Instance::Healthy {
        return Ok(KnownFaults::default());
    }
    let smoke = Smoke::new(config, ServerEndpoint::Public, facts.installed.to_string());
    if matches!(to, ReleaseSource::RetainedOlder) {
        // A rollback only requests the import errors, because a faulty server may be the reason for the rollback.
        let import_errors = tokio::time::timeout(IMPORT_ERRORS_LIMIT, smoke.import_errors()).await;
        return Ok(KnownFaults { import_errors: import_errors.ok().and_then(Result::ok), ..KnownFaults::default() });
    }
    let response = tokio::time::timeout(KNOWN_FAULTS_LIMIT, smoke.known_faults()).await;
    response.unwrap_or(Err(SmokeError::NoAnswer(KNOWN_FAULTS_LIMIT))).map_err(OperationError::KnownFaults)
}
