//! Task instances, single and in lists, with Airflow's names and shapes.

use super::instance_views::{TaskInstanceCollectionResponse, TaskInstanceResponse, instance};
use crate::api::prelude::*;
use crate::api::regions::Region;
use crate::api::run::dag_run_lists::{OnlyList, check_states, require_wildcard, specific_id};
use crate::http::listing::{PageLimit, PageOffset, batch_body};
use leoflow_engine::model::keys::{MAX_ITERATIONS, Position};
use leoflow_engine::store::dag::{dags, versions};
use leoflow_engine::store::instance::instances::{self, InstanceField};
use leoflow_engine::store::list::field::ListField;
use leoflow_engine::store::run::runs;

/// Parameters that match any of several values. `state` is the field that the parameter `state` filters.
const fn one_of(state: InstanceField) -> [(&'static str, InstanceField); 8] {
    [
        ("state", state),
        ("pool", InstanceField::Pool),
        ("queue", InstanceField::Queue),
        ("executor", InstanceField::Executor),
        ("version_number", InstanceField::VersionNumber),
        ("try_number", InstanceField::TryNumber),
        ("operator", InstanceField::Operator),
        ("map_index", InstanceField::MapIndex),
    ]
}

const FIELDS: Fields<InstanceField> = Fields {
    order: &[
        // Airflow assigns ids in order of creation; Lite orders by start date, and instances that have not started come
        // last.
        ("id", InstanceField::StartDate),
        ("state", InstanceField::State),
        ("duration", InstanceField::Duration),
        ("start_date", InstanceField::StartDate),
        ("end_date", InstanceField::EndDate),
        ("map_index", InstanceField::MapIndex),
        ("try_number", InstanceField::TryNumber),
        ("logical_date", InstanceField::LogicalDate),
        ("run_after", InstanceField::RunAfter),
        ("data_interval_start", InstanceField::IntervalStart),
        ("data_interval_end", InstanceField::IntervalEnd),
        ("rendered_map_index", InstanceField::RenderedMapIndex),
        ("operator", InstanceField::Operator),
        ("queued_when", InstanceField::QueuedAt),
        ("scheduled_when", InstanceField::ScheduledAt),
        ("pool", InstanceField::Pool),
        ("task_id", InstanceField::TaskId),
        ("dag_id", InstanceField::DagId),
        ("run_id", InstanceField::RunId),
    ],
    default_order: &["map_index"],
    has_cursor: true,
    patterns: &[
        ("task_display_name", InstanceField::TaskId),
        ("dag_id", InstanceField::DagId),
        ("run_id", InstanceField::RunId),
        ("pool_name", InstanceField::Pool),
        ("queue_name", InstanceField::Queue),
        ("operator_name", InstanceField::Operator),
        ("rendered_map_index", InstanceField::RenderedMapIndex),
    ],
    ranges: &[
        ("run_after", InstanceField::RunAfter),
        ("logical_date", InstanceField::LogicalDate),
        ("start_date", InstanceField::StartDate),
        ("end_date", InstanceField::EndDate),
        ("updated_at", InstanceField::UpdatedAt),
        ("duration", InstanceField::Duration),
    ],
    exact: &[("task_id", InstanceField::TaskId)],
    in_body: &[
        ("task_ids", InstanceField::TaskId),
        ("dag_ids", InstanceField::DagId),
        ("dag_run_ids", InstanceField::RunId),
    ],
    one_of: &one_of(InstanceField::State),
};

query! {
    pub InstancesQuery(FIELDS) {
        Parameter::new("task_group_id", Kind::Text),
        // Select iterations of a loop.
        Parameter::new("loop_id", Kind::Text),
        Parameter::new("iteration", Kind::Count),
        Parameter::new("teams", Kind::Texts),
    }
}

/// Fields for the instances of one task, which the path names.
const MAPPED_FIELDS: Fields<InstanceField> = Fields {
    has_cursor: false,
    exact: &[],
    patterns: &[
        ("pool_name", InstanceField::Pool),
        ("queue_name", InstanceField::Queue),
        ("operator_name", InstanceField::Operator),
        ("rendered_map_index", InstanceField::RenderedMapIndex),
    ],
    ..FIELDS
};

/// For requests that filter by the state `none`, which selects instances without a state. These queries cannot use the
/// index on the state.
const ONE_OF_WITH_NONE: &[(&str, InstanceField)] = &one_of(InstanceField::StateOrNone);

query! { pub MappedQuery(MAPPED_FIELDS) }

query! {
    /// Selects the instance by `map_index` in the query; defaults to the unmapped one.
    pub MapIndexQuery {
        Parameter::new("map_index", Kind::Whole).or("-1"),
    }
}

/// Scope of a list of instances.
#[derive(Clone, Copy)]
pub enum Scope {
    /// The instances of a run, ordered by map index, as in Airflow.
    Run,
    /// One task's instances, ordered by map index.
    Task,
    /// The instances of several runs, possibly millions: ordered by key, which has an index.
    All,
}

/// Builds the listing for a query or a body.
pub fn instance_listing(params: &Params, scope: Scope) -> ApiResult<Listing<InstanceField>> {
    let states = params.texts("state");
    let known_states: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
    check_states(&states, &known_states)?;
    let names_none = states.iter().any(|state| ["none", "no_status"].contains(&state.as_str()));
    let fields = if matches!(scope, Scope::Task) { MAPPED_FIELDS } else { FIELDS };
    let fields = if names_none { Fields { one_of: ONE_OF_WITH_NONE, ..fields } } else { fields };
    let default_order = match scope {
        Scope::Run | Scope::Task => InstanceField::MapIndex,
        Scope::All => InstanceField::KEY[0],
    };
    // `no_status` and `none` are synonyms.
    params.with_value_replaced("state", "no_status", "none").listing_with_cursor(&fields, default_order)
}

/// 404 in Airflow's words.
pub fn instance_not_found(key: &InstanceKey) -> impl FnOnce(StoreError) -> ApiError {
    ApiError::or_not_found(|| missing_instances(&key.run, &key.task_id, Some(key.position)))
}

/// The text of a 404 about the instances of a task; `position` is `None` when the request selects all of them.
pub fn missing_instances(run: &RunKey, task_id: &str, position: Option<Position>) -> String {
    let RunKey { dag_id, run_id } = run;
    let map_index = position.map_or_else(|| "None".to_owned(), |position| position.map_index().to_string());
    format!(
        "The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}`, task_id: `{task_id}` and map_index: `{map_index}` \
         was not found"
    )
}

batch_body! {
    TaskInstancesBatchBody {
        dag_ids: Option<Vec<String>>,
        dag_run_ids: Option<Vec<String>>,
        task_ids: Option<Vec<String>>,
        #[schemars(with = "Option<Vec<Option<TaskState>>>")]
        state: Option<Vec<Option<String>>>,
        ..ranges,
        pool: Option<Vec<String>>,
        queue: Option<Vec<String>>,
        executor: Option<Vec<String>>,
        page_offset: PageOffset,
        page_limit: PageLimit,
        order_by: Option<String>,
    }
}

/// Lists instances of several DAGs and runs, selected by the body.
pub async fn list_by_body(
    State(state): Shared,
    _: OnlyList,
    Segments((dag_id, run_id, _)): Segments<TaskPath>,
    Body(body): Body<TaskInstancesBatchBody>,
) -> JsonResult<TaskInstanceCollectionResponse> {
    require_wildcard(&dag_id, "dag_id")?;
    require_wildcard(&run_id, "dag_run_id")?;
    let params = Params::from_body(&body, &[])?;
    let page = instances::list(&*state.core.database.get().await?, instance_listing(&params, Scope::All)?).await?;
    Ok(Json(page.map(instance).into()))
}

pub async fn list(
    Datastore(client): Datastore,
    Segments((dag_id, run_id)): Segments<RunPath>,
    params: QueryParams<InstancesQuery>,
) -> JsonResult<TaskInstanceCollectionResponse> {
    let (dag, run) = (specific_id(&dag_id), specific_id(&run_id));
    let mut listing = instance_listing(&params, if run.is_some() { Scope::Run } else { Scope::All })?;
    match (dag, run) {
        (None, Some(_)) => {
            let detail = "dag_id is required when dag_run_id is specified";
            return Err(ApiError::bad_request(detail));
        }
        (Some(dag_id), Some(run_id)) => {
            let key = RunKey { dag_id: dag_id.to_owned(), run_id: run_id.to_owned() };
            let detail = || format!("DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found");
            runs::get(&*client, &key, ReadFor::Reading).await.map_err(ApiError::or_not_found(detail))?;
        }
        (Some(dag_id), None) => drop(dags::get(&*client, dag_id).await?),
        (None, None) => {}
    }
    listing.filter.dag_id = dag.map(str::to_owned);
    listing.filter.run_id = run.map(str::to_owned);
    if let (Some(dag_id), Some(group_id)) = (dag, params.text("task_group_id")) {
        let structure = dags::get(&*client, dag_id).await?.structure;
        if structure.groups.iter().all(|group| group.group_id != group_id) {
            let detail = format!("Task group {group_id} was not found in Dag {dag_id}");
            return Err(ApiError::not_found(detail));
        }
        listing.filter.task_ids = Some(structure.tasks_of_group(group_id));
    }
    select_loop(&*client, &params, (dag, run), &mut listing).await?;
    let page = instances::list(&*client, listing).await?;
    Ok(Json(page.map(instance).into()))
}

/// Selects the instances of `loop_id`: of all iterations, or of one.
async fn select_loop(
    client: &impl GenericClient,
    params: &Params,
    run: (Option<&str>, Option<&str>),
    listing: &mut Listing<InstanceField>,
) -> ApiResult<()> {
    let iteration: Option<i32> = params.integer("iteration")?;
    let Some(loop_id) = params.text("loop_id") else {
        return match iteration {
            Some(_) => Err(ApiError::bad_request("iteration requires loop_id")),
            None => Ok(()),
        };
    };
    let (Some(dag_id), Some(run_id)) = run else {
        return Err(ApiError::bad_request("loop_id requires a specific Dag run"));
    };
    let key = RunKey { dag_id: dag_id.to_owned(), run_id: run_id.to_owned() };
    let run = runs::get(client, &key, ReadFor::Reading).await?;
    let structure = match run.version_id {
        Some(version) => versions::version(client, version).await?.structure,
        None => dags::get(client, dag_id).await?.into_structure(),
    };
    listing.filter.task_ids = Some(structure.tasks_of_group(loop_id));
    let iterations = [0, MAX_ITERATIONS - 1].map(|limit| iteration.unwrap_or(limit).clamp(0, MAX_ITERATIONS - 1));
    listing.filter.first = Some(Position::bounds_of(iterations[0])[0]);
    listing.filter.last = Some(Position::bounds_of(iterations[1])[1]);
    Ok(())
}

/// The tasks of a group; 404 if there is no such group.
pub async fn tasks_of_group(client: &impl GenericClient, dag_id: &str, group_id: &str) -> ApiResult<Vec<String>> {
    let structure = dags::get(client, dag_id).await?.structure;
    if structure.groups.iter().all(|group| group.group_id != group_id) {
        return Err(ApiError::not_found(format!("Task group '{group_id}' not found in DAG '{dag_id}'")));
    }
    Ok(structure.tasks_of_group(group_id))
}

pub async fn get(
    Datastore(client): Datastore,
    Segments(path): Segments<TaskPath>,
    Region(position): Region,
) -> JsonResult<TaskInstanceResponse> {
    let (dag_id, run_id, task_id) = path;
    let key = InstanceKey::new(RunKey { dag_id, run_id }, &task_id, position);
    let not_found = ApiError::or_not_found(|| {
        let RunKey { dag_id, run_id } = &key.run;
        format!("The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}` and task_id: `{task_id}` was not found")
    });
    let task_instance = instances::get(&*client, &key).await.map_err(not_found)?;
    Ok(Json(instance(task_instance)))
}
