//! Claimed tries, with the data that the agent needs to run them.

use super::triggers::{self, Resumption};
use crate::model::keys::TryKey;
use crate::schedule::timetable::Partition;
use crate::store::StoreError;
use crate::store::asset::partitions;
use crate::store::rows::from_row;
use jiff::Timestamp;
use serde_json::{Map, Value};

from_row! {
    /// A claimed try, with the data that the agent needs to run it.
    #[derive(Debug, Clone)]
    pub struct Claimed {
        pub key: TryKey => TryKey::from_row,
        pub max_tries: i32,
        pub version_id: Option<i64> = "dag_version_id",
        /// Not parsed: the claim has already taken effect when its rows are read, so an error would lose the try.
        pub run_type: String,
        pub logical_date: Option<Timestamp>,
        pub data_interval_start: Option<Timestamp>,
        pub data_interval_end: Option<Timestamp>,
        pub run_after: Timestamp,
        pub run_queued_at: Timestamp,
        pub run_start_date: Option<Timestamp>,
        pub partition: Option<Partition> => partitions::read,
        pub conf: Map<String, Value> as Json,
        pub note: Option<String>,
        pub triggered_by: Option<String>,
        /// True if the try was started before and resumes after a wait.
        pub resumes: bool = "goes_on",
        /// When the try first started.
        pub first_start_date: Option<Timestamp>,
        /// How often the try was rescheduled.
        pub reschedules: i32,
        /// How to resume a deferred task; `None` for other tasks.
        pub resumption: Option<Resumption> => triggers::resumption,
        /// Token with which the task's process authenticates; empty in a row, since the database stores only its hash.
        pub token: String => |_| Ok::<_, StoreError>(String::new()),
    }
}
