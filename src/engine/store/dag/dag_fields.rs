//! Fields and filters of DAGs and of import errors, for lists.

use crate::store::instance_key::KEY;
use crate::store::list::column::Column;
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::filter::{Range, Unset, containing};
use jiff::Timestamp;

const LAST_STATE: &str = "(SELECT r.state FROM dag_run r WHERE r.dag_id = d.dag_id
    ORDER BY r.run_after DESC, r.queued_at DESC LIMIT 1)";
const LAST_START: &str = "(SELECT r.start_date FROM dag_run r WHERE r.dag_id = d.dag_id
    ORDER BY r.run_after DESC, r.queued_at DESC LIMIT 1)";
/// Airflow's class for each kind of timetable.
const TIMETABLE_TYPE: &str = "CASE v.structure->'timetable'->>'kind'
    WHEN 'custom' THEN v.structure->'timetable'->>'class'
    WHEN 'once' THEN 'airflow.timetables.simple.OnceTimetable'
    WHEN 'continuous' THEN 'airflow.timetables.simple.ContinuousTimetable'
    WHEN 'cron_trigger' THEN 'airflow.timetables.trigger.CronTriggerTimetable'
    WHEN 'multiple_cron_trigger' THEN 'airflow.timetables.trigger.MultipleCronTriggerTimetable'
    WHEN 'cron_interval' THEN 'airflow.timetables.interval.CronDataIntervalTimetable'
    WHEN 'delta_trigger' THEN 'airflow.timetables.trigger.DeltaTriggerTimetable'
    WHEN 'delta_interval' THEN 'airflow.timetables.interval.DeltaDataIntervalTimetable'
    WHEN 'events' THEN 'airflow.timetables.events.EventsTimetable'
    WHEN 'asset' THEN 'airflow.timetables.simple.AssetTriggeredTimetable'
    WHEN 'cron_partition' THEN 'airflow.timetables.trigger.CronPartitionTimetable'
    WHEN 'partitioned_asset' THEN 'airflow.timetables.simple.PartitionedAssetTimetable'
    WHEN 'partitioned_at_runtime' THEN 'airflow.timetables.simple.PartitionedAtRuntime'
    WHEN 'asset_or_time' THEN 'airflow.timetables.assets.AssetOrTimeSchedule'
    ELSE 'airflow.timetables.simple.NullTimetable' END";

list_fields! {
    /// Fields of DAGs, for lists.
    DagField, key: [DagId], filter: DagFilter;
    DagId = text("d.dag_id"),
    DisplayName = text("coalesce(v.structure->>'dag_display_name', d.dag_id)"),
    NextInterval = time("d.next_interval_start"),
    NextRunAfter = time("d.next_run_after"),
    LastRunState = text(LAST_STATE),
    LastRunStart = time(LAST_START),
    /// Airflow's class for the timetable.
    TimetableType = text(TIMETABLE_TYPE),
    BundleVersion = text("v.version_number::text"),
}

/// Filters of DAGs.
#[derive(Debug, Default)]
pub struct DagFilter {
    pub activity: Activity,
    pub is_paused: Option<bool>,
    pub is_favorite: Option<bool>,
    pub tags: Option<Tags>,
    /// Substrings of owner names; one match is enough.
    pub owners: Vec<String>,
    pub has_import_errors: Option<bool>,
    pub last_run_state: Option<String>,
    pub has_asset_schedule: Option<bool>,
    /// Substring of the name or URI of an asset that the DAG is scheduled on.
    pub asset: Option<String>,
    pub latest_run: LatestRun,
    /// True if a task waits for a response of a human.
    pub has_pending_response: Option<bool>,
}

/// Whether a file of the workspace must define the DAG.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activity {
    #[default]
    Any,
    Active,
}

/// Tags of which a DAG must have any or all.
#[derive(Debug, Clone)]
pub enum Tags {
    Any(Vec<String>),
    All(Vec<String>),
}

/// Filters by the latest run of a DAG.
#[derive(Debug, Default)]
pub struct LatestRun {
    pub states: Vec<String>,
    pub start_date: Range<Timestamp>,
    pub end_date: Range<Timestamp>,
}

impl Filter for DagFilter {
    fn add_to(self, conditions: &mut Conditions) {
        if self.activity == Activity::Active {
            conditions.add("d.is_active", Vec::new());
        }
        conditions.maybe("d.is_paused = {}", self.is_paused);
        conditions.maybe("d.is_favorite = {}", self.is_favorite);
        match self.tags {
            Some(Tags::Any(tags)) => conditions.with("jsonb_exists_any(v.structure->'tags', {})", tags),
            Some(Tags::All(tags)) => conditions.with("jsonb_exists_all(v.structure->'tags', {})", tags),
            None => {}
        }
        if !self.owners.is_empty() {
            let patterns: Vec<String> = self.owners.iter().map(|owner| containing(owner)).collect();
            let any = "EXISTS (SELECT FROM jsonb_array_elements_text(v.structure->'owners') AS o (name)
                               WHERE o.name ILIKE ANY ({}))";
            conditions.with(any, patterns);
        }
        let errors = "EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc) = {}";
        conditions.maybe(errors, self.has_import_errors);
        conditions.maybe(&format!("{LAST_STATE} = {{}}"), self.last_run_state);
        conditions.maybe("(v.structure->'asset_condition' IS NOT NULL) = {}", self.has_asset_schedule);
        if let Some(pattern) = self.asset.as_deref().map(containing) {
            let scheduled_on = "EXISTS (SELECT FROM dag_asset a WHERE a.dag_id = d.dag_id AND a.role = 'schedule'
                                          AND (a.name ILIKE {} OR a.uri ILIKE {}))";
            conditions.add(scheduled_on, vec![Box::new(pattern.clone()), Box::new(pattern)]);
        }
        let pending = format!(
            "EXISTS (SELECT FROM hitl_detail h JOIN task_instance ti USING ({KEY})
                     WHERE h.dag_id = d.dag_id AND h.responded_at IS NULL
                       AND ti.state IN ('deferred', 'awaiting_input')) = {{}}"
        );
        conditions.maybe(&pending, self.has_pending_response);
        self.latest_run.add_to(conditions);
    }
}

impl LatestRun {
    fn add_to(self, conditions: &mut Conditions) {
        let mut of_run = Conditions::default();
        of_run.any(Column::text("r.state"), self.states);
        self.start_date.add_to(&mut of_run, "r.start_date", Unset::Outside);
        self.end_date.add_to(&mut of_run, "r.end_date", Unset::Outside);
        let latest = "SELECT FROM (SELECT * FROM dag_run WHERE dag_id = d.dag_id
                                   ORDER BY run_after DESC, queued_at DESC LIMIT 1) r WHERE true";
        conditions.exists(latest, of_run);
    }
}

list_fields! {
    /// Fields of import errors, for lists.
    ImportErrorField, key: [Id];
    Id = whole("id"),
    CreatedAt = time("created_at"),
    Filename = text("filename"),
    StackTrace = text("stack_trace"),
}
