//! Airflow's REST API: every operation with Airflow's operation id and the error statuses that it may return.

pub mod asset;
pub mod audit;
mod bulk;
pub mod dag;
pub mod docs;
pub mod instance;
pub mod instance_path;
pub mod ops;
pub mod prelude;
pub mod redact;
pub mod regions;
pub mod run;
pub mod store;
pub mod views;

use crate::app_state::AppState;
use crate::http::openapi::routes;
use crate::http::query::UpdateMaskQuery;
use crate::login::auth;
use asset::{asset_events, assets, queued_events};
use axum::http::Method;
use axum::routing::MethodFilter;
use dag::{dag_bundles, dag_facts, dag_files, dag_version_diff, dag_versions, dags, dags_bulk, tasks};
use instance::mark::{self, InstanceQuery};
use instance::{clear, extra_links, hitl, mark_bulk, task_dependencies, task_instances, task_logs, tries, xcoms};
use ops::{config, event_logs, health, monitor, plugins, providers};
use run::{backfills, clear_runs, dag_run_lists, dag_run_wait, dag_runs, dag_runs_bulk};
use store::{connections, pools, state_stores, variables};

type Routes = routes::Routes<AppState>;

/// Routes that need no login.
pub fn open_routes() -> Routes {
    Routes::open(&["Monitor"])
        .get("/monitor/health", "get_health", &[], health::monitor)
        .tags(&["Version"])
        .get("/version", "get_version", &[], health::version)
        .tags(&["Login"])
        .get("/auth/login", "login", &[307, 400], auth::login_redirect)
        .get("/auth/logout", "logout", &[307], auth::logout_redirect)
}

/// Routes about DAGs, their runs, assets and backfills; they wait for the first scan of the DAG files.
pub fn dag_routes() -> Routes {
    let routes = Routes::new(&["DAG"])
        .get("/dags", "get_dags", &[], dags::list)
        .patch("/dags", "patch_dags", &[400, 404], dags::patch_several)
        .patch("/dags/bulk", "bulk_dags", &[], dags_bulk::bulk)
        .get("/dags/{dag_id}", "get_dag", &[400, 404], dags::get)
        .patch("/dags/{dag_id}", "patch_dag", &[400, 404], dags::patch)
        .delete("/dags/{dag_id}", "delete_dag", &[400, 404, 409], dags::delete)
        .get("/dags/{dag_id}/details", "get_dag_details", &[400, 404], dags::details)
        .post("/dags/{dag_id}/favorite", "favorite_dag", &[404, 409], dags::favorite)
        .post("/dags/{dag_id}/unfavorite", "unfavorite_dag", &[404, 409], dags::unfavorite)
        .get("/dagTags", "get_dag_tags", &[], dag_facts::tags)
        .tags(&["DAG Parsing"])
        .put("/parseDagFile/{file_token}", "reparse_dag_file", &[404], dag_files::parse_again)
        .tags(&["DagSource"])
        .get("/dagSources/{dag_id}", "get_dag_source", &[400, 404, 406], dag_files::source)
        .tags(&["Import Error"])
        .get("/importErrors", "get_import_errors", &[], dag_files::import_errors)
        .get("/importErrors/{import_error_id}", "get_import_error", &[404], dag_files::import_error)
        .tags(&["DagStats"])
        .get("/dagStats", "get_dag_stats", &[400, 404], dag_facts::stats)
        .tags(&["DagWarning"])
        .get("/dagWarnings", "list_dag_warnings", &[], dag_facts::warnings)
        .tags(&["DagVersion"])
        .get("/dags/{dag_id}/dagVersions", "get_dag_versions", &[404], dag_versions::list)
        .get("/dags/{dag_id}/dagVersions/{version_number}", "get_dag_version", &[404], dag_versions::get)
        .tags(&["DagVersion", "experimental"])
        .get("/dags/{dag_id}/dagVersions/diff", "get_dag_version_diff", &[400, 404], dag_version_diff::get)
        .tags(&["Dag Bundle"])
        .get("/dagBundles", "get_dag_bundles", &[], dag_bundles::list)
        .get("/dagBundles/{bundle_name}", "get_dag_bundle", &[404], dag_bundles::get)
        .get("/dagBundles/{bundle_name}/files", "get_dag_bundle_files", &[404], dag_bundles::files)
        .tags(&["Task"])
        .get("/dags/{dag_id}/tasks", "get_tasks", &[400, 404], tasks::list)
        .get("/dags/{dag_id}/tasks/{task_id}", "get_task", &[400, 404], tasks::get)
        .merge(run_routes())
        .merge(instance_routes())
        .merge(hitl_routes())
        .merge(task_store_routes())
        .merge(asset_routes())
        .merge(backfill_routes());
    regions::accepted_by(routes)
}

fn run_routes() -> Routes {
    const RUNS: &str = "/dags/{dag_id}/dagRuns";
    const RUN: &str = "/dags/{dag_id}/dagRuns/{dag_run_id}";
    let run_path = |path: &str| format!("{RUN}{path}");
    Routes::new(&["DagRun"])
        .get(RUNS, "get_dag_runs", &[400, 404], dag_run_lists::list)
        .post(RUNS, "trigger_dag_run", &[400, 404, 409], dag_runs::trigger)
        .patch(RUNS, "bulk_dag_runs", &[], dag_runs_bulk::dag_runs)
        .get(RUN, "get_dag_run", &[404], dag_runs::get)
        .patch(RUN, "patch_dag_run", &[400, 404], dag_runs::patch)
        .delete(RUN, "delete_dag_run", &[400, 404, 409], dag_runs::delete)
        // Not routed as `/list`, which would answer 405 to a GET of a run named `list`; the handler checks the path.
        .route(MethodFilter::POST, RUN, dag_run_lists::list_by_body)
        .document(Method::POST, &format!("{RUNS}/list"), "get_list_dag_runs_batch", &[404], dag_run_lists::list_by_body)
        .post("/dags/{dag_id}/clearDagRuns", "clear_dag_runs", &[400, 404], clear_runs::clear_dag_runs)
        .post("/dags/{dag_id}/clearPartitions", "clear_dag_run_partitions", &[400, 404], clear_runs::partitions)
        .post(&run_path("/clear"), "clear_dag_run", &[404], clear_runs::clear_run)
        .get(&run_path("/upstreamAssetEvents"), "get_upstream_asset_events", &[404], asset_events::upstream)
        .tags(&["DagRun", "experimental"])
        .get(&run_path("/wait"), "wait_dag_run_until_finished", &[404, 409], dag_run_wait::wait)
}

const INSTANCES: &str = "/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances";

/// Task instances in lists, by task, by map index and by group.
fn instance_routes() -> Routes {
    task_instance_routes().merge(mapped_instance_routes()).merge(group_instance_routes()).merge(extra_link_routes())
}

fn task_instance_routes() -> Routes {
    let task_path = |path: &str| format!("{INSTANCES}/{{task_id}}{path}");
    Routes::new(&["Task Instance"])
        .post("/dags/{dag_id}/clearTaskInstances", "post_clear_task_instances", &[400, 404, 409], clear::task_instances)
        .get(INSTANCES, "get_task_instances", &[400, 404], task_instances::list)
        .patch(INSTANCES, "bulk_task_instances", &[], mark_bulk::task_instances)
        .get(&task_path(""), "get_task_instance", &[400, 404, 409], task_instances::get)
        .patch(&task_path(""), "patch_task_instance", &[400, 404, 409], mark::patch::<InstanceQuery>)
        .delete(&task_path(""), "delete_task_instance", &[400, 404, 409], mark::delete)
        // Not routed as `/list` because of tasks named `list`, as for runs.
        .route(MethodFilter::POST, &task_path(""), task_instances::list_by_body)
        .document(
            Method::POST,
            &format!("{INSTANCES}/list"),
            "get_task_instances_batch",
            &[404],
            task_instances::list_by_body,
        )
        .patch(&task_path("/dry_run"), "patch_task_instance_dry_run", &[400, 404, 409], mark::dry_run::<InstanceQuery>)
        .get(&task_path("/listMapped"), "get_mapped_task_instances", &[400, 404], tasks::list_mapped)
        .get(&task_path("/dependencies"), "get_task_instance_dependencies", &[400, 404, 409], task_dependencies::get)
        .get(&task_path("/tries"), "get_task_instance_tries", &[400, 404, 409], tries::list)
        .get(&task_path(TRY_PATH), "get_task_instance_try_details", &[400, 404, 409], tries::get)
        .get(&task_path("/logs/{try_number}"), "get_log", &[400, 404, 409], task_logs::get)
        .get(
            &task_path("/externalLogUrl/{try_number}"),
            "get_external_log_url",
            &[400, 404, 409],
            task_logs::external_url,
        )
}

const TRY_PATH: &str = "/tries/{task_try_number}";

fn mapped_instance_routes() -> Routes {
    let mapped_path = |path: &str| format!("{INSTANCES}/{{task_id}}/{{map_index}}{path}");
    Routes::new(&["Task Instance"])
        .get(&mapped_path(""), "get_mapped_task_instance", &[400, 404, 409], tasks::get_mapped_instance)
        .patch(&mapped_path(""), "patch_task_instance_by_map_index", &[400, 404, 409], mark::patch::<UpdateMaskQuery>)
        .patch(
            &mapped_path("/dry_run"),
            "patch_task_instance_dry_run_by_map_index",
            &[400, 404, 409],
            mark::dry_run::<UpdateMaskQuery>,
        )
        .get(
            &mapped_path("/dependencies"),
            "get_task_instance_dependencies_by_map_index",
            &[400, 404, 409],
            task_dependencies::get_mapped,
        )
        .get(&mapped_path("/tries"), "get_mapped_task_instance_tries", &[400, 404, 409], tries::list_mapped)
        .get(&mapped_path(TRY_PATH), "get_mapped_task_instance_try_details", &[400, 404, 409], tries::get_mapped)
}

fn group_instance_routes() -> Routes {
    const GROUP: &str = "/dags/{dag_id}/dagRuns/{dag_run_id}/taskGroupInstances/{group_id}";
    Routes::new(&["Task Instance"])
        .patch(GROUP, "patch_task_group_instances", &[400, 404, 409], mark::patch_group)
        .patch(&format!("{GROUP}/dry_run"), "patch_task_group_instances_dry_run", &[400, 404, 409], mark::dry_run_group)
}

fn extra_link_routes() -> Routes {
    let path = format!("{INSTANCES}/{{task_id}}/links");
    Routes::new(&["Extra Links", "Task Instance"]).get(&path, "get_extra_links", &[400, 404, 409], extra_links::links)
}

/// Human-in-the-loop routes.
fn hitl_routes() -> Routes {
    const OF_RUN: &str = "/dags/{dag_id}/dagRuns/{dag_run_id}/hitlDetails";
    const ONE: &str = "/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/hitlDetails";
    Routes::new(&["Task Instance"])
        .get(OF_RUN, "get_hitl_details", &[400], hitl::list)
        .get(ONE, "get_hitl_detail", &[400, 404, 409], hitl::get)
        .patch(ONE, "update_hitl_detail", &[400, 404, 409], hitl::answer)
        .get(&format!("{ONE}/tries/{{try_number}}"), "get_hitl_detail_try_detail", &[400, 404, 409], hitl::get_for_try)
}

/// XComs and state stores of tasks.
fn task_store_routes() -> Routes {
    const ENTRIES: &str = "/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/xcomEntries";
    const STORE: &str = "/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/state-store";
    let (entry, state_entry) = (&format!("{ENTRIES}/{{*xcom_key}}"), &format!("{STORE}/{{*key}}"));
    Routes::new(&["XCom"])
        .get(ENTRIES, "get_xcom_entries", &[400, 404], xcoms::list)
        .post(ENTRIES, "create_xcom_entry", &[400, 404, 409], xcoms::create)
        .get(entry, "get_xcom_entry", &[400, 404, 409], xcoms::get)
        .patch(entry, "update_xcom_entry", &[400, 404, 409], xcoms::update)
        .delete(entry, "delete_xcom_entry", &[400, 404, 409], xcoms::delete)
        .tags(&["Task State Store"])
        .get(STORE, "list_task_state_store", &[400, 404, 409], state_stores::task_list)
        .delete(STORE, "clear_task_state_store", &[400, 404, 409], state_stores::task_clear)
        .get(state_entry, "get_task_state_store", &[400, 404, 409], state_stores::task_get)
        .put(state_entry, "set_task_state_store", &[400, 404, 409], state_stores::task_set)
        .patch(state_entry, "patch_task_state_store", &[400, 404, 409], state_stores::task_patch)
        .delete(state_entry, "delete_task_state_store", &[400, 404, 409], state_stores::task_delete)
}

fn asset_routes() -> Routes {
    const OF_DAG: &str = "/dags/{dag_id}/assets/queuedEvents";
    const OF_ASSET: &str = "/assets/{asset_id}/queuedEvents";
    const OF_BOTH: &str = "/dags/{dag_id}/assets/{asset_id}/queuedEvents";
    const STORE: &str = "/assets/{asset_id}/state-store";
    const STATE_ENTRY: &str = "/assets/{asset_id}/state-store/{*key}";
    Routes::new(&["Asset"])
        .get("/assets", "get_assets", &[404], assets::list)
        .get("/assets/aliases", "get_asset_aliases", &[404], assets::aliases)
        .get("/assets/aliases/{asset_alias_id}", "get_asset_alias", &[404], assets::alias)
        .get("/assets/events", "get_asset_events", &[404], asset_events::list)
        .post("/assets/events", "create_asset_event", &[404], asset_events::create)
        .get("/assets/{asset_id}", "get_asset", &[404], assets::get)
        .post("/assets/{asset_id}/materialize", "materialize_asset", &[400, 404, 409], assets::materialize)
        .get(OF_ASSET, "get_asset_queued_events", &[], queued_events::list::<i64>)
        .delete(OF_ASSET, "delete_asset_queued_events", &[404], queued_events::delete::<i64>)
        .get(OF_DAG, "get_dag_asset_queued_events", &[], queued_events::list::<String>)
        .delete(OF_DAG, "delete_dag_asset_queued_events", &[400, 404], queued_events::delete::<String>)
        .get(OF_BOTH, "get_dag_asset_queued_event", &[404], queued_events::get)
        .delete(OF_BOTH, "delete_dag_asset_queued_event", &[400, 404], queued_events::delete::<(String, i64)>)
        .tags(&["Asset State Store"])
        .get(STORE, "list_asset_state_store", &[404], state_stores::asset_list)
        .delete(STORE, "clear_asset_state_store", &[404], state_stores::asset_clear)
        .get(STATE_ENTRY, "get_asset_state_store", &[404], state_stores::asset_get)
        .put(STATE_ENTRY, "set_asset_state_store", &[404], state_stores::asset_set)
        .delete(STATE_ENTRY, "delete_asset_state_store", &[404], state_stores::asset_delete)
}

fn backfill_routes() -> Routes {
    const CREATE_ERRORS: &[u16] = &[400, 404, 409, 503];
    const CHANGE_ERRORS: &[u16] = &[404, 409];
    Routes::new(&["Backfill"])
        .get("/backfills", "list_backfills", &[], backfills::list)
        .post("/backfills", "create_backfill", CREATE_ERRORS, backfills::create)
        .post("/backfills/dry_run", "create_backfill_dry_run", CREATE_ERRORS, backfills::dry_run)
        .get("/backfills/{backfill_id}", "get_backfill", &[404], backfills::get)
        .get("/backfills/{backfill_id}/dag_runs", "list_backfill_dag_runs", &[404], backfills::runs)
        .put("/backfills/{backfill_id}/pause", "pause_backfill", CHANGE_ERRORS, backfills::pause)
        .put("/backfills/{backfill_id}/unpause", "unpause_backfill", CHANGE_ERRORS, backfills::unpause)
        .put("/backfills/{backfill_id}/cancel", "cancel_backfill", CHANGE_ERRORS, backfills::cancel)
}

/// Routes that run code of the projects' environments, which may be slow.
pub fn slow_routes() -> Routes {
    Routes::new(&["Provider"]).get("/providers", "get_providers", &[], providers::list)
}

/// Variables and connections; DAG files may read them while they are parsed.
pub fn variable_and_connection_routes() -> Routes {
    const CONNECTION: &str = "/connections/{*connection_id}";
    const VARIABLE: &str = "/variables/{*variable_key}";
    const TEST: &str = "/connections/enqueue-test";
    Routes::new(&["Variable"])
        .get("/variables", "get_variables", &[], variables::list)
        .post("/variables", "post_variable", &[404, 409], variables::create)
        .patch("/variables", "bulk_variables", &[], variables::bulk)
        .get(VARIABLE, "get_variable", &[404], variables::get)
        .patch(VARIABLE, "patch_variable", &[400, 404], variables::patch)
        .delete(VARIABLE, "delete_variable", &[404], variables::delete)
        .tags(&["Connection"])
        .get("/connections", "get_connections", &[404], connections::list)
        .post("/connections", "post_connection", &[409], connections::create)
        .patch("/connections", "bulk_connections", &[], connections::bulk)
        .get(CONNECTION, "get_connection", &[404], connections::get)
        .patch(CONNECTION, "patch_connection", &[400, 404], connections::patch)
        .delete(CONNECTION, "delete_connection", &[404], connections::delete)
        // Not routed as `/test`, which would answer 405 to a GET of a connection named `test`; the handler dispatches.
        .route(MethodFilter::POST, CONNECTION, connections::post_by_word)
        .document(Method::POST, "/connections/test", "test_connection", &[400], connections::test)
        .document(
            Method::POST,
            "/connections/defaults",
            "create_default_connections",
            &[],
            connections::create_defaults,
        )
        .document(Method::POST, TEST, "enqueue_connection_test", &[409], connections::enqueue_test)
        .document(Method::GET, TEST, "get_connection_test", &[404], connections::get_test)
}

/// Routes for pools, jobs, settings, the audit log and plugins.
pub fn other_routes() -> Routes {
    const OPTION: &str = "/config/section/{section}/option/{option}";
    const POOL: &str = "/pools/{*pool_name}";
    let routes = Routes::new(&["Pool"])
        .get("/pools", "get_pools", &[], pools::list)
        .post("/pools", "post_pool", &[409], pools::create)
        .patch("/pools", "bulk_pools", &[], pools::bulk)
        .get(POOL, "get_pool", &[404], pools::get)
        .patch(POOL, "patch_pool", &[400, 404], pools::patch)
        .delete(POOL, "delete_pool", &[400, 404], pools::delete)
        .tags(&["Job"])
        .get("/jobs", "get_jobs", &[400], monitor::jobs)
        .tags(&["Config"])
        .get("/config", "get_config", &[404, 406], config::get)
        .get(OPTION, "get_config_value", &[404, 406], config::get_value)
        .tags(&["Event Log"])
        .get("/eventLogs", "get_event_logs", &[400], event_logs::list)
        .get("/eventLogs/{event_log_id}", "get_event_log", &[404], event_logs::get)
        .tags(&["Plugin"])
        .get("/plugins", "get_plugins", &[], plugins::list)
        .get("/plugins/importErrors", "import_errors", &[], plugins::import_errors);
    regions::accepted_by(routes)
}

/// Every operation, for the OpenAPI document.
pub fn all_routes() -> Routes {
    open_routes().merge(dag_routes()).merge(slow_routes()).merge(variable_and_connection_routes()).merge(other_routes())
}
