//! `/lite/`: the status of the instance on one page. Everything but the supervisor's answer is optional: the page is
//! needed most when something does not work.

use super::chart::{self, Window};
use super::queue;
use super::storage::{self, Storage};
use crate::api::ops::health::ask_supervisor;
use crate::app_state::{AppState, SettingsCount, Shared};
use crate::dag_files::ImportProgress;
use crate::http::api_error::ApiError;
use crate::pages::{page, with_home};
use crate::release::own_program::ask_within;
use crate::state::Core;
use axum::Json;
use axum::extract::State;
use axum::response::Html;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use leoflow_base::config;
use leoflow_base::counted::counted;
use leoflow_base::home::{Home, upkeep};
use leoflow_base::protocol::status::{InstanceState, InstanceStatus, ProcessStatus};
use leoflow_base::sys::{blocking, shell};
use leoflow_engine::store::dag::import_errors;
use leoflow_engine::store::event_log::{self, LoggedEvent};
use leoflow_engine::store::instance::backlog::{self, Backlog};
use leoflow_engine::store::instance::tries;
use leoflow_engine::store::list::listing::{Listing, Page};
use leoflow_engine::store::list::overview::{self, FinishedTasks};
use leoflow_engine::store::pools::{self, Pool};
use leoflow_python::settings_without_effect;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How long the page waits for the datastore.
const DATASTORE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the page waits for the list of backups, whose manifests are read.
const BACKUPS_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of DAG files with import errors that a warning names.
const NAMED_FILES: i64 = 5;

pub async fn status_page(State(state): Shared) -> Result<Html<String>, ApiError> {
    let status = ask_supervisor(&state.core).await?;
    let window = Window::ending_with(Timestamp::now());
    let (tasks, local, backup_list) =
        tokio::join!(tasks(&state, window), local(&state, &status.processes), backup_list(&state));
    let Local { storage, verified_at, processes, without_effect } = local?;
    let backups = storage::backups(backup_list, verified_at);
    let tasks_problem = tasks.as_ref().err().map(ApiError::message);
    let tasks = tasks.ok();
    let config = state.core.config();
    let instance = config::instance_name(config.as_ref());
    // The result of an earlier lookup; the page itself starts none.
    let newest = state.release.newest_release.last(config.as_ref());
    let mut warnings = warnings(&status, tasks.as_ref(), &storage, problems(&state.core));
    warnings.extend(settings_warning(without_effect));
    let schedule = config.as_ref().map(|config| config.backup.schedule.to_string());
    let importing = importing(*state.dag_files.initial_files.borrow(), *state.dag_files.progress.borrow());
    page(
        "status.html",
        instance,
        json!({
            "state": status.state, "reason": status.reason, "version": status.version, "home": status.home,
            "schema_version": status.schema_version, "processes": processes, "warnings": warnings,
            "chart": tasks.as_ref().map(|tasks| chart::chart(&tasks.finished, window, &TimeZone::system())),
            "waiting": tasks.as_ref().map(|tasks| queue::waiting(&tasks.backlog, &tasks.pools, tasks.running)),
            "pools": tasks.as_ref().map(|tasks| tasks.pools.iter().map(pool_row).collect::<Vec<_>>()),
            "import_errors": tasks.as_ref().map(|tasks| tasks.import_errors), "tasks_problem": tasks_problem,
            "importing": importing,
            "storage": storage, "backups": backups, "schedule": schedule,
            "newest": newest, "has_release_host": config::release_host(config.as_ref()).is_some(),
        }),
    )
    .map(|page| with_home(page, &state.core.home))
}

/// Says how far the imports are; `None` when no file is being imported. `initial` is `None` until the first scan.
fn importing(initial: Option<usize>, ImportProgress { remaining, total }: ImportProgress) -> Option<String> {
    match (initial, remaining) {
        (None, _) => Some("The workspace is still being scanned for DAG files.".to_owned()),
        (Some(_), 0) => None,
        (Some(_), _) => Some(format!("DAG files still being imported: {remaining} of {total}.")),
    }
}

/// `GET /api/lite/status`, also polled by the script of the page.
pub async fn status(State(state): Shared) -> Result<Json<InstanceStatus>, ApiError> {
    ask_supervisor(&state.core).await.map(Json)
}

/// Returns the problems of scheduled backups and verifications.
pub fn problems(core: &Core) -> Vec<String> {
    let known = upkeep::read(&core.home);
    let mut problems = known.as_ref().map(upkeep::Upkeep::problems).unwrap_or_default();
    if let Some(config) = core.config() {
        let overdue = config.backup.overdue(known.as_ref(), core.phase.started_at, &Zoned::now());
        problems.extend(overdue.iter().map(ToString::to_string));
    }
    problems
}

/// The page's facts about tasks, which come from the datastore.
struct Tasks {
    finished: Vec<FinishedTasks>,
    backlog: Backlog,
    pools: Vec<Pool>,
    running: usize,
    import_errors: i64,
    /// The first files with import errors.
    files: Vec<String>,
    /// The newest callback that failed in the time of the chart.
    failed_callback: Option<LoggedEvent>,
}

/// Reads the facts about tasks.
async fn tasks(state: &AppState, window: Window) -> Result<Tasks, ApiError> {
    let query = async {
        let mut client = state.core.database.get().await?;
        // Never committed. The statement timeout makes PostgreSQL cancel slow queries too.
        let transaction = client.transaction().await?;
        backlog::limit_statement_time(&transaction, DATASTORE_TIMEOUT).await?;
        let errors = Listing::default().with_page(Page::first(NAMED_FILES));
        let errors = import_errors::list(&transaction, errors).await?;
        Ok(Tasks {
            finished: overview::finished_tasks(&transaction, (window.start, window.end), chart::BAR_DURATION).await?,
            backlog: backlog::backlog(&transaction, Timestamp::now()).await?,
            pools: pools::list(&transaction, Listing::default()).await?.rows,
            running: tries::count_running(&transaction).await?,
            import_errors: errors.total,
            files: errors.rows.into_iter().map(|error| error.filename).collect(),
            failed_callback: event_log::failed_callbacks(&transaction, None, window.start).await?.into_iter().next(),
        })
    };
    let limit = DATASTORE_TIMEOUT.as_secs();
    let late = |_| Err(ApiError::retry_later(&format!("The datastore did not answer within {limit} seconds")));
    tokio::time::timeout(DATASTORE_TIMEOUT, query).await.unwrap_or_else(late)
}

/// Lists the backups in the home, newest first.
async fn backup_list(state: &AppState) -> Result<Value, ApiError> {
    let list = ask_within(&state.core.home, &["lite", "backups", "list"], BACKUPS_TIMEOUT);
    // Also limits the wait for other commands' slots.
    let limit = BACKUPS_TIMEOUT.as_secs();
    let late = |_| Err(ApiError::retry_later(&format!("the list took longer than {limit} seconds")));
    tokio::time::timeout(BACKUPS_TIMEOUT, list).await.unwrap_or_else(late)
}

/// The page's facts about this machine.
struct Local {
    storage: Storage,
    /// When backups were last verified.
    verified_at: Option<Timestamp>,
    /// Rows of the table of processes.
    processes: Vec<Value>,
    /// The number of settings of Airflow without effect.
    without_effect: SettingsCount,
}

async fn local(state: &AppState, processes: &[ProcessStatus]) -> Result<Local, ApiError> {
    let (home, processes) = (state.core.home.clone(), processes.to_vec());
    let workspace = state.dag_code.workspace().map(Path::to_owned);
    let last_settings = state.last_settings.clone();
    let count = move |home: &Home| settings_without_effect(home, workspace.as_deref()).map(|found| found.len());
    let read = move || Local {
        without_effect: last_settings.count(|| count(&home)),
        storage: storage::read(&home),
        verified_at: storage::last_verification(&home),
        processes: processes.iter().map(process_row).collect(),
    };
    Ok(blocking::run(read).await?)
}

fn process_row(process: &ProcessStatus) -> Value {
    json!({
        "name": process.name, "state": process.state, "state_text": process.state_text(), "pid": process.pid,
        "restarts": process.restarts, "memory": process.memory_text(),
    })
}

fn pool_row(pool: &Pool) -> Value {
    json!({
        "name": pool.name, "slots": (pool.slots >= 0).then_some(pool.slots), "running": pool.running,
        "queued": pool.queued, "scheduled": pool.scheduled, "free": (pool.slots >= 0).then(|| pool.open()),
    })
}

/// A problem, with the command, the link or the button that fixes it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Warning {
    text: String,
    command: Option<String>,
    /// Address and text.
    link: Option<(&'static str, &'static str)>,
    /// The text of the button that creates a backup.
    backup: Option<&'static str>,
}

fn warnings(status: &InstanceStatus, tasks: Option<&Tasks>, storage: &Storage, problems: Vec<String>) -> Vec<Warning> {
    let mut all = Vec::new();
    let failed = status.processes.iter().filter(|process| process.state == "failed");
    all.extend(failed.map(|process| Warning {
        text: format!("The process {} failed.", process.name),
        command: Some(format!("leoflow lite logs {}", process.name)),
        ..Warning::default()
    }));
    if !matches!(status.state, InstanceState::Healthy | InstanceState::Starting | InstanceState::Upgrading) {
        all.push(Warning {
            text: format!("The instance is {}.", status.state),
            command: Some("leoflow doctor".to_owned()),
            link: Some(("/lite/doctor", "Doctor")),
            ..Warning::default()
        });
    }
    all.extend(problems.into_iter().map(|text| Warning {
        text,
        link: Some(("/lite/backups", "Backups")),
        backup: Some("Back up now"),
        ..Warning::default()
    }));
    if let Some(tasks) = tasks.filter(|tasks| tasks.import_errors > 0) {
        let mut files = tasks.files.join(", ");
        if i64::try_from(tasks.files.len()).is_ok_and(|named| named < tasks.import_errors) {
            files.push_str(", …");
        }
        all.push(Warning {
            text: format!("{}: {files}", counted(tasks.import_errors, "import error")),
            command: Some("leoflow dags list-import-errors".to_owned()),
            link: Some(("/", "Import errors in the UI")),
            ..Warning::default()
        });
    }
    all.extend(tasks.and_then(|tasks| failed_callback(tasks.failed_callback.as_ref()?)));
    if storage.is_low {
        all.push(Warning {
            text: format!("Only {} of disk space are free.", storage.free),
            command: Some("leoflow lite backups prune --dry-run".to_owned()),
            ..Warning::default()
        });
    }
    all
}

/// The warning about callbacks that failed; `newest` is the last of them.
fn failed_callback(newest: &LoggedEvent) -> Option<Warning> {
    let (dag_id, run_id) = (newest.what.dag_id.as_deref()?, newest.what.run_id.as_deref()?);
    let span = chart::duration_text(chart::CHART_DURATION);
    Some(Warning {
        text: format!("Callbacks or e-mails failed in the last {span}, the last one of {dag_id}."),
        command: Some(format!("leoflow runs show {} {}", shell::word(dag_id), shell::word(run_id))),
        link: Some(("/events", "Audit log")),
        ..Warning::default()
    })
}

/// The warning about settings of Airflow without effect.
fn settings_warning(count: SettingsCount) -> Option<Warning> {
    let text = match count {
        Ok(0) => return None,
        Ok(count) => format!("{} of Airflow without effect here.", counted(count, "setting")),
        Err(unread) => format!("{unread}."),
    };
    Some(Warning {
        text,
        command: Some("leoflow doctor".to_owned()),
        link: Some(("/lite/doctor", "Doctor")),
        ..Warning::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app_state::LastSettings;
    use leoflow_python::SettingsUnread;

    fn status(state: InstanceState) -> InstanceStatus {
        let process = json!({"name": "agent", "state": "failed", "pid": null, "restarts": 3, "rss_bytes": null});
        let processes = if state == InstanceState::Failed { json!([process]) } else { json!([]) };
        let status = json!({
            "state": state, "version": "0.1.0", "url": "", "home": "/h", "schema_version": 1, "uptime_seconds": 1,
            "processes": processes,
        });
        serde_json::from_value(status).unwrap()
    }

    fn storage(is_low: bool) -> Storage {
        Storage { kinds: Vec::new(), total: String::new(), free: "9.0 MB".to_owned(), is_low }
    }

    fn failed_event() -> LoggedEvent {
        let (dag_id, run_id) = (Some("sales".to_owned()), Some("a b".to_owned()));
        let what = event_log::NewEvent { dag_id, run_id, ..Default::default() };
        LoggedEvent { id: 1, created_at: Timestamp::UNIX_EPOCH, what }
    }

    #[test]
    fn the_page_counts_files_that_are_being_imported() {
        let progress = |remaining| ImportProgress { remaining, total: 200 };
        assert!(importing(None, ImportProgress::default()).unwrap().contains("being scanned"));
        assert_eq!(importing(Some(0), progress(0)), None);
        assert_eq!(importing(Some(0), progress(37)).unwrap(), "DAG files still being imported: 37 of 200.");
    }

    #[test]
    fn settings_are_searched_once_for_many_requests() {
        let last = LastSettings::default();
        assert_eq!(last.count(|| Err(SettingsUnread)), Err(SettingsUnread));
        let count = last.count(|| panic!("a second search"));
        assert!(settings_warning(count).unwrap().text.contains("could not be read"));
        assert_eq!(settings_warning(Ok(0)), None);
    }

    #[test]
    fn each_warning_says_what_fixes_it() {
        assert_eq!(warnings(&status(InstanceState::Healthy), None, &storage(false), Vec::new()), []);
        let tasks = Tasks {
            finished: Vec::new(),
            backlog: Backlog::default(),
            pools: Vec::new(),
            running: 0,
            import_errors: 2,
            files: vec!["/w/a.py".to_owned()],
            failed_callback: Some(failed_event()),
        };
        let problems = vec!["the scheduled backup failed: full".to_owned()];
        let all = warnings(&status(InstanceState::Failed), Some(&tasks), &storage(true), problems);
        assert_eq!(all.len(), 6, "{all:?}");
        assert!(all.iter().all(|warning| warning.command.is_some() || warning.backup.is_some()), "{all:?}");
        assert_eq!(all[0].command.as_deref(), Some("leoflow lite logs agent"));
        assert_eq!(all[3].text, "2 import errors: /w/a.py, …");
        assert_eq!(all[4].text, "Callbacks or e-mails failed in the last 24 hours, the last one of sales.");
        assert_eq!(all[4].command.as_deref(), Some("leoflow runs show sales 'a b'"));
    }
}
