//! Airflow's REST API.

pub mod assets;
pub mod backfills;
pub mod clear;
pub mod clear_runs;
pub mod config;
pub mod connections;
pub mod dag_facts;
pub mod dag_run_wait;
pub mod dag_runs;
pub mod dag_runs_bulk;
pub mod dag_versions;
pub mod dag_views;
pub mod dags;
pub mod event_logs;
pub mod hitl;
pub mod mark;
pub mod mark_bulk;
pub mod monitor;
pub mod pools;
pub mod providers;
pub mod queued_events;
pub mod redact;
pub mod state_stores;
pub mod task_dependencies;
pub mod task_instances;
pub mod task_logs;
pub mod tasks;
pub mod tries;
pub mod variables;
pub mod views;
pub mod xcoms;

use super::guard;
use super::state::AppState;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, patch, post, put};
use std::sync::Arc;

type Routes = Router<Arc<AppState>>;

const RUN: &str = "/api/v2/dags/{dag_id}/dagRuns/{run_id}";

fn run(below: &str) -> String {
    format!("{RUN}{below}")
}

/// What is about DAGs, and has to wait for the first look at their files.
pub fn dag_routes() -> Routes {
    Router::new()
        .route("/api/v2/dags", get(dags::list).patch(dags::patch_several))
        .route("/api/v2/parseDagFile/{file_token}", put(dags::parse_again))
        .route("/api/v2/dags/{dag_id}", get(dags::get).patch(dags::patch).delete(dags::delete))
        .route("/api/v2/dags/{dag_id}/details", get(dags::details))
        .route("/api/v2/dags/{dag_id}/favorite", post(dags::favorite))
        .route("/api/v2/dags/{dag_id}/unfavorite", post(dags::unfavorite))
        .route("/api/v2/dags/{dag_id}/tasks", get(tasks::list))
        .route("/api/v2/dags/{dag_id}/tasks/{task_id}", get(tasks::get))
        .route("/api/v2/dags/{dag_id}/dagVersions", get(dag_versions::list))
        .route("/api/v2/dags/{dag_id}/dagVersions/{version_number}", get(dag_versions::get))
        .route("/api/v2/dagStats", get(dag_facts::stats))
        .route("/api/v2/dagTags", get(dag_facts::tags))
        .route("/api/v2/dagWarnings", get(dag_facts::warnings))
        .route("/api/v2/dags/{dag_id}/clearTaskInstances", post(clear::task_instances))
        .route("/api/v2/dagSources/{dag_id}", get(dags::source))
        .route("/api/v2/importErrors", get(dags::import_errors))
        .route("/api/v2/importErrors/{id}", get(dags::import_error))
        .merge(run_routes())
        .merge(asset_routes())
        .merge(backfill_routes())
}

fn run_routes() -> Routes {
    Router::new()
        .route(
            "/api/v2/dags/{dag_id}/dagRuns",
            get(dag_runs::list).post(dag_runs::trigger).patch(dag_runs_bulk::dag_runs),
        )
        .route("/api/v2/dags/{dag_id}/clearDagRuns", post(clear_runs::several))
        .route("/api/v2/dags/{dag_id}/clearPartitions", post(clear_runs::partitions))
        // A run or a task may be called `list`, a connection `test`: what is posted there is told apart in the handler.
        .route(RUN, post(dag_runs::list_of_body).get(dag_runs::get).patch(dag_runs::patch).delete(dag_runs::delete))
        .route(&run("/clear"), post(clear_runs::one))
        .route(&run("/wait"), get(dag_run_wait::wait))
        .route(&run("/upstreamAssetEvents"), get(assets::upstream))
        .route(&run("/hitlDetails"), get(hitl::list))
        .route(&run("/taskInstances/{task_id}/{map_index}/hitlDetails"), get(hitl::get).patch(hitl::answer))
        .route(&run("/taskInstances/{task_id}/{map_index}/hitlDetails/tries/{try_number}"), get(hitl::of_try))
        .route(&run("/taskInstances"), get(task_instances::list).patch(mark_bulk::task_instances))
        .route(
            &run("/taskInstances/{task_id}"),
            get(task_instances::get).post(task_instances::list_of_body).patch(mark::patch).delete(mark::delete),
        )
        .route(&run("/taskInstances/{task_id}/dry_run"), patch(mark::dry_run))
        .route(&run("/taskInstances/{task_id}/{map_index}/dry_run"), patch(mark::dry_run))
        .route(&run("/taskGroupInstances/{group_id}"), patch(mark::patch_group))
        .route(&run("/taskGroupInstances/{group_id}/dry_run"), patch(mark::dry_run_group))
        .route(&run("/taskInstances/{task_id}/listMapped"), get(tasks::mapped))
        .route(&run("/taskInstances/{task_id}/{map_index}"), get(tasks::one_mapped).patch(mark::patch))
        .route(&run("/taskInstances/{task_id}/logs/{try_number}"), get(task_logs::get))
        .route(&run("/taskInstances/{task_id}/externalLogUrl/{try_number}"), get(task_logs::external_url))
        .route(&run("/taskInstances/{task_id}/dependencies"), get(task_dependencies::get))
        .route(&run("/taskInstances/{task_id}/{map_index}/dependencies"), get(task_dependencies::get_mapped))
        .route(&run("/taskInstances/{task_id}/links"), get(tasks::links))
        .route(&run("/taskInstances/{task_id}/tries"), get(tries::list))
        .route(&run("/taskInstances/{task_id}/tries/{try_number}"), get(tries::get))
        .route(&run("/taskInstances/{task_id}/{map_index}/tries"), get(tries::list_mapped))
        .route(&run("/taskInstances/{task_id}/{map_index}/tries/{try_number}"), get(tries::get_mapped))
        .route(&run("/taskInstances/{task_id}/xcomEntries"), get(xcoms::list).post(xcoms::create))
        .route(
            &run("/taskInstances/{task_id}/xcomEntries/{*key}"),
            get(xcoms::get).patch(xcoms::update).delete(xcoms::delete),
        )
        .route(
            &run("/taskInstances/{task_id}/state-store"),
            get(state_stores::task_list).delete(state_stores::task_clear),
        )
        .route(
            &run("/taskInstances/{task_id}/state-store/{*key}"),
            get(state_stores::task_get)
                .put(state_stores::task_set)
                .patch(state_stores::task_patch)
                .delete(state_stores::task_delete),
        )
}

fn asset_routes() -> Routes {
    Router::new()
        .route("/api/v2/assets", get(assets::list))
        .route("/api/v2/assets/events", get(assets::events).post(assets::create_event))
        .route("/api/v2/assets/aliases", get(assets::aliases))
        .route("/api/v2/assets/aliases/{id}", get(assets::alias))
        .route(
            "/api/v2/dags/{dag_id}/assets/queuedEvents",
            get(queued_events::of_dag).delete(queued_events::delete_of_dag),
        )
        .route("/api/v2/assets/{id}/queuedEvents", get(queued_events::of_asset).delete(queued_events::delete_of_asset))
        .route(
            "/api/v2/dags/{dag_id}/assets/{asset_id}/queuedEvents",
            get(queued_events::one).delete(queued_events::delete_one),
        )
        .route("/api/v2/assets/{id}", get(assets::get))
        .route("/api/v2/assets/{id}/state-store", get(state_stores::asset_list).delete(state_stores::asset_clear))
        .route(
            "/api/v2/assets/{id}/state-store/{*key}",
            get(state_stores::asset_get).put(state_stores::asset_set).delete(state_stores::asset_delete),
        )
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
        .route("/api/v2/jobs", get(monitor::jobs))
        .route("/api/v2/config", get(config::get))
        .route("/api/v2/config/section/{section}/option/{option}", get(config::get_value))
        .route("/api/v2/eventLogs", get(event_logs::list))
        .route("/api/v2/eventLogs/{id}", get(event_logs::get))
        .route("/api/v2/plugins", get(monitor::plugins))
        .route("/api/v2/plugins/importErrors", get(monitor::plugin_errors))
        .route("/api/v2/variables", get(variables::list).post(variables::create).patch(variables::bulk))
        .route("/api/v2/variables/{*key}", get(variables::get).patch(variables::patch).delete(variables::delete))
        .route("/api/v2/connections", get(connections::list).post(connections::create).patch(connections::bulk))
        .route(
            "/api/v2/connections/{*connection_id}",
            get(connections::get).post(connections::post_word).patch(connections::patch).delete(connections::delete),
        )
        .layer(from_fn_with_state(state.clone(), guard::telling_dag_files))
        .route("/api/v2/pools", get(pools::list).post(pools::create).patch(pools::bulk))
        .route("/api/v2/pools/{*name}", get(pools::get).patch(pools::patch).delete(pools::delete))
}
