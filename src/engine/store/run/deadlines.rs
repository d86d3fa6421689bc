//! Deadlines of runs: each alert of a DAG gives its runs one, and a callback is called for a run that has not succeeded by
//! then. `transition::run` deletes those that a run meets.

use crate::model::dag::{DeadlineAlert, Structure};
use crate::model::keys::RunKey;
use crate::model::state::states;
use crate::store::Result;
use crate::store::events::{self, Event};
use crate::store::rows::{execute, fetch_all, read_by_name};
use jiff::Timestamp;
use leoflow_base::counted::counted;
use leoflow_postgres::GenericClient;
use schemars::JsonSchema;
use std::sync::LazyLock;
use tokio_postgres::types::ToSql;
use tracing::warn;

/// The reason of a callback for a missed deadline.
pub(crate) const MISSED: &str = "deadline";

/// Adds the deadlines of new runs of a DAG, by the alerts of their version. `$1` to `$4` are the DAG, the runs, the version
/// and now. As in Airflow 3.4, a run without a logical date has no deadline that counts from it, and a DAG with too few
/// successful runs none that counts their average.
static ADD: LazyLock<String> = LazyLock::new(|| {
    let due_at = due_at("base.date");
    format!("
    INSERT INTO deadline (dag_id, run_id, dag_version_id, alert, due_at)
    SELECT r.dag_id, r.run_id, v.id, number, {due_at}
    FROM dag_version v CROSS JOIN LATERAL jsonb_array_elements(v.structure->'deadlines') WITH ORDINALITY AS a (alert, number)
    CROSS JOIN LATERAL (SELECT alert->'reference' AS reference) f
    JOIN dag_run r ON r.dag_id = $1 AND r.run_id = ANY ($2)
    CROSS JOIN LATERAL (SELECT CASE reference->>'reference_type'
        WHEN 'DagRunLogicalDateDeadline' THEN r.logical_date
        WHEN 'DagRunQueuedAtDeadline' THEN r.queued_at
        WHEN 'FixedDatetimeDeadline' THEN to_timestamp((reference->>'datetime')::float8)
        WHEN 'AverageRuntimeDeadline' THEN $4::timestamptz + (
            SELECT avg(duration) FROM (
                SELECT p.end_date - p.start_date AS duration FROM dag_run p
                WHERE p.dag_id = $1 AND p.state = 'success' AND p.start_date IS NOT NULL AND p.end_date IS NOT NULL
                ORDER BY p.logical_date DESC LIMIT least(greatest((reference->>'max_runs')::numeric, 0), 1e9)::bigint) newest
            HAVING count(*) >= coalesce(reference->>'min_runs', reference->>'max_runs')::numeric)
        END AS date) base
    WHERE v.id = $3 AND base.date IS NOT NULL AND alert->>'interval' IS NOT NULL
    RETURNING deadline.alert")
});

/// SQL expression: the time of the deadline by the alert `a.alert` that counts from `date`. The bounds keep it in the range
/// of timestamps.
fn due_at(date: &str) -> String {
    let interval = "greatest(least((a.alert->>'interval')::float8, 1e10), -1e10)";
    format!("least({date} + make_interval(secs => {interval}), '9999-12-01')")
}

/// Adds the deadlines of runs that have been created with this version and its structure.
pub(crate) async fn add(
    client: &impl GenericClient,
    dag_id: &str,
    run_ids: &[&str],
    (version_id, structure): (i64, &Structure),
    now: Timestamp,
) -> Result<()> {
    if structure.deadlines.is_empty() || run_ids.is_empty() {
        return Ok(());
    }
    let added: Vec<i32> = fetch_all(client, &ADD, &[&dag_id, &run_ids, &version_id, &now]).await?;
    for (number, alert) in (1..).zip(&structure.deadlines) {
        let missing = run_ids.len() - added.iter().filter(|added| **added == number).count();
        if missing > 0 {
            let name = alert.name.as_ref().map_or_else(|| number.to_string(), |name| format!("{name:?}"));
            let runs = counted(missing, "run");
            warn!("{runs} of {dag_id} got no deadline by its alert {name}: {}", why_none(alert));
        }
    }
    Ok(())
}

fn why_none(alert: &DeadlineAlert) -> String {
    match (&alert.variable, alert.interval) {
        (Some(variable), None) => format!("the Variable {variable} is not a whole number of seconds"),
        _ if alert.reference["reference_type"] == "AverageRuntimeDeadline" => {
            "too few runs of the DAG have succeeded".to_owned()
        }
        _ => "a run that was triggered without a logical date has none to count from".to_owned(),
    }
}

/// Queues the callbacks of the deadlines that meet a condition with these parameters. As everywhere, the rows of the runs
/// are locked first: a clear or a mark of one of them changes its deadlines too. Those that are locked are left for the
/// next time.
async fn queue(client: &impl GenericClient, condition: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<()> {
    let statement = format!(
        "WITH run AS MATERIALIZED (
            SELECT r.dag_id, r.run_id FROM dag_run r
            WHERE (r.dag_id, r.run_id) IN (SELECT d.dag_id, d.run_id FROM deadline d WHERE {condition})
            ORDER BY r.dag_id, r.run_id FOR KEY SHARE SKIP LOCKED),
         late AS (
            UPDATE deadline d SET state = 'queued', updated_at = now() FROM run
            WHERE (d.dag_id, d.run_id) = (run.dag_id, run.run_id) AND {condition}
            RETURNING d.id, d.dag_id, d.run_id, d.due_at)
         -- The column `state` does not allow the state of a run that has not ended; `reason` decides.
         INSERT INTO dag_callback (dag_id, run_id, state, reason, deadline_id)
         SELECT dag_id, run_id, 'success', '{MISSED}', id FROM late ORDER BY due_at, id"
    );
    if client.execute(&statement, parameters).await? > 0 {
        events::notify(client, &Event::Callback).await?;
    }
    Ok(())
}

/// Queues the callbacks of the deadlines that have passed.
pub(crate) async fn queue_missed(client: &impl GenericClient, now: Timestamp) -> Result<()> {
    queue(client, "d.state = 'scheduled' AND d.due_at <= $1", &[&now]).await
}

/// Queues the callbacks again that have begun and are not among `running`: an alert is rather sent twice than lost.
pub async fn queue_interrupted(client: &impl GenericClient, running: &[&str]) -> Result<()> {
    queue(client, "d.state = 'running' AND d.id::text <> ALL ($1)", &[&running]).await
}

/// Moves the deadlines of a run that count from its queueing: it has been queued, or its tasks have been cleared.
pub(crate) async fn restart(client: &impl GenericClient, key: &RunKey, queued_at: Timestamp) -> Result<()> {
    let statement = format!(
        "UPDATE deadline d SET due_at = {}, updated_at = now()
         FROM dag_version v CROSS JOIN LATERAL jsonb_array_elements(v.structure->'deadlines') WITH ORDINALITY AS a (alert, number)
         WHERE d.dag_id = $1 AND d.run_id = $2 AND d.state = 'scheduled' AND v.id = d.dag_version_id AND d.alert = a.number
           AND a.alert->'reference'->>'reference_type' = 'DagRunQueuedAtDeadline' AND a.alert->>'interval' IS NOT NULL",
        due_at("$3::timestamptz")
    );
    execute(client, &statement, &[&key.dag_id, &key.run_id, &queued_at]).await
}

/// Records that the callback of a deadline has ended in `state`. `log` has no secrets.
pub async fn end_callback(client: &impl GenericClient, id: &str, state: CallbackState, log: &str) -> Result<()> {
    let statement = "UPDATE deadline SET state = $2, log = $3, updated_at = now() WHERE id = $1::text::uuid";
    execute(client, statement, &[&id, &state.as_str(), &log.replace('\0', "\u{fffd}")]).await
}

states! {
    /// State of the callback of a deadline.
    #[derive(JsonSchema)]
    CallbackState {
        /// The run has not missed the deadline.
        Scheduled = "scheduled",
        Queued = "queued",
        Running = "running",
        Success = "success",
        Failed = "failed",
    }
}

read_by_name!(CallbackState);
