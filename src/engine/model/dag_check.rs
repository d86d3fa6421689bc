//! Validates the DAGs that a file describes. All code that parses DAG files calls [`read`].

use super::dag::Structure;
use super::params;
use super::task::LONGEST_POOL;
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

/// Rejects params that do not fit their schemas, names that are too long, and a schedule that can never produce a date.
fn check(dag: &Structure) -> Result<(), String> {
    params::check_defaults(dag)?;
    if let Some(task) = dag.tasks.iter().find(|task| task.pool().chars().count() > LONGEST_POOL) {
        let start: String = task.pool().chars().take(40).collect();
        return Err(format!("task {:?}: the pool {start:?}… has more than {LONGEST_POOL} characters", task.task_id));
    }
    let schedule_result = dag.timetable.as_ref().map_or(Ok(()), |timetable| timetable.check());
    schedule_result.map_err(|problem| problem.to_string())
}

/// Import error for a dag_id that two files define.
pub fn used_twice(dag_id: &str, first: &str, second: &str) -> String {
    format!("dag_id {dag_id:?} is used in two files:\n  {first}\n  {second}\nThe first file's DAG is kept.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refuses_a_pool_that_no_index_can_hold() {
        let read_with = |pool: String| {
            let task = json!({"task_id": "t", "operator": "x", "pool": pool});
            read(&[json!({"dag_id": "d", "tasks": [task], "place": "d.py:3"})])
        };
        assert!(read_with("ü".repeat(LONGEST_POOL)).is_ok());
        let refused = read_with("p".repeat(3000)).unwrap_err();
        assert!(refused.starts_with("d.py:3: Dag \"d\": task \"t\": the pool \"ppp"), "{refused}");
        assert!(refused.ends_with("has more than 256 characters") && refused.len() < 200, "{refused}");
    }
}
