//! `/api/v2/dags/{dag_id}/tasks` and the instances of a mapped task, with Airflow's names and shapes.

use super::dag_views::view_params;
use super::operator_module;
use crate::api::instance::instance_views::{TaskInstanceCollectionResponse, TaskInstanceResponse, instance};
use crate::api::instance::task_instances::{self, MappedQuery};
use crate::api::instance_path::MappedInstance;
use crate::api::prelude::*;
use leoflow_engine::model::dag::{Structure, Task, TriggerRule};
use leoflow_engine::store::dag::{dags, versions};
use leoflow_engine::store::instance::instances::{self, InstanceFilter};
use std::cmp::Ordering;
use std::sync::Arc;

/// Airflow's JSON for a timedelta.
#[derive(Serialize, JsonSchema)]
struct TimeDelta {
    #[serde(rename = "__type")]
    kind: &'static str,
    days: i64,
    seconds: i64,
    microseconds: i64,
}

fn time_delta(seconds: f64) -> TimeDelta {
    let whole = seconds.floor();
    TimeDelta {
        kind: "TimeDelta",
        days: (whole / 86_400.0).floor() as i64,
        seconds: (whole % 86_400.0) as i64,
        microseconds: ((seconds - whole) * 1e6).round() as i64,
    }
}

view! {
    pub struct TaskResponse;
    fn response(task: &Task, structure: &Structure) {
        task_id: Option<String> = Some(task.task_id.clone()),
        task_display_name: Option<String> = Some(task.display_name.as_ref().unwrap_or(&task.task_id).clone()),
        owner: Option<String> = Some(task.owner.clone()),
        #[schemars(with = "Option<Stamp>")]
        start_date: Option<String> = task.start_date.as_ref().or(structure.start_date.as_ref()).cloned(),
        #[schemars(with = "Option<Stamp>")]
        end_date: Option<String> = task.end_date.as_ref().or(structure.end_date.as_ref()).cloned(),
        #[schemars(with = "Option<String>")]
        trigger_rule: TriggerRule,
        depends_on_past: bool,
        wait_for_downstream: bool,
        #[schemars(with = "Option<f64>")]
        retries: u32,
        queue: Option<&'static str> = Some("default"),
        pool: Option<String> = Some(task.pool().to_owned()),
        #[schemars(with = "Option<f64>")]
        pool_slots: i32,
        execution_timeout: Option<TimeDelta> = task.execution_timeout.map(time_delta),
        retry_delay: Option<TimeDelta> = Some(time_delta(task.retry_delay)),
        retry_exponential_backoff: f64 = task.retry_backoff.unwrap_or(0.0),
        #[schemars(with = "Option<f64>")]
        priority_weight: i32 = task.own_weight,
        weight_rule: Option<String> = Some(task.weight_rule.as_deref().unwrap_or("downstream").to_owned()),
        ui_color: Option<String> = None,
        ui_fgcolor: Option<String> = None,
        template_fields: Option<Vec<String>> = Some(task.template_fields.clone()),
        downstream_task_ids: Option<Vec<String>> = Some(downstream_task_ids(task, structure)),
        doc_md: Option<String> = task.doc_md.clone(),
        operator_name: Option<String> = Some(task.operator_name.clone()),
        #[schemars(with = "Option<Map<String, Value>>")]
        params: Map<String, Value> = view_params(structure.params.iter().chain(&task.params)),
        class_ref: Option<Map<String, Value>> = Some(class_ref(task)),
        is_mapped: Option<bool> = Some(task.mapped),
        extra_links: Vec<String> = Vec::new(),
    }
}

fn downstream_task_ids(task: &Task, structure: &Structure) -> Vec<String> {
    let downstream = structure.tasks.iter().filter(|other| other.upstream.contains(&task.task_id));
    downstream.map(|other| other.task_id.clone()).collect()
}

fn class_ref(task: &Task) -> Map<String, Value> {
    let class = [("module_path", json!(operator_module::of(task))), ("class_name", json!(task.operator))];
    class.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

collection! { TaskCollectionResponse { tasks: TaskResponse } }

query! { pub TaskQuery { Parameter::new("version_number", Kind::Whole) } }

query! { pub TasksQuery { Parameter::new("order_by", Kind::Text).or("\"task_id\"") } }

pub async fn list(
    Datastore(client): Datastore,
    Id(dag_id): Id,
    params: QueryParams<TasksQuery>,
) -> JsonResult<TaskCollectionResponse> {
    let structure = dags::get(&*client, &dag_id).await?.structure;
    let mut tasks: Vec<TaskResponse> = structure.tasks.iter().map(|task| response(task, &structure)).collect();
    sort(&mut tasks, params.text("order_by").unwrap_or("task_id"))?;
    Ok(Json(tasks.into_iter().collect()))
}

/// Fields that `order_by` accepts.
const SORTABLE_FIELDS: [&str; 20] = [
    "task_id",
    "task_display_name",
    "owner",
    "start_date",
    "end_date",
    "trigger_rule",
    "depends_on_past",
    "wait_for_downstream",
    "retries",
    "queue",
    "pool",
    "pool_slots",
    "execution_timeout",
    "retry_delay",
    "retry_exponential_backoff",
    "priority_weight",
    "weight_rule",
    "ui_color",
    "ui_fgcolor",
    "operator_name",
];

/// Sorts as Airflow does: missing values last; with `-` in descending order, missing values first.
fn sort(tasks: &mut Vec<TaskResponse>, order: &str) -> ApiResult<()> {
    let name = order.trim_start_matches(['-', '+']);
    if !SORTABLE_FIELDS.contains(&name) {
        let detail = format!("Ordering with '{name}' is disallowed or the attribute does not exist on the model");
        return Err(ApiError::bad_request(detail));
    }
    let key = |task: &TaskResponse| SortKey::new(&serde_json::to_value(task).unwrap_or_default()[name]);
    let mut keyed: Vec<(SortKey, TaskResponse)> = tasks.drain(..).map(|task| (key(&task), task)).collect();
    let is_backwards = order.starts_with('-');
    // Swaps the operands instead of reversing the list, which would also reverse equal tasks.
    keyed.sort_by(|(first, _), (second, _)| if is_backwards { second.compare(first) } else { first.compare(second) });
    tasks.extend(keyed.into_iter().map(|(_, task)| task));
    Ok(())
}

/// A field's value, in a form that can be compared.
enum SortKey {
    Number(f64),
    Text(String),
    None,
}

impl SortKey {
    fn new(value: &Value) -> Self {
        match value {
            Value::Null => Self::None,
            Value::Bool(flag) => Self::Number(f64::from(u8::from(*flag))),
            Value::Number(number) => number.as_f64().map_or(Self::None, Self::Number),
            Value::String(text) => Self::Text(text.clone()),
            // A `TimeDelta`.
            other => {
                let part = |name: &str| other[name].as_f64().unwrap_or(0.0);
                Self::Number(part("days") * 86_400.0 + part("seconds") + part("microseconds") / 1e6)
            }
        }
    }

    fn compare(&self, second: &Self) -> Ordering {
        match (self, second) {
            (Self::Number(first), Self::Number(second)) => first.total_cmp(second),
            (Self::Text(first), Self::Text(second)) => first.cmp(second),
            (Self::None, Self::None) => Ordering::Equal,
            (Self::None, _) => Ordering::Greater,
            (_, Self::None) => Ordering::Less,
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

pub async fn get(
    Datastore(client): Datastore,
    Segments((dag_id, task_id)): Segments<(String, String)>,
    params: QueryParams<TaskQuery>,
) -> JsonResult<TaskResponse> {
    let structure = match params.whole("version_number")? {
        None => dags::get(&*client, &dag_id).await?.structure,
        Some(number) => {
            let structure = versions::structure(&*client, &dag_id, i32::try_from(number).unwrap_or(i32::MAX)).await?;
            let detail = || ApiError::not_found(format!("Dag {dag_id} has no version {number}"));
            Arc::new(structure.ok_or_else(detail)?)
        }
    };
    let task = structure
        .tasks
        .iter()
        .find(|task| task.task_id == task_id)
        .ok_or_else(|| ApiError::not_found(format!("Task with id {task_id} was not found")))?;
    Ok(Json(response(task, &structure)))
}

pub async fn list_mapped(
    Datastore(client): Datastore,
    Segments((dag_id, run_id, task_id)): Segments<TaskPath>,
    params: QueryParams<MappedQuery>,
) -> JsonResult<TaskInstanceCollectionResponse> {
    let mut listing = task_instances::instance_listing(&params, task_instances::Scope::Task)?;
    listing.filter = InstanceFilter {
        dag_id: Some(dag_id.clone()),
        run_id: Some(run_id),
        mapped_task_id: Some(task_id.clone()),
        ..InstanceFilter::default()
    };
    let page = instances::list(&*client, listing).await?;
    if page.total == 0 {
        let structure = dags::get(&*client, &dag_id).await?.structure;
        let not_found = |detail: String| Err(ApiError::not_found(detail));
        match structure.tasks.iter().find(|task| task.task_id == task_id) {
            None => return not_found(format!("Task id {task_id} not found")),
            Some(task) if !task.mapped && task.group.is_none() => {
                return not_found(format!("Task id {task_id} is not mapped"));
            }
            Some(_) => {}
        }
    }
    Ok(Json(page.map(instance).into()))
}

pub async fn get_mapped_instance(
    Datastore(client): Datastore,
    MappedInstance(key): MappedInstance,
) -> JsonResult<TaskInstanceResponse> {
    let not_found = ApiError::or_not_found(|| {
        let InstanceKey { run: RunKey { dag_id, run_id }, task_id, position } = &key;
        let map_index = position.map_index();
        format!(
            "The Mapped Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}`, task_id: `{task_id}`, \
             and map_index: `{map_index}` was not found"
        )
    });
    let mapped_instance = instances::get(&*client, &key).await.map_err(not_found)?;
    Ok(Json(instance(mapped_instance)))
}
