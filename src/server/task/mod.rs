//! What a running task may ask.

mod api;
mod assets;
mod runs;
mod selected;

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
        .route("/task/dags/{*id}", get(runs::dag))
        .route("/task/runs/trigger", post(runs::trigger))
        .route("/task/runs/state", post(runs::state))
        .route("/task/runs/count", post(runs::count))
        .route("/task/length", post(runs::length))
        .route("/task/previous", get(runs::previous))
        .route("/task/latest", get(runs::latest))
        .route("/task/runs/get", post(selected::run))
        .route("/task/runs/previous", post(selected::previous_run))
        .route("/task/runs/count-all", post(selected::count_runs))
        .route("/task/instances/count", post(selected::count_instances))
        .route("/task/instances/states", post(selected::states))
        .route("/task/instances/breadcrumbs", post(selected::breadcrumbs))
        .route("/task/instances/previous", post(selected::previous_instance))
        .route("/task/variable-keys", post(api::variable_keys))
        .route("/task/assets/triggering", get(assets::triggering))
        .route("/task/assets/one", post(assets::one))
        // As tasks of a release before ask for it, which run on while there is an upgrade.
        .route("/task/assets/named", post(assets::one))
        .route("/task/assets/of-alias", post(assets::of_alias))
        .route("/task/assets/events", post(assets::events))
        .route("/task/xcoms/push", post(api::push_xcom))
        .route("/task/xcoms/pull", post(api::pull_xcoms))
        .route("/task/xcoms/count", post(api::count_xcoms))
        .route("/task/xcoms/delete", post(api::delete_xcom))
        .layer(from_fn(guard::datastore_timeout))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), api::require_try))
        .layer(from_fn(guard::require_local))
}

/// For triggers, which are of no try: over the socket that only this user's processes can open.
pub fn trigger_routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/local/triggers/dags/{*id}", get(runs::dag))
        .route("/local/triggers/runs/get", post(selected::run))
        .route("/local/triggers/runs/state", post(runs::state))
        .route("/local/triggers/runs/previous", post(selected::previous_run))
        .route("/local/triggers/runs/count-all", post(selected::count_runs))
        .route("/local/triggers/instances/count", post(selected::count_instances))
        .route("/local/triggers/instances/states", post(selected::states))
        .route("/local/triggers/instances/breadcrumbs", post(selected::breadcrumbs))
        .route("/local/triggers/instances/previous", post(selected::previous_instance))
        .route("/local/triggers/variable-keys", post(api::variable_keys))
        .route("/local/triggers/assets/one", post(assets::one))
        .route("/local/triggers/assets/of-alias", post(assets::of_alias))
        .route("/local/triggers/assets/events", post(assets::events))
        .route("/local/triggers/xcoms/pull", post(api::pull_xcoms))
        .route("/local/triggers/xcoms/count", post(api::count_xcoms))
        .layer(from_fn(guard::datastore_timeout))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn(guard::require_local))
}
