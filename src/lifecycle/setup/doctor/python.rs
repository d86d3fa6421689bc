//! Checks Python and the environments of projects.

use crate::setup::check::{Finding, ok, problem, warning};
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_python::notes::{self, Note};
use leoflow_python::{self as python, SettingsUnread, WithoutEffect, environments};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The state of Python and of the DAGs in a running server.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServerPython {
    /// Interpreter for DAGs.
    pub python: Option<PathBuf>,
    /// Environments that the server could not build.
    pub failed: Vec<FailedEnvironment>,
    pub unknown_pools: Vec<UnknownPool>,
    /// DAGs whose schedule makes no progress.
    pub stalled_schedules: Vec<String>,
    /// Settings of Airflow without effect; `None` if the server did not answer or could not read them.
    pub without_effect: Option<Vec<WithoutEffect>>,
    /// Built environments whose DAG files have import errors.
    pub suspect: Vec<SuspectEnvironment>,
}

/// A built environment whose DAG files have import errors.
#[derive(Debug, Deserialize)]
pub struct SuspectEnvironment {
    folder: PathBuf,
    /// Those DAG files, relative to the workspace.
    files: Vec<PathBuf>,
}

/// A DAG with tasks in a pool that does not exist.
#[derive(Debug, Deserialize)]
pub struct UnknownPool {
    dag_id: String,
    pool: String,
}

/// An environment that the server could not build.
#[derive(Debug, Deserialize)]
pub struct FailedEnvironment {
    /// DAG files that need the environment.
    files: Vec<String>,
    detail: String,
}

/// Checks the Python for DAGs; `known` is the running server's interpreter or the configured one.
pub fn python_found(known: Option<&Path>) -> Finding {
    match python::find(known) {
        Ok(python) => ok(format!("{} ({})", python.path.display(), python.version)),
        Err(missing) => {
            warning(missing.reason, "install Python 3.10 or newer, or set its path: leoflow config set python PATH")
        }
    }
}

/// Checks a running instance's warm Python processes, which are kept ready for tasks, and its trigger processes.
pub fn processes(home: &Home) -> Finding {
    processes_check(&notes::of_running(home))
}

fn processes_check(notes: &[Note]) -> Finding {
    if notes.is_empty() {
        return ok("warm Python processes and triggers: no failure recorded");
    }
    let lines: Vec<String> = notes.iter().map(describe).collect();
    let remedy = "see leoflow lite logs agent and leoflow lite logs server; no action is needed where a next \
                  try is listed";
    warning(lines.join("\n"), remedy)
}

fn describe(note: &Note) -> String {
    let to_seconds = |time: Timestamp| time.round(jiff::Unit::Second).unwrap_or(time);
    let next = note.next_try.map(|time| format!("; next try: when needed after {}", to_seconds(time)));
    format!(
        "{} ({}): {} since {}, because {}{}",
        note.subject,
        note.program.display(),
        note.effect,
        to_seconds(note.since),
        note.reason,
        next.unwrap_or_default(),
    )
}

/// How long the files of environments are compared with their hashes; a large one takes seconds.
const VERIFY_LIMIT: Duration = Duration::from_secs(10);

/// Checks the Python environments of projects, as far as the running server knows them. Those whose DAG files cannot be
/// imported are compared with the hashes of their packages.
pub fn environments(home: &Home, server: &ServerPython) -> Finding {
    if let Some(environment) = server.failed.first() {
        let first_line = environment.detail.lines().next().unwrap_or_default();
        let more = environment.files.len().saturating_sub(1);
        let others = if more == 0 { String::new() } else { format!(" and {more} more") };
        let file = environment.files.first().map_or("", String::as_str);
        let detail = format!("cannot build the environment of {file}{others}: {first_line}");
        return warning(detail, "leoflow env list shows the whole error; change the project's requirements");
    }
    if let Some(check) = damaged_environment(&server.suspect) {
        return check;
    }
    let built = environments::count(home);
    let uv_state = environments::find_uv(home)
        .map_or("uv is downloaded when needed".to_owned(), |uv| uv.program.display().to_string());
    ok(format!("{built} built; {uv_state}"))
}

/// Checks that the pools of all tasks exist. Without a running server, nothing is checked.
pub fn pools(unknown: &[UnknownPool]) -> Option<Finding> {
    let first = unknown.first()?;
    let others = match unknown.len() - 1 {
        0 => String::new(),
        count => format!(" ({count} more: leoflow dags show DAG)"),
    };
    let UnknownPool { dag_id, pool } = first;
    let detail = format!("tasks of {dag_id} wait, because there is no pool {pool}{others}");
    Some(warning(detail, format!("leoflow pools set {pool} 8")))
}

/// Checks that no schedule is stalled. Without a running server, nothing is checked.
pub fn schedules(stalled: &[String]) -> Option<Finding> {
    let first = stalled.first()?;
    let detail = format!("schedules that make no progress: {}", stalled.join(", "));
    let remedy = format!("see leoflow lite logs server for the reason; change the schedule of {first} in its file");
    Some(warning(detail, remedy))
}

/// Checks that all settings of Airflow have an effect: those of the running server, else those of our environment.
pub fn airflow_settings(found: Result<Vec<WithoutEffect>, SettingsUnread>) -> Option<Finding> {
    let found = match found {
        Ok(found) => found,
        Err(unread) => {
            return Some(warning(unread.to_string(), "check the disk of the workspace, then: leoflow doctor"));
        }
    };
    let names = |needs_sdk| {
        let selected = found.iter().filter(|setting| setting.needs_sdk == needs_sdk);
        selected.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let lines: Vec<String> = [("no effect here", names(false)), ("an effect only with Airflow's own SDK", names(true))]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(effect, names)| format!("settings with {effect}: {names}"))
        .collect();
    let sdk = ", or add Airflow's own SDK: leoflow add apache-airflow --project PROJECT";
    let remedy = format!(
        "remove them{}; leoflow docs reference/airflow-settings lists all keys",
        if found.iter().any(|setting| setting.needs_sdk) { sdk } else { "" },
    );
    (!found.is_empty()).then(|| warning(lines.join("\n"), remedy))
}

/// The first environment with damaged files, or one that could not be checked completely.
fn damaged_environment(suspect: &[SuspectEnvironment]) -> Option<Finding> {
    let deadline = Instant::now() + VERIFY_LIMIT;
    let mut unchecked = None;
    for environment in suspect {
        let file = environment.files.first()?;
        let project = file.iter().next().unwrap_or(file.as_os_str()).to_string_lossy();
        let verified = environments::verify(&environment.folder, Some(deadline));
        if let Some(damaged) = verified.damaged.first() {
            let detail = format!(
                "{} cannot be imported, and {} of its environment's files are damaged or missing, such as {}",
                file.display(),
                verified.damaged.len(),
                damaged.display()
            );
            let remedy = format!("leoflow env update {project} --reinstall");
            return Some(problem(detail, remedy));
        }
        if verified.is_partial {
            unchecked = unchecked.or(Some((file, project)));
        }
    }
    let (file, project) = unchecked?;
    let detail = format!(
        "{} cannot be imported; in {} s, not all files of its environment could be compared with their hashes",
        file.display(),
        VERIFY_LIMIT.as_secs()
    );
    Some(warning(detail, format!("leoflow env verify {project}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::check::Verdict;

    #[test]
    fn a_missing_pool_is_a_warning_with_its_remedy() {
        let unknown = |dag: &str| UnknownPool { dag_id: dag.to_owned(), pool: "nope".to_owned() };
        assert!(pools(&[]).is_none());
        let check = pools(&[unknown("a"), unknown("b")]).unwrap();
        assert_eq!(check.detail, "tasks of a wait, because there is no pool nope (1 more: leoflow dags show DAG)");
        assert_eq!(check.remedy.as_deref(), Some("leoflow pools set nope 8"));
    }

    #[test]
    fn unread_settings_are_a_warning() {
        assert!(airflow_settings(Ok(Vec::new())).is_none());
        let check = airflow_settings(Err(SettingsUnread)).unwrap();
        assert!(check.verdict == Verdict::Warning && check.detail.contains("could not be read"), "{}", check.detail);
    }

    #[test]
    fn a_note_names_subject_reason_and_next_try() {
        assert_eq!(processes_check(&[]).verdict, Verdict::Ok);
        let note = Note {
            subject: "the warm Python for tasks".to_owned(),
            program: "/h/venvs/1/bin/python".into(),
            effect: "is without pandas".to_owned(),
            reason: "it starts threads, which no fork has: worker".to_owned(),
            since: "2026-11-25T11:00:00Z".parse().unwrap(),
            next_try: Some("2026-11-25T11:10:00.5Z".parse().unwrap()),
        };
        let check = processes_check(&[note]);
        assert_eq!(check.verdict, Verdict::Warning);
        assert_eq!(
            check.detail,
            "the warm Python for tasks (/h/venvs/1/bin/python): is without pandas since 2026-11-25T11:00:00Z, because \
             it starts threads, which no fork has: worker; next try: when needed after 2026-11-25T11:10:01Z"
        );
    }
}
