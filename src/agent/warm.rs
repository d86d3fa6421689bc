//! Tries that a warm Python starts.

use super::folder::TaskFolder;
use super::keeper::OOM_SCORE;
use crate::engine::keys::TryKey;
use crate::python::{Interpreter, Warm};
use crate::sys::process::ProcessId;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long several tries wait for one that is being made; loading our package takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Variables that Python reads when it starts: a try that sets one starts cold.
const READ_AT_START: &[&str] = &["LANG", "LC_", "LD_", "MALLOC_", "PYTHON"];
/// Those that numpy, pandas and what works for them read when they are imported, which may have been before the try.
pub const READ_BY_LIBRARIES: &[&str] =
    &["ARROW_", "BLIS_", "GOTO_", "JE_ARROW_", "MKL_", "NPY_", "NUMEXPR_", "OMP_", "OPENBLAS_", "PANDAS_", "VECLIB_"];

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

/// Whether a file names such a variable: it may set one before it imports a library.
pub fn may_set_variables(sources: &Map<String, Value>) -> bool {
    let names = |text: &str| READ_BY_LIBRARIES.iter().any(|start| text.contains(start));
    sources.values().filter_map(Value::as_str).any(names)
}

fn starts_cold(sets: &[String]) -> bool {
    let is_read = |name: &String| READ_AT_START.iter().chain(READ_BY_LIBRARIES).any(|start| name.starts_with(start));
    sets.iter().any(is_read)
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
        assert!(starts_cold(&sets(&["NPY_DISABLE_CPU_FEATURES"])));
    }

    #[test]
    fn a_file_that_names_a_variable_of_a_library_is_told_from_others() {
        let sources = |text: &str| json!({"/w/dag.py": text}).as_object().unwrap().clone();
        assert!(may_set_variables(&sources("os.environ['OMP_NUM_THREADS'] = '1'\nimport numpy")));
        assert!(!may_set_variables(&sources("import numpy")));
    }
}
