//! Lists of deadlines for display, and what their callbacks printed.

use super::deadlines::CallbackState;
use crate::model::keys::RunKey;
use crate::store::Result;
use crate::store::list::field::{filter, list_fields};
use crate::store::list::filter::Range;
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::list::overview::Granularity;
use crate::store::rows::{fetch_all, fetch_optional, from_row};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::HashSet;
use tokio_postgres::types::ToSql;

from_row! {
    #[derive(Debug, Clone)]
    pub struct Deadline {
        pub id: String,
        pub run: RunKey => RunKey::from_row,
        pub due_at: Timestamp,
        pub state: CallbackState,
        pub created_at: Timestamp,
        /// Number of the version with the alert, and the alert's number in it, from 1.
        pub version_number: i32,
        pub alert: i32,
        pub alert_name: Option<String>,
        pub callback: Option<String>,
        pub is_async: bool,
    }
}

list_fields! {
    /// Fields of deadlines, for lists.
    DeadlineField, key: [Id], filter: DeadlineFilter;
    Id = text("e.id::text"),
    DueAt = time("e.due_at"),
    CreatedAt = time("e.created_at"),
    UpdatedAt = time("e.updated_at"),
    /// `true` or `false`.
    Missed = text("(e.state <> 'scheduled')::text"),
    DagId = text("e.dag_id"),
    RunId = text("e.run_id"),
    AlertName = text("(a.alert->>'name')"),
    CallbackState = text("e.state"),
    CallbackType = text("(a.alert->>'is_async')"),
}

filter! {
    pub struct DeadlineFilter {
        dag_id: String = "e.dag_id = {}",
        run_id: String = "e.run_id = {}",
    }
}

/// A page of deadlines.
pub async fn list(client: &impl GenericClient, listing: Listing<DeadlineField>) -> Result<ListPage<Deadline>> {
    let columns = "e.id::text AS id, e.dag_id, e.run_id, e.due_at, e.state, e.created_at, v.version_number, e.alert,
                   a.alert->>'name' AS alert_name, a.alert->>'callback' AS callback,
                   coalesce((a.alert->>'is_async')::boolean, false) AS is_async";
    let joins = &[
        ("v", "JOIN dag_version v ON v.id = e.dag_version_id"),
        ("a", "CROSS JOIN LATERAL (SELECT v.structure->'deadlines'->(e.alert - 1) AS alert) a"),
    ];
    listing.fetch(client, &Source { columns, from: "deadline e", joins }).await
}

/// What the callback of a run's deadline printed; empty if it has not ended, `None` without such a deadline.
pub async fn log(client: &impl GenericClient, run: &RunKey, id: &str) -> Result<Option<String>> {
    let query = "SELECT coalesce(log, '') FROM deadline WHERE dag_id = $1 AND run_id = $2 AND id::text = $3";
    fetch_optional(client, query, &[&run.dag_id, &run.run_id, &id]).await
}

/// Those of these runs of a DAG that have missed a deadline.
pub async fn late_runs(client: &impl GenericClient, dag_id: &str, run_ids: &[&str]) -> Result<HashSet<String>> {
    let query = "SELECT DISTINCT run_id FROM deadline WHERE dag_id = $1 AND run_id = ANY ($2) AND state <> 'scheduled'";
    Ok(fetch_all(client, query, &[&dag_id, &run_ids]).await?.into_iter().collect())
}

from_row! {
    /// The number of deadlines of a day or an hour.
    #[derive(Debug, Clone, Copy)]
    pub struct DeadlineCount {
        pub at: Timestamp,
        pub missed: bool,
        pub count: i64,
    }
}

/// Counts the deadlines of a DAG in the range.
pub async fn calendar(
    client: &impl GenericClient,
    dag_id: &str,
    granularity: Granularity,
    range: Range<Timestamp>,
) -> Result<Vec<DeadlineCount>> {
    let (conditions, bounds) = range.conditions("due_at", 3);
    let query = format!(
        "SELECT date_trunc($2, due_at, 'UTC') AS at, state <> 'scheduled' AS missed, count(*) AS count
         FROM deadline WHERE dag_id = $1{conditions} GROUP BY 1, 2 ORDER BY 1, 2"
    );
    let unit = granularity.unit();
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&dag_id, &unit];
    parameters.extend(bounds.iter().map(|bound| bound as &(dyn ToSql + Sync)));
    fetch_all(client, &query, &parameters).await
}
