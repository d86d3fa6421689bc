//! Leoflow's own pages, and the endpoints of its own commands.

pub mod backups;
pub mod changes;
mod chart;
mod dag_refresh;
pub mod docs_html;
pub mod docs_pages;
pub mod environments;
pub mod history;
pub mod local;
pub mod metrics;
pub mod notifications;
pub mod overview;
mod queue;
pub mod releases;
pub mod status;
mod storage;
pub mod trial_task;
pub mod upgrade_progress;
pub mod upgrades;

use crate::api::audit;
use crate::api::run::backfills;
use crate::app_state::AppState;
use crate::dag_files;
use crate::http::guard;
use crate::login::tokens;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Redirect;
use axum::routing::{get, post};

type Routes = Router<AppState>;

/// Maximum body of a local import, in bytes: hundreds of thousands of variables.
const IMPORT_BYTES: usize = 80 * 1024 * 1024;

/// Pages; they need a login.
pub fn page_routes(state: &AppState) -> Routes {
    Router::new()
        .route("/lite/", get(status::status_page))
        .route("/lite/backups", get(backups::backups_page).post(backups::make_for_page))
        .route("/lite/backups/{name}/verify", post(backups::verify_for_page))
        .route("/lite/backups/{name}/restore", post(backups::restore_for_page))
        .route("/lite/notifications", get(notifications::notifications_page))
        .route("/lite/releases", get(releases::releases_page))
        .route("/lite/releases/upgrade", post(upgrades::upgrade_for_page))
        .route("/lite/doctor", get(releases::doctor_page))
        .route("/lite/docs/", get(docs_pages::contents))
        .route("/lite/docs/{*name}", get(docs_pages::page))
        .layer(from_fn_with_state(state.clone(), audit::log))
        .layer(from_fn_with_state(state.auth.clone(), tokens::require_login))
        .layer(from_fn(guard::allow_own_frames))
        .route("/lite", get(async || Redirect::permanent("/lite/")))
        .route("/lite/docs", get(async || Redirect::permanent("/lite/docs/")))
}

/// DAGs and runs for commands; each route returns everything that one command shows.
pub fn dag_routes() -> Routes {
    Router::new()
        .route("/api/lite/backfills/{id}/outcome", get(backfills::outcome))
        .route("/api/lite/dags", get(overview::dags))
        .route("/api/lite/dags/{dag_id}", get(overview::dag))
        .route("/api/lite/dags/{dag_id}/next", get(overview::next))
        .route("/api/lite/dags/{dag_id}/runs/{run_id}", get(overview::run))
}

/// Backups, releases and diagnostics, which run this program's own commands.
pub fn own_routes(state: &AppState) -> Routes {
    Router::new()
        .route("/api/lite/backups", get(backups::list).post(backups::make))
        .route("/api/lite/backups/{name}/verify", post(backups::verify))
        .route("/api/lite/history/clean", get(history::progress).post(history::clean))
        .route("/api/lite/history/clean/preview", post(history::preview))
        .route("/api/lite/notify/deliveries", get(notifications::deliveries))
        .route("/api/lite/notify/test", post(notifications::test))
        .route("/api/lite/operations/{id}", get(backups::operation))
        .route("/api/lite/restore", post(backups::restore))
        .route("/api/lite/version", get(upgrades::version))
        .route("/api/lite/upgrade", post(upgrades::upgrade))
        .route("/api/lite/upgrade/{id}", get(upgrade_progress::progress))
        .route("/api/lite/rollback", post(upgrades::rollback))
        .route("/api/lite/instances", get(upgrades::instances))
        .route("/api/lite/instances/upgrade", post(upgrades::upgrade_instances))
        .route("/api/lite/releases", get(releases::list))
        .route("/api/lite/releases/plan", get(releases::plan))
        .route("/api/lite/doctor", get(releases::doctor))
        .layer(from_fn_with_state(state.clone(), audit::log))
}

/// Routes without the datastore timeout: own commands and the trial task.
pub fn slow_routes(state: &AppState) -> Routes {
    Router::new()
        .merge(own_routes(state))
        .route("/api/lite/trial-task", post(trial_task::run))
        // Older releases use this path when they test a new server.
        .route("/ui/trial-task", post(trial_task::run))
        .layer(from_fn_with_state(state.auth.clone(), tokens::require_token))
}

/// Endpoints for this user's commands and the agent, over the Unix socket.
pub fn local_routes() -> Routes {
    Router::new()
        .route("/local/variables/{*key}", get(local::get_variable))
        .route("/local/connections/{*id}", get(local::get_connection))
        .route("/local/changes", get(changes::wait))
        .route("/local/python", get(local::python))
        .route("/local/environments", get(environments::list))
        .route("/local/environments/chosen/{inputs}", get(environments::chosen))
        .route("/local/session", post(local::check_session))
        .layer(from_fn(guard::require_local))
}

/// Like [`local_routes`], for exports and imports, with a longer timeout.
pub fn import_routes(state: &AppState) -> Routes {
    Router::new()
        .route("/local/variables", get(local::export_variables).put(local::import_variables))
        .route("/local/connections", get(local::export_connections).put(local::import_connections))
        .layer(from_fn_with_state(state.clone(), audit::log))
        .layer(from_fn_with_state(state.dag_files.clone(), dag_files::notify_store_changed))
        .layer(DefaultBodyLimit::max(IMPORT_BYTES))
        .layer(from_fn(guard::require_local))
        .layer(from_fn(guard::import_timeout))
}

/// Like [`local_routes`], for commands and the agent. The timeout is longer, because builds are slow, and DAG files
/// that use Variables are not parsed again.
pub fn environment_routes() -> Routes {
    Router::new()
        .route("/local/dag-refresh", post(dag_refresh::refresh))
        .route("/local/environments/update", post(environments::update))
        .route("/local/environments/prune", post(environments::prune))
        .route("/local/connection-tests/{*id}", post(local::test_connection))
        .route("/local/environments/{hash}", post(environments::build))
        .layer(from_fn(guard::require_local))
        .layer(from_fn(guard::import_timeout))
}
