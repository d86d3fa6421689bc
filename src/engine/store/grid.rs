//! Task instances of many runs, counted by task: what the grid of the UI is made of.

use super::StoreError;
use crate::engine::keys::RunKey;
use crate::postgres::GenericClient;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Of one task in one run.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How many instances are in each state; `None` is no state yet.
    pub states: BTreeMap<Option<String>, i64>,
    pub min_start_date: Option<Timestamp>,
    pub max_end_date: Option<Timestamp>,
    pub has_note: bool,
}

impl Summary {
    pub fn merge(&mut self, other: &Self) {
        for (state, count) in &other.states {
            *self.states.entry(state.clone()).or_default() += count;
        }
        self.min_start_date = self.min_start_date.into_iter().chain(other.min_start_date).min();
        self.max_end_date = self.max_end_date.into_iter().chain(other.max_end_date).max();
        self.has_note |= other.has_note;
    }
}

/// A run, with a summary of each of its tasks.
#[derive(Debug, Default)]
pub struct RunSummary {
    pub version_id: Option<i64>,
    pub version_number: Option<i32>,
    pub tasks: BTreeMap<String, Summary>,
}

/// Of these runs, by their ids; a run without instances is left out.
pub async fn summaries(
    client: &impl GenericClient,
    dag_id: &str,
    run_ids: &[String],
) -> Result<BTreeMap<String, RunSummary>, StoreError> {
    let query = "
        SELECT t.run_id, t.task_id, t.state, t.count, t.starts, t.ends, t.has_note, v.id AS version_id, v.version_number
        FROM (SELECT run_id, task_id, state, count(*) AS count, min(start_date) AS starts, max(end_date) AS ends,
                     bool_or(note IS NOT NULL) AS has_note
              FROM task_instance WHERE dag_id = $1 AND run_id = ANY ($2) GROUP BY run_id, task_id, state) t
        JOIN dag_run r ON r.dag_id = $1 AND r.run_id = t.run_id LEFT JOIN dag_version v ON v.id = r.dag_version_id";
    let mut found: BTreeMap<String, RunSummary> = BTreeMap::new();
    for row in client.query(query, &[&dag_id, &run_ids]).await? {
        let run = found.entry(row.get("run_id")).or_default();
        run.version_id = row.get("version_id");
        run.version_number = row.get("version_number");
        let one = Summary {
            states: BTreeMap::from([(row.get("state"), row.get("count"))]),
            min_start_date: row.get("starts"),
            max_end_date: row.get("ends"),
            has_note: row.get("has_note"),
        };
        run.tasks.entry(row.get("task_id")).or_default().merge(&one);
    }
    Ok(found)
}

/// One try of a task that is not mapped.
#[derive(Debug)]
pub struct Bar {
    pub task_id: String,
    pub try_number: i32,
    pub state: Option<String>,
    pub scheduled_at: Option<Timestamp>,
    pub queued_at: Option<Timestamp>,
    pub start_date: Option<Timestamp>,
    pub end_date: Option<Timestamp>,
}

/// Every try in a run, by task and number. An instance that waits to be tried again is no try of its own.
pub async fn bars(client: &impl GenericClient, run: &RunKey) -> Result<Vec<Bar>, StoreError> {
    let query = "
        SELECT task_id, greatest(try_number, 0) AS try_number, state, scheduled_at, queued_at, start_date, end_date
        FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND map_index = -1 AND state IS DISTINCT FROM 'up_for_retry'
        UNION ALL
        SELECT t.task_id, t.try_number, t.state, NULL, NULL, coalesce(t.first_start_date, t.start_date), t.end_date
        FROM task_try t JOIN task_instance ti USING (dag_id, run_id, task_id, map_index)
        WHERE t.dag_id = $1 AND t.run_id = $2 AND t.map_index = -1
          AND (t.try_number < ti.try_number OR ti.state = 'up_for_retry')
        ORDER BY task_id, try_number";
    let rows = client.query(query, &[&run.dag_id, &run.run_id]).await?;
    let bar = |row: &tokio_postgres::Row| Bar {
        task_id: row.get("task_id"),
        try_number: row.get("try_number"),
        state: row.get("state"),
        scheduled_at: row.get("scheduled_at"),
        queued_at: row.get("queued_at"),
        start_date: row.get("start_date"),
        end_date: row.get("end_date"),
    };
    Ok(rows.iter().map(bar).collect())
}
