//! What the UI's list of DAGs shows beside the DAGs: folders, kinds of schedules, and counts of runs and instances.

use super::dags::run_number;
use crate::api::prelude::*;
use crate::api::views::BUNDLE;
use leoflow_engine::store::dag::dag_facts;
use leoflow_engine::store::list::overview;
use leoflow_engine::store::run::runs;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// `/ui/dags/folders`: the folders of the workspace with DAG files, and those above them.
pub async fn folders(Datastore(client): Datastore) -> JsonResult<Value> {
    let files = dag_facts::files_of_workspace(&*client).await?;
    let above = |file: &str| -> Vec<String> {
        let folders = Path::new(file).ancestors().skip(1).map(|folder| folder.display().to_string());
        folders.filter(|folder| !folder.is_empty() && folder != "/").collect()
    };
    let folders: BTreeSet<String> = files.iter().flat_map(|file| above(&file.relative_fileloc)).collect();
    let views: Vec<Value> = folders.iter().map(|folder| json!({"bundle_name": BUNDLE, "folder": folder})).collect();
    Ok(Json(json!({"total_entries": views.len(), "folders": views})))
}

/// `/ui/dags/timetable_types`: the classes of the DAGs' timetables.
pub async fn timetable_types(Datastore(client): Datastore, params: Params) -> JsonResult<Value> {
    let prefix = params.text("timetable_type_prefix_pattern").unwrap_or_default();
    let mut types = dag_facts::timetable_types(&*client).await?;
    types.retain(|name| name.starts_with(prefix));
    let total = types.len();
    Ok(Json(json!({"timetable_types": params.page()?.of(types).rows, "total_entries": total})))
}

/// Maximum number of runs that are counted for a DAG, of each state.
const STATE_COUNT_LIMIT: i64 = 1000;

/// `/ui/dags/run_state_counts`.
pub async fn run_state_counts(Datastore(client): Datastore, params: Params) -> JsonResult<Value> {
    let dag_ids = params.texts("dag_ids");
    let mut views = Vec::new();
    for counted in dag_facts::count_runs(&*client, &dag_ids).await? {
        if dag_ids.is_empty() {
            continue;
        }
        let counts: BTreeMap<String, i64> = serde_json::from_value(counted.by_state).unwrap_or_default();
        let counts: BTreeMap<String, i64> =
            counts.into_iter().map(|(state, count)| (state, count.min(STATE_COUNT_LIMIT))).collect();
        views.push(json!({"dag_id": counted.dag_id, "state_counts": counts}));
    }
    Ok(Json(json!({"dags": views, "state_count_limit": STATE_COUNT_LIMIT})))
}

/// Newest runs of each DAG among which the ids of runs are looked up.
const RECENT_RUNS: i64 = 30;

/// `/ui/dags/recent_task_instance_state_counts`: the instances of runs by state, for the numbers that `/ui/dags` gives
/// its runs.
pub async fn recent_instance_state_counts(Datastore(client): Datastore, params: Params) -> JsonResult<Value> {
    let numbers: BTreeSet<u32> = params.texts("dag_run_ids").iter().filter_map(|text| text.parse().ok()).collect();
    let mut by_dag: BTreeMap<String, Vec<RunKey>> = BTreeMap::new();
    if !numbers.is_empty() {
        for run in runs::newest(&*client, None, RECENT_RUNS).await? {
            if numbers.contains(&run_number(&run.key)) {
                by_dag.entry(run.key.dag_id.clone()).or_default().push(run.key);
            }
        }
    }
    let mut views = Vec::new();
    for (dag_id, runs) in by_dag {
        let run_ids: Vec<String> = runs.into_iter().map(|run| run.run_id).collect();
        let counts = overview::instance_states(&*client, &dag_id, &run_ids).await?;
        views.push(json!({"dag_id": dag_id, "run_ids": run_ids, "state_counts": counts}));
    }
    Ok(Json(json!({"dags": views})))
}
