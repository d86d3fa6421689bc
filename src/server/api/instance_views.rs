//! Task instances and their tries as Airflow's API shows them.

use super::monitor::JobResponse;
use super::redact;
use super::views::{DagVersionResponse, Stamp, Uuid, duration, uuid, version};
use crate::engine::state::TaskState;
use crate::engine::store::instances::Instance;
use crate::engine::store::try_lists::Try;
use crate::server::listing::collection;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

#[derive(Serialize, JsonSchema)]
pub struct TaskInstanceResponse {
    #[schemars(with = "Uuid")]
    id: String,
    task_id: String,
    dag_id: String,
    dag_run_id: String,
    map_index: i32,
    logical_date: Option<Stamp>,
    run_after: Stamp,
    start_date: Option<Stamp>,
    end_date: Option<Stamp>,
    duration: Option<f64>,
    #[schemars(with = "Option<TaskState>")]
    state: Option<String>,
    try_number: i32,
    max_tries: i32,
    task_display_name: String,
    dag_display_name: String,
    hostname: Option<&'static str>,
    unixname: Option<&'static str>,
    pool: String,
    pool_slots: i32,
    queue: Option<&'static str>,
    priority_weight: Option<i32>,
    operator: Option<String>,
    operator_name: Option<String>,
    queued_when: Option<Stamp>,
    scheduled_when: Option<Stamp>,
    pid: Option<i32>,
    executor: Option<String>,
    executor_config: &'static str,
    note: Option<String>,
    rendered_map_index: Option<String>,
    rendered_fields: Map<String, Value>,
    trigger: Option<TriggerResponse>,
    triggerer_job: Option<JobResponse>,
    dag_version: Option<DagVersionResponse>,
}

collection! { TaskInstanceCollectionResponse { task_instances: TaskInstanceResponse }, with cursors }

/// What a deferred task waits for. Nothing tells of it yet.
#[derive(Serialize, JsonSchema)]
pub struct TriggerResponse {
    id: i64,
    classpath: String,
    kwargs: String,
    created_date: Stamp,
    queue: Option<String>,
    triggerer_id: Option<i64>,
}

/// As Airflow calls what the decorators make.
fn operator_name(class: Option<&str>) -> Option<&str> {
    match class {
        Some("_PythonDecoratedOperator") => Some("@task"),
        Some("_BashDecoratedOperator") => Some("@task.bash"),
        Some("_BranchPythonDecoratedOperator") => Some("@task.branch"),
        Some("_ShortCircuitDecoratedOperator") => Some("@task.short_circuit"),
        Some("DecoratedSensorOperator") => Some("@task.sensor"),
        other => other,
    }
}

pub fn instance(found: Instance) -> TaskInstanceResponse {
    let numbers = [found.map_index, found.try_number].map(|number| number.to_string());
    let id = uuid(&[&found.run.dag_id, &found.run.run_id, &found.task_id, &numbers[0], &numbers[1]]);
    let rendered = found.rendered.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let rendered_fields = match rendered.map(|rendered| redact::fields(&rendered)) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    TaskInstanceResponse {
        id,
        task_display_name: found.task_id.clone(),
        task_id: found.task_id,
        dag_display_name: found.run.dag_id.clone(),
        dag_id: found.run.dag_id,
        dag_run_id: found.run.run_id,
        map_index: found.map_index,
        logical_date: found.logical_date.map(Stamp),
        run_after: Stamp(found.run_after),
        start_date: found.start_date.map(Stamp),
        end_date: found.end_date.map(Stamp),
        duration: duration(found.start_date, found.end_date),
        state: found.state,
        try_number: found.try_number,
        max_tries: found.max_tries,
        hostname: Some(""),
        unixname: Some(""),
        pool: found.pool,
        pool_slots: found.pool_slots,
        queue: Some("default"),
        priority_weight: Some(found.priority_weight),
        operator_name: operator_name(found.operator.as_deref()).map(str::to_owned),
        operator: found.operator,
        queued_when: found.queued_at.map(Stamp),
        scheduled_when: found.scheduled_at.or(found.queued_at).map(Stamp),
        pid: found.pid,
        executor: None,
        executor_config: "{}",
        note: found.note,
        // Without a name, its number.
        rendered_map_index: found
            .rendered_map_index
            .or_else(|| (found.map_index >= 0).then(|| found.map_index.to_string())),
        rendered_fields,
        trigger: None,
        triggerer_job: None,
        dag_version: found.version.as_ref().map(version),
    }
}

/// An instance as it was in one of its tries.
#[derive(Serialize, JsonSchema)]
pub struct TaskInstanceHistoryResponse {
    task_id: String,
    dag_id: String,
    dag_run_id: String,
    map_index: i32,
    start_date: Option<Stamp>,
    end_date: Option<Stamp>,
    duration: Option<f64>,
    #[schemars(with = "Option<TaskState>")]
    state: Option<String>,
    try_number: i32,
    max_tries: i32,
    task_display_name: String,
    dag_display_name: String,
    hostname: Option<&'static str>,
    unixname: Option<&'static str>,
    pool: String,
    pool_slots: i32,
    queue: Option<&'static str>,
    priority_weight: Option<i32>,
    operator: Option<String>,
    operator_name: Option<String>,
    queued_when: Option<Stamp>,
    scheduled_when: Option<Stamp>,
    pid: Option<i32>,
    executor: Option<String>,
    executor_config: &'static str,
    dag_version: Option<DagVersionResponse>,
}

collection! { TaskInstanceHistoryCollectionResponse { task_instances: TaskInstanceHistoryResponse } }

impl From<TaskInstanceResponse> for TaskInstanceHistoryResponse {
    fn from(of: TaskInstanceResponse) -> Self {
        Self {
            task_id: of.task_id,
            dag_id: of.dag_id,
            dag_run_id: of.dag_run_id,
            map_index: of.map_index,
            start_date: of.start_date,
            end_date: of.end_date,
            duration: of.duration,
            state: of.state,
            try_number: of.try_number,
            max_tries: of.max_tries,
            task_display_name: of.task_display_name,
            dag_display_name: of.dag_display_name,
            hostname: of.hostname,
            unixname: of.unixname,
            pool: of.pool,
            pool_slots: of.pool_slots,
            queue: of.queue,
            priority_weight: of.priority_weight,
            operator: of.operator,
            operator_name: of.operator_name,
            queued_when: of.queued_when,
            scheduled_when: of.scheduled_when,
            pid: of.pid,
            executor: of.executor,
            executor_config: of.executor_config,
            dag_version: of.dag_version,
        }
    }
}

/// The instance as it was in that try; `None`: as it is, before its next try begins.
pub fn in_try(of: Instance, one: Option<&Try>) -> TaskInstanceHistoryResponse {
    let newest = of.try_number;
    let mut shown = TaskInstanceHistoryResponse::from(instance(of));
    if let Some(one) = one {
        shown.try_number = one.number;
        shown.start_date = Some(Stamp(one.start_date));
        shown.end_date = one.end_date.map(Stamp);
        shown.duration = duration(Some(one.start_date), one.end_date);
        shown.pid = one.pid;
        // The newest may wait for another after this one, or be running again.
        if one.number != newest {
            shown.state = Some(one.state.clone());
        }
    }
    shown
}
