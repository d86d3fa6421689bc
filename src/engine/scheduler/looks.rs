//! What sensors see that wait for other runs, or for files.

use crate::engine::dag::{External, Until};
use crate::engine::planner::graph::Graph;
use crate::engine::planner::snapshot::{Instance, Seen};
use crate::engine::store::StoreError;
use crate::engine::store::other_runs::{self, Counted};
use crate::postgres::GenericClient;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

/// For a look at a file, which others wait for.
const FILE_LIMIT: Duration = Duration::from_millis(500);

/// Looks for those whose next look is due. `date` is the run's own.
pub async fn look(
    client: &impl GenericClient,
    graph: &Graph,
    instances: &[Instance],
    date: Timestamp,
    now: Timestamp,
) -> Result<HashMap<usize, Seen>, StoreError> {
    let mut found = HashMap::new();
    if graph.looks.is_empty() {
        return Ok(found);
    }
    let is_due = |one: &&Instance| one.waits_since.is_some() && one.due_at.is_some_and(|due| due <= now);
    for task_index in instances.iter().filter(is_due).filter_map(|one| one.task_index) {
        let Some(wait) = &graph.task(task_index).waits else { continue };
        let seen = match &wait.until {
            Until::External(external) => other_run(client, external, date).await?,
            Until::File { path, .. } => file(path).await,
            Until::Delta { .. } | Until::Moment { .. } | Until::Time { .. } | Until::Weekday { .. } => continue,
        };
        found.insert(task_index, seen);
    }
    Ok(found)
}

/// As its own code does.
async fn other_run(client: &impl GenericClient, external: &External, date: Timestamp) -> Result<Seen, StoreError> {
    let earlier = SignedDuration::try_from_secs_f64(external.earlier).ok();
    let Some(date) = earlier.and_then(|earlier| date.checked_sub(earlier).ok()) else { return Ok(Seen::Otherwise) };
    let (counted, wanted) = match (&external.task_ids, &external.group_id) {
        (Some(task_ids), _) => (Counted::Tasks(task_ids.clone()), task_ids.len()),
        (None, Some(group_id)) => (Counted::Group(group_id.clone()), 1),
        (None, None) => (Counted::Runs, 1),
    };
    let count =
        async |states: &[String]| match other_runs::count(client, &external.dag_id, &counted, &[date], states).await {
            // Of a DAG that is not there: nothing of it has any state.
            Err(StoreError::NotFound { .. }) => Ok(0),
            count => count,
        };
    if !external.others.is_empty() && count(&external.others).await? > 0 {
        return Ok(Seen::Otherwise);
    }
    let there = count(&external.allowed).await?;
    Ok(if usize::try_from(there) == Ok(wanted) { Seen::There } else { Seen::NotYet })
}

/// Its own code decides on what is neither absent nor a file, and on a file system that does not answer.
async fn file(path: &Path) -> Seen {
    let path = path.to_owned();
    let look = tokio::task::spawn_blocking(move || std::fs::metadata(path));
    match tokio::time::timeout(FILE_LIMIT, look).await {
        Ok(Ok(Ok(found))) if found.is_file() => Seen::There,
        Ok(Ok(Err(error))) if error.kind() == ErrorKind::NotFound => Seen::NotYet,
        _ => Seen::Otherwise,
    }
}
