//! Undoes a restore: swaps the two states again, so that the undo can be undone.

use super::{Applied, current, refuse_obstacle};
use crate::backup::RestoreError;
use crate::backup::content::Content;
use crate::backup::create::dump;
use crate::backup::restore::restore_dir::{self, RestoreDir, RetainedState, When};
use crate::backup::restore::{self, obstacles};
use crate::operation::open::Datastore;
use crate::operation::summary::{self, Summary};
use crate::operation::{DryRun, OperationContext, OperationError, instance};
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_postgres::Login;
use leoflow_postgres::schema::embedded::newest;
use leoflow_postgres::schema::{self, SchemaError, known};
use std::collections::BTreeMap;

/// Names the holder of the locks in other processes' messages.
const COMMAND: &str = "leoflow lite restore --undo";

/// An undo that may be applied.
pub struct UndoPlan<'a> {
    pub retained: RetainedState,
    /// The changes of row counts since the restore, for the user.
    pub changes: Vec<String>,
    context: OperationContext<'a>,
    /// Row counts of the state that becomes current.
    rows: BTreeMap<String, i64>,
    datastore: Datastore,
    operation_lock: OperationLock,
}

/// Takes the locks, and reads both states.
pub async fn plan<'a>(context: &OperationContext<'a>, dry_run: DryRun) -> Result<UndoPlan<'a>, OperationError> {
    let home = context.home;
    match dry_run {
        DryRun::Yes => context.refuse_interrupted()?,
        DryRun::No => context.finish_first(COMMAND).await?,
    }
    let (restore_dir, retained) = find_retained(home)?;
    instance::refuse_in_terminal(home)?;
    let operation_lock = OperationLock::take(home, COMMAND)?;
    let datastore = Datastore::open(context, COMMAND).await?;
    if dry_run == DryRun::No {
        context.clean_up(Some(&datastore.access)).await?;
    }
    let current = Summary::of_current(context, &datastore).await?;
    let rows = count_kept(&datastore, &restore_dir).await?;
    let changes = summary::changes(&retained.rows, &current.rows);
    Ok(UndoPlan { retained, changes, context: *context, rows, datastore, operation_lock })
}

/// Swaps the two states. Returns the state that is retained now.
pub async fn apply(plan: UndoPlan<'_>) -> Applied<RetainedState> {
    let UndoPlan { context, rows, datastore, operation_lock, .. } = plan;
    let mut stopped = None;
    let outcome = async {
        let datastore = current::open_exclusively(&context, datastore, &mut stopped).await?;
        Ok(restore::undo(context.home, &datastore.access, rows).await?)
    }
    .await;
    drop(operation_lock);
    Applied { outcome, stopped }
}

/// Finds the state to bring back. Fails if none is kept, if it is unreadable, or if an obstacle prevents the renames.
fn find_retained(home: &Home) -> Result<(RestoreDir, RetainedState), OperationError> {
    let retained = restore_dir::retained(home).map_err(OperationError::io("read", &home.restore()))?;
    let (restore_dir, retained) = retained.ok_or(RestoreError::NoRetainedState)?;
    if let Some(datastore) = &retained.unreadable {
        let other_files = restore_dir.folder().to_owned();
        return Err(OperationError::RetainedUnreadable { datastore: datastore.clone(), other_files });
    }
    let obstacle = obstacles::find_in_exchange(home, retained.workspace.as_deref());
    refuse_obstacle(obstacle.map_err(OperationError::io("read", home.root()))?)?;
    Ok((restore_dir, retained))
}

/// Counts the rows of the kept state, whose schema this program must know.
async fn count_kept(datastore: &Datastore, restore_dir: &RestoreDir) -> Result<BTreeMap<String, i64>, OperationError> {
    let access = &datastore.access;
    if !access.owns_server() {
        let path = restore_dir.content(When::After);
        let content = Content::at(&path).map_err(OperationError::io("read", &path))?;
        let facts = content.ok_or(RestoreError::RetainedStateMissing(path))?.facts;
        return match facts.schema_version > newest(known()) {
            true => Err(newer_schema(facts.schema_version, newest(known()))),
            false => Ok(facts.rows),
        };
    }
    let login = Login { database: restore_dir.id.standby_database(), ..access.application() };
    let client = access.connect(&login).await?;
    let state = schema::classify(known(), &schema::inspect(&client).await?);
    match schema::refusal(&state) {
        None => Ok(dump::count_all(&client).await?),
        Some(SchemaError::Newer { database, binary }) => Err(newer_schema(database, binary)),
        Some(error) => Err(error.into()),
    }
}

fn newer_schema(database: i64, binary: i64) -> OperationError {
    OperationError::RetainedSchemaNewer { database, binary }
}
