//! Facts about all DAGs: tags, run counts and warnings, with Airflow's names and shapes.

use crate::api::views::Stamp;
use crate::http::api_error::ApiError;
use crate::http::listing::{Fields, collection};
use crate::http::query::{Kind, ListParameters, Parameter, Query, QueryParams};
use crate::process::state::AppState;
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use leoflow_engine::model::state::RunState;
use leoflow_engine::store::dag::dag_facts::{self, TagField, UnknownPoolField};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

const TAG_FIELDS: Fields<TagField> = Fields {
    order: &[("name", TagField::Name)],
    default_order: &["name"],
    patterns: &[("tag_name", TagField::Name)],
    ..Fields::NONE
};

pub struct TagsQuery;

impl Query for TagsQuery {
    const LIST: Option<&'static dyn ListParameters> = Some(&TAG_FIELDS);
}

collection! { DAGTagCollectionResponse { tags: String } }

pub async fn tags(
    State(state): Shared,
    params: QueryParams<TagsQuery>,
) -> Result<Json<DAGTagCollectionResponse>, ApiError> {
    let listing = params.listing(&TAG_FIELDS)?;
    let page = dag_facts::tags(&*state.database.get().await?, listing).await?;
    Ok(Json(page.into()))
}

pub struct StatsQuery;

impl Query for StatsQuery {
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

/// Counts the runs of each DAG by state, for `dag_ids` or for all DAGs.
pub async fn stats(
    State(state): Shared,
    params: QueryParams<StatsQuery>,
) -> Result<Json<DagStatsCollectionResponse>, ApiError> {
    let counts = dag_facts::count_runs(&*state.database.get().await?, &params.texts("dag_ids")).await?;
    let view = |(dag_id, by_state): (String, Value)| {
        let count = |state: &RunState| by_state.get(state.as_str()).and_then(Value::as_i64).unwrap_or(0);
        let stats = RunState::ALL.iter().map(|state| DagStatsStateResponse { state: *state, count: count(state) });
        DagStatsResponse { dag_display_name: dag_id.clone(), dag_id, stats: stats.collect() }
    };
    Ok(Json(counts.into_iter().map(view).collect()))
}

/// Warning for a DAG whose task references an unknown pool.
const UNKNOWN_POOL_WARNING: &str = "non-existent pool";
const WARNING_FIELDS: Fields<UnknownPoolField> = Fields {
    order: &[
        ("dag_id", UnknownPoolField::DagId),
        ("warning_type", UnknownPoolField::DagId),
        ("message", UnknownPoolField::Pool),
        ("timestamp", UnknownPoolField::ParsedAt),
    ],
    default_order: &["dag_id"],
    exact: &[("dag_id", UnknownPoolField::DagId)],
    ..Fields::NONE
};

/// Airflow's warning types.
const WARNING_TYPES: &[&str] = &["asset conflict", UNKNOWN_POOL_WARNING, "runtime varying value"];

pub struct WarningsQuery;

impl Query for WarningsQuery {
    const LIST: Option<&'static dyn ListParameters> = Some(&WARNING_FIELDS);
    const OTHERS: &'static [Parameter] = &[Parameter::new("warning_type", Kind::OneOf(WARNING_TYPES))];
}

#[derive(Serialize, JsonSchema)]
#[expect(dead_code, reason = "warnings hold it as text")]
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
    params: QueryParams<WarningsQuery>,
) -> Result<Json<DAGWarningCollectionResponse>, ApiError> {
    let mut listing = params.listing(&WARNING_FIELDS)?;
    if params.text("warning_type").is_some_and(|warning_type| warning_type != UNKNOWN_POOL_WARNING) {
        listing.select_none();
    }
    let page = dag_facts::with_unknown_pools(&*state.database.get().await?, listing).await?;
    let view = |(dag_id, pool, parsed_at): (String, String, Timestamp)| DAGWarningResponse {
        message: format!("Dag '{dag_id}' references non-existent pools: ['{pool}']"),
        warning_type: UNKNOWN_POOL_WARNING,
        dag_display_name: dag_id.clone(),
        dag_id,
        timestamp: Stamp(parsed_at),
    };
    Ok(Json(page.map(view).into()))
}
