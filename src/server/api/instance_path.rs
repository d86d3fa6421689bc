//! The parts of a path and a query that name a task instance.

use crate::http::api_error::ApiResult;
use crate::http::request::Params;
use leoflow_engine::model::keys::{InstanceKey, Position, RunKey, TryKey};

/// DAG id and run id.
pub type RunPath = (String, String);
/// DAG id, run id and task id.
pub type TaskPath = (String, String, String);
/// DAG id, run id, task id and map index.
pub type MappedPath = (String, String, String, i32);
/// DAG id, run id, task id, map index and try number.
pub type MappedTryPath = (String, String, String, i32, i32);

/// Returns the key of the instance that the path names. `map_index` may be a stored position, in place of a region.
pub fn instance_key((dag_id, run_id, task_id, map_index): MappedPath) -> InstanceKey {
    InstanceKey { run: RunKey { dag_id, run_id }, task_id, position: Position::from_stored(map_index) }
}

/// Returns the key of the instance that the path and the query parameter `map_index` name; without the parameter, of
/// the only instance of a task that is not mapped.
pub fn instance_key_from_query((dag_id, run_id, task_id): TaskPath, params: &Params) -> ApiResult<InstanceKey> {
    let position = params.position()?.unwrap_or(Position::ONLY);
    Ok(InstanceKey { run: RunKey { dag_id, run_id }, task_id, position })
}

/// Returns the key of the try that the path names.
pub fn try_key((dag_id, run_id, task_id, map_index, try_number): MappedTryPath) -> TryKey {
    TryKey { instance: instance_key((dag_id, run_id, task_id, map_index)), try_number }
}
