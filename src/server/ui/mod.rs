//! Apache Airflow's web UI: its files, and the operations it uses in addition to the REST API.

mod asset_nodes;
mod assets;
mod backfills_and_forms;
mod calendar;
mod dag_facts;
mod dags;
mod deadlines;
mod dependencies;
mod execution;
mod files;
mod grid;
mod joins;
mod loops;
mod session;
mod structure;
mod tree;

pub use files::page;

use crate::app_state::AppState;
use crate::login::tokens;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

type Routes = Router<AppState>;

/// Static files; public and the same for all users.
pub fn static_routes() -> Routes {
    Router::new().route(files::LANGUAGES, get(files::languages)).route("/static/{*path}", get(files::file))
}

/// Routes about DAGs; they wait for the first scan of the DAG files.
pub fn dag_routes() -> Routes {
    Router::new()
        .route("/ui/dags", get(dags::list))
        .route("/ui/dags/folders", get(dag_facts::folders))
        .route("/ui/dags/timetable_types", get(dag_facts::timetable_types))
        .route("/ui/dags/run_state_counts", get(dag_facts::run_state_counts))
        .route("/ui/dags/recent_task_instance_state_counts", get(dag_facts::recent_instance_state_counts))
        .route("/ui/dags/{dag_id}/dagRuns/{run_id}/execution", get(execution::execution))
        .route("/ui/dags/{dag_id}/dagRuns/{run_id}/callbacks/{callback_id}/logs", get(deadlines::callback_log))
        .route("/ui/grid/loop/{dag_id}/{run_id}/{group_id}", get(loops::summary))
        .route("/ui/grid/loop-history/{dag_id}/{group_id}", get(loops::history))
        .route("/ui/assets", get(assets::list))
        .route("/ui/calendar/{dag_id}/deadlines", get(deadlines::calendar))
        .route("/ui/dags/{dag_id}/latest_run", get(dags::latest_run))
        .route("/ui/dags/{dag_id}/dagRuns/{run_id}/stats", get(dags::run_stats))
        .route("/ui/dags/{dag_id}/dagRuns/{run_id}/deadlines", get(deadlines::list))
        .route("/ui/dags/{dag_id}/deadlineAlerts", get(deadlines::alerts))
        .route("/ui/dashboard/dag_stats", get(dags::dag_stats))
        .route("/ui/dashboard/historical_metrics_data", get(dags::history))
        .route("/ui/backfills", get(backfills_and_forms::backfills))
        .route("/ui/calendar/{dag_id}", get(calendar::get))
        .route("/ui/dependencies", get(dependencies::get))
        .route("/ui/gantt/{dag_id}/{run_id}", get(grid::gantt))
        .route("/ui/grid/structure/{dag_id}", get(grid::structure))
        .route("/ui/grid/runs/{dag_id}", get(grid::runs))
        .route("/ui/grid/ti_summaries/{dag_id}", get(grid::ti_summaries))
        .route("/ui/next_run_assets/{dag_id}", get(assets::next_run))
        .route("/ui/partitioned_dag_runs", get(assets::list_pending))
        .route("/ui/pending_partitioned_dag_run/{dag_id}", get(assets::pending))
        .route("/ui/structure/structure_data", get(structure::data))
}

/// Routes about the session and the settings, which do not wait for the first scan of the DAG files.
pub fn session_routes() -> Routes {
    Router::new()
        .route("/ui/config", get(session::config))
        .route("/ui/auth/menus", get(session::menus))
        .route("/ui/auth/me", get(session::me))
        .route("/ui/auth/token", post(session::token))
        .route("/ui/teams", get(session::teams))
}

/// Routes that run code of the projects' environments, which may be slow.
pub fn slow_routes(state: &AppState) -> Routes {
    Router::new()
        .route("/ui/connections/hook_meta", get(backfills_and_forms::hook_meta))
        .layer(from_fn_with_state(state.auth.clone(), tokens::require_token))
}
