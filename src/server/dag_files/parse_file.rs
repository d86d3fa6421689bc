//! Parses one DAG file, with the settings beside it and the environment it needs.

use super::file_index::{Stamps, stamps};
use crate::dag_code::child_slots::{ChildSlots, RunResult};
use crate::dag_code::slot_policy::Pace;
use crate::environments::{Availability, Environment, Environments};
use leoflow_base::sys::blocking;
use leoflow_engine::model::dag_check;
use leoflow_engine::store::dag::parsed_files::ParsedDags;
use leoflow_python::{Children, FileContext, FileSettings, NoResult, ParseOutput, Request, parse, read_file_context};
use serde_json::Map;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedSender;

/// State that all parses share.
pub struct ParseContext {
    pub environments: Arc<Environments>,
    pub workspace: PathBuf,
    pub children: Rc<Children>,
    pub slots: Rc<ChildSlots>,
    pub results: UnboundedSender<Parsed>,
}

/// The result of a parse.
pub struct Parsed {
    pub path: PathBuf,
    /// Number of the parse, see `FileIndex::next_parse_number`.
    pub number: u64,
    pub began: SystemTime,
    pub duration: Duration,
    pub output: Result<ParseOutput, NoResult>,
    /// Hash of the environment that the parse ran with; `None` for the plain interpreter.
    pub environment: Option<String>,
    /// Stamps of the settings files beside the DAG file, including missing ones.
    pub adjacent_files: Stamps,
    /// True when the file's environment is not available yet.
    pub awaits_environment: bool,
    /// Slow or quick, as measured: slow files queue behind quick ones the next time.
    pub pace: Pace,
}

/// Parses a file and sends the result to the loop.
pub async fn parse_file(context: Rc<ParseContext>, path: PathBuf, number: u64, pace: Pace, socket: PathBuf) {
    let request = Request::new(path, Some(&context.workspace), socket);
    let work = |used: Rc<Cell<Duration>>| {
        let (context, request) = (&context, &request);
        async move { parse_with_slot(context, request, number, &used).await }
    };
    let RunResult { result, pace } = context.slots.run(pace, work).await;
    // Fails only while the loop is being dropped.
    let _ = context.results.send(Parsed { pace, ..result });
}

async fn parse_with_slot(context: &ParseContext, request: &Request, number: u64, used: &Cell<Duration>) -> Parsed {
    let (began, clock, path) = (SystemTime::now(), Instant::now(), request.path.clone());
    let (settings, adjacent_files) = read_settings(request).await;
    let (output, environment, awaits_environment) = match prepare(context, &path, settings).await {
        Prepared::Ready(Environment { hash, interpreter }, file_settings) => {
            (parse(&context.children, &interpreter, request, *file_settings, used).await, hash, false)
        }
        Prepared::Waits(reason) => (Err(NoResult::Permanent(reason)), None, true),
        Prepared::Impossible(no_result) => (Err(no_result), None, false),
    };
    Parsed {
        path,
        number,
        began,
        duration: clock.elapsed(),
        output,
        environment,
        adjacent_files,
        awaits_environment,
        pace: Pace::Quick,
    }
}

/// Maximum number of times that settings are read while their files change.
const MAX_SETTINGS_READS: u32 = 5;

/// Reads the settings beside a DAG file, with the stamps of their files, to which later stamps are compared. Reads
/// recently changed files again until they stay the same; otherwise stamps could be newer than the content.
async fn read_settings(request: &Request) -> (Result<FileSettings, NoResult>, Stamps) {
    let mut stamps_before: Option<Stamps> = None;
    let mut reads = 0;
    loop {
        let began = SystemTime::now();
        let FileContext { settings, read } = read_file_context(request).await;
        let stamps_after = blocking::run(move || stamps(read)).await.unwrap_or_default();
        reads += 1;
        let is_recent = stamps_after.values().flatten().any(|stamp| stamp.is_since(began));
        match stamps_before {
            _ if !is_recent => return (settings, stamps_after),
            Some(before) if before == stamps_after || reads == MAX_SETTINGS_READS => return (settings, before),
            _ => stamps_before = Some(stamps_after),
        }
    }
}

/// The result of preparing the environment for a parse.
enum Prepared {
    Ready(Environment, Box<FileSettings>),
    /// The environment is not available yet; the text says why.
    Waits(String),
    Impossible(NoResult),
}

async fn prepare(context: &ParseContext, path: &Path, file_settings: Result<FileSettings, NoResult>) -> Prepared {
    let environments = &context.environments;
    let mut file_settings = match file_settings {
        Ok(file_settings) => Box::new(file_settings),
        Err(no_result) => {
            environments.clear_requirement(path);
            return Prepared::Impossible(no_result);
        }
    };
    let Some(declared) = file_settings.declared.take() else {
        environments.clear_requirement(path);
        return match environments.interpreter.get().await {
            Ok(interpreter) => Prepared::Ready(Environment { hash: None, interpreter }, file_settings),
            Err(missing) if missing.is_transient => Prepared::Impossible(NoResult::Transient(missing.reason)),
            Err(missing) => Prepared::Impossible(NoResult::Permanent(missing.reason)),
        };
    };
    match environments.request(&declared, path).await {
        Availability::Ready(environment) => Prepared::Ready(environment, file_settings),
        Availability::Waits(reason) => Prepared::Waits(reason),
        Availability::Failed(reason) => {
            let reason = format!("Failed to build the environment of this project.\n{reason}");
            Prepared::Impossible(NoResult::Permanent(reason))
        }
    }
}

/// Returns a file's path relative to the workspace.
pub fn relative_to(workspace: &Path, path: &Path) -> String {
    path.strip_prefix(workspace).unwrap_or(path).to_string_lossy().into_owned()
}

/// Converts the output of a successful parse to the DAGs to store. The error is an import error for users.
pub fn parsed_dags(output: &ParseOutput, workspace: &Path, parsed: &Parsed) -> Result<ParsedDags, String> {
    let mut dags = dag_check::read(&output.structures).map_err(|error| error.to_string())?;
    dags.iter_mut().for_each(|dag| dag.settings = output.settings.clone());
    let mut sources = Map::new();
    for (name, text) in &output.sources {
        sources.insert(relative_to(workspace, Path::new(name)), text.clone());
    }
    let source = output.sources.get(&*parsed.path.to_string_lossy()).and_then(|text| text.as_str()).unwrap_or_default();
    Ok(ParsedDags { dags, source: source.to_owned(), sources, environment: parsed.environment.clone() })
}
