//! States of runs, task instances and tries, with Airflow's names
//! (<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/tasks.html>).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in the database, in the API and in Airflow.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

states! {
    /// Of a run.
    #[derive(JsonSchema)]
    #[schemars(rename = "DagRunState")]
    RunState { Queued = "queued", Running = "running", Success = "success", Failed = "failed" }
}

states! {
    /// Of a task instance; one that nothing has happened to has none.
    #[derive(JsonSchema)]
    #[schemars(rename = "TaskInstanceState")]
    TaskState {
        Removed = "removed",
        Scheduled = "scheduled",
        Queued = "queued",
        Running = "running",
        Success = "success",
        Restarting = "restarting",
        Failed = "failed",
        UpForRetry = "up_for_retry",
        UpForReschedule = "up_for_reschedule",
        UpstreamFailed = "upstream_failed",
        Skipped = "skipped",
        Deferred = "deferred",
        AwaitingInput = "awaiting_input",
    }
}

states! {
    /// Of a try.
    TryState {
        Running = "running",
        Success = "success",
        Failed = "failed",
        Skipped = "skipped",
        UpForReschedule = "up_for_reschedule",
        Deferred = "deferred",
        AwaitingInput = "awaiting_input",
    }
}

impl RunState {
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

impl TaskState {
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::UpstreamFailed | Self::Skipped | Self::Removed)
    }

    /// Whether it has begun, and goes on once something has happened.
    pub fn is_deferred(self) -> bool {
        matches!(self, Self::Deferred | Self::AwaitingInput)
    }

    /// Whether it takes slots of its pool and one of its run's `max_active_tasks`: Airflow's `EXECUTION_STATES`.
    /// A deferred one takes slots of a pool with `include_deferred` only.
    pub fn is_executing(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// Whether it counts for `max_active_tis_per_dag` and `max_active_tis_per_dagrun`: Airflow's `ACTIVE_STATES`.
    pub fn is_in_flight(self) -> bool {
        self.is_executing() || self.is_deferred()
    }
}
