//! States of runs, task instances and tries, with Airflow's names
//! (<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/tasks.html>).

use schemars::JsonSchema;

/// Defines an enum of names that the database, the API and Airflow share.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        leoflow_base::words! {
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
            #[serde(rename_all = "snake_case")]
            pub enum $name: as_str { $($(#[$variant_meta])* $variant = $text),+ }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use states;

states! {
    /// State of a DAG run.
    #[derive(JsonSchema)]
    #[schemars(rename = "DagRunState")]
    RunState { Queued = "queued", Running = "running", Success = "success", Failed = "failed" }
}

states! {
    /// State of a task instance; an instance that was not scheduled yet, or was cleared, has none.
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
    /// State of a try, one attempt to run a task instance.
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

    /// True when the task has started and is suspended until its trigger fires or a person answers.
    pub fn is_deferred(self) -> bool {
        matches!(self, Self::Deferred | Self::AwaitingInput)
    }

    /// True when the task occupies pool slots and counts for its run's `max_active_tasks`: Airflow's
    /// `EXECUTION_STATES`. A deferred task occupies slots only of a pool with `include_deferred`.
    pub fn is_executing(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// True when the task counts for `max_active_tis_per_dag` and `max_active_tis_per_dagrun`: Airflow's
    /// `ACTIVE_STATES`.
    pub fn is_in_flight(self) -> bool {
        self.is_executing() || self.is_deferred()
    }
}

states! {
    /// Airflow's run types.
    #[derive(JsonSchema)]
    #[schemars(rename = "DagRunType")]
    RunType {
        Backfill = "backfill",
        Scheduled = "scheduled",
        Manual = "manual",
        OperatorTriggered = "operator_triggered",
        AssetTriggered = "asset_triggered",
        AssetMaterialization = "asset_materialization",
    }
}
