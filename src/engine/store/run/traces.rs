//! Ended runs and their tries, for traces.

use crate::model::keys::{RunKey, TryKey};
use crate::model::state::{RunState, RunType};
use crate::store::Result;
use crate::store::instance_key::TRY_KEY;
use crate::store::rows::{fetch_all, fetch_optional, from_row};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;

from_row! {
    /// A run that has ended.
    #[derive(Debug, Clone)]
    pub struct EndedRun {
        pub key: RunKey => RunKey::from_row,
        pub run_type: RunType,
        pub state: RunState,
        pub logical_date: Option<Timestamp>,
        /// When the run was created or last cleared.
        pub queued_at: Timestamp,
        pub start_date: Option<Timestamp>,
        pub end_date: Timestamp,
    }
}

from_row! {
    /// A try that has ended.
    #[derive(Debug, Clone)]
    pub struct EndedTry {
        pub key: TryKey => TryKey::from_row,
        pub state: String,
        pub start_date: Timestamp,
        pub end_date: Timestamp,
        /// Why it ended so, in words.
        pub outcome: Option<String>,
    }
}

/// A run that has ended; `None` if it runs again or was deleted.
pub async fn ended(client: &impl GenericClient, key: &RunKey) -> Result<Option<EndedRun>> {
    let query = "SELECT dag_id, run_id, run_type, state, logical_date, queued_at, start_date, end_date FROM dag_run
                 WHERE dag_id = $1 AND run_id = $2 AND end_date IS NOT NULL AND state IN ('success', 'failed')";
    fetch_optional(client, query, &[&key.dag_id, &key.run_id]).await
}

/// The tries of a run that have ended since it was created or last cleared.
pub async fn tries(client: &impl GenericClient, run: &EndedRun) -> Result<Vec<EndedTry>> {
    let query = format!(
        "SELECT {TRY_KEY}, state, coalesce(first_start_date, start_date) AS start_date, end_date, outcome FROM task_try
         WHERE dag_id = $1 AND run_id = $2 AND end_date IS NOT NULL AND start_date >= $3
         ORDER BY start_date, task_id, map_index, try_number"
    );
    let since = run.start_date.unwrap_or(run.queued_at);
    fetch_all(client, &query, &[&run.key.dag_id, &run.key.run_id, &since]).await
}
