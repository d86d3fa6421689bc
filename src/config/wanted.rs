//! What `leoflow.yaml` says about the environment of a project's DAGs.

use serde::Deserialize;
use serde_json::{Map, Value};

/// What the settings say about the environment of a project's DAGs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// `3.12`, or a range.
    pub python_version: Option<String>,
    /// The version of Apache Airflow whose own SDK parses and runs the DAGs.
    pub airflow: Option<String>,
    pub dependencies: Option<Vec<String>>,
    /// A file of them, in the folder of the settings.
    pub requirements: Option<String>,
    pub constraints: Vec<String>,
    pub index: Option<String>,
    pub extra_index: Vec<String>,
    /// What was published after that date does not count.
    pub exclude_newer: Option<String>,
}

/// Takes that out of settings that were loaded; the rest is for the tasks.
pub fn take_wanted(settings: &mut Value) -> Wanted {
    let keys = [
        "python_version",
        "airflow",
        "dependencies",
        "requirements",
        "constraints",
        "index",
        "extra_index",
        "exclude_newer",
    ];
    let Some(settings) = settings.as_object_mut() else { return Wanted::default() };
    let taken: Map<_, _> = keys.iter().filter_map(|key| settings.shift_remove_entry(*key)).collect();
    // They were checked when they were loaded.
    serde_json::from_value(taken.into()).unwrap_or_default()
}
