//! Decides what a clean-up of the history removes, from a request or from the settings.

use crate::state::Core;
use crate::state::database::DatastoreError;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::config::{Config, Retention, leoflow_yaml};
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::dag_facts;
use leoflow_engine::store::history::{OldRows, OldRuns, Table};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// A user's request to remove history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Removes older history; without it, the settings decide.
    pub before: Option<Timestamp>,
    /// Only history of these DAGs; empty for all.
    #[serde(default)]
    pub dag_ids: Vec<String>,
    #[serde(default)]
    pub exclude_dag_ids: Vec<String>,
    /// Only these; empty for all.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// Creates and test-restores a backup before anything is removed.
    #[serde(default)]
    pub archive: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{0} is in the future: everything that has ended would be removed; choose an earlier date")]
    Future(Timestamp),
    #[error("there is no DAG {0}")]
    UnknownDag(String),
    #[error("no limit is set: pass a date with --before, or set history.keep_days or history.keep_runs")]
    NoLimit,
    #[error("an archive holds runs, not task logs alone: select another table too, or leave --archive out")]
    NothingToArchive,
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
}

impl From<StoreError> for PlanError {
    fn from(error: StoreError) -> Self {
        Self::Datastore(error.into())
    }
}

/// Which task logs are removed: those of runs whose logs were last written before a time, and the oldest above a total
/// size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogLimits {
    pub before: Option<Timestamp>,
    pub max_bytes: Option<u64>,
    /// Only logs of these DAGs; `None` for all.
    pub dag_ids: Option<Vec<String>>,
}

#[derive(Debug, Default)]
pub struct Plan {
    /// Tables of runs whose rows are removed; with `DagRun`, the others are included.
    pub run_tables: Vec<Table>,
    pub old_runs: Vec<OldRuns>,
    pub old_rows: Vec<OldRows>,
    pub logs: LogLimits,
    /// True if the request selects DAGs or tables.
    pub is_restricted: bool,
}

impl Plan {
    /// The plan of a request at the time `now`.
    pub async fn new(core: &Core, request: &Request, now: Timestamp) -> Result<Self, PlanError> {
        if let Some(future) = request.before.filter(|before| *before > now) {
            return Err(PlanError::Future(future));
        }
        let settings = core.config();
        let dags = dag_facts::files(&*core.database.get().await?).await?;
        let known: HashSet<&str> = dags.iter().map(|(dag_id, _)| dag_id.as_str()).collect();
        let mut named = request.dag_ids.iter().chain(&request.exclude_dag_ids);
        if let Some(unknown) = named.find(|dag_id| !known.contains(dag_id.as_str())) {
            return Err(PlanError::UnknownDag(unknown.clone()));
        }
        let is_selected = |dag_id: &String| {
            (request.dag_ids.is_empty() || request.dag_ids.contains(dag_id))
                && !request.exclude_dag_ids.contains(dag_id)
        };
        let dags: Vec<(String, String)> = dags.into_iter().filter(|(dag_id, _)| is_selected(dag_id)).collect();
        let is_restricted = !request.dag_ids.is_empty() || !request.exclude_dag_ids.is_empty();
        let dag_ids = is_restricted.then(|| dags.iter().map(|(dag_id, _)| dag_id.clone()).collect::<Vec<_>>());
        let mut plan = match (request.before, &settings) {
            (Some(before), _) => Self::before(before, dags, dag_ids),
            (None, Some(settings)) => {
                let plan = Self::of_settings(settings, dags, dag_ids, now);
                if plan.is_empty() { return Err(PlanError::NoLimit) } else { plan }
            }
            (None, None) => return Err(PlanError::NoLimit),
        };
        if !request.tables.is_empty() {
            plan.keep_tables(&request.tables);
            if request.before.is_some() && request.tables.contains(&Table::TaskLogs) {
                plan.logs.before = request.before;
            }
        }
        if request.archive && plan.run_tables.is_empty() && plan.old_rows.is_empty() {
            return Err(PlanError::NothingToArchive);
        }
        plan.is_restricted = is_restricted || !request.tables.is_empty();
        Ok(plan)
    }

    fn before(before: Timestamp, dags: Vec<(String, String)>, dag_ids: Option<Vec<String>>) -> Self {
        let old_runs = dags.into_iter().map(|(dag_id, _)| OldRuns { dag_id, ended_before: before, keep_runs: 0 });
        Self {
            run_tables: vec![Table::DagRun],
            old_runs: old_runs.collect(),
            old_rows: old_rows(before, dag_ids.as_ref(), &[]),
            // The logs of removed runs go with them; those of runs that stay go only by request.
            logs: LogLimits { before: None, max_bytes: None, dag_ids },
            is_restricted: false,
        }
    }

    /// The plan of `history` in `config.yaml`, and in the `leoflow.yaml` of a DAG's project.
    fn of_settings(
        settings: &Config,
        dags: Vec<(String, String)>,
        dag_ids: Option<Vec<String>>,
        now: Timestamp,
    ) -> Self {
        let days_ago = |days: u64| {
            let hours = i64::try_from(days.saturating_mul(24)).ok()?;
            now.checked_sub(SignedDuration::try_from_hours(hours)?).ok()
        };
        let general = settings.history.runs;
        let (mut by_folder, mut with_own_limits) = (BTreeMap::new(), Vec::new());
        let old_runs = dags.into_iter().filter_map(|(dag_id, file)| {
            let own = settings.workspace.as_deref().and_then(|workspace| {
                leoflow_python::folders(workspace, Path::new(&file)).into_iter().find_map(|folder| {
                    by_folder.entry(folder.clone()).or_insert_with(|| project_retention(&folder)).clone()
                })
            });
            let own = own.filter(|(only, _)| only.as_ref().is_none_or(|only| *only == dag_id));
            if own.is_some() {
                with_own_limits.push(dag_id.clone());
            }
            let Retention { keep_days, keep_runs } = own.map_or(general, |(_, retention)| retention);
            let ended_before = match (keep_days, keep_runs) {
                (Some(days), _) => days_ago(days)?,
                (None, Some(_)) => now,
                (None, None) => return None,
            };
            let keep_runs = keep_runs.map_or(0, |count| count.try_into().unwrap_or(i64::MAX));
            Some(OldRuns { dag_id, ended_before, keep_runs })
        });
        let old_runs: Vec<OldRuns> = old_runs.collect();
        let before = general.keep_days.and_then(days_ago);
        Self {
            run_tables: if old_runs.is_empty() { Vec::new() } else { vec![Table::DagRun] },
            old_runs,
            old_rows: before.map(|before| old_rows(before, dag_ids.as_ref(), &with_own_limits)).unwrap_or_default(),
            logs: LogLimits {
                before: settings.history.task_logs_days.and_then(days_ago),
                max_bytes: settings.history.task_logs_bytes,
                dag_ids,
            },
            is_restricted: false,
        }
    }

    fn is_empty(&self) -> bool {
        let LogLimits { before, max_bytes, .. } = self.logs;
        self.old_runs.is_empty() && self.old_rows.is_empty() && before.is_none() && max_bytes.is_none()
    }

    /// Removes only from these tables.
    fn keep_tables(&mut self, tables: &[Table]) {
        let of_runs = [Table::DagRun, Table::Xcom, Table::RenderedFields];
        self.run_tables = of_runs.into_iter().filter(|table| tables.contains(table)).collect();
        if self.run_tables.contains(&Table::DagRun) {
            self.run_tables = vec![Table::DagRun];
        }
        self.old_rows.retain(|rows| tables.contains(&rows.table));
        if !tables.contains(&Table::TaskLogs) {
            self.logs = LogLimits::default();
        }
    }
}

fn old_rows(before: Timestamp, dag_ids: Option<&Vec<String>>, except: &[String]) -> Vec<OldRows> {
    // Events before versions: their runs are gone by then.
    let tables = [Table::Log, Table::AssetEvent, Table::DagVersion];
    tables.map(|table| OldRows { table, before, dag_ids: dag_ids.cloned(), except: except.to_vec() }).into()
}

/// The `history` of a project's settings, with the DAG that they are for if they name one; `None` without. Settings that
/// are invalid may have had longer limits, so nothing of their project is removed.
fn project_retention(folder: &Path) -> Option<(Option<String>, Retention)> {
    match leoflow_yaml::load(folder) {
        Ok(settings) => {
            let settings = settings?;
            let retention = leoflow_yaml::retention(&settings)?;
            Some((settings["dag_id"].as_str().map(str::to_owned), retention))
        }
        Err(_) => Some((None, Retention::default())),
    }
}
