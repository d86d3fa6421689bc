//! The iterations of a loop in some runs, for the pages about loops.

use crate::model::keys::{Position, RunKey};
use crate::model::state::TaskState;
use crate::store::Result;
use crate::store::instance_key::{IN_LOOP, TRY};
use crate::store::rows::{fetch_all, from_row};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;

from_row! {
    /// An instance of a task in a loop.
    #[derive(Debug)]
    pub struct LoopedInstance {
        pub run: RunKey => RunKey::from_row,
        pub task_id: String,
        pub position: Position = "map_index",
        pub state: Option<TaskState>,
        pub start_date: Option<Timestamp>,
        pub end_date: Option<Timestamp>,
        /// Why the gate stops or continues the loop, if its function has said so.
        pub reason: Option<String>,
    }
}

/// The instances of the `tasks` of a loop in these runs, ordered by iteration. Those of iterations that were removed,
/// because an earlier one is repeated, are left out.
pub async fn of_loop(
    client: &impl GenericClient,
    dag_id: &str,
    run_ids: &[&str],
    tasks: &[String],
) -> Result<Vec<LoopedInstance>> {
    let query = format!(
        "SELECT dag_id, run_id, task_id, map_index, state, start_date, end_date,
                (SELECT outcome FROM task_try t WHERE {} AND t.loop_stops IS NOT NULL) AS reason
         FROM task_instance ti
         WHERE dag_id = $1 AND run_id = ANY ($2) AND task_id = ANY ($3) AND {IN_LOOP} AND state IS DISTINCT FROM 'removed'
         ORDER BY run_id, map_index, task_id",
        TRY.same("t", "ti")
    );
    fetch_all(client, &query, &[&dag_id, &run_ids, &tasks]).await
}
