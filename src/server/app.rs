//! The routes.

use super::api_error::ApiError;
use super::guard::{self, Caller};
use super::state::AppState;
use super::{
    assets, auth, backfills, changes, connections, dag_runs, dags, health, local, overview, pages, pools, task_api,
    task_instances, task_logs, task_runs, task_views, trial_task, variables,
};
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use std::sync::Arc;

/// The largest body that is read.
const BODY_BYTES: usize = 16 * 1024 * 1024;
/// The same for the user's own imports: hundreds of thousands of variables.
const IMPORT_BYTES: usize = 80 * 1024 * 1024;
/// Of a task's XCom: its JSON is a text in JSON, which doubles what has to be escaped.
const TASK_BODY_BYTES: usize = 24 * 1024 * 1024;
/// The same for those who have not logged in.
const ANONYMOUS_BODY_BYTES: usize = 16 * 1024;

const RUN: &str = "/api/v2/dags/{dag_id}/dagRuns/{run_id}";

fn run(below: &str) -> String {
    format!("{RUN}{below}")
}

/// The one set of routes, for either listener.
pub struct Routers(Router);

impl Routers {
    pub fn with_caller(&self, caller: Caller) -> Router {
        self.0.clone().layer(Extension(caller))
    }
}

pub fn routers(state: Arc<AppState>) -> Routers {
    let open = Router::new()
        .route("/api/healthz", get(health::healthz))
        .route("/api/v2/version", get(health::version))
        .route("/api/v2/monitor/health", get(health::monitor))
        .route("/auth/token", post(auth::token))
        .route("/auth/login", get(auth::login_page).post(auth::login))
        .route("/auth/logout", post(auth::logout))
        .route("/static/style.css", get(pages::style))
        .route("/static/{name}", get(pages::script))
        .route("/static/icon.svg", get(pages::icon))
        .layer(DefaultBodyLimit::max(ANONYMOUS_BODY_BYTES));
    let about_dags = Router::new()
        .route("/api/v2/dags", get(dags::list))
        .route("/api/v2/dags/{dag_id}", get(dags::get).patch(dags::patch).delete(dags::delete))
        .route("/api/v2/dags/{dag_id}/details", get(dags::details))
        .route("/api/v2/dagSources/{dag_id}", get(dags::source))
        .route("/api/v2/importErrors", get(dags::import_errors))
        .route("/api/v2/importErrors/{id}", get(dags::import_error))
        .route("/api/v2/dags/{dag_id}/dagRuns", get(dag_runs::list).post(dag_runs::trigger))
        .route(RUN, get(dag_runs::get).patch(dag_runs::patch).delete(dag_runs::delete))
        .route(&run("/clear"), post(dag_runs::clear))
        .route("/api/v2/dags/{dag_id}/tasks", get(task_views::list))
        .route("/api/v2/dags/{dag_id}/tasks/{task_id}", get(task_views::get))
        .route("/api/v2/dags/{dag_id}/assets/queuedEvents", get(assets::queued))
        .route(&run("/upstreamAssetEvents"), get(assets::upstream))
        .route(&run("/taskInstances/{task_id}/listMapped"), get(task_views::mapped))
        .route(&run("/taskInstances/{task_id}/{map_index}"), get(task_views::one_mapped))
        .route("/api/v2/assets", get(assets::list))
        .route("/api/v2/assets/events", get(assets::events).post(assets::create_event))
        .route("/api/v2/assets/{id}", get(assets::get))
        .route("/api/v2/assets/{id}/materialize", post(assets::materialize))
        .route("/api/v2/backfills", get(backfills::list).post(backfills::create))
        .route("/api/v2/backfills/dry_run", post(backfills::dry_run))
        .route("/api/v2/backfills/{id}", get(backfills::get))
        .route("/api/v2/backfills/{id}/pause", put(backfills::pause))
        .route("/api/v2/backfills/{id}/unpause", put(backfills::unpause))
        .route("/api/v2/backfills/{id}/cancel", put(backfills::cancel))
        .route("/api/v2/dags/{dag_id}/clearTaskInstances", post(task_instances::clear))
        .route(&run("/taskInstances"), get(task_instances::list))
        .route(&run("/taskInstances/{task_id}"), get(task_instances::get))
        .route(&run("/taskInstances/{task_id}/logs/{try_number}"), get(task_logs::get))
        .route(&run("/taskInstances/{task_id}/xcomEntries"), get(task_instances::xcom_list))
        .route(&run("/taskInstances/{task_id}/xcomEntries/{*key}"), get(task_instances::xcom_get))
        .route("/ui/backfills/{id}/outcome", get(backfills::outcome))
        .route("/ui/dags", get(overview::dags))
        .route("/ui/dags/{dag_id}", get(overview::dag))
        .route("/ui/dags/{dag_id}/next", get(overview::next))
        .route("/ui/dags/{dag_id}/runs/{run_id}", get(overview::run))
        .layer(from_fn_with_state(state.clone(), guard::after_first_look));
    let pools = Router::new()
        .route("/api/v2/pools", get(pools::list).post(pools::create))
        .route("/api/v2/pools/{*name}", get(pools::get).patch(pools::patch).delete(pools::delete));
    let store = Router::new()
        .route("/api/v2/variables", get(variables::list).post(variables::create))
        .route("/api/v2/variables/{*key}", get(variables::get).patch(variables::patch).delete(variables::delete))
        .route("/api/v2/connections", get(connections::list).post(connections::create))
        .route(
            "/api/v2/connections/{*connection_id}",
            get(connections::get).patch(connections::patch).delete(connections::delete),
        )
        .layer(from_fn_with_state(state.clone(), guard::telling_dag_files));
    let api = Router::new()
        .merge(about_dags)
        .merge(pools)
        .merge(store)
        .route("/ui/status", get(pages::status))
        .layer(from_fn(guard::datastore_timeout))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), guard::require_token));
    let streams = Router::new()
        .route("/ui/events", get(changes::stream))
        .layer(from_fn_with_state(state.clone(), guard::require_token));
    let trial = Router::new()
        .route("/ui/trial-task", post(trial_task::run))
        .layer(from_fn_with_state(state.clone(), guard::require_token));
    let pages = Router::new()
        .route("/", get(pages::dags))
        .route("/dags/{dag_id}", get(pages::dag))
        .route("/dags/{dag_id}/runs/{run_id}", get(pages::run))
        .route("/assets", get(pages::assets))
        .route("/pools", get(pages::pools))
        .route("/status", get(pages::status_page))
        .layer(from_fn_with_state(state.clone(), guard::require_login));
    let local = Router::new()
        .route("/local/variables", get(local::export_variables).put(local::import_variables))
        .route("/local/variables/{*key}", get(local::get_variable))
        .route("/local/connections/{*id}", get(local::get_connection))
        .route("/local/changes", get(changes::wait))
        .route("/local/python", get(local::python))
        .route("/local/session", post(local::check_session))
        .route("/local/connections", get(local::export_connections).put(local::import_connections))
        .layer(from_fn_with_state(state.clone(), guard::telling_dag_files))
        .layer(DefaultBodyLimit::max(IMPORT_BYTES))
        .layer(from_fn(guard::require_local));
    let task = Router::new()
        .route(
            "/task/variables/{*key}",
            get(local::get_variable).put(task_api::set_variable).delete(task_api::delete_variable),
        )
        .route("/task/connections/{*id}", get(local::get_connection))
        .layer(from_fn_with_state(state.clone(), guard::telling_dag_files))
        .route("/task/dags/{*id}", get(task_runs::dag))
        .route("/task/runs/trigger", post(task_runs::trigger))
        .route("/task/runs/state", post(task_runs::state))
        .route("/task/runs/count", post(task_runs::count))
        .route("/task/length", post(task_runs::length))
        .route("/task/previous", get(task_runs::previous))
        .route("/task/latest", get(task_runs::latest))
        .route("/task/assets/triggering", get(task_runs::triggering))
        .route("/task/assets/named", post(task_runs::named))
        .route("/task/assets/events", post(task_runs::events))
        .route("/task/xcoms/push", post(task_api::push_xcom))
        .route("/task/xcoms/pull", post(task_api::pull_xcoms))
        .layer(from_fn(guard::datastore_timeout))
        .layer(DefaultBodyLimit::max(TASK_BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), task_api::require_try))
        .layer(from_fn(guard::require_local));
    let all = open
        .merge(api)
        .merge(pages)
        .merge(local)
        .merge(streams)
        .merge(trial)
        .merge(task)
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "Not Found"))
        .method_not_allowed_fallback(async || ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
        .layer(from_fn_with_state(state.clone(), guard::check_request))
        .with_state(state);
    Routers(all)
}
