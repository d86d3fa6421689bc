//! The tries of a task instance, for display.

use crate::model::keys::InstanceKey;
use crate::model::state::TryState;
use crate::store::StoreError;
use crate::store::rows;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;

/// A try, finished or running.
#[derive(Debug)]
pub struct Try {
    pub number: i32,
    pub state: TryState,
    pub pid: Option<i32>,
    pub start_date: Timestamp,
    pub end_date: Option<Timestamp>,
}

/// All tries of an instance, ordered by number. An instance that waits for its first start has none.
pub async fn of_instance(client: &impl GenericClient, key: &InstanceKey) -> Result<Vec<Try>, StoreError> {
    let InstanceKey { run, task_id, map_index } = key;
    // While a try runs or waits, its start is that of its newest process; once it has ended, that of its first process.
    let query = "SELECT try_number, state, pid, end_date,
                        CASE WHEN state IN ('running', 'up_for_reschedule', 'deferred', 'awaiting_input') THEN start_date
                             ELSE coalesce(first_start_date, start_date) END AS start_date
                 FROM task_try
                 WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 ORDER BY try_number";
    let tries = client.query(query, &[&run.dag_id, &run.run_id, task_id, map_index]).await?;
    let read = |row: &Row| {
        Ok(Try {
            number: row.get("try_number"),
            state: rows::named(row, "state", TryState::parse)?,
            pid: row.get("pid"),
            start_date: row.get("start_date"),
            end_date: row.get("end_date"),
        })
    };
    tries.iter().map(read).collect()
}
