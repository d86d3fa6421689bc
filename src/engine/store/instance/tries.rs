//! The agent's statements about task instances. The agent claims queued instances, records how each try ended, and puts
//! a try that cannot start back into the queue. It writes the states `running` and `queued`; the scheduler and users
//! write every other state.

use super::claimed::{self, Claimed};
use super::triggers::{self, Deferral};
use super::xcoms::{self, RETURNED};
use crate::model::keys::{InstanceKey, TryKey};
use crate::model::state::TryState;
use crate::store::StoreError;
use crate::store::events::{self, Event};
use crate::store::rows;
use crate::store::run::new_run;
pub use crate::store::transition::claim::requeue;
use crate::store::transition::claim::{self, Claim};
use jiff::Timestamp;
use leoflow_base::sys::process::ProcessId;
use leoflow_postgres::GenericClient;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tokio_postgres::types::{Json, ToSql};

/// Maximum number of tasks that the agent runs at once: Airflow's `parallelism`.
pub const SLOTS: usize = 32;

pub fn token_hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// Claims up to `limit` queued task instances, highest priority and oldest first, in one statement. An instance whose
/// last try is still being stopped is not claimed yet.
pub async fn claim(
    client: &impl GenericClient,
    limit: usize,
    boot_id: &str,
    new_token: impl Fn() -> String,
) -> Result<Vec<Claimed>, StoreError> {
    let tokens: Vec<String> = (0..limit).map(|_| new_token()).collect();
    let hashes: Vec<Vec<u8>> = tokens.iter().map(|token| token_hash(token)).collect();
    let claim = Claim { limit, boot_id, token_hashes: &hashes };
    let claimed = claim::claim(client, &claim, new_run::now()).await?;
    let with_token = |(number, claimed): (i64, Claimed)| {
        let token = usize::try_from(number - 1).ok().and_then(|index| tokens.get(index)).cloned();
        let unknown = || StoreError::UnknownValue { column: "number", value: number.to_string() };
        Ok(Claimed { token: token.ok_or_else(unknown)?, ..claimed })
    };
    claimed.into_iter().map(with_token).collect()
}

/// True if there are queued instances that `claim` would take, unless another transaction has locked them.
pub async fn is_any_claimable(client: &impl GenericClient) -> Result<bool, StoreError> {
    let query = "
        SELECT EXISTS (SELECT FROM task_instance q WHERE state = 'queued' AND NOT EXISTS (
            SELECT FROM task_try t WHERE t.state = 'running' AND (t.dag_id, t.run_id, t.task_id, t.map_index)
                                         = (q.dag_id, q.run_id, q.task_id, q.map_index)))";
    Ok(client.query_one(query, &[]).await?.get(0))
}

/// Try keys as one array per column, for `unnest`.
struct Columns<'a> {
    dags: Vec<&'a str>,
    runs: Vec<&'a str>,
    tasks: Vec<&'a str>,
    map_indexes: Vec<i32>,
    try_numbers: Vec<i32>,
}

impl<'a> Columns<'a> {
    fn new(keys: impl Iterator<Item = &'a TryKey>) -> Self {
        let mut columns = Self { dags: vec![], runs: vec![], tasks: vec![], map_indexes: vec![], try_numbers: vec![] };
        for key in keys {
            let TryKey { instance: InstanceKey { run, task_id, map_index }, try_number } = key;
            columns.dags.push(&run.dag_id);
            columns.runs.push(&run.run_id);
            columns.tasks.push(task_id);
            columns.map_indexes.push(*map_index);
            columns.try_numbers.push(*try_number);
        }
        columns
    }
}

/// A try that is running according to the database. `boot_id` identifies the boot of the machine in which it was
/// claimed.
#[derive(Debug, Clone)]
pub struct Unfinished {
    pub claimed: Claimed,
    pub boot_id: Option<String>,
}

/// Returns all unfinished tries, for an agent that starts. Their tokens are empty, since the database has only hashes;
/// `renew_token` sets a new one.
pub async fn unfinished(client: &impl GenericClient) -> Result<Vec<Unfinished>, StoreError> {
    let query = "
        SELECT t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number, t.boot_id, ti.max_tries,
               r.dag_version_id, r.run_type, r.logical_date, r.data_interval_start, r.data_interval_end, r.run_after,
               r.start_date AS run_start_date, r.conf, r.note, r.triggered_by, r.partition_key, r.partition_date,
               false AS goes_on, t.first_start_date, t.reschedules, w.next_method, w.next_kwargs
        FROM task_try t JOIN task_instance ti USING (dag_id, run_id, task_id, map_index)
        JOIN dag_run r USING (dag_id, run_id)
        LEFT JOIN task_trigger w ON (w.dag_id, w.run_id, w.task_id, w.map_index, w.try_number, w.resumed_at)
                                  = (t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number, t.start_date)
        WHERE t.state = 'running'";
    let rows = client.query(query, &[]).await?;
    rows.iter().map(|row| Ok(Unfinished { claimed: claimed::read(row)?, boot_id: row.get("boot_id") })).collect()
}

/// The running tries, as texts for users.
pub async fn running_names(client: &tokio_postgres::Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let query = "SELECT dag_id, run_id, task_id, map_index, try_number FROM task_try WHERE state = 'running'
                 ORDER BY dag_id, run_id, task_id, map_index";
    Ok(client.query(query, &[]).await?.iter().map(|row| rows::try_key(row).to_string()).collect())
}

/// Identifies the database. A restored or copied one has another id.
pub async fn datastore_id(client: &impl GenericClient) -> Result<String, StoreError> {
    let query = "SELECT concat_ws('/', system_identifier, oid) FROM pg_control_system(), pg_database
                 WHERE datname = current_database()";
    Ok(client.query_one(query, &[]).await?.get(0))
}

/// Replaces the token of a try that has not started.
pub async fn renew_token(client: &impl GenericClient, key: &TryKey, token: &str) -> Result<(), StoreError> {
    let query = "UPDATE task_try SET token_hash = $6 WHERE dag_id = $1 AND run_id = $2 AND task_id = $3
                 AND map_index = $4 AND try_number = $5";
    let hash = token_hash(token);
    let TryKey { instance: InstanceKey { run, task_id, map_index }, try_number } = key;
    client.execute(query, &[&run.dag_id, &run.run_id, task_id, map_index, try_number, &hash]).await?;
    Ok(())
}

/// Records that these tries still run, with their processes.
pub async fn heartbeat(client: &impl GenericClient, alive: &[(TryKey, ProcessId)]) -> Result<(), StoreError> {
    let columns = Columns::new(alive.iter().map(|(key, _)| key));
    let pids: Vec<i32> = alive.iter().map(|(_, process)| process.pid).collect();
    let starts: Vec<i64> = alive.iter().map(|(_, process)| process.start_ticks as i64).collect();
    let query = "
        UPDATE task_try t SET heartbeat_at = now(), pid = beat.pid, pid_start = beat.pid_start
        FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::integer[], $6::integer[], $7::bigint[])
             AS beat (dag_id, run_id, task_id, map_index, try_number, pid, pid_start)
        WHERE (t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number)
              = (beat.dag_id, beat.run_id, beat.task_id, beat.map_index, beat.try_number) AND t.state = 'running'";
    let Columns { dags, runs, tasks, map_indexes, try_numbers } = &columns;
    client.execute(query, &[dags, runs, tasks, map_indexes, try_numbers, &pids, &starts]).await?;
    Ok(())
}

/// Running tries that must be stopped, because the state of their instance was changed.
pub async fn to_stop(client: &impl GenericClient) -> Result<Vec<TryKey>, StoreError> {
    let query = "SELECT t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number
                 FROM task_try t JOIN task_instance ti USING (dag_id, run_id, task_id, map_index)
                 WHERE t.state = 'running' AND ti.state IS DISTINCT FROM 'running'";
    Ok(client.query(query, &[]).await?.iter().map(rows::try_key).collect())
}

/// The outcome of a try.
#[derive(Debug, Clone)]
pub struct Ended {
    pub key: TryKey,
    pub state: TryState,
    pub may_retry: bool,
    /// The outcome as a text for users.
    pub outcome: Option<String>,
    pub end_date: Timestamp,
    /// XComs of a successful try: JSON by key.
    pub xcoms: BTreeMap<String, String>,
    /// Number of elements of the return value, if other tasks are mapped over it.
    pub mapped_length: Option<i32>,
    /// When a rescheduled sensor pokes again, or when a failed task is retried if it has set the time.
    pub due: Option<Timestamp>,
    pub deferral: Option<Deferral>,
    /// Tasks that the try has decided to skip immediately.
    pub skipped_tasks: Vec<String>,
    /// Asset events that the task reported.
    pub asset_events: Option<Value>,
    /// The rendered template fields, and the rendered name of a mapped instance.
    pub rendered: Option<Value>,
    pub rendered_map_index: Option<String>,
}

/// Whether a failed try may be followed by another one, if the task has retries left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Allowed,
    Never,
}

impl Ended {
    pub fn failed(key: TryKey, retry: Retry, outcome: String, end_date: Timestamp) -> Self {
        Self {
            key,
            state: TryState::Failed,
            may_retry: retry == Retry::Allowed,
            outcome: Some(outcome),
            end_date,
            xcoms: BTreeMap::new(),
            mapped_length: None,
            due: None,
            deferral: None,
            skipped_tasks: Vec::new(),
            asset_events: None,
            rendered: None,
            rendered_map_index: None,
        }
    }
}

/// Records the end of a running try with its rendered fields. `xcoms::RETURNED` follows, and then the part for a
/// deferral if there is one.
const RECORD: &str = "
        WITH ended AS (
            UPDATE task_try SET state = $6, may_retry = $7, outcome = $8, end_date = greatest($9, start_date),
                   token_hash = NULL, due_at = $10, skipped_tasks = nullif($11::text[], '{}'), asset_events = $12,
                   first_start_date = CASE WHEN $6 IN ('up_for_reschedule', 'deferred', 'awaiting_input')
                                           THEN coalesce(first_start_date, start_date) ELSE first_start_date END
            WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND try_number = $5
              AND state = 'running'
            -- Start of a sensor's first poke or of a deferred task: once the task has ended, its duration counts from
            -- there.
            RETURNING try_number, CASE WHEN $6 NOT IN ('up_for_reschedule', 'deferred', 'awaiting_input')
                                       THEN first_start_date END AS began_at),
        shown AS (
            INSERT INTO rendered_task_instance_fields (dag_id, run_id, task_id, map_index, rendered_fields)
            SELECT $1, $2, $3, $4, $13 FROM ended WHERE $13::json IS NOT NULL
            ON CONFLICT (dag_id, run_id, task_id, map_index) DO UPDATE SET rendered_fields = EXCLUDED.rendered_fields),
        named AS (
            UPDATE task_instance ti SET rendered_map_index = CASE WHEN $15 THEN $14 ELSE ti.rendered_map_index END,
                   start_date = coalesce(ended.began_at, ti.start_date)
            FROM ended WHERE ti.dag_id = $1 AND ti.run_id = $2 AND ti.task_id = $3 AND ti.map_index = $4
              AND ($15 AND ti.rendered_map_index IS DISTINCT FROM $14 OR ended.began_at IS NOT NULL))";
/// The last part of `RECORD`.
const NOTIFY_RECORDED: &str = "
        SELECT pg_notify($18, $19) FROM ended";

/// Records how a try ended, with its XComs, in one statement. Returns `false` if the try is no longer running in the
/// database, for example because its end was recorded before.
pub async fn record(client: &impl GenericClient, ended: &Ended) -> Result<bool, StoreError> {
    let TryKey { instance: InstanceKey { run, task_id, map_index }, try_number } = &ended.key;
    // The part for a deferral is left out of most statements, because Postgres plans a shorter statement faster.
    let deferred = if ended.deferral.is_some() { triggers::DEFERRED } else { "" };
    let query = format!("{RECORD}{RETURNED}{deferred}{NOTIFY_RECORDED}");
    let outcome = ended.outcome.as_ref().map(|text| text.replace('\0', "\u{fffd}"));
    let rendered = ended.rendered.as_ref().map(|value| Json(storable(value)));
    let has_rendered = rendered.is_some() || ended.rendered_map_index.is_some();
    for key in ended.xcoms.keys() {
        xcoms::check_key(key)?;
    }
    let (keys, values): (Vec<&String>, Vec<&String>) = ended.xcoms.iter().unzip();
    let event = Event::Plan(run.clone());
    let asset_events = ended.asset_events.as_ref().map(Json);
    let (state, payload) = (ended.state.as_str(), event.payload());
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![
        &run.dag_id,
        &run.run_id,
        task_id,
        map_index,
        try_number,
        &state,
        &ended.may_retry,
        &outcome,
        &ended.end_date,
        &ended.due,
        &ended.skipped_tasks,
        &asset_events,
        &rendered,
        &ended.rendered_map_index,
        &has_rendered,
        &keys,
        &values,
        &events::ENGINE,
        &payload,
        &ended.mapped_length,
    ];
    let (deferral, now) = (ended.deferral.as_ref().map(Json), new_run::now());
    if let Some(deferral) = &deferral {
        parameters.extend([deferral as &(dyn ToSql + Sync), &now]);
    }
    let recorded = client.query(&query, &parameters).await?;
    Ok(!recorded.is_empty())
}

/// Replaces NUL characters, which Postgres cannot store.
fn storable(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace('\0', "\u{fffd}").into(),
        Value::Array(list) => list.iter().map(storable).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.replace('\0', "\u{fffd}"), storable(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Names the instance of a running try, before the try has ended.
pub async fn set_rendered_map_index(client: &impl GenericClient, key: &TryKey, name: &str) -> Result<(), StoreError> {
    let query = "UPDATE task_instance SET rendered_map_index = $5 WHERE dag_id = $1 AND run_id = $2 AND task_id = $3
                 AND map_index = $4 AND try_number = $6 AND rendered_map_index IS DISTINCT FROM $5";
    let TryKey { instance: InstanceKey { run, task_id, map_index }, try_number } = key;
    let name = name.replace('\0', "\u{fffd}");
    client.execute(query, &[&run.dag_id, &run.run_id, task_id, map_index, &name, try_number]).await?;
    Ok(())
}

/// Finds the running try that a token belongs to.
pub async fn find_by_token(client: &impl GenericClient, token: &str) -> Result<Option<TryKey>, StoreError> {
    let query = "SELECT dag_id, run_id, task_id, map_index, try_number FROM task_try
                 WHERE token_hash = $1 AND state = 'running'";
    Ok(client.query_opt(query, &[&token_hash(token)]).await?.as_ref().map(rows::try_key))
}

pub async fn count_running(client: &impl GenericClient) -> Result<usize, StoreError> {
    let running: i64 = client.query_one("SELECT count(*) FROM task_try WHERE state = 'running'", &[]).await?.get(0);
    Ok(usize::try_from(running).unwrap_or(usize::MAX))
}
