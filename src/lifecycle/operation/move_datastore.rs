//! Moves the data to another datastore.

use super::instance::{self, StoppedInstance};
use super::open::AfterUpgrade;
use super::open::datastore::{self, Datastore};
use super::restore::Applied;
use super::{DryRun, OperationContext, OperationError, set_up};
use crate::backup::relocation::{self, Relocation};
use crate::backup::restore::restore_dir;
use crate::upgrade::rollback::snapshot;
use leoflow_base::config::DatastoreSetting;
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::sys::fs::disk;
use leoflow_postgres::databases;
use leoflow_postgres::external::database_check;
use leoflow_postgres::location::{self, Kind, LocationError};

/// Names the holder of the locks in other processes' messages.
const COMMAND: &str = "leoflow lite move-datastore";

/// A move that may be applied.
pub struct MovePlan<'a> {
    pub relocation: Relocation,
    /// True when the last restore can no longer be undone afterwards.
    pub ends_undo: bool,
    context: OperationContext<'a>,
    operation_lock: OperationLock,
}

/// Checks both datastores, and plans the move, or only a change of the address if both addresses lead to the same
/// database.
pub async fn plan<'a>(
    context: &OperationContext<'a>,
    to: &DatastoreSetting,
    dry_run: DryRun,
) -> Result<MovePlan<'a>, OperationError> {
    let home = context.home;
    match dry_run {
        DryRun::Yes => context.refuse_interrupted()?,
        DryRun::No => context.finish_first(COMMAND).await?,
    }
    datastore::check(home)?;
    refuse_same(home, to)?;
    set_up::check_datastore(home, to, context.reporter).await?;
    let relocation = match is_same_database(home, to).await? {
        true => Relocation::plan_address(home, to)?,
        false => Relocation::plan(home, to)?,
    };
    instance::refuse_in_terminal(home)?;
    let operation_lock = OperationLock::take(home, COMMAND)?;
    if !relocation.is_same() {
        check_disk_space(context).await?;
    }
    let ends_undo = !relocation.is_same() && restore_dir::retained(home).is_ok_and(|retained| retained.is_some());
    Ok(MovePlan { relocation, ends_undo, context: *context, operation_lock })
}

/// Moves the data and returns the number of rows, or only changes the address and returns 0. A running instance is
/// stopped.
pub async fn apply(plan: MovePlan<'_>) -> (Relocation, Applied<i64>) {
    let MovePlan { relocation, context, operation_lock, .. } = plan;
    let mut stopped = None;
    let outcome = relocate(&context, &relocation, &mut stopped).await;
    drop(operation_lock);
    (relocation, Applied { outcome, stopped })
}

async fn relocate(
    context: &OperationContext<'_>,
    relocation: &Relocation,
    stopped: &mut Option<StoppedInstance>,
) -> Result<i64, OperationError> {
    let &OperationContext { home, reporter, .. } = context;
    instance::stop(context, stopped)?;
    if relocation.is_same() {
        let _home_lock = context.take_home(COMMAND, None, AfterUpgrade::GoOn).await?;
        return Ok(relocation::readdress(home, relocation, reporter).await.map(|()| 0)?);
    }
    let opened = Datastore::open(context, COMMAND).await?;
    if opened.is_of_running_instance {
        *stopped = None;
        return Err(OperationError::StartedMeanwhile);
    }
    drop(opened.connect().await?);
    let (access, server) = opened.into_parts();
    let (server, _home_lock) = server.unzip();
    let rows = relocation::relocate(home, (&access, server), relocation, reporter).await?;
    // Upgrade snapshots are in the old datastore.
    snapshot::forget_all(home).map_err(OperationError::io("write", &home.upgrade()))?;
    Ok(rows)
}

/// Refuses a move to the current datastore; another password or address of the same datastore is allowed. The home's
/// record decides where the data is, not config.yaml, which may have been edited.
fn refuse_same(home: &Home, to: &DatastoreSetting) -> Result<(), OperationError> {
    let recorded = location::recorded(home)?;
    let is_same = match (recorded.as_ref().map(|recorded_location| recorded_location.kind), to) {
        (None, DatastoreSetting::Managed) | (Some(Kind::Docker), DatastoreSetting::Docker) => true,
        (Some(Kind::External), _) => *to == location::configured(home)? && location::is_configured(home)?,
        _ => false,
    };
    if !is_same {
        return Ok(());
    }
    let datastore =
        recorded.map_or("the datastore under the home".to_owned(), |recorded_location| recorded_location.display_text);
    let is_configured = location::is_configured(home).unwrap_or(false);
    Err(OperationError::SameDatastore { datastore, setting: (!is_configured).then(|| to.clone()) })
}

/// True when the recorded and the requested URL lead to the same database. If the recorded one cannot be reached, the
/// requested database counts as the same if it contains this home's claim and the data was not moved away from it.
async fn is_same_database(home: &Home, to: &DatastoreSetting) -> Result<bool, OperationError> {
    let Some(recorded_location) =
        location::recorded(home)?.filter(|recorded_location| recorded_location.kind == Kind::External)
    else {
        return Ok(false);
    };
    let Some(to) = to.external().map_err(LocationError::Url)? else { return Ok(false) };
    if recorded_location.is_at(&to) {
        return Ok(true);
    }
    if let Ok(from) = location::external(home)
        && let Ok(is_same) = database_check::are_the_same(&from, &to).await
    {
        return Ok(is_same);
    }
    let claim = database_check::read_info(&to).await?.claim;
    Ok(claim.is_some_and(|claim| claim.home_id == recorded_location.home_id && claim.moved_to.is_none()))
}

/// Additional bytes for a new cluster and the write-ahead log.
const MARGIN_BYTES: u64 = 256 * 1024 * 1024;

/// Checks the disk space of the home: the dump is written to this machine's disk, where the new cluster may be, too.
async fn check_disk_space(context: &OperationContext<'_>) -> Result<(), OperationError> {
    let opened = Datastore::open(context, COMMAND).await?;
    let client = opened.connect().await?;
    let bytes = databases::size(&client, None).await?;
    let needed = bytes.saturating_mul(2).saturating_add(MARGIN_BYTES);
    let root = context.home.root();
    let free = disk::free_bytes(root).map_err(OperationError::io("read", root))?;
    match free < needed {
        true => Err(OperationError::NoSpaceToMove { path: root.to_owned(), needed, free }),
        false => Ok(()),
    }
}
