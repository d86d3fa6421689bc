//! What is told of all DAGs together: tags, counts of runs, warnings; with Airflow's names and shapes.

use super::views::Stamp;
use crate::engine::state::RunState;
use crate::engine::store::dag_facts;
use crate::engine::store::listing::Column;
use crate::server::api_error::ApiError;
use crate::server::listing::{Fields, NOTHING, collection};
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

const TAG_FIELDS: Fields = Fields {
    order: &[("name", Column::text("t.name"))],
    usual: &["name"],
    patterns: &[("tag_name", "t.name")],
    ..NOTHING
};

pub struct OfTags;

impl Query for OfTags {
    const LIST: Option<&'static Fields> = Some(&TAG_FIELDS);
}

collection! { DAGTagCollectionResponse { tags: String } }

pub async fn tags(State(state): Shared, asked: Asked<OfTags>) -> Result<Json<DAGTagCollectionResponse>, ApiError> {
    let listing = asked.listing(&TAG_FIELDS)?;
    let found = dag_facts::tags(&*state.database.get().await?, listing).await?;
    Ok(Json(found.into()))
}

pub struct OfStats;

impl Query for OfStats {
    const OTHERS: &'static [Parameter] = &[Parameter::new("dag_ids", Kind::Texts)];
}

#[derive(Serialize, JsonSchema)]
struct DagStatsStateResponse {
    state: RunState,
    count: i64,
}

#[derive(Serialize, JsonSchema)]
pub struct DagStatsResponse {
    dag_id: String,
    dag_display_name: String,
    stats: Vec<DagStatsStateResponse>,
}

collection! { DagStatsCollectionResponse { dags: DagStatsResponse } }

/// How many runs of each DAG are in which state; those of `dag_ids`, or of all.
pub async fn stats(State(state): Shared, asked: Asked<OfStats>) -> Result<Json<DagStatsCollectionResponse>, ApiError> {
    let counts = dag_facts::count_runs(&*state.database.get().await?, &asked.texts("dag_ids")).await?;
    let view = |(dag_id, by_state): (String, Value)| {
        let count = |state: &RunState| by_state.get(state.as_str()).and_then(Value::as_i64).unwrap_or(0);
        let stats = RunState::ALL.iter().map(|state| DagStatsStateResponse { state: *state, count: count(state) });
        DagStatsResponse { dag_display_name: dag_id.clone(), dag_id, stats: stats.collect() }
    };
    Ok(Json(counts.into_iter().map(view).collect()))
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
    usual: &["dag_id"],
    exact: &[("dag_id", Column::text("w.dag_id"))],
    ..NOTHING
};

/// Airflow's kinds of warnings.
const KINDS: &[&str] = &["asset conflict", WARNING, "runtime varying value"];

pub struct OfWarnings;

impl Query for OfWarnings {
    const LIST: Option<&'static Fields> = Some(&WARNING_FIELDS);
    const OTHERS: &'static [Parameter] = &[Parameter::new("warning_type", Kind::OneOf(KINDS))];
}

#[derive(Serialize, JsonSchema)]
#[expect(dead_code, reason = "a warning has it as a text")]
enum DagWarningType {
    #[serde(rename = "asset conflict")]
    AssetConflict,
    #[serde(rename = "non-existent pool")]
    NonExistentPool,
    #[serde(rename = "runtime varying value")]
    RuntimeVaryingValue,
}

#[derive(Serialize, JsonSchema)]
pub struct DAGWarningResponse {
    dag_id: String,
    #[schemars(with = "DagWarningType")]
    warning_type: &'static str,
    message: String,
    timestamp: Stamp,
    dag_display_name: String,
}

collection! { DAGWarningCollectionResponse { dag_warnings: DAGWarningResponse } }

pub async fn warnings(
    State(state): Shared,
    asked: Asked<OfWarnings>,
) -> Result<Json<DAGWarningCollectionResponse>, ApiError> {
    let mut listing = asked.listing(&WARNING_FIELDS)?;
    listing.conditions.maybe(&format!("{{}} = '{WARNING}'"), asked.text("warning_type").map(str::to_owned));
    let found = dag_facts::with_unknown_pools(&*state.database.get().await?, listing).await?;
    let view = |(dag_id, pool, at): (String, String, Timestamp)| DAGWarningResponse {
        message: format!("Dag '{dag_id}' references non-existent pools: ['{pool}']"),
        warning_type: WARNING,
        dag_display_name: dag_id.clone(),
        dag_id,
        timestamp: Stamp(at),
    };
    Ok(Json(found.map(view).into()))
}
