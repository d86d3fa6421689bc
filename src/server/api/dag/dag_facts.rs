//! Facts about all DAGs: tags, run counts and warnings, with Airflow's names and shapes.

use crate::api::prelude::*;
use leoflow_engine::store::dag::dag_facts::{self, RunCounts, TagField, Warning, WarningField};

const TAG_FIELDS: Fields<TagField> = Fields {
    order: &[("name", TagField::Name)],
    default_order: &["name"],
    patterns: &[("tag_name", TagField::Name)],
    ..Fields::NONE
};

query! { pub TagsQuery(TAG_FIELDS) }

collection! { DAGTagCollectionResponse { tags: String } }

pub async fn tags(State(state): Shared, params: QueryParams<TagsQuery>) -> JsonResult<DAGTagCollectionResponse> {
    let listing = params.listing(&TAG_FIELDS)?;
    let page = dag_facts::tags(&*state.core.database.get().await?, listing).await?;
    Ok(Json(page.into()))
}

query! { pub StatsQuery { Parameter::new("dag_ids", Kind::Texts) } }

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
pub async fn stats(State(state): Shared, params: QueryParams<StatsQuery>) -> JsonResult<DagStatsCollectionResponse> {
    let counts = dag_facts::count_runs(&*state.core.database.get().await?, &params.texts("dag_ids")).await?;
    let view = |RunCounts { dag_id, display_name, by_state }| {
        let count = |state: &RunState| by_state.get(state.as_str()).and_then(Value::as_i64).unwrap_or(0);
        let stats = RunState::ALL.iter().map(|state| DagStatsStateResponse { state: *state, count: count(state) });
        DagStatsResponse { dag_id, dag_display_name: display_name, stats: stats.collect() }
    };
    Ok(Json(counts.into_iter().map(view).collect()))
}

const WARNING_FIELDS: Fields<WarningField> = Fields {
    order: &[
        ("dag_id", WarningField::DagId),
        ("warning_type", WarningField::Kind),
        ("message", WarningField::Message),
        ("timestamp", WarningField::At),
    ],
    default_order: &["dag_id"],
    exact: &[("dag_id", WarningField::DagId)],
    ..Fields::NONE
};

/// Airflow's warning types.
const WARNING_TYPES: &[&str] =
    &["asset conflict", "duplicate dag id", "non-existent pool", "runtime varying value", "task group cycle"];

query! { pub WarningsQuery(WARNING_FIELDS) { Parameter::new("warning_type", Kind::OneOf(WARNING_TYPES)) } }

#[derive(Serialize, JsonSchema)]
#[expect(dead_code, reason = "only for the JSON schema; warnings store their type as text")]
enum DagWarningType {
    #[serde(rename = "asset conflict")]
    AssetConflict,
    #[serde(rename = "duplicate dag id")]
    DuplicateDagId,
    #[serde(rename = "non-existent pool")]
    NonExistentPool,
    #[serde(rename = "runtime varying value")]
    RuntimeVaryingValue,
    #[serde(rename = "task group cycle")]
    TaskGroupCycle,
}

view! {
    pub struct DAGWarningResponse;
    fn warning_response(warning: Warning) {
        dag_id: String = warning.dag_id.clone(),
        #[schemars(with = "DagWarningType")]
        warning_type: String = warning.kind,
        message: String,
        timestamp: Stamp = Stamp(warning.at),
        dag_display_name: String = warning.dag_id,
    }
}

collection! { DAGWarningCollectionResponse { dag_warnings: DAGWarningResponse } }

pub async fn warnings(
    State(state): Shared,
    params: QueryParams<WarningsQuery>,
) -> JsonResult<DAGWarningCollectionResponse> {
    let mut listing = params.listing(&WARNING_FIELDS)?;
    listing.test(WarningField::Kind, FieldTest::OneOf(params.texts("warning_type")));
    let page = dag_facts::warnings(&*state.core.database.get().await?, listing).await?;
    Ok(Json(page.map(warning_response).into()))
}
