//! Airflow's REST API.

pub mod assets;
pub mod backfills;
pub mod connections;
pub mod dag_runs;
pub mod dags;
pub mod hitl;
pub mod pools;
pub mod providers;
pub mod redact;
pub mod task_instances;
pub mod task_logs;
pub mod tasks;
pub mod variables;
pub mod views;

use super::guard;
use super::state::AppState;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use std::sync::Arc;

type Routes = Router<Arc<AppState>>;

const RUN: &str = "/api/v2/dags/{dag_id}/dagRuns/{run_id}";

fn run(below: &str) -> String {
    format!("{RUN}{below}")
}

/// What is about DAGs, and has to wait for the first look at their files.
pub fn dag_routes() -> Routes {
    Router::new()
        .route("/api/v2/dags", get(dags::list))
        .route("/api/v2/dags/{dag_id}", get(dags::get).patch(dags::patch).delete(dags::delete))
        .route("/api/v2/dags/{dag_id}/details", get(dags::details))
        .route("/api/v2/dags/{dag_id}/tasks", get(tasks::list))
        .route("/api/v2/dags/{dag_id}/tasks/{task_id}", get(tasks::get))
        .route("/api/v2/dags/{dag_id}/assets/queuedEvents", get(assets::queued))
        .route("/api/v2/dags/{dag_id}/clearTaskInstances", post(task_instances::clear))
        .route("/api/v2/dagSources/{dag_id}", get(dags::source))
        .route("/api/v2/importErrors", get(dags::import_errors))
        .route("/api/v2/importErrors/{id}", get(dags::import_error))
        .merge(run_routes())
        .merge(asset_routes())
        .merge(backfill_routes())
}

fn run_routes() -> Routes {
    Router::new()
        .route("/api/v2/dags/{dag_id}/dagRuns", get(dag_runs::list).post(dag_runs::trigger))
        .route("/api/v2/dags/{dag_id}/dagRuns/list", post(dag_runs::list_of_body))
        .route(&run("/taskInstances/list"), post(task_instances::list_of_body))
        .route(RUN, get(dag_runs::get).patch(dag_runs::patch).delete(dag_runs::delete))
        .route(&run("/clear"), post(dag_runs::clear))
        .route(&run("/upstreamAssetEvents"), get(assets::upstream))
        .route(&run("/hitlDetails"), get(hitl::list))
        .route(&run("/taskInstances/{task_id}/{map_index}/hitlDetails"), get(hitl::get).patch(hitl::answer))
        .route(&run("/taskInstances"), get(task_instances::list))
        .route(&run("/taskInstances/{task_id}"), get(task_instances::get))
        .route(&run("/taskInstances/{task_id}/listMapped"), get(tasks::mapped))
        .route(&run("/taskInstances/{task_id}/{map_index}"), get(tasks::one_mapped))
        .route(&run("/taskInstances/{task_id}/logs/{try_number}"), get(task_logs::get))
        .route(&run("/taskInstances/{task_id}/xcomEntries"), get(task_instances::xcom_list))
        .route(&run("/taskInstances/{task_id}/xcomEntries/{*key}"), get(task_instances::xcom_get))
}

fn asset_routes() -> Routes {
    Router::new()
        .route("/api/v2/assets", get(assets::list))
        .route("/api/v2/assets/events", get(assets::events).post(assets::create_event))
        .route("/api/v2/assets/{id}", get(assets::get))
        .route("/api/v2/assets/{id}/materialize", post(assets::materialize))
}

fn backfill_routes() -> Routes {
    Router::new()
        .route("/api/v2/backfills", get(backfills::list).post(backfills::create))
        .route("/api/v2/backfills/dry_run", post(backfills::dry_run))
        .route("/api/v2/backfills/{id}", get(backfills::get))
        .route("/api/v2/backfills/{id}/pause", put(backfills::pause))
        .route("/api/v2/backfills/{id}/unpause", put(backfills::unpause))
        .route("/api/v2/backfills/{id}/cancel", put(backfills::cancel))
}

/// What asks the Pythons of projects, which take their own time.
pub fn unhurried_routes(state: &Arc<AppState>) -> Routes {
    Router::new()
        .route("/api/v2/providers", get(providers::list))
        .layer(from_fn_with_state(state.clone(), guard::require_token))
}

/// What DAGs are given.
pub fn store_routes(state: &Arc<AppState>) -> Routes {
    Router::new()
        .route("/api/v2/variables", get(variables::list).post(variables::create))
        .route("/api/v2/variables/{*key}", get(variables::get).patch(variables::patch).delete(variables::delete))
        .route("/api/v2/connections", get(connections::list).post(connections::create))
        .route(
            "/api/v2/connections/{*connection_id}",
            get(connections::get).patch(connections::patch).delete(connections::delete),
        )
        .layer(from_fn_with_state(state.clone(), guard::telling_dag_files))
        .route("/api/v2/pools", get(pools::list).post(pools::create))
        .route("/api/v2/pools/{*name}", get(pools::get).patch(pools::patch).delete(pools::delete))
}
