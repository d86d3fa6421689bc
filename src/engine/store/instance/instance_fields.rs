//! Fields and filters of task instances, for lists.

use crate::model::keys::RunKey;
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use jiff::Timestamp;

/// The date of the last change of the state; the column `updated_at` is that of the changes without a date of their own.
const UPDATED_AT: &str = "greatest(ti.updated_at, ti.scheduled_at, ti.queued_at, ti.start_date, ti.end_date)";

list_fields! {
    /// Fields of task instances, for lists. The key has the order of the primary key.
    InstanceField, key: [DagId, RunId, TaskId, MapIndex], filter: InstanceFilter;
    DagId = text("ti.dag_id"),
    RunId = text("ti.run_id"),
    TaskId = text("ti.task_id"),
    MapIndex = whole("ti.map_index"),
    State = text("ti.state"),
    /// `none` for an instance without a state.
    StateOrNone = text("coalesce(ti.state, 'none')"),
    TryNumber = whole("ti.try_number"),
    StartDate = time("ti.start_date"),
    EndDate = time("ti.end_date"),
    /// Seconds.
    Duration = number("extract(epoch FROM ti.end_date - ti.start_date)::float8"),
    UpdatedAt = time(UPDATED_AT),
    LogicalDate = time("r.logical_date"),
    RunAfter = time("r.run_after"),
    IntervalStart = time("r.data_interval_start"),
    IntervalEnd = time("r.data_interval_end"),
    RenderedMapIndex =
        text("coalesce(ti.rendered_map_index, CASE WHEN ti.map_index >= 0 THEN ti.map_index::text END)"),
    Operator = text("ti.operator"),
    QueuedAt = time("ti.queued_at"),
    ScheduledAt = time("ti.scheduled_at"),
    Pool = text("ti.pool"),
    /// Always `default`: there is only one queue.
    Queue = text("'default'::text"),
    /// Always NULL: there is only one executor, which tasks do not name.
    Executor = text("NULL::text"),
    VersionNumber = whole("v.version_number"),
}

/// Filters of task instances.
#[derive(Debug, Default)]
pub struct InstanceFilter {
    pub dag_id: Option<String>,
    pub run_id: Option<String>,
    /// An empty list selects no instance.
    pub task_ids: Option<Vec<String>>,
    /// Selects the expanded instances of this mapped task.
    pub mapped_task_id: Option<String>,
    /// Selects the instances whose state changed after this time.
    pub changed_after: Option<Timestamp>,
}

impl InstanceFilter {
    pub fn of_run(run: &RunKey) -> Self {
        Self { dag_id: Some(run.dag_id.clone()), run_id: Some(run.run_id.clone()), ..Self::default() }
    }
}

impl Filter for InstanceFilter {
    fn add_to(self, conditions: &mut Conditions) {
        conditions.maybe("ti.dag_id = {}", self.dag_id);
        conditions.maybe("ti.run_id = {}", self.run_id);
        conditions.maybe("ti.task_id = ANY ({})", self.task_ids);
        conditions.maybe("ti.task_id = {} AND ti.map_index >= 0", self.mapped_task_id);
        conditions.maybe(&format!("{UPDATED_AT} > {{}}"), self.changed_after);
    }
}
