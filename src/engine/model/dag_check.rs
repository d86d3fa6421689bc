//! Validates the DAGs that a file describes. All code that parses DAG files calls [`read`].

use super::dag::Structure;
use super::params;
use serde_json::Value;

/// Deserializes the DAGs that a file describes, and checks them. The error is a text for users: which DAG is invalid,
/// and why.
pub fn read(described: &[Value]) -> Result<Vec<Structure>, String> {
    let structures: Result<Vec<Structure>, _> = described.iter().cloned().map(serde_json::from_value).collect();
    let dags = structures.map_err(|error| format!("The file does not describe a valid DAG: {error}"))?;
    for (dag, description) in dags.iter().zip(described) {
        check(dag).map_err(|problem| {
            let location = description["place"].as_str().map(|place| format!("{place}: ")).unwrap_or_default();
            format!("{location}Dag {:?}: {problem}", dag.dag_id)
        })?;
    }
    Ok(dags)
}

/// Rejects params that do not fit their schemas, and a schedule that can never produce a date.
fn check(dag: &Structure) -> Result<(), String> {
    params::check_defaults(dag)?;
    let schedule_result = dag.timetable.as_ref().map_or(Ok(()), |timetable| timetable.check());
    schedule_result.map_err(|problem| problem.to_string())
}

/// Import error for a dag_id that two files define.
pub fn used_twice(dag_id: &str, first: &str, second: &str) -> String {
    format!("dag_id {dag_id:?} is used in two files:\n  {first}\n  {second}\nThe first file's DAG is kept.")
}
