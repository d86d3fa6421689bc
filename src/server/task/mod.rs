//! Routes for running tasks and callbacks of DAGs.

mod api;
mod assets;
mod hitl;
mod request_keys;
mod runs;
mod sdk_queries;
mod states;
mod triggers;

use crate::app_state::AppState;
use crate::dag_files;
use crate::http::api_error::ApiError;
use crate::http::body::body_as;
use crate::http::{guard, large};
use crate::lite::local;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The body of a request. `T` denies unknown fields.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        body_as(Json::from_request(request, state).await).map(Self)
    }
}

/// JSON without a schema, which the OpenAPI document leaves out.
type JsonAnswer = Result<Json<Value>, ApiError>;

/// Largest body of a task or trigger: an XCom's value is JSON inside a JSON string, which doubles escaped characters.
const BODY_BYTES: usize = 24 * 1024 * 1024;

pub fn routes(state: &AppState) -> Router<AppState> {
    let of_tasks: Router<AppState> = Router::new()
        .route("/task/runs/trigger", post(runs::trigger))
        .route("/task/runs/note", put(runs::set_note))
        .route("/task/map-index-name", post(api::set_map_index_name))
        .nest("/task", own_routes())
        .route("/task/hitl/ask", post(hitl::ask))
        .route("/task/hitl/answer", post(hitl::answer))
        .layer(from_fn(api::refuse_callbacks));
    Router::new()
        .route("/task/variables/{*key}", get(local::get_variable).put(api::set_variable).delete(api::delete_variable))
        .route("/task/connections/{*id}", get(local::get_connection))
        .layer(from_fn_with_state(state.dag_files.clone(), dag_files::notify_store_changed))
        .merge(of_tasks)
        .route("/task/runs/count", post(runs::count))
        .route("/task/length", post(runs::length))
        .route("/task/previous", get(runs::previous))
        .route("/task/latest", get(runs::latest))
        .route("/task/assets/inactive", get(assets::list_inactive))
        .route("/task/assets/triggering", get(assets::list_triggering_events))
        // Used by tasks of the previous release, which keep running during an upgrade.
        .route("/task/assets/named", post(assets::get))
        .route("/task/newer-package", post(api::has_newer_package))
        .nest("/task", shared_routes())
        .route("/task/uv", post(api::uv))
        // The first is the outermost.
        .layer((
            from_fn(guard::require_local),
            from_fn_with_state(state.clone(), api::require_try),
            DefaultBodyLimit::max(BODY_BYTES),
            from_fn(large::off_the_event_loop),
            from_fn(guard::datastore_timeout),
        ))
}

/// Routes for triggers and other callers that belong to no try. They need no token: only processes of this
/// user and of root can open the socket.
pub fn trigger_routes(state: &AppState) -> Router<AppState> {
    let variables = Router::new()
        .route("/local/triggers/variables/{*key}", put(api::set_variable).delete(api::delete_variable))
        .layer(from_fn_with_state(state.dag_files.clone(), dag_files::notify_store_changed));
    let of_triggers = own_routes().layer(from_fn_with_state(state.clone(), triggers::add_writer));
    Router::new()
        .nest("/local/triggers", shared_routes())
        .route("/local/triggers/hitl/answer", post(hitl::answer))
        .merge(variables)
        .nest("/local/triggers/of/{trigger}", of_triggers)
        // For runs in the foreground, which have no token of a try.
        .route("/local/uv", post(api::uv))
        .layer(from_fn(guard::datastore_timeout))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn(guard::require_local))
}

/// Routes for what belongs to the task instance that asks, or whose trigger asks: XComs and state stores.
fn own_routes() -> Router<AppState> {
    Router::new()
        .route("/xcoms/push", post(api::push_xcom))
        .route("/xcoms/delete", post(api::delete_xcom))
        .route("/state/get", post(states::get))
        .route("/state/set", post(states::set))
        .route("/state/delete", post(states::delete))
}

/// Routes shared by tasks and triggers, below their own paths. All of them only read.
fn shared_routes() -> Router<AppState> {
    Router::new()
        .route("/dags/{*id}", get(runs::dag))
        .route("/runs/get", post(sdk_queries::run))
        .route("/runs/state", post(runs::state))
        .route("/runs/previous", post(sdk_queries::previous_run))
        .route("/runs/count-all", post(sdk_queries::count_runs))
        .route("/instances/count", post(sdk_queries::count_instances))
        .route("/instances/states", post(sdk_queries::states))
        .route("/instances/breadcrumbs", post(sdk_queries::breadcrumbs))
        .route("/instances/previous", post(sdk_queries::previous_instance))
        .route("/variable-keys", post(api::variable_keys))
        .route("/assets/one", post(assets::get))
        .route("/assets/of-alias", post(assets::list_assets_of_alias))
        .route("/assets/events", post(assets::events))
        .route("/hitl/get", post(hitl::get))
        .route("/xcoms/pull", post(api::pull_xcoms))
        .route("/xcoms/count", post(api::count_xcoms))
}
