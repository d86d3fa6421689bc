//! Task instances, single and in lists, with Airflow's names and shapes.

use super::instance_views::{TaskInstanceCollectionResponse, TaskInstanceResponse, instance};
use crate::api::run::dag_run_lists::{OnlyList, check_states, require_wildcard, specific_id};
use crate::http::api_error::ApiError;
use crate::http::body::{Body, maybe_lax};
use crate::http::listing::{Fields, PageLimit, PageOffset};
use crate::http::query::{Kind, Parameter, Query, QueryParams};
use crate::http::request::{Params, Segments};
use crate::process::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use leoflow_engine::model::dag::{Structure, Task};
use leoflow_engine::model::keys::RunKey;
use leoflow_engine::model::state::TaskState;
use leoflow_engine::store::dag::dags;
use leoflow_engine::store::instance::instances::{self, NOT_MAPPED};
use leoflow_engine::store::list::listing::{Column, Listing};
use leoflow_engine::store::run::runs;
use leoflow_engine::store::{ReadFor, StoreError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

const MAP_INDEX: Column = Column::whole("ti.map_index");
const DURATION: Column = Column::number("extract(epoch FROM ti.end_date - ti.start_date)::float8");
const UPDATED_AT: Column = Column::time("greatest(ti.scheduled_at, ti.queued_at, ti.start_date, ti.end_date)");
const RENDERED_INDEX: &str = "coalesce(ti.rendered_map_index, CASE WHEN ti.map_index >= 0 THEN ti.map_index::text END)";
const FIELDS: Fields = Fields {
    order: &[
        // Airflow's ids are assigned in order of creation: instances that have not started count as newest.
        ("id", Column::time("ti.start_date")),
        ("state", Column::text("ti.state")),
        ("duration", DURATION),
        ("start_date", Column::time("ti.start_date")),
        ("end_date", Column::time("ti.end_date")),
        ("map_index", MAP_INDEX),
        ("try_number", Column::whole("ti.try_number")),
        ("logical_date", Column::time("r.logical_date")),
        ("run_after", Column::time("r.run_after")),
        ("data_interval_start", Column::time("r.data_interval_start")),
        ("data_interval_end", Column::time("r.data_interval_end")),
        ("rendered_map_index", Column::text(RENDERED_INDEX)),
        ("operator", Column::text("ti.operator")),
        ("queued_when", Column::time("ti.queued_at")),
        ("scheduled_when", Column::time("ti.scheduled_at")),
        ("pool", Column::text("ti.pool")),
        ("task_id", Column::text("ti.task_id")),
        ("dag_id", Column::text("ti.dag_id")),
        ("run_id", Column::text("ti.run_id")),
    ],
    default_order: &["map_index"],
    has_cursor: true,
    patterns: &[
        ("task_display_name", "ti.task_id"),
        ("dag_id", "ti.dag_id"),
        ("run_id", "ti.run_id"),
        ("pool_name", "ti.pool"),
        ("queue_name", "'default'::text"),
        ("operator_name", "ti.operator"),
        ("rendered_map_index", RENDERED_INDEX),
    ],
    ranges: &[
        ("run_after", Column::time("r.run_after")),
        ("logical_date", Column::time("r.logical_date")),
        ("start_date", Column::time("ti.start_date")),
        ("end_date", Column::time("ti.end_date")),
        ("updated_at", UPDATED_AT),
        ("duration", DURATION),
    ],
    exact: &[("task_id", Column::text("ti.task_id"))],
    in_body: &[
        ("task_ids", Column::text("ti.task_id")),
        ("dag_ids", Column::text("ti.dag_id")),
        ("dag_run_ids", Column::text("ti.run_id")),
    ],
    one_of: &[
        ("state", Column::text("coalesce(ti.state, 'none')")),
        ("pool", Column::text("ti.pool")),
        ("queue", Column::text("'default'::text")),
        ("executor", Column::text("NULL::text")),
        ("version_number", Column::whole("v.version_number")),
        ("try_number", Column::whole("ti.try_number")),
        ("operator", Column::text("ti.operator")),
        ("map_index", MAP_INDEX),
    ],
};

pub struct InstancesQuery;

impl Query for InstancesQuery {
    const LIST: Option<&'static Fields> = Some(&FIELDS);
    const OTHERS: &'static [Parameter] = &[Parameter::new("task_group_id", Kind::Text)];
}

/// Fields for the instances of one task, which the path names.
const MAPPED_FIELDS: Fields = Fields {
    has_cursor: false,
    exact: &[],
    patterns: &[
        ("pool_name", "ti.pool"),
        ("queue_name", "'default'::text"),
        ("operator_name", "ti.operator"),
        ("rendered_map_index", RENDERED_INDEX),
    ],
    ..FIELDS
};

pub struct MappedQuery;

impl Query for MappedQuery {
    const LIST: Option<&'static Fields> = Some(&MAPPED_FIELDS);
}

/// Selects the instance by `map_index` in the query; defaults to the unmapped one.
pub struct MapIndexQuery;

impl Query for MapIndexQuery {
    const OTHERS: &'static [Parameter] = &[Parameter::new("map_index", Kind::Whole).or("-1")];
}

/// Scope of a list of instances.
#[derive(Clone, Copy)]
pub enum Scope {
    /// The instances of a run, ordered by map index, as in Airflow.
    Run,
    /// One task's instances, ordered by map index.
    Task,
    /// All instances, possibly millions: ordered by key, which has an index.
    All,
}

/// Builds the listing for a query or a body.
pub fn instance_listing(params: &Params, scope: Scope) -> Result<Listing, ApiError> {
    let (fields, default_order) = match scope {
        Scope::Run => (&FIELDS, MAP_INDEX),
        Scope::Task => (&MAPPED_FIELDS, MAP_INDEX),
        Scope::All => (&FIELDS, instances::KEY[0]),
    };
    let known_states: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
    check_states(&params.texts("state"), &known_states)?;
    // `no_status` and `none` are synonyms.
    params.with_value_replaced("state", "no_status", "none").listing_with_cursor(fields, default_order, instances::KEY)
}

/// 404 in Airflow's words; `map_index` is `None` when the request has none.
pub fn instance_not_found(run: &RunKey, task_id: &str, map_index: Option<i32>) -> ApiError {
    let RunKey { dag_id, run_id } = run;
    let map_index = map_index.map_or_else(|| "None".to_owned(), |index| index.to_string());
    let detail = format!(
        "The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}`, task_id: `{task_id}` and map_index: `{map_index}` \
         was not found"
    );
    ApiError::new(StatusCode::NOT_FOUND, detail)
}

/// Returns the tasks of a group, including nested groups.
pub fn tasks_of_group(structure: &Structure, group_id: &str) -> Vec<String> {
    let is_in_group = |task: &&Task| {
        let mut current = task.group.as_deref();
        while let Some(id) = current {
            if id == group_id {
                return true;
            }
            current = structure
                .groups
                .iter()
                .find(|candidate| candidate.group_id == id)
                .and_then(|candidate| candidate.parent.as_deref());
        }
        false
    };
    structure.tasks.iter().filter(is_in_group).map(|task| task.task_id.clone()).collect()
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TaskInstancesBatchBody {
    dag_ids: Option<Vec<String>>,
    dag_run_ids: Option<Vec<String>>,
    task_ids: Option<Vec<String>>,
    #[schemars(with = "Option<Vec<Option<TaskState>>>")]
    state: Option<Vec<Option<String>>>,
    run_after_gte: Option<Timestamp>,
    run_after_gt: Option<Timestamp>,
    run_after_lte: Option<Timestamp>,
    run_after_lt: Option<Timestamp>,
    logical_date_gte: Option<Timestamp>,
    logical_date_gt: Option<Timestamp>,
    logical_date_lte: Option<Timestamp>,
    logical_date_lt: Option<Timestamp>,
    start_date_gte: Option<Timestamp>,
    start_date_gt: Option<Timestamp>,
    start_date_lte: Option<Timestamp>,
    start_date_lt: Option<Timestamp>,
    end_date_gte: Option<Timestamp>,
    end_date_gt: Option<Timestamp>,
    end_date_lte: Option<Timestamp>,
    end_date_lt: Option<Timestamp>,
    #[serde(deserialize_with = "maybe_lax")]
    duration_gte: Option<f64>,
    #[serde(deserialize_with = "maybe_lax")]
    duration_gt: Option<f64>,
    #[serde(deserialize_with = "maybe_lax")]
    duration_lte: Option<f64>,
    #[serde(deserialize_with = "maybe_lax")]
    duration_lt: Option<f64>,
    pool: Option<Vec<String>>,
    queue: Option<Vec<String>>,
    executor: Option<Vec<String>>,
    page_offset: PageOffset,
    page_limit: PageLimit,
    order_by: Option<String>,
}

/// Lists instances of several DAGs and runs, selected by the body.
pub async fn list_by_body(
    State(state): Shared,
    _: OnlyList,
    Segments((dag_id, run_id, _)): Segments<(String, String, String)>,
    Body(body): Body<TaskInstancesBatchBody>,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    require_wildcard(&dag_id, "dag_id")?;
    require_wildcard(&run_id, "dag_run_id")?;
    let params = Params::from_body(&body, &[])?;
    let page = instances::list(&*state.database.get().await?, instance_listing(&params, Scope::All)?).await?;
    Ok(Json(page.map(instance).into()))
}

pub async fn list(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
    params: QueryParams<InstancesQuery>,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let (dag, run) = (specific_id(&dag_id), specific_id(&run_id));
    let mut listing = instance_listing(&params, if run.is_some() { Scope::Run } else { Scope::All })?;
    let client = state.database.get().await?;
    match (dag, run) {
        (None, Some(_)) => {
            let detail = "dag_id is required when dag_run_id is specified";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
        }
        (Some(dag_id), Some(run_id)) => {
            let key = RunKey { dag_id: dag_id.to_owned(), run_id: run_id.to_owned() };
            runs::get(&*client, &key, ReadFor::Reading).await.map_err(|error| match error {
                StoreError::NotFound { .. } => {
                    let detail = format!("DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found");
                    ApiError::new(StatusCode::NOT_FOUND, detail)
                }
                other => other.into(),
            })?;
        }
        (Some(dag_id), None) => drop(dags::get(&*client, dag_id).await?),
        (None, None) => {}
    }
    listing.conditions.maybe("ti.dag_id = {}", dag.map(str::to_owned));
    listing.conditions.maybe("ti.run_id = {}", run.map(str::to_owned));
    if let (Some(dag_id), Some(group_id)) = (dag, params.text("task_group_id")) {
        let structure = dags::get(&*client, dag_id).await?.structure;
        if structure.groups.iter().all(|group| group.group_id != group_id) {
            let detail = format!("Task group {group_id} was not found in Dag {dag_id}");
            return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
        }
        let tasks = tasks_of_group(&structure, group_id);
        listing.conditions.with("ti.task_id = ANY ({})", tasks);
    }
    let page = instances::list(&*client, listing).await?;
    Ok(Json(page.map(instance).into()))
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
) -> Result<Json<TaskInstanceResponse>, ApiError> {
    let key = RunKey { dag_id, run_id };
    let client = state.database.get().await?;
    let task_instance = instances::get(&*client, &key, &task_id, NOT_MAPPED).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            let RunKey { dag_id, run_id } = &key;
            let detail = format!(
                "The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}` and task_id: `{task_id}` was not found"
            );
            ApiError::new(StatusCode::NOT_FOUND, detail)
        }
        other => other.into(),
    })?;
    Ok(Json(instance(task_instance)))
}
