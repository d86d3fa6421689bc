//! Notes when a DAG or a task begins to fail and when it succeeds again, for notifications.

use crate::model::keys::{Position, RunKey};
use crate::model::state::{RunState, TaskState};
use crate::planner::plan::{Instance, Plan, Reason, Snapshot};
use crate::store::Result;
use crate::store::notifications::{self, Subject};
use deadpool_postgres::Transaction;
use std::collections::{BTreeMap, HashSet};

const RUN_FAILED: &str = "run_failed";
const TASK_FAILED: &str = "task_failed";

/// An event and its subject.
pub type Episode = (String, String);

/// Notes what the plan ends, and returns the episodes that end when the transaction commits. An end that a user has
/// marked is no news. Of the instances of a mapped task, the first that has failed stands for all.
pub async fn note(
    transaction: &Transaction<'_>,
    begun: &mut HashSet<Episode>,
    key: &RunKey,
    snapshot: &Snapshot<'_>,
    plan: &Plan,
) -> Result<Vec<Episode>> {
    let mut ended = Vec::new();
    let mut failed: BTreeMap<&str, Position> = BTreeMap::new();
    let mut succeeded: HashSet<&str> = HashSet::new();
    for transition in &plan.transitions {
        let (task_id, position) = plan.name_after(snapshot, transition.index);
        match transition.to {
            TaskState::Failed => _ = failed.entry(task_id).or_insert(position),
            TaskState::Success if !begun.is_empty() => _ = succeeded.insert(task_id),
            _ => {}
        }
    }
    let name = |task_id: &str| format!("{} {task_id}", key.dag_id);
    for (task_id, position) in &failed {
        let name = name(task_id);
        let subject =
            Subject { event: TASK_FAILED, name: &name, run: Some(key), task: Some((task_id, *position)), detail: None };
        notifications::begin(transaction, &subject).await?;
        begun.insert((TASK_FAILED.to_owned(), name));
    }
    for task_id in succeeded.into_iter().filter(|task_id| !failed.contains_key(task_id)) {
        let episode = (TASK_FAILED.to_owned(), name(task_id));
        // Another instance of a mapped task may have failed in this run.
        let is_failed = |instance: &Instance| instance.task_id == *task_id && instance.state == Some(TaskState::Failed);
        if begun.contains(&episode) && !snapshot.instances.iter().any(is_failed) {
            notifications::end(transaction, TASK_FAILED, None, &episode.1).await?;
            ended.push(episode);
        }
    }
    let episode = (RUN_FAILED.to_owned(), key.dag_id.clone());
    let run = Subject { event: RUN_FAILED, name: &key.dag_id, run: Some(key), ..Subject::default() };
    match plan.run {
        Some((RunState::Failed, reason)) if reason != Reason::Marked => {
            let detail = format!("reason: {}", reason.as_str());
            notifications::begin(transaction, &Subject { detail: Some(&detail), ..run }).await?;
            begun.insert(episode);
        }
        Some((RunState::Success, _)) if begun.contains(&episode) => {
            let recovered = Subject { event: "run_recovered", ..run };
            notifications::end(transaction, RUN_FAILED, Some(&recovered), &key.dag_id).await?;
            ended.push(episode);
        }
        _ => {}
    }
    Ok(ended)
}
