//! Fields and filters of runs and of backfills, for lists.

use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::filter::containing;
use jiff::Timestamp;

list_fields! {
    /// Fields of runs, for lists.
    RunField, key: [RunId, DagId], filter: RunFilter;
    RunId = text("r.run_id"),
    DagId = text("r.dag_id"),
    State = text("r.state"),
    RunType = text("r.run_type"),
    LogicalDate = time("r.logical_date"),
    PartitionDate = time("r.partition_date"),
    PartitionKey = text("r.partition_key"),
    RunAfter = time("r.run_after"),
    QueuedAt = time("r.queued_at"),
    StartDate = time("r.start_date"),
    EndDate = time("r.end_date"),
    UpdatedAt = time("greatest(r.queued_at, r.start_date, r.end_date)"),
    /// Seconds.
    Duration = number("extract(epoch FROM r.end_date - r.start_date)::float8"),
    Conf = text("r.conf::text"),
    TriggeringUser = text("r.triggering_user_name"),
    VersionNumber = whole("v.version_number"),
    BundleVersion = text("v.version_number::text"),
}

/// Filters of runs.
#[derive(Debug, Default)]
pub struct RunFilter {
    pub dag_id: Option<String>,
    /// Substring of the conf as JSON; `%` and `_` are wildcards.
    pub conf_contains: Option<String>,
    /// Substring of the name or URI of an asset whose event triggered the run.
    pub consumed_asset: Option<String>,
    /// Lower bound of the partition date, included.
    pub partition_from: Option<Timestamp>,
    /// Upper bound of the partition date, excluded.
    pub partition_before: Option<Timestamp>,
    /// Substring of the name of the user who triggered the run; `%` and `_` are wildcards.
    pub triggering_user_contains: Option<String>,
    pub triggering_user_prefix: Option<String>,
}

impl RunFilter {
    pub fn of_dag(dag_id: impl Into<String>) -> Self {
        Self { dag_id: Some(dag_id.into()), ..Self::default() }
    }
}

impl Filter for RunFilter {
    fn add_to(self, conditions: &mut Conditions) {
        let with_wildcards = |text: Option<String>| text.map(|text| format!("%{text}%"));
        conditions.maybe("r.dag_id = {}", self.dag_id);
        conditions.maybe("r.conf::text LIKE {}", with_wildcards(self.conf_contains));
        if let Some(pattern) = self.consumed_asset.as_deref().map(containing) {
            let consumed = "EXISTS (SELECT FROM dag_run_asset_event c JOIN asset_event e ON e.id = c.event_id
                                    JOIN asset a ON a.id = e.asset_id
                                    WHERE c.dag_id = r.dag_id AND c.run_id = r.run_id
                                      AND (a.name ILIKE {} OR a.uri ILIKE {}))";
            conditions.add(consumed, vec![Box::new(pattern.clone()), Box::new(pattern)]);
        }
        conditions.maybe("r.partition_date >= {}", self.partition_from);
        conditions.maybe("r.partition_date < {}", self.partition_before);
        conditions.maybe("r.triggering_user_name ILIKE {}", with_wildcards(self.triggering_user_contains));
        conditions.maybe("starts_with(r.triggering_user_name, {}::text)", self.triggering_user_prefix);
    }
}

list_fields! {
    /// Fields of backfills, for lists.
    BackfillField, key: [Id], filter: BackfillFilter;
    Id = whole("id"),
    CreatedAt = time("created_at"),
}

/// Filters of backfills.
#[derive(Debug, Default)]
pub struct BackfillFilter {
    pub dag_id: Option<String>,
    /// True if the backfill has not completed.
    pub is_active: Option<bool>,
}

impl Filter for BackfillFilter {
    fn add_to(self, conditions: &mut Conditions) {
        conditions.maybe("dag_id = {}", self.dag_id);
        conditions.maybe("(completed_at IS NULL) = {}", self.is_active);
    }
}
