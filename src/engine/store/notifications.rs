//! Notifications: failures and recoveries, recorded in the transaction in which they happen, and their deliveries.
//!
//! An episode lasts from the first failure of a DAG, a task or a part of the instance to the next success; one
//! notification is added for it. So a DAG that fails every minute sends one message.

use super::Result;
use super::events::{self, Event};
use super::instance_key::INSTANCE;
use super::rows::{execute, fetch_all, fetch_optional, from_row};
use crate::model::keys::{InstanceKey, Position, RunKey};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::HashSet;

/// What a notification is about. The names are those of `NotifyEvent` in the settings.
#[derive(Debug, Clone, Default)]
pub struct Subject<'a> {
    pub event: &'a str,
    /// The DAG, the task, or the part of the instance.
    pub name: &'a str,
    pub run: Option<&'a RunKey>,
    pub task: Option<(&'a str, Position)>,
    pub detail: Option<&'a str>,
}

/// Begins an episode and adds its notification, unless the episode has begun already.
pub async fn begin(client: &impl GenericClient, subject: &Subject<'_>) -> Result<()> {
    let query = "
        WITH begun AS (
            INSERT INTO notification_episode (event, subject) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1)
        INSERT INTO notification (event, subject, dag_id, run_id, task_id, map_index, detail)
        SELECT $1, $2, $3, $4, $5, $6::integer, $7 FROM begun";
    let (dag_id, run_id) = subject.run.map(|run| (&run.dag_id, &run.run_id)).unzip();
    let (task_id, position) = subject.task.unzip();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&subject.event, &subject.name, &dag_id, &run_id, &task_id, &position, &subject.detail];
    if client.execute(query, &parameters).await? > 0 {
        events::notify(client, &Event::Notification).await?;
    }
    Ok(())
}

/// Ends an episode. If it had begun and `recovered` is set, adds that notification.
pub async fn end(client: &impl GenericClient, event: &str, recovered: Option<&Subject<'_>>, name: &str) -> Result<()> {
    let query = "
        WITH ended AS (DELETE FROM notification_episode WHERE event = $1 AND subject = $2 RETURNING 1)
        INSERT INTO notification (event, subject, dag_id, run_id) SELECT $3::text, $2, $4, $5 FROM ended WHERE $3::text IS NOT NULL";
    let (dag_id, run_id) = recovered.and_then(|subject| subject.run).map(|run| (&run.dag_id, &run.run_id)).unzip();
    let recovery: Option<&str> = recovered.map(|subject| subject.event);
    if client.execute(query, &[&event, &name, &recovery, &dag_id, &run_id]).await? > 0 {
        events::notify(client, &Event::Notification).await?;
    }
    Ok(())
}

/// Ends the episodes of a DAG's failed runs, or of these failed tasks: a user has marked them as successful, so that the next
/// failure is notified.
pub(crate) async fn end_failures(client: &impl GenericClient, dag_id: &str, tasks: Option<&[&str]>) -> Result<()> {
    let (event, subjects) = match tasks {
        None => ("run_failed", vec![dag_id.to_owned()]),
        Some(tasks) => ("task_failed", tasks.iter().map(|task| format!("{dag_id} {task}")).collect()),
    };
    let query = "DELETE FROM notification_episode WHERE event = $1 AND subject = ANY ($2)";
    execute(client, query, &[&event, &subjects]).await
}

/// The episodes of DAGs and tasks that have begun: event and subject.
pub async fn begun(client: &impl GenericClient) -> Result<HashSet<(String, String)>> {
    let rows: Vec<(String, String)> = fetch_all(client, "SELECT event, subject FROM notification_episode", &[]).await?;
    Ok(rows.into_iter().collect())
}

from_row! {
    #[derive(Debug, Clone)]
    pub struct Notification {
        pub id: i64,
        pub event: String,
        pub subject: String,
        pub happened_at: Timestamp,
        pub dag_id: Option<String>,
        pub run_id: Option<String>,
        pub task_id: Option<String>,
        pub position: Option<Position> = "map_index",
        pub detail: Option<String>,
    }
}

impl Notification {
    /// The task instance that it is about.
    pub fn instance(&self) -> Option<InstanceKey> {
        let run = RunKey { dag_id: self.dag_id.clone()?, run_id: self.run_id.clone()? };
        Some(InstanceKey::new(run, self.task_id.as_deref()?, self.position?))
    }
}

/// Records why a notified task failed.
pub async fn explain(client: &impl GenericClient, id: i64, detail: &str) -> Result<()> {
    execute(client, "UPDATE notification SET detail = $2 WHERE id = $1", &[&id, &detail]).await
}

/// Notifications whose deliveries are not added yet, oldest first.
pub async fn unrouted(client: &impl GenericClient) -> Result<Vec<Notification>> {
    fetch_all(client, "SELECT * FROM notification WHERE routed_at IS NULL ORDER BY id LIMIT 100", &[]).await
}

/// Whether an episode whose beginning has no target goes on, because its end may have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwanted {
    Forget,
    KeepEpisode,
}

/// Adds the deliveries of a notification to these targets, each with its template. Without any, the notification is
/// removed, with its episode unless its end is wanted, so that the next failure begins one that a new rule may want.
pub async fn route(
    client: &impl GenericClient,
    notification: &Notification,
    targets: &[(&str, Option<&str>)],
    unwanted: Unwanted,
) -> Result<()> {
    if targets.is_empty() {
        let query = "
            WITH removed AS (DELETE FROM notification WHERE id = $1 RETURNING event, subject)
            DELETE FROM notification_episode e USING removed
            WHERE (e.event, e.subject) = (removed.event, removed.subject) AND NOT $2";
        return execute(client, query, &[&notification.id, &(unwanted == Unwanted::KeepEpisode)]).await;
    }
    let (names, templates): (Vec<&str>, Vec<Option<&str>>) = targets.iter().copied().unzip();
    let query = "
        WITH routed AS (UPDATE notification SET routed_at = now() WHERE id = $1 AND routed_at IS NULL RETURNING id)
        INSERT INTO notification_delivery (notification_id, target, template)
        SELECT routed.id, t.target, t.template
        FROM routed, unnest($2::text[], $3::text[]) AS t (target, template) ON CONFLICT DO NOTHING";
    execute(client, query, &[&notification.id, &names, &templates]).await
}

from_row! {
    /// A delivery that is due, or one of the history.
    #[derive(Debug, Clone)]
    pub struct Delivery {
        pub notification: Notification => Notification::from_row,
        pub target: String,
        /// `waiting`, `sent` or `failed`.
        pub state: String,
        pub template: Option<String>,
        pub attempts: i32,
        pub next_attempt_at: Timestamp,
        pub error: Option<String>,
        pub sent_at: Option<Timestamp>,
    }
}

const DELIVERIES: &str = "SELECT n.*, d.target, d.state, d.template, d.attempts, d.next_attempt_at, d.error, d.sent_at
                          FROM notification_delivery d JOIN notification n ON n.id = d.notification_id";

/// The deliveries that are due at `now`, oldest first.
pub async fn due(client: &impl GenericClient, now: Timestamp) -> Result<Vec<Delivery>> {
    let query = format!(
        "{DELIVERIES} WHERE d.state = 'waiting' AND d.next_attempt_at <= $1 ORDER BY d.next_attempt_at LIMIT 200"
    );
    fetch_all(client, &query, &[&now]).await
}

/// When the next delivery is due.
pub async fn next_due(client: &impl GenericClient) -> Result<Option<Timestamp>> {
    let query = "SELECT next_attempt_at FROM notification_delivery WHERE state = 'waiting' ORDER BY 1 LIMIT 1";
    let row = client.query_opt(query, &[]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// The newest deliveries.
pub async fn newest(client: &impl GenericClient, limit: i64) -> Result<Vec<Delivery>> {
    fetch_all(client, &format!("{DELIVERIES} ORDER BY n.id DESC, d.target LIMIT $1"), &[&limit]).await
}

/// Records that a delivery was sent.
pub async fn sent(client: &impl GenericClient, delivery: &Delivery) -> Result<()> {
    let query =
        "UPDATE notification_delivery SET state = 'sent', sent_at = now(), attempts = attempts + 1, error = NULL
                 WHERE notification_id = $1 AND target = $2";
    execute(client, query, &[&delivery.notification.id, &delivery.target]).await
}

/// Records a failed attempt; without a next one, the delivery has failed.
pub async fn not_sent(
    client: &impl GenericClient,
    delivery: &Delivery,
    error: &str,
    next: Option<Timestamp>,
) -> Result<()> {
    let query = "UPDATE notification_delivery
                 SET attempts = attempts + 1, error = $3, next_attempt_at = coalesce($4, next_attempt_at),
                     state = CASE WHEN $4::timestamptz IS NULL THEN 'failed' ELSE state END
                 WHERE notification_id = $1 AND target = $2";
    execute(client, query, &[&delivery.notification.id, &delivery.target, &error, &next]).await
}

/// Runs that were due and queued before `due_before`, have not ended, and are not notified yet: the subjects of their
/// episodes are the names of DAG and run, and `suffix`.
pub async fn late_runs(
    client: &impl GenericClient,
    due_before: Timestamp,
    dag_ids: Option<&[String]>,
    suffix: &str,
) -> Result<Vec<RunKey>> {
    let query = "
        SELECT dag_id, run_id FROM dag_run r
        WHERE state IN ('queued', 'running') AND greatest(run_after, queued_at) < $1 AND ($2::text[] IS NULL OR dag_id = ANY ($2))
          AND NOT EXISTS (SELECT FROM notification_episode e
                          WHERE e.event = 'run_late' AND e.subject = r.dag_id || ' ' || r.run_id || $3) LIMIT 100";
    fetch_all(client, query, &[&due_before, &dag_ids, &suffix]).await
}

/// Why a task instance failed: the outcome of its last try.
pub async fn outcome(client: &impl GenericClient, key: &InstanceKey) -> Result<Option<String>> {
    let query =
        format!("SELECT outcome FROM task_try WHERE {} ORDER BY try_number DESC LIMIT 1", INSTANCE.is("task_try", 1));
    Ok(fetch_optional::<Option<String>>(client, &query, &key.after(&[])).await?.flatten())
}

/// Removes notifications from before `before` that have no delivery to make, and episodes of runs that were late.
pub async fn remove_old(client: &impl GenericClient, before: Timestamp) -> Result<()> {
    let query = "
        WITH late AS (DELETE FROM notification_episode WHERE event = 'run_late' AND since < $1)
        DELETE FROM notification n WHERE happened_at < $1 AND routed_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM notification_delivery d WHERE d.notification_id = n.id AND d.state = 'waiting')";
    execute(client, query, &[&before]).await
}
