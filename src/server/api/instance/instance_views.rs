//! Task instances and their tries as Airflow's API shows them.

use crate::api::ops::monitor::JobResponse;
use crate::api::prelude::*;
use crate::api::redact;
use crate::api::regions;
use crate::api::views::{DagVersionResponse, Uuid, duration, uuid, version};
use leoflow_engine::model::keys::Position;
use leoflow_engine::store::instance::instances::{Instance, Try};

/// Defines the response for an instance with the function that builds it, and the response for a try, which lacks the
/// fields of `current`. As in `view!`, a field has its type and its value.
macro_rules! responses {
    (fn $function:ident($row:ident) $(
        current { $($(#[$current_attribute:meta])* $current:ident: $current_type:ty $(= $current_value:expr)?,)* }
        both { $($(#[$attribute:meta])* $field:ident: $type:ty $(= $value:expr)?,)* }
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

        pub fn $function($row: Instance) -> TaskInstanceResponse {
            TaskInstanceResponse {
                $(
                    $($current: view!(@value $row.$current $(, $current_value)?),)*
                    $($field: view!(@value $row.$field $(, $value)?),)*
                )*
            }
        }

        impl From<TaskInstanceResponse> for TaskInstanceHistoryResponse {
            fn from(response: TaskInstanceResponse) -> Self {
                Self { $($($field: response.$field,)*)* }
            }
        }
    };
}

responses! {
    fn instance(instance)
    current {
        in_loop: bool = instance.key.position.iteration().is_some(),
        team_name: Option<String> = None,
    }
    both {
        #[schemars(with = "Uuid")]
        id: String = instance_id(&instance.key, instance.try_number),
        task_id: String = instance.key.task_id.clone(),
        dag_id: String = instance.key.run.dag_id.clone(),
        dag_run_id: String = instance.key.run.run_id.clone(),
        map_index: i32 = instance.key.position.map_index(),
        #[schemars(with = "Uuid")]
        region_id: String = regions::of_instance(&instance.key).0,
        region_index: i32 = regions::of_instance(&instance.key).1,
        loop_iteration: Option<LoopIterationResponse> = loop_iteration(instance.loop_id, instance.key.position),
    }
    current {
        logical_date: Option<Stamp> = instance.logical_date.map(Stamp),
        run_after: Stamp = Stamp(instance.run_after),
    }
    both {
        start_date: Option<Stamp> = instance.start_date.map(Stamp),
        end_date: Option<Stamp> = instance.end_date.map(Stamp),
        duration: Option<f64> = duration(instance.start_date, instance.end_date),
        #[schemars(with = "Option<TaskState>")]
        state: Option<String> = instance.state.map(|state| state.to_string()),
        try_number: i32,
        max_tries: i32,
        task_display_name: String = instance.key.task_id,
        dag_display_name: String = instance.key.run.dag_id,
        hostname: Option<&'static str> = Some(""),
        unixname: Option<&'static str> = Some(""),
        pool: String,
        pool_slots: i32,
        queue: Option<&'static str> = Some("default"),
        priority_weight: Option<i32> = Some(instance.priority_weight),
        operator: Option<String> = instance.operator.clone(),
        operator_name: Option<String> = operator_name(instance.operator.as_deref()).map(str::to_owned),
        queued_when: Option<Stamp> = instance.queued_at.map(Stamp),
        scheduled_when: Option<Stamp> = instance.scheduled_at.or(instance.queued_at).map(Stamp),
        pid: Option<i32>,
        executor: Option<String> = None,
        executor_config: &'static str = "{}",
        note: Option<String>,
        // Only for states that something other than the task decides; the reasons are in its log.
        state_reason: Option<String> = None,
    }
    current {
        // Falls back to the map index.
        rendered_map_index: Option<String> = instance
            .rendered_map_index
            .or_else(|| Some(instance.key.position.map_index()).filter(|index| *index >= 0).map(|index| index.to_string())),
        rendered_fields: Map<String, Value> = rendered_fields(instance.rendered.as_deref()),
        trigger: Option<TriggerResponse> = None,
        triggerer_job: Option<JobResponse> = None,
    }
    both {
        dag_version: Option<DagVersionResponse> = instance.version.as_ref().map(version),
    }
}

/// The iteration of a loop.
#[derive(Serialize, JsonSchema)]
pub struct LoopIterationResponse {
    loop_id: String,
    iteration: i32,
}

pub fn loop_iteration(loop_id: Option<String>, position: Position) -> Option<LoopIterationResponse> {
    Some(LoopIterationResponse { loop_id: loop_id?, iteration: position.iteration()? })
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

pub fn instance_id(InstanceKey { run, task_id, position }: &InstanceKey, try_number: i32) -> String {
    uuid(&[&run.dag_id, &run.run_id, task_id, &position.stored().to_string(), &try_number.to_string()])
}

/// Parses the rendered template fields and masks the sensitive ones.
fn rendered_fields(rendered: Option<&str>) -> Map<String, Value> {
    let rendered = rendered.and_then(|text| serde_json::from_str::<Value>(text).ok());
    match rendered.map(|rendered| redact::fields(&rendered)) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
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
