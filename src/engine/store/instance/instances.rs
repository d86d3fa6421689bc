//! Reads and locks task instances. Claims and outcomes of tries are in `tries.rs`, changes of states in `transition`.

use super::instance_fields::{InstanceField, InstanceFilter};
use crate::model::keys::{InstanceKey, RunKey, TryKey};
use crate::model::state::TaskState;
use crate::store::StoreError;
use crate::store::dag::versions::VersionName;
use crate::store::key_columns::KeyColumns;
use crate::store::list::listing::{ListPage, Listing};
use crate::store::list::page_query::Source;
use crate::store::rows;
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;

#[derive(Debug, Clone)]
pub struct Instance {
    pub key: InstanceKey,
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
    pub rendered: Option<String>,
    pub rendered_map_index: Option<String>,
    pub version: Option<VersionName>,
    pub note: Option<String>,
}

const COLUMNS: &str = "
    ti.*, coalesce(f.rendered_fields, ti.rendered)::text AS rendered_text, r.logical_date, r.run_after, v.version_number,
    v.created_at AS version_created_at,
    (SELECT pid FROM task_try t
     WHERE (t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number)
           = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number)) AS pid,
    (SELECT outcome FROM task_try t
     WHERE (t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number)
           = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number)) AS outcome";
const SOURCE: Source<'static> = Source {
    columns: COLUMNS,
    from: "task_instance ti",
    joins: &[
        ("r", "JOIN dag_run r USING (dag_id, run_id)"),
        ("v", "LEFT JOIN dag_version v ON v.id = r.dag_version_id"),
        (
            "f",
            "LEFT JOIN rendered_task_instance_fields f ON (f.dag_id, f.run_id, f.task_id, f.map_index)
                                                       = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)",
        ),
    ],
};

fn read(row: &Row) -> Result<Instance, StoreError> {
    Ok(Instance {
        key: rows::instance_key(row),
        state: rows::named_or_null(row, "state", TaskState::parse)?,
        try_number: row.get("try_number"),
        max_tries: row.get("max_tries"),
        operator: row.get("operator"),
        queued_at: row.get("queued_at"),
        start_date: row.get("start_date"),
        end_date: row.get("end_date"),
        due_at: row.get("due_at"),
        logical_date: row.get("logical_date"),
        run_after: row.get("run_after"),
        pid: row.get("pid"),
        outcome: row.get("outcome"),
        pool: row.get("pool"),
        pool_slots: row.get("pool_slots"),
        priority_weight: row.get("priority_weight"),
        scheduled_at: row.get("scheduled_at"),
        rendered: row.get("rendered_text"),
        rendered_map_index: row.get("rendered_map_index"),
        version: VersionName::read(row),
        note: row.get("note"),
    })
}

/// The instances of one run, ordered by task id and map index.
pub async fn of_run(client: &impl GenericClient, run: &RunKey) -> Result<Vec<Instance>, StoreError> {
    Ok(list(client, Listing::of(InstanceFilter::of_run(run))).await?.rows)
}

/// A page of instances of one or several runs.
pub async fn list(
    client: &impl GenericClient,
    listing: Listing<InstanceField>,
) -> Result<ListPage<Instance>, StoreError> {
    listing.fetch(client, &SOURCE, read).await?.transpose()
}

/// The instances with these keys, ordered by DAG, due date of the run, run, task and map index.
pub async fn by_keys(client: &impl GenericClient, keys: &[InstanceKey]) -> Result<Vec<Instance>, StoreError> {
    let columns = KeyColumns::new(keys);
    let from = SOURCE.full_from();
    let query = format!(
        "SELECT {COLUMNS} FROM {from}
         JOIN unnest($1::text[], $2::text[], $3::text[], $4::integer[]) AS chosen (dag_id, run_id, task_id, map_index)
              ON (chosen.dag_id, chosen.run_id, chosen.task_id, chosen.map_index)
                 = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
         ORDER BY ti.dag_id, r.run_after, ti.run_id, ti.task_id, ti.map_index"
    );
    client.query(&query, &columns.parameters()).await?.iter().map(read).collect()
}

/// Locks the instances until the transaction ends, so that the agent does not claim them. The caller must have locked
/// their runs first. Returns the states.
pub async fn lock(transaction: &Transaction<'_>, keys: &[InstanceKey]) -> Result<Vec<Option<TaskState>>, StoreError> {
    let columns = KeyColumns::new(keys);
    let query = "
        SELECT state FROM task_instance
        WHERE (dag_id, run_id, task_id, map_index)
              IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[]))
        ORDER BY dag_id, run_id, task_id, map_index FOR UPDATE";
    let state = |row: &Row| rows::named_or_null(row, "state", TaskState::parse);
    transaction.query(query, &columns.parameters()).await?.iter().map(state).collect()
}

/// Sets the note of the instances; `None` removes it.
pub async fn set_note(client: &impl GenericClient, keys: &[InstanceKey], note: Option<&str>) -> Result<(), StoreError> {
    let columns = KeyColumns::new(keys);
    let query = "
        UPDATE task_instance ti SET note = $5
        FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[]) AS chosen (dag_id, run_id, task_id, map_index)
        WHERE (chosen.dag_id, chosen.run_id, chosen.task_id, chosen.map_index)
              = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)";
    let [dags, runs, tasks, map_indices] = columns.parameters();
    client.execute(query, &[dags, runs, tasks, map_indices, &note]).await?;
    Ok(())
}

/// The keys of the instances of a task in a run, ordered by map index.
pub async fn of_task(client: &impl GenericClient, run: &RunKey, task_id: &str) -> Result<Vec<InstanceKey>, StoreError> {
    let query = "SELECT map_index FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 ORDER BY 1";
    let rows = client.query(query, &[&run.dag_id, &run.run_id, &task_id]).await?;
    let key = |map_index| InstanceKey { run: run.clone(), task_id: task_id.to_owned(), map_index };
    Ok(rows.iter().map(|row| key(row.get(0))).collect())
}

pub async fn get(client: &impl GenericClient, key: &InstanceKey) -> Result<Instance, StoreError> {
    let InstanceKey { run, task_id, map_index } = key;
    let from = SOURCE.full_from();
    let query = format!(
        "SELECT {COLUMNS} FROM {from} WHERE ti.dag_id = $1 AND ti.run_id = $2 AND ti.task_id = $3 AND ti.map_index = $4"
    );
    let row = client.query_opt(&query, &[&run.dag_id, &run.run_id, task_id, map_index]).await?;
    let not_found =
        || StoreError::NotFound { what: "task instance", id: format!("{}/{}/{task_id}", run.dag_id, run.run_id) };
    row.as_ref().map_or_else(|| Err(not_found()), read)
}

/// True if the try exists.
pub async fn has_try(client: &impl GenericClient, key: &TryKey) -> Result<bool, StoreError> {
    let TryKey { instance: InstanceKey { run, task_id, map_index }, try_number } = key;
    let query = "SELECT FROM task_try WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4
                 AND try_number = $5";
    let row = client.query_opt(query, &[&run.dag_id, &run.run_id, task_id, map_index, try_number]).await?;
    Ok(row.is_some())
}
