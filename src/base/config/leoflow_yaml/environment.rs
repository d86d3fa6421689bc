//! Settings in `leoflow.yaml` for the Python environment of a project's DAGs.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Settings for the Python environment of a project's DAGs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EnvironmentSettings {
    /// A version such as `3.12`, or a range.
    pub python_version: Option<String>,
    /// Version of Apache Airflow whose own SDK parses and runs the DAGs.
    pub airflow: Option<String>,
    pub dependencies: Option<Vec<String>>,
    pub additional_dependencies: Vec<String>,
    /// Names of packages, and files and addresses, that are left out of all lists.
    pub ignored_requirements: Vec<String>,
    /// A requirements file, relative to the folder of the settings.
    pub requirements: Option<String>,
    pub constraints: Vec<String>,
    pub index: Option<String>,
    pub extra_index: Vec<String>,
    /// Ignores packages published after this date or time.
    pub exclude_newer: Option<String>,
}

/// Removes the environment settings from loaded settings and returns them; the rest applies to the DAG and its tasks.
pub fn take_environment(settings: &mut Value) -> EnvironmentSettings {
    let keys = [
        "python_version",
        "airflow",
        "dependencies",
        "additional_dependencies",
        "ignored_requirements",
        "requirements",
        "constraints",
        "index",
        "extra_index",
        "exclude_newer",
    ];
    let Some(settings) = settings.as_object_mut() else { return EnvironmentSettings::default() };
    let taken: Map<_, _> = keys.iter().filter_map(|key| settings.shift_remove_entry(*key)).collect();
    // The values were checked when they were loaded.
    serde_json::from_value(taken.into()).unwrap_or_default()
}
