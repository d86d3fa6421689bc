//! Whether what a file describes can be a DAG here: asked of every file, by whoever reads it.

use super::dag::Structure;
use super::params;
use serde_json::Value;

/// The DAGs that a file describes. The error is for people: which of them cannot be, and why.
pub fn read(described: &[Value]) -> Result<Vec<Structure>, String> {
    let structures: Result<Vec<Structure>, _> = described.iter().cloned().map(serde_json::from_value).collect();
    let dags = structures.map_err(|error| format!("What it describes is no DAG: {error}"))?;
    for (dag, described) in dags.iter().zip(described) {
        check(dag).map_err(|problem| {
            let place = described["place"].as_str().map(|place| format!("{place}: ")).unwrap_or_default();
            format!("{place}Dag {:?}: {problem}", dag.dag_id)
        })?;
    }
    Ok(dags)
}

/// Params that do not fit their schemas, and a schedule that never is.
fn check(dag: &Structure) -> Result<(), String> {
    params::check_defaults(dag)?;
    let checked = dag.timetable.as_ref().map_or(Ok(()), |timetable| timetable.check());
    checked.map_err(|problem| problem.to_string())
}

/// What is said of a dag_id that two files make.
pub fn used_twice(dag_id: &str, first: &str, second: &str) -> String {
    format!("dag_id {dag_id:?} is used in two files:\n  {first}\n  {second}\nThe DAG of the first stays.")
}
