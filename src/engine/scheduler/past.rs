//! Determines the tasks that `depends_on_past` and `wait_for_downstream` hold back.

use crate::model::keys::RunKey;
use crate::planner::graph::Graph;
use crate::store::Result;
use crate::store::run::active::{self, PastRuns};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::HashSet;

/// The tasks that wait for the outcome of the previous run.
#[derive(Debug, Default)]
pub struct HeldByPast {
    /// The run id of the previous run; `None` if the run has none, or no task depends on it.
    pub previous_run: Option<String>,
    /// Indices of the tasks.
    pub tasks: HashSet<usize>,
}

/// Returns the tasks that may not start because of the outcome of the previous run. With catchup, the
/// previous run is the last one whose type is not `manual`, otherwise the last one of any type.
pub async fn held_by_past(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
    logical_date: Option<Timestamp>,
) -> Result<HeldByPast> {
    let mut held = HeldByPast::default();
    let (true, Some(date)) = (graph.has_past, logical_date) else { return Ok(held) };
    let catchup = graph.structure.catchup;
    let past_runs = if catchup { PastRuns::NotManual } else { PastRuns::All };
    let Some(previous) = active::previous_run(client, key, date, past_runs).await? else { return Ok(held) };
    let succeeded = active::successes(client, &key.dag_id, &previous.run_id).await?;
    for task_index in 0..graph.len() {
        let task = graph.task(task_index);
        if !task.depends_on_past {
            continue;
        }
        let start = task.start_date.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        if catchup && start.is_some_and(|start| previous.logical_date < start) {
            continue;
        }
        let past_allows = match succeeded.get(&task.task_id) {
            Some(has_succeeded) => *has_succeeded,
            None => {
                task.ignore_first_depends_on_past
                    && !active::has_earlier_instance(client, &key.dag_id, &task.task_id, date).await?
            }
        };
        let downstream = graph.node(task_index).downstream.iter().map(|down| &graph.task(*down).task_id);
        let downstream_allows =
            !task.wait_for_downstream || downstream.into_iter().all(|id| succeeded.get(id) != Some(&false));
        if !(past_allows && downstream_allows) {
            held.tasks.insert(task_index);
        }
    }
    held.previous_run = Some(previous.run_id);
    Ok(held)
}
