//! The tries of a task instance, as they are shown.

use super::StoreError;
use crate::engine::keys::RunKey;
use crate::postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;

/// One try, ended or not.
#[derive(Debug)]
pub struct Try {
    pub number: i32,
    pub state: String,
    pub pid: Option<i32>,
    pub start_date: Timestamp,
    pub end_date: Option<Timestamp>,
}

/// All of them, in order; one that waits for its time or its place has not begun and is not among them.
pub async fn of_instance(
    client: &impl GenericClient,
    run: &RunKey,
    task_id: &str,
    map_index: i32,
) -> Result<Vec<Try>, StoreError> {
    let query = "SELECT try_number, state, pid, start_date, end_date FROM task_try
                 WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 ORDER BY try_number";
    let rows = client.query(query, &[&run.dag_id, &run.run_id, &task_id, &map_index]).await?;
    let read = |row: &Row| Try {
        number: row.get(0),
        state: row.get(1),
        pid: row.get(2),
        start_date: row.get(3),
        end_date: row.get(4),
    };
    Ok(rows.iter().map(read).collect())
}
