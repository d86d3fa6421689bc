//! Leoflow's own pages, and what its own commands ask.

pub mod backups;
pub mod changes;
pub mod environments;
pub mod local;
pub mod overview;
pub mod pages;
pub mod releases;
pub mod render;
pub mod trial_task;
pub mod upgrades;

use super::api::backfills;
use super::audit;
use super::guard;
use super::state::AppState;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Redirect;
use axum::routing::{get, post};
use std::sync::Arc;

type Routes = Router<Arc<AppState>>;

/// The largest body of the user's own imports: hundreds of thousands of variables.
const IMPORT_BYTES: usize = 80 * 1024 * 1024;

/// For those who have logged in.
pub fn page_routes(state: &Arc<AppState>) -> Routes {
    Router::new()
        .route("/lite/", get(pages::status_page))
        .route("/lite/backups", get(backups::backups_page).post(backups::make_for_page))
        .route("/lite/backups/{name}/verify", post(backups::verify_for_page))
        .route("/lite/backups/{name}/restore", post(backups::restore_for_page))
        .route("/lite/releases", get(releases::releases_page))
        .route("/lite/releases/upgrade", post(upgrades::upgrade_for_page))
        .route("/lite/doctor", get(releases::doctor_page))
        .layer(from_fn_with_state(state.clone(), audit::log))
        .layer(from_fn_with_state(state.clone(), guard::require_login))
        .layer(from_fn(guard::framed_by_ourselves))
        .route("/lite", get(async || Redirect::permanent("/lite/")))
}

/// What every page is made with.
pub fn static_routes() -> Routes {
    Router::new()
        .route("/lite/static/style.css", get(pages::style))
        .route("/lite/static/status.js", get(pages::status_script))
        .route("/lite/static/docs.js", get(pages::docs_script))
        .route("/lite/static/operation.js", get(pages::operation_script))
        .route("/lite/static/times.js", get(pages::times_script))
        .route("/lite/static/icon.svg", get(pages::icon))
}

/// What commands show of DAGs, each in one request.
pub fn dag_routes() -> Routes {
    Router::new()
        .route("/api/lite/backfills/{id}/outcome", get(backfills::outcome))
        .route("/api/lite/dags", get(overview::dags))
        .route("/api/lite/dags/{dag_id}", get(overview::dag))
        .route("/api/lite/dags/{dag_id}/next", get(overview::next))
        .route("/api/lite/dags/{dag_id}/runs/{run_id}", get(overview::run))
}

/// What this program's own commands do.
pub fn own_routes(state: &Arc<AppState>) -> Routes {
    Router::new()
        .route("/api/lite/backups", get(backups::list).post(backups::make))
        .route("/api/lite/backups/{name}/verify", post(backups::verify))
        .route("/api/lite/operations/{id}", get(backups::operation))
        .route("/api/lite/restore", post(backups::restore))
        .route("/api/lite/version", get(upgrades::version))
        .route("/api/lite/upgrade", post(upgrades::upgrade))
        .route("/api/lite/upgrade/{id}", get(upgrades::progress))
        .route("/api/lite/rollback", post(upgrades::rollback))
        .route("/api/lite/instances", get(upgrades::instances))
        .route("/api/lite/instances/upgrade", post(upgrades::upgrade_instances))
        .route("/api/lite/releases", get(releases::list))
        .route("/api/lite/releases/plan", get(releases::plan))
        .route("/api/lite/doctor", get(releases::examination))
        .layer(from_fn_with_state(state.clone(), audit::log))
}

/// What takes its own time: a task that is tried out.
pub fn unhurried_routes(state: &Arc<AppState>) -> Routes {
    Router::new()
        .merge(own_routes(state))
        .route("/api/lite/trial-task", post(trial_task::run))
        // What releases before asked, whose worker tries a new server.
        .route("/ui/trial-task", post(trial_task::run))
        .layer(from_fn_with_state(state.clone(), guard::require_token))
}

/// For this user's own commands, over the socket that only they can open.
pub fn local_routes(state: &Arc<AppState>) -> Routes {
    Router::new()
        .route("/local/variables/{*key}", get(local::get_variable))
        .route("/local/connections/{*id}", get(local::get_connection))
        .route("/local/changes", get(changes::wait))
        .route("/local/python", get(local::python))
        .route("/local/environments", get(environments::list))
        .route("/local/environments/chosen/{inputs}", get(environments::chosen))
        .route("/local/session", post(local::check_session))
        .layer(from_fn_with_state(state.clone(), guard::telling_dag_files))
        .layer(DefaultBodyLimit::max(IMPORT_BYTES))
        .layer(from_fn(guard::require_local))
}

/// For the same, of as much as there is.
pub fn import_routes(state: &Arc<AppState>) -> Routes {
    Router::new()
        .route("/local/variables", get(local::export_variables).put(local::import_variables))
        .route("/local/connections", get(local::export_connections).put(local::import_connections))
        .layer(from_fn_with_state(state.clone(), audit::log))
        .layer(from_fn_with_state(state.clone(), guard::telling_dag_files))
        .layer(DefaultBodyLimit::max(IMPORT_BYTES))
        .layer(from_fn(guard::require_local))
        .layer(from_fn(guard::import_timeout))
}

/// For the same and the agent: what is built takes as long as it takes.
pub fn environment_routes() -> Routes {
    Router::new()
        .route("/local/environments/update", post(environments::update))
        .route("/local/environments/prune", post(environments::prune))
        .route("/local/connection-tests/{*id}", post(local::test_connection))
        .route("/local/environments/{hash}", post(environments::build))
        .layer(from_fn(guard::require_local))
        .layer(from_fn(guard::import_timeout))
}
