//! Smaller things that the UI asks: backfills with how far they are, deadlines, and the forms of connections.

use crate::engine::store::backfills;
use crate::server::api::backfills::{BackfillResponse, FIELDS, view};
use crate::server::api_error::ApiError;
use crate::server::providers;
use crate::server::request::Params;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

#[derive(Serialize)]
pub struct Backfills {
    backfills: Vec<BackfillWithRuns>,
    total_entries: i64,
}

/// A backfill, and how far it is.
#[derive(Serialize)]
struct BackfillWithRuns {
    #[serde(flatten)]
    backfill: BackfillResponse,
    num_runs: i64,
    dag_run_state_counts: Value,
}

/// `/ui/backfills`.
pub async fn backfills(State(state): Shared, params: Params) -> Result<Json<Backfills>, ApiError> {
    let mut listing = params.listing(&FIELDS)?;
    listing.conditions.maybe("dag_id = {}", params.text("dag_id").map(str::to_owned));
    listing.conditions.maybe("(completed_at IS NULL) = {}", params.flag("active")?);
    let client = state.database.get().await?;
    let found = backfills::list(&*client, listing).await?;
    let mut shown = Vec::with_capacity(found.rows.len());
    for backfill in found.rows {
        shown.push(BackfillWithRuns {
            num_runs: backfills::outcome(&*client, backfill.id).await?.0,
            dag_run_state_counts: backfills::states(&*client, backfill.id).await?.into(),
            backfill: view(backfill),
        });
    }
    Ok(Json(Backfills { backfills: shown, total_entries: found.total }))
}

/// `/ui/dags/{dag_id}/dagRuns/{run_id}/deadlines`: none are kept here.
pub async fn deadlines() -> Json<Value> {
    Json(json!({"deadlines": [], "total_entries": 0}))
}

/// `/ui/dags/{dag_id}/deadlineAlerts`.
pub async fn deadline_alerts() -> Json<Value> {
    Json(json!({"deadline_alerts": [], "total_entries": 0}))
}

/// Types of connections that ask for no provider to be written down.
const PLAIN: [(&str, &str); 12] = [
    ("generic", "Generic"),
    ("http", "HTTP"),
    ("postgres", "Postgres"),
    ("mysql", "MySQL"),
    ("sqlite", "SQLite"),
    ("ssh", "SSH"),
    ("sftp", "SFTP"),
    ("ftp", "FTP"),
    ("smtp", "SMTP"),
    ("redis", "Redis"),
    ("aws", "Amazon Web Services"),
    ("fs", "File (path)"),
];
const FIELDS_OF_ALL: [(&str, &str); 6] = [
    ("description", "Description"),
    ("url_schema", "schema"),
    ("host", "host"),
    ("port", "port"),
    ("login", "login"),
    ("password", "password"),
];

/// `/ui/connections/hook_meta`: of the providers that projects have, and of what is usual without one.
pub async fn hook_meta(State(state): Shared) -> Result<Json<Value>, ApiError> {
    let found = providers::list(&state).await;
    let found = found.map_err(|reason| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason))?;
    let mut shown: BTreeMap<String, Value> = BTreeMap::new();
    for kind in found.iter().flat_map(|provider| &provider.connection_types) {
        let (hidden, relabeled) = (&kind.behaviour["hidden_fields"], &kind.behaviour["relabeling"]);
        let standard: Value = FIELDS_OF_ALL
            .iter()
            .map(|(name, field)| {
                let is_hidden = hidden.as_array().is_some_and(|all| all.iter().any(|one| one == field));
                let title = relabeled[*field].as_str();
                let placeholder = kind.behaviour["placeholders"][*field].as_str();
                ((*name).to_owned(), json!({"hidden": is_hidden, "title": title, "placeholder": placeholder}))
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        let name = kind.hook_name.clone().unwrap_or_else(|| kind.connection_type.clone());
        let one = json!({
            "connection_type": kind.connection_type, "hook_class_name": kind.hook_class_name, "default_conn_name": null,
            "hook_name": name, "standard_fields": standard, "extra_fields": kind.fields,
        });
        shown.entry(kind.connection_type.clone()).or_insert(one);
    }
    for (kind, name) in PLAIN {
        shown.entry(kind.to_owned()).or_insert_with(|| {
            json!({
                "connection_type": kind, "hook_class_name": null, "default_conn_name": null, "hook_name": name,
                "standard_fields": null, "extra_fields": null,
            })
        });
    }
    Ok(Json(shown.into_values().collect::<Vec<_>>().into()))
}
