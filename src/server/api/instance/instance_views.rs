//! Task instances and their tries as Airflow's API shows them.

use crate::api::ops::monitor::JobResponse;
use crate::api::prelude::*;
use crate::api::redact;
use crate::api::views::{DagVersionResponse, Uuid, duration, uuid, version};
use leoflow_engine::store::instance::instances::{Instance, Try};

/// Defines the response for an instance and the one for a try, which lacks the fields of `current`.
macro_rules! responses {
    ($(
        current { $($(#[$current_attribute:meta])* $current:ident: $current_type:ty,)* }
        both { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }
    )*) => {
        #[derive(Serialize, JsonSchema)]
        pub struct TaskInstanceResponse {
            $(
                $($(#[$current_attribute])* $current: $current_type,)*
                $($(#[$attribute])* $field: $type,)*
            )*
        }

        /// A task instance as of one of its tries.
        #[derive(Serialize, JsonSchema)]
        pub struct TaskInstanceHistoryResponse {
            $($($(#[$attribute])* $field: $type,)*)*
        }

        impl From<TaskInstanceResponse> for TaskInstanceHistoryResponse {
            fn from(response: TaskInstanceResponse) -> Self {
                Self { $($($field: response.$field,)*)* }
            }
        }
    };
}

responses! {
    current {
        #[schemars(with = "Uuid")]
        id: String,
    }
    both {
        task_id: String,
        dag_id: String,
        dag_run_id: String,
        map_index: i32,
    }
    current {
        logical_date: Option<Stamp>,
        run_after: Stamp,
    }
    both {
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
    }
    current {
        note: Option<String>,
        rendered_map_index: Option<String>,
        rendered_fields: Map<String, Value>,
        trigger: Option<TriggerResponse>,
        triggerer_job: Option<JobResponse>,
    }
    both {
        dag_version: Option<DagVersionResponse>,
    }
}

collection! { TaskInstanceCollectionResponse { task_instances: TaskInstanceResponse }, with cursors }

/// The trigger of a deferred task; not filled yet.
#[derive(Serialize, JsonSchema)]
pub struct TriggerResponse {
    id: i64,
    classpath: String,
    kwargs: String,
    created_date: Stamp,
    queue: Option<String>,
    triggerer_id: Option<i64>,
}

/// Returns Airflow's display name for decorated operators.
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

pub fn instance(instance: Instance) -> TaskInstanceResponse {
    let InstanceKey { run: RunKey { dag_id, run_id }, task_id, map_index } = instance.key;
    let numbers = [map_index, instance.try_number].map(|number| number.to_string());
    let id = uuid(&[&dag_id, &run_id, &task_id, &numbers[0], &numbers[1]]);
    let rendered = instance.rendered.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let rendered_fields = match rendered.map(|rendered| redact::fields(&rendered)) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    TaskInstanceResponse {
        id,
        task_display_name: task_id.clone(),
        task_id,
        dag_display_name: dag_id.clone(),
        dag_id,
        dag_run_id: run_id,
        map_index,
        logical_date: instance.logical_date.map(Stamp),
        run_after: Stamp(instance.run_after),
        start_date: instance.start_date.map(Stamp),
        end_date: instance.end_date.map(Stamp),
        duration: duration(instance.start_date, instance.end_date),
        state: instance.state.map(|state| state.to_string()),
        try_number: instance.try_number,
        max_tries: instance.max_tries,
        hostname: Some(""),
        unixname: Some(""),
        pool: instance.pool,
        pool_slots: instance.pool_slots,
        queue: Some("default"),
        priority_weight: Some(instance.priority_weight),
        operator_name: operator_name(instance.operator.as_deref()).map(str::to_owned),
        operator: instance.operator,
        queued_when: instance.queued_at.map(Stamp),
        scheduled_when: instance.scheduled_at.or(instance.queued_at).map(Stamp),
        pid: instance.pid,
        executor: None,
        executor_config: "{}",
        note: instance.note,
        // Falls back to the map index.
        rendered_map_index: instance.rendered_map_index.or_else(|| (map_index >= 0).then(|| map_index.to_string())),
        rendered_fields,
        trigger: None,
        triggerer_job: None,
        dag_version: instance.version.as_ref().map(version),
    }
}

collection! { TaskInstanceHistoryCollectionResponse { task_instances: TaskInstanceHistoryResponse } }

/// Returns the instance as of `task_try`; `None` means a try that has not started, with the instance's current state.
pub fn response_for_try(current: Instance, task_try: Option<&Try>) -> TaskInstanceHistoryResponse {
    let newest = current.try_number;
    let mut response = TaskInstanceHistoryResponse::from(instance(current));
    if let Some(task_try) = task_try {
        response.try_number = task_try.number;
        response.start_date = Some(Stamp(task_try.start_date));
        response.end_date = task_try.end_date.map(Stamp);
        response.duration = duration(Some(task_try.start_date), task_try.end_date);
        response.pid = task_try.pid;
        // The newest try shows the instance's state, for instance `up_for_retry`.
        if task_try.number != newest {
            response.state = Some(task_try.state.to_string());
        }
    }
    response
}
