//! Queries about other runs than a task's own, for running tasks and for sensors that the scheduler checks.

use crate::model::keys::RunKey;
use crate::store::StoreError;
use crate::store::dag::dags;
use crate::store::rows::{fetch_one, fetch_optional, from_row};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;

/// The objects to count.
#[derive(Debug)]
pub enum CountTarget {
    Runs,
    /// The instances of these tasks.
    Tasks(Vec<String>),
    /// A task group. It counts once per run in which all of its instances have one of the states.
    Group(String),
}

/// Counts the objects that have one of the states, in the runs with these logical dates.
pub async fn count(
    client: &impl GenericClient,
    dag_id: &str,
    target: &CountTarget,
    dates: &[Timestamp],
    states: &[String],
) -> Result<i64, StoreError> {
    match target {
        CountTarget::Runs => {
            let query =
                "SELECT count(*) FROM dag_run WHERE dag_id = $1 AND logical_date = ANY ($2) AND state = ANY ($3)";
            fetch_one(client, query, &[&dag_id, &dates, &states]).await
        }
        CountTarget::Tasks(task_ids) => {
            let query = "
                SELECT count(*) FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                WHERE ti.dag_id = $1 AND r.logical_date = ANY ($2) AND ti.state = ANY ($3) AND ti.task_id = ANY ($4)";
            fetch_one(client, query, &[&dag_id, &dates, &states, &task_ids]).await
        }
        CountTarget::Group(group) => {
            let structure = dags::get(client, dag_id).await?.structure;
            if !structure.groups.iter().any(|other| other.group_id == *group) {
                // Without this error, the sensor would wait forever.
                return Err(StoreError::NotFound { what: "task group", id: format!("{group} in DAG {dag_id}") });
            }
            let group_tasks = structure.tasks_of_group(group);
            let query = "
                SELECT count(*) FROM (
                    SELECT r.run_id FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                    WHERE ti.dag_id = $1 AND r.logical_date = ANY ($2) AND ti.task_id = ANY ($4)
                    GROUP BY r.run_id HAVING bool_and(coalesce(ti.state = ANY ($3), false))) whole";
            fetch_one(client, query, &[&dag_id, &dates, &states, &group_tasks]).await
        }
    }
}

from_row! {
    /// The dates of a successful run.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Dates {
        pub data_interval_start: Option<Timestamp>,
        pub data_interval_end: Option<Timestamp>,
        pub start_date: Option<Timestamp>,
        pub end_date: Option<Timestamp>,
    }
}

/// Dates of the last successful run of the DAG before this run, by logical date.
pub async fn previous_success(client: &impl GenericClient, run: &RunKey) -> Result<Option<Dates>, StoreError> {
    let query = "
        SELECT p.data_interval_start, p.data_interval_end, p.start_date, p.end_date
        FROM dag_run r JOIN dag_run p ON p.dag_id = r.dag_id AND p.state = 'success' AND p.logical_date < r.logical_date
        WHERE r.dag_id = $1 AND r.run_id = $2 ORDER BY p.logical_date DESC LIMIT 1";
    fetch_optional(client, query, &[&run.dag_id, &run.run_id]).await
}
