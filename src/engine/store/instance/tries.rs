//! The agent's statements about task instances. The agent claims queued instances, records how each try ended, and puts
//! a try that cannot start back into the queue. It writes the states `running` and `queued`; the scheduler and users
//! write every other state.

use super::claimed::Claimed;
use super::triggers::{self, Deferral};
use super::xcoms;
use crate::model::keys::{InstanceKey, TryKey};
use crate::model::state::TryState;
use crate::store::dag::callbacks::{self, Subject};
use crate::store::event_log::{self, CallbackFailure};
use crate::store::events::{self, Event};
use crate::store::instance_key::{INSTANCE, KEY, KeyColumns, TRY, TRY_KEY};
use crate::store::rows::{FromRow, execute, fetch_all, fetch_one, fetch_optional, from_row};
use crate::store::run::new_run;
pub use crate::store::transition::claim::requeue;
use crate::store::transition::claim::{self, Claim};
use crate::store::{Result, StoreError, session};
use futures_util::future::join_all;
use jiff::Timestamp;
use leoflow_base::sys::process::ProcessId;
use leoflow_base::sys::shell;
use leoflow_postgres::GenericClient;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::LazyLock;
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
) -> Result<Vec<Claimed>> {
    let tokens: Vec<String> = (0..limit).map(|_| new_token()).collect();
    let hashes: Vec<Vec<u8>> = tokens.iter().map(|token| token_hash(token)).collect();
    let claim = Claim { limit, boot_id, token_hashes: &hashes };
    let claimed = claim::claim(client, &claim, new_run::now()).await?;
    let with_token = |(number, claimed): (i64, Claimed)| {
        let token = usize::try_from(number - 1).ok().and_then(|index| tokens.get(index)).cloned();
        let unknown = || StoreError::UnknownValue { column: "number".to_owned(), value: number.to_string() };
        Ok(Claimed { token: token.ok_or_else(unknown)?, ..claimed })
    };
    claimed.into_iter().map(with_token).collect()
}

/// True if there are queued instances that `claim` would take, unless another transaction has locked them.
pub async fn is_any_claimable(client: &impl GenericClient) -> Result<bool> {
    let query = format!(
        "SELECT EXISTS (SELECT FROM task_instance q WHERE state = 'queued' AND NOT EXISTS (
             SELECT FROM task_try t WHERE t.state = 'running' AND {}))",
        INSTANCE.same("t", "q")
    );
    fetch_one(client, &query, &[]).await
}

from_row! {
    /// A try that is running according to the database. `boot_id` identifies the boot of the machine in which it was
    /// claimed.
    #[derive(Debug, Clone)]
    pub struct Unfinished {
        pub claimed: Claimed => Claimed::from_row,
        pub boot_id: Option<String>,
    }
}

/// Returns all unfinished tries, for an agent that starts. Their tokens are empty, since the database has only hashes;
/// `renew_token` sets a new one.
pub async fn unfinished(client: &impl GenericClient) -> Result<Vec<Unfinished>> {
    let query = format!(
        "
        SELECT {}, t.boot_id, ti.max_tries,
               r.dag_version_id, r.run_type, r.logical_date, r.data_interval_start, r.data_interval_end, r.run_after,
               r.queued_at AS run_queued_at, r.start_date AS run_start_date, r.conf, r.note, r.triggered_by, r.partition_key, r.partition_date,
               false AS goes_on, t.first_start_date, t.reschedules, w.next_method, w.next_kwargs
        FROM task_try t JOIN task_instance ti USING ({KEY}) JOIN dag_run r USING (dag_id, run_id)
        LEFT JOIN task_trigger w ON {} AND w.resumed_at = t.start_date
        WHERE t.state = 'running'",
        TRY.of("t"),
        TRY.same("w", "t")
    );
    fetch_all(client, &query, &[]).await
}

/// The running tries, as texts for users.
pub async fn running_names(client: &tokio_postgres::Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let query = format!("SELECT {TRY_KEY} FROM task_try WHERE state = 'running' ORDER BY {KEY}");
    // The columns of a key are never NULL, so every row can be read.
    let tries = client.query(&query, &[]).await?.into_iter().filter_map(|row| TryKey::from_row(&row).ok());
    Ok(tries.map(|key| key.to_string()).collect())
}

/// Identifies the database. A restored or copied one has another id.
pub async fn datastore_id(client: &impl GenericClient) -> Result<String> {
    let query = "SELECT concat_ws('/', system_identifier, oid) FROM pg_control_system(), pg_database
                 WHERE datname = current_database()";
    fetch_one(client, query, &[]).await
}

/// Replaces the token of a try that has not started.
pub async fn renew_token(client: &impl GenericClient, key: &TryKey, token: &str) -> Result<()> {
    let query = format!("UPDATE task_try SET token_hash = $1 WHERE {}", TRY.is("task_try", 2));
    execute(client, &query, &key.after(&[&token_hash(token)])).await
}

/// Records that these tries still run, with their processes.
pub async fn heartbeat(client: &impl GenericClient, alive: &[(TryKey, ProcessId)]) -> Result<()> {
    let instances = KeyColumns::new(alive.iter().map(|(key, _)| &key.instance));
    let try_numbers: Vec<i32> = alive.iter().map(|(key, _)| key.try_number).collect();
    let pids: Vec<i32> = alive.iter().map(|(_, process)| process.pid).collect();
    let starts: Vec<i64> = alive.iter().map(|(_, process)| process.start_ticks as i64).collect();
    let query = format!(
        "UPDATE task_try t SET heartbeat_at = now(), pid = beat.pid, pid_start = beat.pid_start
         FROM unnest($1::integer[], $2::bigint[], $3::integer[], {}) AS beat (pid, pid_start, try_number, {KEY})
         WHERE {} AND t.state = 'running'",
        INSTANCE.arrays(4),
        TRY.same("t", "beat")
    );
    execute(client, &query, &instances.after(&[&pids, &starts, &try_numbers])).await
}

/// Running tries that must be stopped, because the state of their instance was changed.
pub async fn to_stop(client: &impl GenericClient) -> Result<Vec<TryKey>> {
    let query = format!(
        "SELECT {} FROM task_try t JOIN task_instance ti USING ({KEY})
         WHERE t.state = 'running' AND ti.state IS DISTINCT FROM 'running'",
        TRY.of("t")
    );
    fetch_all(client, &query, &[]).await
}

/// The outcome of a try.
#[derive(Debug, Clone)]
pub struct Ended {
    pub key: TryKey,
    pub state: TryState,
    pub may_retry: bool,
    pub callbacks: Callbacks,
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
    /// For a successful gate of a loop: whether the loop stops, with the reason as the outcome.
    pub loop_stops: Option<bool>,
    /// Asset events that the task reported.
    pub asset_events: Option<Value>,
    /// The rendered template fields, and the rendered name of a mapped instance.
    pub rendered: Option<Value>,
    pub rendered_map_index: Option<String>,
}

/// Whether the callbacks of a task were called for the end of its try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callbacks {
    /// The try's process calls its callbacks itself, or may have done so where a copied datastore comes from.
    Called,
    /// The try failed without them; the server calls them.
    Owed,
    /// The try's process was killed after it had reported its failure, perhaps before it called all of them.
    Interrupted,
}

/// Whether a failed try may be followed by another one, if the task has retries left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Allowed,
    Never,
}

impl Ended {
    pub fn failed(key: TryKey, retry: Retry, callbacks: Callbacks, outcome: String, end_date: Timestamp) -> Self {
        Self {
            key,
            state: TryState::Failed,
            may_retry: retry == Retry::Allowed,
            callbacks,
            outcome: Some(outcome),
            end_date,
            xcoms: BTreeMap::new(),
            mapped_length: None,
            due: None,
            deferral: None,
            skipped_tasks: Vec::new(),
            loop_stops: None,
            asset_events: None,
            rendered: None,
            rendered_map_index: None,
        }
    }
}

/// The number of the first parameter of the key in `record_statement`.
const RECORD_KEY: usize = 17;

static RECORD: LazyLock<String> = LazyLock::new(|| record_statement(""));
/// For a deferred try. Most statements leave out this part, because Postgres plans a shorter statement faster.
static RECORD_DEFERRED: LazyLock<String> =
    LazyLock::new(|| record_statement(&triggers::deferred(RECORD_KEY, RECORD_KEY + TRY.len())));

static RECORD_OWED: LazyLock<String> = LazyLock::new(|| record_statement(&callbacks::of_try(RECORD_KEY)));

/// Records the end of a running try, with its rendered fields and its XComs; `more` is a further part.
fn record_statement(more: &str) -> String {
    let (key, is_instance) = (INSTANCE.parameters(RECORD_KEY), INSTANCE.is("ti", RECORD_KEY));
    format!(
        "
        WITH ended AS (
            UPDATE task_try SET state = $1, may_retry = $2, outcome = $3, end_date = greatest($4, start_date),
                   token_hash = NULL, due_at = $5, skipped_tasks = nullif($6::text[], '{{}}'), asset_events = $7, loop_stops = $16,
                   first_start_date = CASE WHEN $1 IN ('up_for_reschedule', 'deferred', 'awaiting_input')
                                           THEN coalesce(first_start_date, start_date) ELSE first_start_date END
            WHERE {} AND state = 'running'
            -- Start of a sensor's first poke or of a deferred task: once the task has ended, its duration counts from
            -- there.
            RETURNING try_number, CASE WHEN $1 NOT IN ('up_for_reschedule', 'deferred', 'awaiting_input')
                                       THEN first_start_date END AS began_at),
        shown AS (
            INSERT INTO rendered_task_instance_fields ({KEY}, rendered_fields)
            SELECT {key}, $8 FROM ended WHERE $8::json IS NOT NULL
            ON CONFLICT ({KEY}) DO UPDATE SET rendered_fields = EXCLUDED.rendered_fields),
        named AS (
            UPDATE task_instance ti SET rendered_map_index = CASE WHEN $10 THEN $9 ELSE ti.rendered_map_index END,
                   start_date = coalesce(ended.began_at, ti.start_date)
            FROM ended WHERE {is_instance}
              AND ($10 AND ti.rendered_map_index IS DISTINCT FROM $9 OR ended.began_at IS NOT NULL)),
        returned AS (
            INSERT INTO xcom ({KEY}, key, value, mapped_length)
            SELECT {key}, key, value::json, CASE key WHEN 'return_value' THEN $13::integer END
            FROM unnest($11::text[], $12::text[]) AS new (key, value)
            WHERE EXISTS (SELECT FROM ended)
            ON CONFLICT ({KEY}, key)
            DO UPDATE SET value = EXCLUDED.value, mapped_length = EXCLUDED.mapped_length, created_at = now()){more}
        SELECT coalesce((SELECT ti.state = 'queued' FROM task_instance ti WHERE {is_instance}), false),
               pg_notify($14, $15) FROM ended",
        TRY.is("task_try", RECORD_KEY)
    )
}

/// Records how a try ended, with its XComs, in one statement. Does nothing if the try is no longer running in the
/// database, for example because its end was recorded before. Returns true if the instance is queued again, for a try that
/// could not be claimed before.
pub async fn record(client: &impl GenericClient, ended: &Ended) -> Result<bool> {
    let outcome = ended.outcome.as_ref().map(|text| text.replace('\0', "\u{fffd}"));
    let rendered = ended.rendered.as_ref().map(|value| Json(storable(value)));
    let has_rendered = rendered.is_some() || ended.rendered_map_index.is_some();
    for key in ended.xcoms.keys() {
        xcoms::check_key(key)?;
    }
    let (keys, values): (Vec<&String>, Vec<&String>) = ended.xcoms.iter().unzip();
    let payload = Event::Plan(ended.key.instance.run.clone()).payload();
    let (state, asset_events) = (ended.state.as_str(), ended.asset_events.as_ref().map(Json));
    let others: [&(dyn ToSql + Sync); RECORD_KEY - 1] = [
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
        &ended.mapped_length,
        &events::ENGINE,
        &payload,
        &ended.loop_stops,
    ];
    let mut parameters = ended.key.after(&others);
    let (deferral, now) = (ended.deferral.as_ref().map(Json), new_run::now());
    let reason = match ended.callbacks {
        Callbacks::Called => None,
        _ => callbacks::reason_of_try(client, &ended.key, ended.may_retry).await?,
    };
    let query = match (&deferral, &reason) {
        (Some(deferral), _) => {
            parameters.extend([deferral as &(dyn ToSql + Sync), &now]);
            &RECORD_DEFERRED
        }
        (None, Some(reason)) if ended.callbacks == Callbacks::Owed => {
            parameters.push(reason);
            &RECORD_OWED
        }
        _ => &RECORD,
    };
    let is_queued_again: Option<bool> = fetch_optional(client, query, &parameters).await?;
    let is_recorded = is_queued_again.is_some();
    match ended.callbacks {
        Callbacks::Owed if is_recorded && reason.is_some() => events::notify(client, &Event::Callback).await?,
        Callbacks::Interrupted if is_recorded && reason.is_some() => note_interrupted(client, &ended.key).await?,
        _ => {}
    }
    Ok(is_queued_again.unwrap_or(false))
}

/// Records how tries ended, each like [`record`], and waits for the disk once. Each is a transaction of its own: one for
/// all would lock the rows in another order than a clear, and could deadlock.
pub async fn record_all(client: &impl GenericClient, ended: &[&Ended]) -> Result<Vec<Result<bool>>> {
    let record_each = join_all(ended.iter().map(|ended| record(client, ended)));
    if ended.len() < 2 { Ok(record_each.await) } else { session::flush_once(client, record_each).await }
}

/// Adds to the audit log that the callbacks of a try were perhaps not called.
async fn note_interrupted(client: &impl GenericClient, key: &TryKey) -> Result<()> {
    let InstanceKey { run, task_id, position } = &key.instance;
    let task = format!("{task_id}{position}");
    let words = [&run.dag_id, &run.run_id, &task].map(|name| shell::word(name)).join(" ");
    let failure = CallbackFailure {
        callback: None,
        error: "the task's process was killed before its callbacks and its e-mail had ended",
        log: &format!("leoflow tasks logs {words} --try {}", key.try_number),
    };
    event_log::add(client, &failure.event(key, &Subject::Try)).await
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
pub async fn set_rendered_map_index(client: &impl GenericClient, key: &TryKey, name: &str) -> Result<()> {
    let query = format!(
        "UPDATE task_instance SET rendered_map_index = $1 WHERE {} AND rendered_map_index IS DISTINCT FROM $1",
        TRY.is("task_instance", 2)
    );
    execute(client, &query, &key.after(&[&name.replace('\0', "\u{fffd}")])).await
}

/// Finds the running try that a token belongs to.
pub async fn find_by_token(client: &impl GenericClient, token: &str) -> Result<Option<TryKey>> {
    let query = format!("SELECT {TRY_KEY} FROM task_try WHERE token_hash = $1 AND state = 'running'");
    fetch_optional(client, &query, &[&token_hash(token)]).await
}

pub async fn count_running(client: &impl GenericClient) -> Result<usize> {
    let running: i64 = fetch_one(client, "SELECT count(*) FROM task_try WHERE state = 'running'", &[]).await?;
    Ok(usize::try_from(running).unwrap_or(usize::MAX))
}
