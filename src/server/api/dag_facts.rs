//! What is told of all DAGs together: tags, counts of runs, warnings; with Airflow's names and shapes.

use crate::engine::state::RunState;
use crate::engine::store::dag_facts;
use crate::engine::store::listing::Column;
use crate::server::api_error::ApiError;
use crate::server::listing::{Fields, NOTHING, page};
use crate::server::request::Params;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

const TAG_FIELDS: Fields =
    Fields { order: &[("name", Column::text("t.name"))], patterns: &[("tag_name", "t.name")], ..NOTHING };

pub async fn tags(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let listing = params.listing(&TAG_FIELDS)?;
    let found = dag_facts::tags(&*state.database.get().await?, listing).await?;
    Ok(Json(page("tags", found.rows.into_iter().map(Value::from).collect(), found.total)))
}

/// How many runs of each DAG are in which state; those of `dag_ids`, or of all.
pub async fn stats(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let counts = dag_facts::count_runs(&*state.database.get().await?, &params.texts("dag_ids")).await?;
    let view = |(dag_id, by_state): (String, Value)| {
        let stats: Vec<Value> = RunState::ALL
            .iter()
            .map(|state| json!({"state": state.as_str(), "count": by_state.get(state.as_str()).unwrap_or(&json!(0))}))
            .collect();
        json!({"dag_id": dag_id, "dag_display_name": dag_id, "stats": stats})
    };
    let found: Vec<Value> = counts.into_iter().map(view).collect();
    Ok(Json(json!({"total_entries": found.len(), "dags": found})))
}

/// A DAG whose task names a pool that is not there.
const WARNING: &str = "non-existent pool";
const WARNING_FIELDS: Fields = Fields {
    order: &[
        ("dag_id", Column::text("w.dag_id")),
        ("warning_type", Column::text("w.dag_id")),
        ("message", Column::text("w.pool")),
        ("timestamp", Column::time("w.at")),
    ],
    exact: &[("dag_id", Column::text("w.dag_id"))],
    ..NOTHING
};

pub async fn warnings(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let mut listing = params.listing(&WARNING_FIELDS)?;
    listing.conditions.maybe(&format!("{{}} = '{WARNING}'"), params.text("warning_type").map(str::to_owned));
    let found = dag_facts::with_unknown_pools(&*state.database.get().await?, listing).await?;
    let view = |(dag_id, pool, at): &(String, String, jiff::Timestamp)| {
        json!({
            "dag_id": dag_id, "warning_type": WARNING, "dag_display_name": dag_id, "timestamp": super::views::stamp(*at),
            "message": format!("Dag '{dag_id}' references non-existent pools: ['{pool}']"),
        })
    };
    Ok(Json(page("dag_warnings", found.rows.iter().map(view).collect(), found.total)))
}
