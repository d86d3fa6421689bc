//! Starts tries by forking a zygote: a warm Python that has loaded the modules that every task needs.

use super::folder::TaskFolder;
use super::keeper::OOM_SCORE;
use leoflow_base::sys::process::ProcessId;
use leoflow_engine::model::keys::TryKey;
use leoflow_python::{Interpreter, Warm};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long tries that start together wait for a zygote that is loading. Loading our package takes a tenth of this
/// time.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Variables that Python reads at startup: a try that sets one starts cold.
const STARTUP_VARIABLES: &[&str] = &["LANG", "LC_", "LD_", "MALLOC_", "PYTHON"];
/// Variables that numpy, pandas and their dependencies read on import, which a zygote may have done before the fork.
pub const LIBRARY_VARIABLES: &[&str] =
    &["ARROW_", "BLIS_", "GOTO_", "JE_ARROW_", "MKL_", "NPY_", "NUMEXPR_", "OMP_", "OPENBLAS_", "PANDAS_", "VECLIB_"];

/// The parameters of a start.
pub struct Request {
    pub folder: TaskFolder,
    /// The task, independent of the run; see `usage_key`.
    pub usage_key: String,
    /// Options of `leoflow.entry.task`.
    pub options: Value,
    /// Names of the environment variables that the task sets.
    pub env_names: Vec<String>,
}

/// Whether other tries start together with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    Single,
    Several,
}

/// Starts a try from a zygote and returns its keeper; `None` when it must start cold. A single try does not wait for a
/// zygote to load, but has one started for later tries; tries that start together wait for `BATCH_WAIT`.
pub async fn start(warm: &mut Warm, interpreter: &Interpreter, request: &Request, batch: Batch) -> Option<ProcessId> {
    if starts_cold(&request.env_names) {
        return None;
    }
    let patience = if batch == Batch::Several { BATCH_WAIT } else { Duration::ZERO };
    // The keeper sets `oom_score_adj` too, but the task may read the value earlier.
    let fork_request = json!({"folder": request.folder.path(), "options": request.options, "oom_score": OOM_SCORE});
    let pid = warm.fork(interpreter, &request.usage_key, &fork_request, &[], patience).await?;
    // A keeper that has already exited is still named in `process.json`.
    ProcessId::of(pid).or_else(|| request.folder.keeper().ok().flatten())
}

/// The key of a task under which `Warm` remembers the libraries it uses.
pub fn usage_key(key: &TryKey) -> String {
    format!("{} {}", key.instance.run.dag_id, key.instance.task_id)
}

/// True if a source file mentions one of `LIBRARY_VARIABLES`: its code may set the variable before it imports a
/// library.
pub fn may_set_variables(sources: &Map<String, Value>) -> bool {
    let mentions_variable = |text: &str| LIBRARY_VARIABLES.iter().any(|prefix| text.contains(prefix));
    sources.values().filter_map(Value::as_str).any(mentions_variable)
}

/// True if a task that sets these environment variables needs a new Python.
fn starts_cold(env_names: &[String]) -> bool {
    let forces_cold_start =
        |name: &String| STARTUP_VARIABLES.iter().chain(LIBRARY_VARIABLES).any(|prefix| name.starts_with(prefix));
    env_names.iter().any(forces_cold_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_sets_startup_variables_starts_cold() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(!starts_cold(&owned(&["REGION", "MY_PYTHON"])));
        assert!(starts_cold(&owned(&["REGION", "LD_PRELOAD"])));
        assert!(starts_cold(&owned(&["PYTHONHASHSEED"])));
        assert!(starts_cold(&owned(&["OMP_NUM_THREADS"])));
        assert!(starts_cold(&owned(&["NPY_DISABLE_CPU_FEATURES"])));
    }

    #[test]
    fn recognizes_a_file_that_names_a_library_variable() {
        let sources = |text: &str| json!({"/w/dag.py": text}).as_object().unwrap().clone();
        assert!(may_set_variables(&sources("os.environ['OMP_NUM_THREADS'] = '1'\nimport numpy")));
        assert!(!may_set_variables(&sources("import numpy")));
    }
}
