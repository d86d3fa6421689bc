//! Reads and locks task instances, and lists their tries. Claims and outcomes of tries are in `tries.rs`, changes of
//! states in `transition`.

use crate::model::keys::{InstanceKey, Position, RunKey, TryKey};
use crate::model::state::{TaskState, TryState};
use crate::store::dag::versions::{VERSION_NAME, VersionName};
use crate::store::instance_key::{INSTANCE, KEY, KeyColumns, TRY, loop_id, map_index_of};
use crate::store::list::field::{filter, list_fields};
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{FromRow, execute, exists, fetch_all, fetch_optional, from_row, get as column};
use crate::store::{Result, StoreError};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::sync::LazyLock;

from_row! {
    #[derive(Debug, Clone)]
    pub struct Instance {
        pub key: InstanceKey => InstanceKey::from_row,
        pub state: Option<TaskState>,
        pub try_number: i32,
        pub max_tries: i32,
        pub operator: Option<String>,
        pub queued_at: Option<Timestamp>,
        pub start_date: Option<Timestamp>,
        pub end_date: Option<Timestamp>,
        /// When an instance that waits for a time is due.
        pub due_at: Option<Timestamp>,
        pub logical_date: Option<Timestamp>,
        pub run_after: Timestamp,
        pub pid: Option<i32>,
        /// The outcome of the newest try, as a text for users.
        pub outcome: Option<String>,
        pub pool: String,
        pub pool_slots: i32,
        pub priority_weight: i32,
        pub scheduled_at: Option<Timestamp>,
        /// The rendered template fields, as JSON.
        pub rendered: Option<String> = "rendered_text",
        pub rendered_map_index: Option<String>,
        pub version: Option<VersionName> => VersionName::of_run,
        pub note: Option<String>,
        /// The loop that contains the task.
        pub loop_id: Option<String>,
    }
}

static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    let same_try = TRY.same("t", "ti");
    format!(
        "ti.*, coalesce(f.rendered_fields, ti.rendered)::text AS rendered_text, r.logical_date, r.run_after, {VERSION_NAME},
         (SELECT pid FROM task_try t WHERE {same_try}) AS pid,
         (SELECT outcome FROM task_try t WHERE {same_try}) AS outcome,
         {} AS loop_id",
        loop_id("ti")
    )
});
static RENDERED: LazyLock<String> =
    LazyLock::new(|| format!("LEFT JOIN rendered_task_instance_fields f ON {}", INSTANCE.same("f", "ti")));
static JOINS: LazyLock<[(&str, &str); 3]> = LazyLock::new(|| {
    [
        ("r", "JOIN dag_run r USING (dag_id, run_id)"),
        ("v", "LEFT JOIN dag_version v ON v.id = r.dag_version_id"),
        ("f", RENDERED.as_str()),
    ]
});

fn source() -> Source<'static> {
    Source { columns: &COLUMNS, from: "task_instance ti", joins: &*JOINS }
}

/// The instances of one run, ordered by task id and map index.
pub async fn of_run(client: &impl GenericClient, run: &RunKey) -> Result<Vec<Instance>> {
    Ok(list(client, Listing::of(InstanceFilter::of_run(run))).await?.rows)
}

/// A page of instances of one or several runs.
pub async fn list(client: &impl GenericClient, listing: Listing<InstanceField>) -> Result<ListPage<Instance>> {
    listing.fetch(client, &source()).await
}

/// The SELECT statement of instances, up to the tables.
fn select() -> String {
    format!("SELECT {} FROM {}", *COLUMNS, source().full_from())
}

/// The instances with these keys, ordered by DAG, due date of the run, run, task and map index.
pub async fn by_keys(client: &impl GenericClient, keys: &[InstanceKey]) -> Result<Vec<Instance>> {
    let query = format!(
        "{} JOIN {} AS chosen ({KEY}) ON {} ORDER BY ti.dag_id, r.run_after, ti.run_id, ti.task_id, ti.map_index",
        select(),
        INSTANCE.unnest(1),
        INSTANCE.same("chosen", "ti")
    );
    fetch_all(client, &query, &KeyColumns::new(keys).after(&[])).await
}

/// Locks the instances until the transaction ends, so that the agent does not claim them. The caller must have locked
/// their runs first. Returns the states.
pub async fn lock(transaction: &Transaction<'_>, keys: &[InstanceKey]) -> Result<Vec<Option<TaskState>>> {
    let query = format!(
        "SELECT state FROM task_instance WHERE ({KEY}) IN (SELECT * FROM {}) ORDER BY {KEY} FOR UPDATE",
        INSTANCE.unnest(1)
    );
    fetch_all(transaction, &query, &KeyColumns::new(keys).after(&[])).await
}

/// Sets the note of the instances; `None` removes it.
pub async fn set_note(client: &impl GenericClient, keys: &[InstanceKey], note: Option<&str>) -> Result<()> {
    let query = format!(
        "UPDATE task_instance ti SET note = $1 FROM {} AS chosen ({KEY}) WHERE {}",
        INSTANCE.unnest(2),
        INSTANCE.same("chosen", "ti")
    );
    execute(client, &query, &KeyColumns::new(keys).after(&[&note])).await
}

/// The keys of the instances of a task in a run, ordered by map index.
pub async fn of_task(client: &impl GenericClient, run: &RunKey, task_id: &str) -> Result<Vec<InstanceKey>> {
    let query = format!(
        "SELECT {KEY} FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 ORDER BY map_index"
    );
    fetch_all(client, &query, &[&run.dag_id, &run.run_id, &task_id]).await
}

/// The keys of the instances of a run, each with the number of its newest try.
pub async fn attempts_of_run(client: &impl GenericClient, run: &RunKey) -> Result<Vec<(InstanceKey, i32)>> {
    let query = format!("SELECT {KEY}, try_number FROM task_instance WHERE dag_id = $1 AND run_id = $2");
    let rows = client.query(&query, &[&run.dag_id, &run.run_id]).await?;
    rows.iter().map(|row| Ok((InstanceKey::from_row(row)?, column(row, "try_number")?))).collect()
}

pub async fn get(client: &impl GenericClient, key: &InstanceKey) -> Result<Instance> {
    let query = format!("{} WHERE {}", select(), INSTANCE.is("ti", 1));
    let InstanceKey { run, task_id, .. } = key;
    let id = || format!("{}/{}/{task_id}", run.dag_id, run.run_id);
    let instance = fetch_optional(client, &query, &key.after(&[])).await?;
    instance.ok_or_else(|| StoreError::NotFound { what: "task instance", id: id() })
}

/// Gives instances with map index -1 the map index 0, once the length of the list is known. Deletes rows that an earlier
/// try wrote with map index -1, because they no longer belong to any instance. The caller must have locked the run.
pub(crate) async fn expand(transaction: &Transaction<'_>, unmapped: &[InstanceKey]) -> Result<()> {
    let keys = KeyColumns::new(unmapped);
    for table in ["task_try", "xcom", "task_trigger", "hitl_detail"] {
        let delete = format!("DELETE FROM {table} WHERE ({KEY}) IN (SELECT * FROM {})", INSTANCE.unnest(1));
        execute(transaction, &delete, &keys.after(&[])).await?;
    }
    // The next position, also in an iteration of a loop.
    let set_index = format!(
        "UPDATE task_instance SET map_index = map_index + 1 WHERE ({KEY}) IN (SELECT * FROM {})",
        INSTANCE.unnest(1)
    );
    execute(transaction, &set_index, &keys.after(&[])).await
}

/// True if the try exists.
pub async fn has_try(client: &impl GenericClient, key: &TryKey) -> Result<bool> {
    exists(client, &format!("SELECT FROM task_try WHERE {}", TRY.is("task_try", 1)), &key.after(&[])).await
}

from_row! {
    /// A try, finished or running.
    #[derive(Debug)]
    pub struct Try {
        pub number: i32 = "try_number",
        pub state: TryState,
        pub pid: Option<i32>,
        pub start_date: Timestamp,
        pub end_date: Option<Timestamp>,
    }
}

/// All tries of an instance, ordered by number. An instance that waits for its first start has none.
pub async fn tries(client: &impl GenericClient, key: &InstanceKey) -> Result<Vec<Try>> {
    // While a try runs or waits, its start is that of its newest process; once it has ended, that of its first process.
    let query = format!(
        "SELECT try_number, state, pid, end_date,
                CASE WHEN state IN ('running', 'up_for_reschedule', 'deferred', 'awaiting_input') THEN start_date
                     ELSE coalesce(first_start_date, start_date) END AS start_date
         FROM task_try WHERE {} ORDER BY try_number",
        INSTANCE.is("task_try", 1)
    );
    fetch_all(client, &query, &key.after(&[])).await
}

/// The date of the last change of the state; the column `updated_at` is that of the changes without a date of their own.
const UPDATED_AT: &str = "greatest(ti.updated_at, ti.scheduled_at, ti.queued_at, ti.start_date, ti.end_date)";

/// The text for the map index; NULL for an instance that is not mapped.
static RENDERED_MAP_INDEX: LazyLock<String> =
    LazyLock::new(|| format!("coalesce(ti.rendered_map_index, nullif({}, -1)::text)", map_index_of("ti.map_index")));

list_fields! {
    /// Fields of task instances, for lists. The key has the order of the primary key.
    InstanceField, key: [DagId, RunId, TaskId, MapIndex], filter: InstanceFilter;
    DagId = text("ti.dag_id"),
    RunId = text("ti.run_id"),
    TaskId = text("ti.task_id"),
    MapIndex = whole("ti.map_index"),
    State = text("ti.state"),
    /// `none` for an instance without a state.
    StateOrNone = text("coalesce(ti.state, 'none')"),
    TryNumber = whole("ti.try_number"),
    StartDate = time("ti.start_date"),
    EndDate = time("ti.end_date"),
    /// Seconds.
    Duration = number("extract(epoch FROM ti.end_date - ti.start_date)::float8"),
    UpdatedAt = time(UPDATED_AT),
    LogicalDate = time("r.logical_date"),
    RunAfter = time("r.run_after"),
    IntervalStart = time("r.data_interval_start"),
    IntervalEnd = time("r.data_interval_end"),
    RenderedMapIndex = text(&RENDERED_MAP_INDEX),
    Operator = text("ti.operator"),
    QueuedAt = time("ti.queued_at"),
    ScheduledAt = time("ti.scheduled_at"),
    Pool = text("ti.pool"),
    /// Always `default`: there is only one queue.
    Queue = text("'default'::text"),
    /// Always NULL: there is only one executor, which tasks do not name.
    Executor = text("NULL::text"),
    VersionNumber = whole("v.version_number"),
}

filter! {
    /// Filters of task instances.
    pub struct InstanceFilter {
        dag_id: String = "ti.dag_id = {}",
        run_id: String = "ti.run_id = {}",
        /// An empty list selects no instance.
        task_ids: Vec<String> = "ti.task_id = ANY ({})",
        /// Selects the expanded instances of this mapped task.
        mapped_task_id: String = &format!("ti.task_id = {{}} AND {} >= 0", map_index_of("ti.map_index")),
        // Bounds of the positions, both included.
        first: Position = "ti.map_index >= {}",
        last: Position = "ti.map_index <= {}",
        /// Selects the instances whose state changed after this time.
        changed_after: Timestamp = &format!("{UPDATED_AT} > {{}}"),
    }
}

impl InstanceFilter {
    pub fn of_run(run: &RunKey) -> Self {
        Self { dag_id: Some(run.dag_id.clone()), run_id: Some(run.run_id.clone()), ..Self::default() }
    }
}
