//! What a running task may ask.

mod api;
mod assets;
mod hitl;
mod runs;
mod selected;
mod states;

use super::guard;
use super::lite::local;
use super::state::AppState;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use std::sync::Arc;

/// Of an XCom: its JSON is a text in JSON, which doubles what has to be escaped.
const BODY_BYTES: usize = 24 * 1024 * 1024;

pub fn routes(state: &Arc<AppState>) -> Router<Arc<AppState>> {
    Router::new()
        .route("/task/variables/{*key}", get(local::get_variable).put(api::set_variable).delete(api::delete_variable))
        .route("/task/connections/{*id}", get(local::get_connection))
        .layer(from_fn_with_state(state.clone(), guard::telling_dag_files))
        .route("/task/runs/trigger", post(runs::trigger))
        .route("/task/runs/count", post(runs::count))
        .route("/task/length", post(runs::length))
        .route("/task/previous", get(runs::previous))
        .route("/task/latest", get(runs::latest))
        .route("/task/assets/triggering", get(assets::triggering))
        // As tasks of a release before ask for it, which run on while there is an upgrade.
        .route("/task/assets/named", post(assets::one))
        .route("/task/xcoms/push", post(api::push_xcom))
        .route("/task/xcoms/delete", post(api::delete_xcom))
        .route("/task/state/get", post(states::get))
        .route("/task/state/set", post(states::set))
        .route("/task/state/delete", post(states::delete))
        .route("/task/hitl/ask", post(hitl::ask))
        .nest("/task", questions())
        .route("/task/uv", post(api::uv))
        .layer(from_fn(guard::datastore_timeout))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), api::require_try))
        .layer(from_fn(guard::require_local))
}

/// For triggers and others that are of no try: over the socket that only this user's processes can open.
pub fn trigger_routes() -> Router<Arc<AppState>> {
    Router::new()
        .nest("/local/triggers", questions())
        // For a run in the foreground.
        .route("/local/uv", post(api::uv))
        .layer(from_fn(guard::datastore_timeout))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn(guard::require_local))
}

/// What tasks and triggers ask alike, below the path of each.
fn questions() -> Router<Arc<AppState>> {
    Router::new()
        .route("/dags/{*id}", get(runs::dag))
        .route("/runs/get", post(selected::run))
        .route("/runs/state", post(runs::state))
        .route("/runs/previous", post(selected::previous_run))
        .route("/runs/count-all", post(selected::count_runs))
        .route("/instances/count", post(selected::count_instances))
        .route("/instances/states", post(selected::states))
        .route("/instances/breadcrumbs", post(selected::breadcrumbs))
        .route("/instances/previous", post(selected::previous_instance))
        .route("/variable-keys", post(api::variable_keys))
        .route("/assets/one", post(assets::one))
        .route("/assets/of-alias", post(assets::of_alias))
        .route("/assets/events", post(assets::events))
        .route("/hitl/get", post(hitl::get))
        .route("/hitl/answer", post(hitl::answer))
        .route("/xcoms/pull", post(api::pull_xcoms))
        .route("/xcoms/count", post(api::count_xcoms))
}
