//! Decides whether a try may be forked from a warm Python, and from which.

use leoflow_engine::model::dag::Structure;
use leoflow_engine::model::keys::TryKey;
use serde_json::{Map, Value};

/// Variables that Python reads at startup: a try that sets one starts cold.
const STARTUP_VARIABLES: &[&str] = &["LANG", "LC_", "LD_", "MALLOC_", "PYTHON"];
/// Variables that numpy, pandas and their dependencies read on import, which a zygote may have done before the fork.
pub const LIBRARY_VARIABLES: &[&str] =
    &["ARROW_", "BLIS_", "GOTO_", "JE_ARROW_", "MKL_", "NPY_", "NUMEXPR_", "OMP_", "OPENBLAS_", "PANDAS_", "VECLIB_"];

/// The key of a task under which the libraries that it uses are remembered.
pub fn usage_key(key: &TryKey) -> String {
    format!("{} {}", key.instance.run.dag_id, key.instance.task_id)
}

/// True if a source file mentions one of `LIBRARY_VARIABLES`: its code may set the variable before it imports a
/// library.
pub fn may_set_variables(sources: &Map<String, Value>) -> bool {
    let mentions_variable = |text: &str| LIBRARY_VARIABLES.iter().any(|prefix| text.contains(prefix));
    sources.values().filter_map(Value::as_str).any(mentions_variable)
}

/// True if each try of the DAG runs its file again, by `isolation: fresh` in leoflow.yaml.
pub fn is_isolated(structure: &Structure) -> bool {
    let isolation = structure.settings.as_ref().and_then(|settings| settings.get("isolation"));
    isolation.and_then(Value::as_str) == Some("fresh")
}

/// True if a task that sets these environment variables needs a new Python.
pub fn starts_cold<'a>(mut env_names: impl Iterator<Item = &'a String>) -> bool {
    let prefixes = || STARTUP_VARIABLES.iter().chain(LIBRARY_VARIABLES);
    env_names.any(|name| prefixes().any(|prefix| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_task_that_sets_startup_variables_starts_cold() {
        let is_cold =
            |names: &[&str]| starts_cold(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().iter());
        assert!(!is_cold(&["REGION", "MY_PYTHON"]));
        for name in ["LD_PRELOAD", "PYTHONHASHSEED", "OMP_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES"] {
            assert!(is_cold(&["REGION", name]), "{name}");
        }
    }

    #[test]
    fn recognizes_a_file_that_names_a_library_variable() {
        let sources = |text: &str| json!({"/w/dag.py": text}).as_object().unwrap().clone();
        assert!(may_set_variables(&sources("os.environ['OMP_NUM_THREADS'] = '1'\nimport numpy")));
        assert!(!may_set_variables(&sources("import numpy")));
    }
}
