//! The agent's side of task instances: it claims queued instances and records how each try ended. It writes `running`
//! and the outcome of a try; the scheduler writes every other state.

use super::triggers::{self, Deferral, Resumption};
use super::xcoms;
use crate::model::keys::{RunKey, TryKey};
use crate::model::state::TryState;
use crate::schedule::timetable::Partition;
use crate::store::StoreError;
use crate::store::asset::partitions;
use crate::store::events::{self, Event};
use crate::store::run::new_run;
use jiff::Timestamp;
use leoflow_base::sys::process::ProcessId;
use leoflow_postgres::GenericClient;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

/// Maximum number of tasks that the agent runs at once: Airflow's `parallelism`.
pub const SLOTS: usize = 32;

/// A claimed try, with what the agent needs to run it.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub key: TryKey,
    pub max_tries: i32,
    pub version_id: Option<i64>,
    pub run_type: String,
    pub logical_date: Option<Timestamp>,
    pub data_interval_start: Option<Timestamp>,
    pub data_interval_end: Option<Timestamp>,
    pub run_after: Timestamp,
    pub run_start_date: Option<Timestamp>,
    pub partition: Option<Partition>,
    pub conf: Map<String, Value>,
    pub note: Option<String>,
    pub triggered_by: Option<String>,
    /// True if the try was started before and resumes after a wait. `first_start_date` is when it first started,
    /// `reschedules` how often it was rescheduled.
    pub resumes: bool,
    pub first_start_date: Option<Timestamp>,
    pub reschedules: i32,
    /// How to resume a deferred task; `None` for any other.
    pub resumption: Option<Resumption>,
    /// True if it has waited for a Python process.
    pub has_waited: bool,
    /// Token with which the task's process authenticates; the database stores only its hash.
    pub token: String,
}

pub fn token_hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

fn read_key(row: &Row) -> TryKey {
    TryKey {
        run: RunKey { dag_id: row.get("dag_id"), run_id: row.get("run_id") },
        task_id: row.get("task_id"),
        map_index: row.get("map_index"),
        try_number: row.get("try_number"),
    }
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
    // All parts of the statement see the same snapshot, so `described` reads the state of a try before `begun` changes
    // it. A new try deletes the XComs of an earlier one, but a try that is resumed keeps its XComs.
    let query = "
        WITH picked AS MATERIALIZED (
            SELECT dag_id, run_id, task_id, map_index, start_date, end_date FROM task_instance q
            WHERE state = 'queued' AND NOT EXISTS (
                SELECT FROM task_try t WHERE t.state = 'running' AND (t.dag_id, t.run_id, t.task_id, t.map_index)
                                             = (q.dag_id, q.run_id, q.task_id, q.map_index))
            ORDER BY priority_weight DESC, queued_at, task_id, map_index LIMIT $1 FOR UPDATE SKIP LOCKED),
        -- Started but not ended: the instance waited without a process.
        numbered AS (
            SELECT dag_id, run_id, task_id, map_index, row_number() OVER () AS number,
                   CASE WHEN end_date IS NULL THEN start_date END AS waited_since FROM picked),
        taken AS (
            UPDATE task_instance ti SET state = 'running', start_date = $5, end_date = NULL
            FROM numbered p WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
                                  = (p.dag_id, p.run_id, p.task_id, p.map_index)
            RETURNING ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number, ti.max_tries, p.number,
                      p.waited_since),
        described AS (
            SELECT t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number, t.max_tries, t.number,
                   r.dag_version_id, r.run_type, r.logical_date, r.data_interval_start, r.data_interval_end,
                   r.run_after, r.start_date AS run_start_date, r.conf, r.note, r.triggered_by, r.partition_key,
                   r.partition_date, coalesce(y.state IN ('up_for_reschedule', 'deferred', 'awaiting_input'), false) AS goes_on,
                   coalesce(y.state IN ('deferred', 'awaiting_input'), false) AS was_deferred,
                   coalesce(y.first_start_date, t.waited_since) AS first_start_date, y.reschedules
            FROM taken t JOIN dag_run r USING (dag_id, run_id)
            LEFT JOIN task_try y USING (dag_id, run_id, task_id, map_index, try_number)),
        begun AS (
            INSERT INTO task_try (dag_id, run_id, task_id, map_index, try_number, state, heartbeat_at, boot_id, token_hash,
                                  first_start_date)
            SELECT dag_id, run_id, task_id, map_index, try_number, 'running', $5, $2, ($3::bytea[])[number],
                   first_start_date
            FROM described
            ON CONFLICT (dag_id, run_id, task_id, map_index, try_number) DO UPDATE
            SET state = 'running', heartbeat_at = $5, boot_id = EXCLUDED.boot_id, token_hash = EXCLUDED.token_hash,
                first_start_date = CASE WHEN task_try.state IN ('up_for_reschedule', 'deferred', 'awaiting_input')
                                        THEN coalesce(task_try.first_start_date, task_try.start_date) END,
                reschedules = CASE task_try.state WHEN 'up_for_reschedule' THEN task_try.reschedules + 1
                                                  WHEN 'deferred' THEN task_try.reschedules
                                                  WHEN 'awaiting_input' THEN task_try.reschedules ELSE 0 END,
                start_date = $5, end_date = NULL, outcome = NULL, may_retry = true, due_at = NULL,
                skipped_tasks = NULL, asset_events = NULL),
        forgotten AS (
            DELETE FROM xcom x USING described gone
            WHERE (x.dag_id, x.run_id, x.task_id, x.map_index)
                  = (gone.dag_id, gone.run_id, gone.task_id, gone.map_index) AND NOT gone.goes_on),
        resumed AS (
            UPDATE task_trigger w SET resumed_at = $5 FROM described d
            WHERE (w.dag_id, w.run_id, w.task_id, w.map_index, w.try_number)
                  = (d.dag_id, d.run_id, d.task_id, d.map_index, d.try_number) AND d.was_deferred
            RETURNING w.dag_id, w.run_id, w.task_id, w.map_index, w.next_method, w.next_kwargs),
        told AS (
            SELECT count(pg_notify($4, json_build_object('kind', 'changed', 'dag_id', dag_id, 'run_id', run_id)::text))
            FROM (SELECT DISTINCT dag_id, run_id FROM taken) run)
        SELECT dag_id, run_id, task_id, map_index, try_number, max_tries, number, dag_version_id, run_type, logical_date,
               data_interval_start, data_interval_end, run_after, run_start_date, conf, note, triggered_by, partition_key,
               partition_date, goes_on,
               first_start_date, reschedules, next_method, next_kwargs, (SELECT count FROM told) AS told
        FROM described LEFT JOIN resumed USING (dag_id, run_id, task_id, map_index) ORDER BY number";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(query, &[&limit, &boot_id, &hashes, &events::ENGINE, &new_run::now()]).await?;
    let numbered = rows.iter().map(|row| (row, row.get::<_, i64>("number")));
    let token = |number: i64| usize::try_from(number - 1).ok().and_then(|index| tokens.get(index)).cloned();
    Ok(numbered.filter_map(|(row, number)| Some(read_claimed(row, token(number)?))).collect())
}

/// True if there are queued instances that `claim` would take, unless another transaction has locked them.
pub async fn is_any_claimable(client: &impl GenericClient) -> Result<bool, StoreError> {
    let query = "
        SELECT EXISTS (SELECT FROM task_instance q WHERE state = 'queued' AND NOT EXISTS (
            SELECT FROM task_try t WHERE t.state = 'running' AND (t.dag_id, t.run_id, t.task_id, t.map_index)
                                         = (q.dag_id, q.run_id, q.task_id, q.map_index)))";
    Ok(client.query_one(query, &[]).await?.get(0))
}

fn read_claimed(row: &Row, token: String) -> Claimed {
    let Json(conf): Json<Map<String, Value>> = row.get("conf");
    Claimed {
        key: read_key(row),
        max_tries: row.get("max_tries"),
        version_id: row.get("dag_version_id"),
        run_type: row.get("run_type"),
        logical_date: row.get("logical_date"),
        data_interval_start: row.get("data_interval_start"),
        data_interval_end: row.get("data_interval_end"),
        run_after: row.get("run_after"),
        run_start_date: row.get("run_start_date"),
        partition: partitions::read(row),
        conf,
        note: row.get("note"),
        triggered_by: row.get("triggered_by"),
        resumes: row.get::<_, Option<bool>>("goes_on").unwrap_or(false),
        first_start_date: row.get("first_start_date"),
        reschedules: row.get::<_, Option<i32>>("reschedules").unwrap_or(0),
        resumption: triggers::resumption(row),
        has_waited: false,
        token,
    }
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
            columns.dags.push(&key.run.dag_id);
            columns.runs.push(&key.run.run_id);
            columns.tasks.push(&key.task_id);
            columns.map_indexes.push(key.map_index);
            columns.try_numbers.push(key.try_number);
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
    Ok(rows
        .iter()
        .map(|row| Unfinished { claimed: read_claimed(row, String::new()), boot_id: row.get("boot_id") })
        .collect())
}

/// Replaces the token of a try that has not started.
pub async fn renew_token(client: &impl GenericClient, key: &TryKey, token: &str) -> Result<(), StoreError> {
    let query = "UPDATE task_try SET token_hash = $6 WHERE dag_id = $1 AND run_id = $2 AND task_id = $3
                 AND map_index = $4 AND try_number = $5";
    let hash = token_hash(token);
    client
        .execute(query, &[&key.run.dag_id, &key.run.run_id, &key.task_id, &key.map_index, &key.try_number, &hash])
        .await?;
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
    Ok(client.query(query, &[]).await?.iter().map(read_key).collect())
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

impl Ended {
    pub fn failed(key: TryKey, may_retry: bool, outcome: String, end_date: Timestamp) -> Self {
        Self {
            key,
            state: TryState::Failed,
            may_retry,
            outcome: Some(outcome),
            end_date,
            xcoms: BTreeMap::new(),
            due: None,
            deferral: None,
            skipped_tasks: Vec::new(),
            asset_events: None,
            rendered: None,
            rendered_map_index: None,
        }
    }
}

/// Records how a try ended, with its XComs, in one statement. Returns `false` if the try is no longer running in the
/// database, for example because its end was recorded before.
pub async fn record(client: &impl GenericClient, ended: &Ended) -> Result<bool, StoreError> {
    let TryKey { run, task_id, map_index, try_number } = &ended.key;
    // The part for a deferral is left out of most statements, because Postgres plans a shorter statement faster.
    let deferred = if ended.deferral.is_some() { triggers::DEFERRED } else { "" };
    let query = format!(
        "WITH ended AS (
            UPDATE task_try SET state = $6, may_retry = $7, outcome = $8, end_date = greatest($9, start_date),
                   token_hash = NULL, due_at = $10, skipped_tasks = nullif($11::text[], '{{}}'), asset_events = $12,
                   first_start_date = CASE WHEN $6 IN ('up_for_reschedule', 'deferred', 'awaiting_input')
                                           THEN coalesce(first_start_date, start_date) ELSE first_start_date END
            WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND try_number = $5
              AND state = 'running'
            RETURNING try_number),
        shown AS (
            INSERT INTO rendered_task_instance_fields (dag_id, run_id, task_id, map_index, rendered_fields)
            SELECT $1, $2, $3, $4, $13 FROM ended WHERE $13::json IS NOT NULL
            ON CONFLICT (dag_id, run_id, task_id, map_index) DO UPDATE SET rendered_fields = EXCLUDED.rendered_fields),
        named AS (
            UPDATE task_instance SET rendered_map_index = $14
            WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND $15
              AND rendered_map_index IS DISTINCT FROM $14 AND EXISTS (SELECT FROM ended)),
        returned AS (
            INSERT INTO xcom (dag_id, run_id, task_id, map_index, key, value)
            SELECT $1, $2, $3, $4, key, value::json FROM unnest($16::text[], $17::text[]) AS new (key, value)
            WHERE EXISTS (SELECT FROM ended)
            ON CONFLICT (dag_id, run_id, task_id, map_index, key)
            DO UPDATE SET value = EXCLUDED.value, created_at = now()){deferred}
        SELECT pg_notify($18, $19) FROM ended"
    );
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

/// Finds the running try that a token belongs to.
pub async fn find_by_token(client: &impl GenericClient, token: &str) -> Result<Option<TryKey>, StoreError> {
    let query = "SELECT dag_id, run_id, task_id, map_index, try_number FROM task_try
                 WHERE token_hash = $1 AND state = 'running'";
    Ok(client.query_opt(query, &[&token_hash(token)]).await?.as_ref().map(read_key))
}

pub async fn count_running(client: &impl GenericClient) -> Result<usize, StoreError> {
    let running: i64 = client.query_one("SELECT count(*) FROM task_try WHERE state = 'running'", &[]).await?.get(0);
    Ok(usize::try_from(running).unwrap_or(usize::MAX))
}
