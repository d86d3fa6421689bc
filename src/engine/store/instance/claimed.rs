//! Claimed tries, with the data that the agent needs to run them.

use super::triggers::{self, Resumption};
use crate::model::keys::TryKey;
use crate::schedule::timetable::Partition;
use crate::store::StoreError;
use crate::store::asset::partitions;
use crate::store::rows;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// A claimed try, with the data that the agent needs to run it.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub key: TryKey,
    pub max_tries: i32,
    pub version_id: Option<i64>,
    /// Not parsed: the claim has already taken effect when its rows are read, so an error would lose the try.
    pub run_type: String,
    pub logical_date: Option<Timestamp>,
    pub data_interval_start: Option<Timestamp>,
    pub data_interval_end: Option<Timestamp>,
    pub run_after: Timestamp,
    pub run_start_date: Option<Timestamp>,
    pub partition: Option<Partition>,
    pub conf: Map<String, Value>,
    pub note: Option<String>,
    pub triggered_by: Option<String>,
    /// True if the try was started before and resumes after a wait.
    pub resumes: bool,
    /// When the try first started.
    pub first_start_date: Option<Timestamp>,
    /// How often the try was rescheduled.
    pub reschedules: i32,
    /// How to resume a deferred task; `None` for other tasks.
    pub resumption: Option<Resumption>,
    /// True if the try has waited for a Python process.
    pub has_waited: bool,
    /// Token with which the task's process authenticates; the database stores only its hash.
    pub token: String,
}

/// Reads a try without its token.
pub(crate) fn read(row: &Row) -> Result<Claimed, StoreError> {
    let Json(conf): Json<Map<String, Value>> = row.get("conf");
    Ok(Claimed {
        key: rows::try_key(row),
        max_tries: row.get("max_tries"),
        version_id: row.get("dag_version_id"),
        run_type: row.get("run_type"),
        logical_date: row.get("logical_date"),
        data_interval_start: row.get("data_interval_start"),
        data_interval_end: row.get("data_interval_end"),
        run_after: row.get("run_after"),
        run_start_date: row.get("run_start_date"),
        partition: partitions::read(row),
        conf,
        note: row.get("note"),
        triggered_by: row.get("triggered_by"),
        resumes: row.get("goes_on"),
        first_start_date: row.get("first_start_date"),
        // NULL for a try that starts for the first time.
        reschedules: row.get::<_, Option<i32>>("reschedules").unwrap_or(0),
        resumption: triggers::resumption(row),
        has_waited: false,
        token: String::new(),
    })
}
