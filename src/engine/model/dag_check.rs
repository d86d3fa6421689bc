//! Validates the DAGs that a file describes. All code that parses DAG files calls [`read`].

use super::dag::Structure;
use super::params::{self, ParamError};
use super::task::LONGEST_POOL;
use crate::schedule::timetable::TimetableProblem;
use serde_json::Value;

/// Why the description of a file's DAGs is refused.
#[derive(Debug, thiserror::Error)]
pub enum DagError {
    #[error("The file does not describe a valid DAG: {0}")]
    Malformed(#[from] serde_json::Error),
    /// `place` is the file and line of the DAG, with a colon, or empty.
    #[error("{place}Dag {dag_id:?}: {problem}")]
    Refused {
        place: String,
        dag_id: String,
        #[source]
        problem: Problem,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Params(#[from] ParamError),
    #[error("task {task_id:?}: the pool {start:?}… has more than {LONGEST_POOL} characters")]
    Pool { task_id: String, start: String },
    #[error(transparent)]
    Timetable(#[from] TimetableProblem),
}

/// Deserializes the DAGs that a file describes, and checks them.
pub fn read(described: &[Value]) -> Result<Vec<Structure>, DagError> {
    let dags: Vec<Structure> = described.iter().cloned().map(serde_json::from_value).collect::<Result<_, _>>()?;
    for (dag, description) in dags.iter().zip(described) {
        check(dag).map_err(|problem| {
            let place = description["place"].as_str().map(|place| format!("{place}: ")).unwrap_or_default();
            DagError::Refused { place, dag_id: dag.dag_id.clone(), problem }
        })?;
    }
    Ok(dags)
}

/// Rejects params that do not fit their schemas, names that are too long, and a schedule that can never produce a date.
fn check(dag: &Structure) -> Result<(), Problem> {
    params::check_defaults(dag)?;
    if let Some(task) = dag.tasks.iter().find(|task| task.pool().chars().count() > LONGEST_POOL) {
        let start = task.pool().chars().take(40).collect();
        return Err(Problem::Pool { task_id: task.task_id.clone(), start });
    }
    Ok(dag.timetable.as_ref().map_or(Ok(()), |timetable| timetable.check())?)
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
        let refused = read_with("p".repeat(3000)).unwrap_err().to_string();
        assert!(refused.starts_with("d.py:3: Dag \"d\": task \"t\": the pool \"ppp"), "{refused}");
        assert!(refused.ends_with("has more than 256 characters") && refused.len() < 200, "{refused}");
    }
}
