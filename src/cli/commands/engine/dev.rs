//! `leoflow dev [PROJECT]`: imports DAG files as they are saved, and prints what changes in their DAGs.

use super::env::project_python::ProjectPython;
use super::environment::ProjectPythons;
use super::foreground_run::{self, SourceArgs, Test};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use clap::Args;
use jiff::Timestamp;
use leoflow_engine::model::dag_check;
use leoflow_python::{Children, Interpreter, Request, Stamp, dag_files, file_context, is_python};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
#[command(
    after_help = "Nothing is stored, and the server need not run. A file is imported again when it, a module that it imports, or\n\
                  the project's settings change. Ctrl-C ends the command.\n\n\
                  Examples:\n  leoflow dev            the project in this folder\n  \
                  leoflow dev sales --run   also run the DAGs of each saved file, as `leoflow dags test` does"
)]
pub struct Dev {
    /// The project: the name of a folder in the workspace, or its path
    #[arg(default_value = ".")]
    project: PathBuf,
    /// Run the DAGs of a file after each change of it
    #[arg(long)]
    run: bool,
}

/// Exit code of a run that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// Poll interval of the files.
const INTERVAL: Duration = Duration::from_millis(200);
/// Keys of a DAG that follow from others, or are compared apart.
const NOT_SHOWN: [&str; 6] =
    ["default_args", "place", "tasks", "timetable", "timetable_description", "timetable_summary"];
/// Longest text of a changed value.
const VALUE_LENGTH: usize = 60;

pub async fn run(context: &Context<'_>, args: &Dev) -> Result<u8, Error> {
    let ProjectPython { request, base, .. } = ProjectPython::new(context, &args.project).await?;
    let mut watched = Watched {
        project: request.project.unwrap_or_default(),
        workspace: request.workspace,
        base,
        children: Children::new(&context.home),
        pythons: ProjectPythons::default(),
        files: BTreeMap::new(),
    };
    context.printer.note(format!("Waiting for changes in {}; Ctrl-C ends this", watched.project.display()));
    loop {
        let reports = watched.poll(context).await?;
        for report in &reports {
            context.printer.show(report, |printer| report.print(printer, &reports))?;
            for dag_id in report.dags.keys().filter(|_| args.run && report.is_code_changed) {
                let source = SourceArgs { conf: None, file: Some(report.file.clone()) };
                let test = Test { dag_id: dag_id.clone(), date: None, source, logical_date: None, pdb: false };
                match foreground_run::run(context, &test).await {
                    Ok(INTERRUPTED) => return Ok(INTERRUPTED),
                    Ok(_) => {}
                    Err(error) => context.printer.warning(error.in_one_line()),
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

struct Watched {
    project: PathBuf,
    workspace: Option<PathBuf>,
    /// The Python without a project's packages.
    base: Interpreter,
    children: Rc<Children>,
    pythons: ProjectPythons,
    files: BTreeMap<PathBuf, Imported>,
}

/// The last import of a file.
struct Imported {
    /// The files that its result depends on, `None` for one that does not exist; empty if the DAG file is gone.
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    /// The structures of its DAGs, of the last import without an error.
    dags: BTreeMap<String, Value>,
}

impl Watched {
    /// Imports the files that changed since the last call.
    async fn poll(&mut self, context: &Context<'_>) -> Result<Vec<Report>, Error> {
        let files =
            dag_files(&self.project, self.workspace.as_deref()).map_err(Error::cannot("read", &self.project))?;
        let mut reports = Vec::new();
        for (path, imported) in &mut self.files {
            if !imported.is_gone() && !files.contains(path) {
                // Its DAGs stay, to compare them when the file is back.
                imported.stamps.clear();
                let reason = if path.exists() { "the file is no DAG file any more" } else { "the file was removed" };
                reports.push(Report { error: Some(reason.to_owned()), ..Report::new(path.clone()) });
            }
        }
        for path in files {
            let imported = self.files.get(&path);
            // A file that was gone counts as changed.
            let changed =
                imported.map(|imported| if imported.is_gone() { vec![&path] } else { imported.changed_files() });
            if changed.as_ref().is_none_or(|changed| !changed.is_empty()) {
                let is_code = |changed: &PathBuf| is_python(changed) || *changed == path;
                let is_code_changed = changed.is_some_and(|changed| changed.into_iter().any(is_code));
                context.printer.progress(&format!("Importing {}", path.display()));
                let report = self.import(context, path).await;
                reports.push(Report { is_code_changed, ..report });
            }
        }
        Ok(reports)
    }

    async fn import(&mut self, context: &Context<'_>, path: PathBuf) -> Report {
        let began = Instant::now();
        let request = Request::new(path.clone(), self.workspace.as_deref(), context.home.api_socket());
        let before = self.files.remove(&path);
        // The stamps of the files that are known to matter are from before the import, which may read an older text.
        let known_files = before.iter().flat_map(|imported| imported.stamps.keys().cloned());
        let known_files = known_files.chain(file_context(&request).read).chain([path.clone()]);
        let mut stamps: BTreeMap<_, _> = known_files.map(|path| (path.clone(), Stamp::of_path(&path))).collect();
        let parsed = self.pythons.parse(context, &self.base, &self.children, &request).await;
        let dags_before = before.map(|imported| imported.dags);
        let (mut report, mut dags) = (Report::new(path.clone()), dags_before.clone().unwrap_or_default());
        match parsed {
            Ok(output) => {
                let problem = dag_check::read(&output.structures).err().map(|error| error.to_string());
                report.error = output.error.or(problem);
                if report.error.is_none() {
                    let by_id = |dag: Value| (dag["dag_id"].as_str().unwrap_or_default().to_owned(), dag);
                    dags = output.structures.into_iter().map(by_id).collect();
                    report.dags = changes(dags_before.as_ref(), &dags);
                }
                let sources = output.sources.keys().map(PathBuf::from);
                for path in sources.chain(output.reads).chain(output.absent) {
                    stamps.entry(path.clone()).or_insert_with(|| Stamp::of_path(&path));
                }
            }
            Err(error) => report.error = Some(error.to_string()),
        }
        self.files.insert(path, Imported { stamps, dags });
        report.seconds = began.elapsed().as_secs_f64();
        report
    }
}

impl Imported {
    /// The files that have changed since the import.
    fn changed_files(&self) -> Vec<&PathBuf> {
        self.stamps.iter().filter(|(path, stamp)| Stamp::of_path(path) != **stamp).map(|(path, _)| path).collect()
    }

    fn is_gone(&self) -> bool {
        self.stamps.is_empty()
    }
}

/// The result of one import.
#[derive(Serialize)]
struct Report {
    file: PathBuf,
    /// The DAGs of the file, each with the changes since the last import.
    dags: BTreeMap<String, Vec<String>>,
    error: Option<String>,
    seconds: f64,
    /// True if the file or a module that it imports has changed, and not only settings.
    #[serde(skip)]
    is_code_changed: bool,
}

impl Report {
    fn new(file: PathBuf) -> Self {
        Self { file, dags: BTreeMap::new(), error: None, seconds: 0.0, is_code_changed: false }
    }

    /// Prints the report. The files of one poll often fail for one reason, which is printed once.
    fn print(&self, printer: &Printer, reports: &[Self]) {
        let now = Timestamp::now();
        let (time, file) = (printer.clock_time(now, now), self.file.display());
        if let Some(error) = &self.error {
            let alike: Vec<&Self> = reports.iter().filter(|report| report.error.as_ref() == Some(error)).collect();
            if alike[0].file == self.file {
                let others = if alike.len() > 1 { format!(" and {} more", alike.len() - 1) } else { String::new() };
                printer.line(format!("{time} {file}{others}: {error}"));
            }
            return;
        }
        printer.line(format!("{time} {file}: {}, imported in {:.2} s", counted(self.dags.len(), "DAG"), self.seconds));
        for (dag_id, changes) in &self.dags {
            changes.iter().for_each(|change| printer.line(format!("  {dag_id}: {change}")));
        }
    }
}

/// The changes of each DAG; none at the first import.
fn changes(before: Option<&BTreeMap<String, Value>>, dags: &BTreeMap<String, Value>) -> BTreeMap<String, Vec<String>> {
    let change = |(dag_id, dag): (&String, &Value)| {
        let changes = match before.map(|before| before.get(dag_id)) {
            None => Vec::new(),
            Some(None) => vec!["new".to_owned()],
            Some(Some(old)) => changes_of(old, dag),
        };
        (dag_id.clone(), changes)
    };
    let removed = before.into_iter().flatten().filter(|(dag_id, _)| !dags.contains_key(*dag_id));
    let removed = removed.map(|(dag_id, _)| (dag_id.clone(), vec!["removed".to_owned()]));
    dags.iter().map(change).chain(removed).collect()
}

fn changes_of(old: &Value, new: &Value) -> Vec<String> {
    let mut changes = changed_keys(old, new, &NOT_SHOWN);
    if old["schedule"] == new["schedule"] {
        changes.extend(changed_keys(
            &json!({"timetable": old["timetable"]}),
            &json!({"timetable": new["timetable"]}),
            &[],
        ));
    }
    let (old, new) = (tasks(old), tasks(new));
    for task_id in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        match (old.get(task_id), new.get(task_id)) {
            (None, Some(task)) => changes.push(format!("new task {task_id} ({})", text(&task["operator"]))),
            (Some(_), None) => changes.push(format!("removed task {task_id}")),
            (Some(old), Some(new)) => {
                let of_task = changed_keys(old, new, &[]).into_iter();
                changes.extend(of_task.map(|change| format!("task {task_id}: {change}")));
            }
            (None, None) => {}
        }
    }
    changes
}

fn tasks(dag: &Value) -> BTreeMap<&str, &Value> {
    let tasks = dag["tasks"].as_array().into_iter().flatten();
    tasks.filter_map(|task| Some((task["task_id"].as_str()?, task))).collect()
}

/// The keys of two objects with different values, with both.
fn changed_keys(old: &Value, new: &Value, except: &[&str]) -> Vec<String> {
    let empty = Map::new();
    let [old, new] = [old, new].map(|value| value.as_object().unwrap_or(&empty));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).filter(|key| !except.contains(&key.as_str())).collect();
    let value = |object: &Map<String, Value>, key| object.get(key).map_or("none".to_owned(), text);
    let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    changed.map(|key| format!("{key} {} -> {}", value(old, key), value(new, key))).collect()
}

/// A value in at most [`VALUE_LENGTH`] characters.
fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE_LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_tasks_and_values() {
        let dag = |tasks: Value, schedule: &str| json!({"dag_id": "d", "schedule": schedule, "tasks": tasks});
        let task = |task_id: &str, retries: u32, upstream: &[&str]| json!({"task_id": task_id, "operator": "Op", "retries": retries, "upstream": upstream});
        let old = dag(json!([task("a", 0, &[]), task("b", 0, &[])]), "@daily");
        let new = dag(json!([task("a", 2, &[]), task("c", 0, &["a"])]), "@hourly");
        let expected = ["schedule @daily -> @hourly", "task a: retries 0 -> 2", "removed task b", "new task c (Op)"];
        assert_eq!(changes_of(&old, &new), expected);
        assert!(changes_of(&new, &new).is_empty());
        let by_id = |dag: &Value| BTreeMap::from([("d".to_owned(), dag.clone())]);
        assert_eq!(changes(None, &by_id(&new))["d"], [""; 0]);
        assert_eq!(changes(Some(&BTreeMap::new()), &by_id(&new))["d"], ["new"]);
        assert_eq!(changes(Some(&by_id(&new)), &BTreeMap::new())["d"], ["removed"]);
    }
}
