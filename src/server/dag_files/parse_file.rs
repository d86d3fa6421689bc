//! Parses one DAG file, with the settings beside it and the environment it needs.

use super::stamps::{Stamps, stamps};
use crate::dag_code::child_slots::ChildSlots;
use crate::dag_code::slot_policy::{Pace, Priority};
use crate::environments::{Availability, Environment, Environments};
use leoflow_base::sys::blocking;
use leoflow_python::{
    Children, FileContext, FileSettings, Interpreter, NoResult, ParseOutput, Request, linked_venv, parse,
    read_file_context,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

/// State that all parses share.
pub struct ParseContext {
    pub environments: Arc<Environments>,
    pub workspace: PathBuf,
    pub children: Rc<Children>,
    pub slots: Rc<ChildSlots>,
    pub results: UnboundedSender<Parsed>,
    /// The last warning about the virtual environment of each project, which is repeated only if it changes.
    pub venv_warnings: RefCell<HashMap<PathBuf, String>>,
}

/// The result of a parse.
pub struct Parsed {
    pub path: PathBuf,
    /// Number of the parse, see `FileIndex::next_parse_number`.
    pub number: u64,
    pub began: SystemTime,
    pub duration: Duration,
    pub output: Result<ParseOutput, NoOutput>,
    /// Hash of the environment that the parse ran with; `None` for the plain interpreter.
    pub environment: Option<String>,
    /// Stamps of the settings files beside the DAG file, including missing ones.
    pub adjacent_files: Stamps,
    /// Slow or quick, as measured: slow files queue behind quick ones the next time.
    pub pace: Pace,
}

/// Why a file did not run to its end. Shown as an import error.
#[derive(Debug, thiserror::Error)]
pub enum NoOutput {
    #[error("{0}")]
    NoResult(NoResult),
    #[error("The environment of this project is not available yet.")]
    AwaitsEnvironment,
}

impl Parsed {
    pub fn has_failed(&self) -> bool {
        self.output.as_ref().map_or(true, |output| output.error.is_some())
    }
}

/// Parses a file and sends the result to the loop.
pub async fn parse_file(context: Rc<ParseContext>, path: PathBuf, number: u64, priority: Priority, socket: PathBuf) {
    let request = Request::new(path, Some(&context.workspace), socket);
    let work = |used: Rc<Cell<Duration>>| {
        let (context, request) = (&context, &request);
        async move { parse_with_slot(context, request, number, &used).await }
    };
    let (result, pace) = context.slots.run(priority, work).await;
    // Fails only while the loop is being dropped.
    let _ = context.results.send(Parsed { pace, ..result });
}

async fn parse_with_slot(context: &ParseContext, request: &Request, number: u64, used: &Cell<Duration>) -> Parsed {
    let (began, clock, path) = (SystemTime::now(), Instant::now(), request.path.clone());
    let (settings, adjacent_files) = read_settings(request).await;
    let (output, environment) = match prepare(context, &path, settings).await {
        Ok((Environment { hash, interpreter }, file_settings)) => {
            refresh_linked_venv(context, &interpreter, request).await;
            let output = parse(&context.children, &interpreter, request, *file_settings, used).await;
            (output.map_err(NoOutput::NoResult), hash)
        }
        Err(no_output) => (Err(no_output), None),
    };
    let duration = clock.elapsed();
    Parsed { path, number, began, duration, output, environment, adjacent_files, pace: Pace::Quick }
}

/// Brings the virtual environment for editors up to date, if the project has one.
async fn refresh_linked_venv(context: &ParseContext, interpreter: &Interpreter, request: &Request) {
    let Some(project) = request.project.clone() else { return };
    let (python, folder, request) = (interpreter.clone(), project.clone(), request.clone());
    let refreshed = blocking::run(move || linked_venv::refresh(&python, &folder, &request)).await;
    let mut warnings = context.venv_warnings.borrow_mut();
    let Ok(Err(error)) = refreshed else {
        warnings.remove(&project);
        return;
    };
    let warning = format!("{error}; run: {}", linked_venv::command(interpreter, &project));
    if warnings.get(&project) != Some(&warning) {
        warn!("{warning}");
        warnings.insert(project, warning);
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

/// Returns the environment of a file and its settings.
async fn prepare(
    context: &ParseContext,
    path: &Path,
    file_settings: Result<FileSettings, NoResult>,
) -> Result<(Environment, Box<FileSettings>), NoOutput> {
    let environments = &context.environments;
    let mut file_settings = file_settings.map(Box::new).map_err(|no_result| {
        environments.clear_requirement(path);
        NoOutput::NoResult(no_result)
    })?;
    let Some(declared) = file_settings.declared.take() else {
        environments.clear_requirement(path);
        return match environments.interpreter.get().await {
            Ok(interpreter) => Ok((Environment { hash: None, interpreter }, file_settings)),
            Err(missing) if missing.is_transient => Err(NoOutput::NoResult(NoResult::Transient(missing.reason))),
            Err(missing) => Err(NoOutput::NoResult(NoResult::Permanent(missing.reason))),
        };
    };
    match environments.request(&declared, path).await {
        Availability::Ready(environment) => Ok((environment, file_settings)),
        Availability::Waits => Err(NoOutput::AwaitsEnvironment),
        Availability::Failed(reason) => {
            let reason = format!("Failed to build the environment of this project.\n{reason}");
            Err(NoOutput::NoResult(NoResult::Permanent(reason)))
        }
    }
}

/// Returns a file's path relative to the workspace.
pub fn relative_to(workspace: &Path, path: &Path) -> String {
    path.strip_prefix(workspace).unwrap_or(path).to_string_lossy().into_owned()
}
