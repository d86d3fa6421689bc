//! The audit log.

use super::dag::callbacks::Subject;
use super::list::conditions::Conditions;
use super::list::field::{Filter, list_fields};
use super::list::listing::{ListPage, Listing, Source};
use super::rows::{fetch_all, fetch_one, fetch_optional, from_row};
use super::{Result, StoreError};
use crate::model::keys::{InstanceKey, Position, RunKey, TryKey};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::json;
use tokio_postgres::types::ToSql;

/// Number of newest entries that are retained.
const MAX_EVENTS: i64 = 100_000;
/// Old entries are deleted each time this many new ones were added.
const CLEANUP_INTERVAL: i64 = 1_000;

/// The event of a callback of a DAG or of a task, of a listener, or of an e-mail, that has failed.
pub(crate) const CALLBACK_FAILED: &str = "callback_failed";

from_row! {
    #[derive(Debug, Clone)]
    pub struct LoggedEvent {
        pub id: i64,
        pub created_at: Timestamp,
        pub what: NewEvent => NewEvent::from_row,
    }
}

from_row! {
    #[derive(Debug, Clone, Default)]
    pub struct NewEvent {
        /// The name of Airflow's operation, or [`CALLBACK_FAILED`].
        pub event: String,
        pub owner: Option<String>,
        pub dag_id: Option<String>,
        pub run_id: Option<String>,
        pub task_id: Option<String>,
        pub position: Option<Position> = "map_index",
        pub logical_date: Option<Timestamp>,
        /// The request, or what failed, as JSON without secrets.
        pub extra: Option<String>,
    }
}

/// A callback that failed. Its texts have no secrets.
pub struct CallbackFailure<'a> {
    /// Its name; `None` if the process of the callbacks failed.
    pub callback: Option<&'a str>,
    pub error: &'a str,
    /// The command that shows its log.
    pub log: &'a str,
}

impl CallbackFailure<'_> {
    /// The event of the failure; `key` is the try whose context the callback got. Without one, its task id is empty.
    pub fn event(&self, key: &TryKey, subject: &Subject) -> NewEvent {
        let TryKey { instance: InstanceKey { run, task_id, position }, try_number } = key;
        let Self { callback, error, log } = self;
        let mut extra = json!({"callback": callback, "error": error, "log": log});
        if *subject == Subject::Try {
            extra["try_number"] = (*try_number).into();
        }
        NewEvent {
            event: CALLBACK_FAILED.to_owned(),
            owner: Some("leoflow".to_owned()),
            dag_id: Some(run.dag_id.clone()),
            run_id: Some(run.run_id.clone()),
            task_id: (!task_id.is_empty()).then(|| task_id.clone()),
            position: Some(*position),
            extra: Some(extra.to_string()),
            ..NewEvent::default()
        }
    }
}

list_fields! {
    /// Fields of audited events, for lists.
    EventField, key: [Id], filter: EventFilter;
    Id = whole("id"),
    CreatedAt = time("created_at"),
    DagId = text("dag_id"),
    TaskId = text("task_id"),
    RunId = text("run_id"),
    MapIndex = whole("map_index"),
    /// Always NULL: events about a task apply to all of its tries.
    TryNumber = whole("NULL::integer"),
    Event = text("event"),
    LogicalDate = time("logical_date"),
    Owner = text("owner"),
    Extra = text("extra"),
}

/// Filters of audited events.
#[derive(Debug, Default)]
pub struct EventFilter {
    pub excluded_events: Vec<String>,
    /// Bounds of `created_at`, both excluded.
    pub before: Option<Timestamp>,
    pub after: Option<Timestamp>,
}

impl Filter for EventFilter {
    fn add_to(self, conditions: &mut Conditions) {
        if !self.excluded_events.is_empty() {
            conditions.with("event <> ALL ({})", self.excluded_events);
        }
        conditions.maybe("created_at < {}", self.before);
        conditions.maybe("created_at > {}", self.after);
    }
}

pub async fn add(client: &impl GenericClient, new: &NewEvent) -> Result<()> {
    let query = "
        INSERT INTO event_log (event, owner, dag_id, run_id, task_id, map_index, logical_date, extra)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id";
    let NewEvent { event, owner, dag_id, run_id, task_id, position, logical_date, extra } = new;
    let parameters: [&(dyn ToSql + Sync); 8] = [event, owner, dag_id, run_id, task_id, position, logical_date, extra];
    let id: i64 = fetch_one(client, query, &parameters).await?;
    if id % CLEANUP_INTERVAL == 0 {
        client.execute("DELETE FROM event_log WHERE id <= $1", &[&(id - MAX_EVENTS)]).await?;
    }
    Ok(())
}

pub async fn list(client: &impl GenericClient, listing: Listing<EventField>) -> Result<ListPage<LoggedEvent>> {
    listing.fetch(client, &Source::new("*", "event_log")).await
}

/// Returns at most 100 failed callbacks since a time, newest first: those of one run, or of all.
pub async fn failed_callbacks(
    client: &impl GenericClient,
    run: Option<&RunKey>,
    since: Timestamp,
) -> Result<Vec<LoggedEvent>> {
    let query = "
        SELECT * FROM event_log WHERE event = $1 AND created_at >= $2
          AND ($3::text IS NULL OR dag_id = $3 AND run_id = $4) ORDER BY id DESC LIMIT 100";
    let (dag_id, run_id) = (run.map(|run| &run.dag_id), run.map(|run| &run.run_id));
    fetch_all(client, query, &[&CALLBACK_FAILED, &since, &dag_id, &run_id]).await
}

pub async fn get(client: &impl GenericClient, id: i64) -> Result<LoggedEvent> {
    let event = fetch_optional(client, "SELECT * FROM event_log WHERE id = $1", &[&id]).await?;
    event.ok_or_else(|| StoreError::NotFound { what: "event log", id: id.to_string() })
}
