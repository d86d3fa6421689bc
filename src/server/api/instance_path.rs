//! The parts of a path and a query that name a task instance.

use crate::http::api_error::{ApiError, ApiResult};
use crate::http::openapi::operation::{Input, Operation, Schemas};
use crate::http::request::{Params, Segments};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use leoflow_engine::model::keys::{InstanceKey, Position, RunKey, TryKey};

/// DAG id and run id.
pub type RunPath = (String, String);
/// DAG id, run id and task id.
pub type TaskPath = (String, String, String);
/// DAG id, run id, task id and map index.
type MappedPath = (String, String, String, i32);
/// DAG id, run id, task id, map index and try number.
type MappedTryPath = (String, String, String, i32, i32);

/// The key of the instance that a path with a map index names, with the region of the query.
pub struct MappedInstance(pub InstanceKey);
/// The key of the try that a path with a map index names, with the region of the query.
pub struct MappedTry(pub TryKey);

impl<S: Send + Sync> FromRequestParts<S> for MappedInstance {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Segments(path) = Segments::<MappedPath>::from_request_parts(parts, state).await?;
        Ok(Self(mapped_instance(path, &Params::from_request_parts(parts, state).await?)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MappedTry {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Segments(path) = Segments::<MappedTryPath>::from_request_parts(parts, state).await?;
        let (dag_id, run_id, task_id, map_index, try_number) = path;
        let params = Params::from_request_parts(parts, state).await?;
        Ok(Self(TryKey { instance: mapped_instance((dag_id, run_id, task_id, map_index), &params)?, try_number }))
    }
}

fn mapped_instance((dag_id, run_id, task_id, map_index): MappedPath, params: &Params) -> ApiResult<InstanceKey> {
    // In a loop, the region tells the whole position.
    let in_loop = params.position()?.filter(|position| position.iteration().is_some());
    let position = in_loop.unwrap_or(Position::mapped(map_index));
    Ok(InstanceKey { run: RunKey { dag_id, run_id }, task_id, position })
}

impl Input for MappedInstance {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        Segments::<MappedPath>::describe(operation, schemas);
    }
}

impl Input for MappedTry {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        Segments::<MappedTryPath>::describe(operation, schemas);
    }
}

/// Returns the key of the instance that the path and the query parameter `map_index` name; without the parameter, of
/// the only instance of a task that is not mapped.
pub fn instance_key_from_query((dag_id, run_id, task_id): TaskPath, params: &Params) -> ApiResult<InstanceKey> {
    let position = params.position()?.unwrap_or(Position::ONLY);
    Ok(InstanceKey { run: RunKey { dag_id, run_id }, task_id, position })
}
