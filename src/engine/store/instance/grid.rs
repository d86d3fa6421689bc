//! Task instances of many runs, summarized by task, for the grid of the UI.

use crate::model::keys::{Position, RunKey};
use crate::model::state::TaskState;
use crate::store::Result;
use crate::store::dag::structures::VersionKey;
use crate::store::instance_key::{IN_LOOP, KEY, loop_id, map_index_of};
use crate::store::rows::{fetch_all, from_row, get};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::HashMap;
use tokio_postgres::Row;

/// Number of instances in each state, and without a state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateCounts([u32; TaskState::ALL.len() + 1]);

impl StateCounts {
    fn index_of(state: Option<TaskState>) -> usize {
        state.map_or(TaskState::ALL.len(), |state| state as usize)
    }

    pub fn add(&mut self, state: Option<TaskState>) {
        self.0[Self::index_of(state)] += 1;
    }

    pub fn count(&self, state: Option<TaskState>) -> u32 {
        self.0[Self::index_of(state)]
    }

    /// The states that occur, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Option<TaskState>, u32)> + '_ {
        let all = TaskState::ALL.iter().copied().map(Some).chain([None]);
        all.zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// Summary of one task, or of a group of tasks, in one run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    pub states: StateCounts,
    pub min_start_date: Option<Timestamp>,
    pub max_end_date: Option<Timestamp>,
    pub has_note: bool,
    /// The last position of the task's instances, and of those that have started.
    pub newest: Option<Position>,
    pub newest_started: Option<Position>,
}

impl Summary {
    /// Adds the instances of another summary.
    pub fn merge(&mut self, other: &Self) {
        self.states.0.iter_mut().zip(other.states.0).for_each(|(count, added)| *count += added);
        self.min_start_date = self.min_start_date.into_iter().chain(other.min_start_date).min();
        self.max_end_date = self.max_end_date.into_iter().chain(other.max_end_date).max();
        self.has_note |= other.has_note;
        self.newest = self.newest.max(other.newest);
        self.newest_started = self.newest_started.max(other.newest_started);
    }
}

/// The DAG version of a run.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    pub key: VersionKey,
    pub number: i32,
}

/// The versions of these runs, by run id; runs without a known version are left out.
pub async fn versions(
    client: &impl GenericClient,
    dag_id: &str,
    run_ids: &[String],
) -> Result<HashMap<String, Version>> {
    let query = "SELECT r.run_id, v.id, v.created_at, v.version_number FROM dag_run r JOIN dag_version v ON v.id = r.dag_version_id
                 WHERE r.dag_id = $1 AND r.run_id = ANY ($2)";
    let rows = client.query(query, &[&dag_id, &run_ids]).await?;
    let version =
        |row: &Row| Version { key: (row.get("id"), row.get("created_at")), number: row.get("version_number") };
    Ok(rows.iter().map(|row| (row.get("run_id"), version(row))).collect())
}

/// The task instances of a run.
#[derive(Debug)]
pub struct Instances(Vec<Row>);

impl Instances {
    pub async fn load(client: &impl GenericClient, dag_id: &str, run_id: &str) -> Result<Self> {
        // Without the iterations of loops that were removed, because an earlier one is repeated.
        let query = format!(
            "SELECT task_id, map_index, state, start_date, end_date, note IS NOT NULL AS has_note FROM task_instance
             WHERE dag_id = $1 AND run_id = $2 AND NOT ({IN_LOOP} AND state IS NOT DISTINCT FROM 'removed')"
        );
        Ok(Self(client.query(&query, &[&dag_id, &run_id]).await?))
    }

    /// Summarizes the instances by task id. This is not done in SQL, where grouping by text would dominate the query
    /// time.
    pub fn by_task(&self) -> Result<HashMap<&str, Summary>> {
        let mut summaries: HashMap<&str, Summary> = HashMap::new();
        for row in &self.0 {
            let mut states = StateCounts::default();
            states.add(get(row, "state")?);
            let (start_date, position): (Option<Timestamp>, Position) = (row.get("start_date"), get(row, "map_index")?);
            let summary = Summary {
                states,
                min_start_date: start_date,
                max_end_date: row.get("end_date"),
                has_note: row.get("has_note"),
                newest: Some(position),
                newest_started: start_date.map(|_| position),
            };
            summaries.entry(row.get("task_id")).or_default().merge(&summary);
        }
        Ok(summaries)
    }
}

from_row! {
    /// A bar of the Gantt chart: one try of a task that is not mapped.
    #[derive(Debug)]
    pub struct Bar {
        pub task_id: String,
        pub position: Position = "map_index",
        pub try_number: i32,
        pub state: Option<String>,
        pub scheduled_at: Option<Timestamp>,
        pub queued_at: Option<Timestamp>,
        pub start_date: Option<Timestamp>,
        pub end_date: Option<Timestamp>,
        /// The loop that contains the task.
        pub loop_id: Option<String>,
    }
}

/// All tries of the unmapped tasks of a run, ordered by task and number. The current try is read from the instance,
/// unless that is in `up_for_retry`: its last try has then ended and is read from `task_try`.
pub async fn bars(client: &impl GenericClient, run: &RunKey) -> Result<Vec<Bar>> {
    let (of_instance, of_try) = (map_index_of("map_index"), map_index_of("t.map_index"));
    let query = format!(
        "
        WITH bar AS (
            SELECT task_id, map_index, greatest(try_number, 0) AS try_number, state, scheduled_at, queued_at, start_date, end_date
            FROM task_instance
            WHERE dag_id = $1 AND run_id = $2 AND {of_instance} = -1 AND state IS DISTINCT FROM 'up_for_retry'
              AND NOT ({IN_LOOP} AND state IS NOT DISTINCT FROM 'removed')
            UNION ALL
            SELECT t.task_id, t.map_index, t.try_number, t.state, NULL, NULL, coalesce(t.first_start_date, t.start_date), t.end_date
            FROM task_try t JOIN task_instance ti USING ({KEY})
            WHERE t.dag_id = $1 AND t.run_id = $2 AND {of_try} = -1
              AND (t.try_number < ti.try_number OR ti.state = 'up_for_retry'))
        SELECT bar.*, {} AS loop_id FROM bar
        JOIN dag_run r ON r.dag_id = $1 AND r.run_id = $2 LEFT JOIN dag_version v ON v.id = r.dag_version_id
        ORDER BY task_id, map_index, try_number",
        loop_id("bar")
    );
    fetch_all(client, &query, &[&run.dag_id, &run.run_id]).await
}
