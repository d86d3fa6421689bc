//! Tries that a warm Python starts.

use super::folder::TaskFolder;
use super::keeper::OOM_SCORE;
use crate::engine::keys::TryKey;
use crate::python::{Interpreter, Warm};
use crate::sys::process::ProcessId;
use serde_json::{Value, json};
use std::time::Duration;

/// How long several tries wait for one that is being made; loading our package takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Variables that Python's and other libraries read when they are imported, which was before the try: a try that sets
/// one starts cold.
const READ_AT_START: &[&str] = &["LANG", "LC_", "LD_", "MALLOC_", "MKL_", "OMP_", "OPENBLAS_", "PYTHON"];

/// What a try is started with.
pub struct Request {
    pub folder: TaskFolder,
    /// Which task it is, whatever the run.
    pub user: String,
    /// For `leoflow.entry.task`.
    pub options: Value,
    /// The names of the variables that its task sets.
    pub sets: Vec<String>,
}

/// Starts a try and returns its keeper; `None` when it is to be started cold. One alone does not wait for a warm Python
/// to be ready; it has it made for those after it. Several wait a moment.
pub async fn start(
    warm: &mut Warm,
    interpreter: &Interpreter,
    request: &Request,
    is_of_many: bool,
) -> Option<ProcessId> {
    if starts_cold(&request.sets) {
        return None;
    }
    let patience = if is_of_many { PATIENCE } else { Duration::ZERO };
    // The keeper says it too, but the task may look before it does.
    let asked = json!({"folder": request.folder.path(), "options": request.options, "oom_score": OOM_SCORE});
    let pid = warm.fork(interpreter, &request.user, &asked, &[], patience).await?;
    // One that has ended already has said who it was.
    ProcessId::of(pid).or_else(|| request.folder.keeper().ok().flatten())
}

/// What a task is called where it is remembered what it uses.
pub fn user(key: &TryKey) -> String {
    format!("{} {}", key.run.dag_id, key.task_id)
}

fn starts_cold(sets: &[String]) -> bool {
    sets.iter().any(|name| READ_AT_START.iter().any(|start| name.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_sets_what_is_read_at_the_start_has_a_python_of_its_own() {
        let sets = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(!starts_cold(&sets(&["REGION", "MY_PYTHON"])));
        assert!(starts_cold(&sets(&["REGION", "LD_PRELOAD"])));
        assert!(starts_cold(&sets(&["PYTHONHASHSEED"])));
        assert!(starts_cold(&sets(&["OMP_NUM_THREADS"])));
    }
}
