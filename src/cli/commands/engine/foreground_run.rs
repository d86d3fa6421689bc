//! `leoflow dags test`, `tasks test` and `tasks render`: run a whole DAG or one task in one Python process on this
//! terminal, so that `print` and the debugger work there.

use super::environment::parse_in_project_environment;
use super::foreground_planner;
use super::project_folder::file_request;
use super::run_inputs::{read_conf, read_date};
use super::task_names;
use super::validate::prepare_interpreter;
use crate::args::complete;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use clap_complete::ArgValueCompleter;
use leoflow_base::config::DEFAULT_MAX_MAP_LENGTH;
use leoflow_base::home::Home;
use leoflow_base::sys::blocking;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::net::unix_socket;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::{env_vars, process, random};
use leoflow_engine::model::dag::Structure;
use leoflow_engine::model::params;
use leoflow_python::{Children, Interpreter, Job, ParseOutput, Request, dag_files, environment};
use serde_json::{Value, json};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct SourceArgs {
    /// Params of the run, as a JSON object [default: those of the DAG]
    #[arg(long, short)]
    pub conf: Option<String>,
    /// The DAG file [default: the file in the workspace that defines the DAG]
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Test {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The logical date, for example 2026-01-31 [default: none]
    #[arg(conflicts_with = "logical_date")]
    pub date: Option<String>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// The logical date as an option
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// Open Python's debugger where a task fails
    #[arg(long)]
    pub pdb: bool,
}

#[derive(Args, Debug)]
pub struct TestTask {
    /// The DAG's id
    #[arg(add = ArgValueCompleter::new(complete::dag_ids))]
    pub dag_id: String,
    /// The task's id
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_id: String,
    /// The logical date, for example 2026-01-31 [default: none]
    #[arg(conflicts_with = "logical_date")]
    pub date: Option<String>,
    /// The instance of a mapped task, counted from 0; `work[7]` as the task's id means the same
    #[arg(long, value_parser = clap::value_parser!(i32).range(-1..), allow_negative_numbers = true)]
    pub map_index: Option<i32>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// The logical date as an option
    #[arg(long, short)]
    pub logical_date: Option<String>,
    /// Open Python's debugger where the task fails
    #[arg(long)]
    pub pdb: bool,
}

/// Size limit of a result, in bytes; a run of 100,000 task instances has less.
const MAX_RESULT_SIZE: u64 = 256 * 1024 * 1024;
/// Size limit of a DAG file that is searched for a dag_id, in bytes.
const MAX_FILE_SIZE: u64 = 4 * 1024 * 1024;

pub async fn run(context: &Context<'_>, args: &Test) -> Result<u8, Error> {
    let Test { dag_id, date, source, logical_date, pdb } = args;
    let date = logical_date.as_deref().or(date.as_deref());
    Prepared::new(context, dag_id, source, date, *pdb).await?.run(context, dag_id)
}

/// What to do with one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskAction {
    Run,
    /// Only render its template fields.
    Render,
}

/// Runs one task alone, or renders its template fields.
pub async fn task(context: &Context<'_>, args: &TestTask, action: TaskAction) -> Result<u8, Error> {
    let TestTask { dag_id, task_id, date, map_index, source, logical_date, pdb } = args;
    let date = logical_date.as_deref().or(date.as_deref());
    let (task_id, position) = task_names::instance_name(task_id, *map_index)?;
    let mut prepared = Prepared::new(context, dag_id, source, date, *pdb).await?;
    prepared.options["task_id"] = task_id.into();
    prepared.options["map_index"] = position.map_index().into();
    prepared.options["render"] = (action == TaskAction::Render).into();
    prepared.run(context, dag_id)
}

/// Creates a private folder with a random name. It is in the home, because `TMPDIR` may name a missing folder.
fn temporary_folder(home: &Home) -> Result<PathBuf, Error> {
    let folder = home.run().join(format!("foreground-{}", hex::encode(random::bytes::<8>())));
    home.create_folder(&folder).map_err(Error::cannot("create", &folder))?;
    Ok(folder)
}

/// The structure of the DAG in the imported file.
fn structure_of(prepared: &Prepared, dag_id: &str) -> Result<Structure, Error> {
    let structure = prepared.parsed.structures.iter().find(|dag| dag["dag_id"].as_str() == Some(dag_id));
    match (structure, &prepared.parsed.error) {
        (Some(structure), _) => serde_json::from_value(structure.clone()).map_err(Error::failed),
        (None, Some(error)) => Err(Error::failed("the DAG file fails to import").cause(error)),
        (None, None) => {
            let ids: Vec<&str> = prepared.parsed.structures.iter().filter_map(|dag| dag["dag_id"].as_str()).collect();
            Err(Error::failed(format!(
                "{} does not define a DAG {dag_id:?}; it defines: {}",
                prepared.file.display(),
                ids.join(", ")
            )))
        }
    }
}

/// An imported DAG file, and the options of the process that runs it.
struct Prepared {
    interpreter: Interpreter,
    file: PathBuf,
    /// The working directory of the process.
    folder: Option<PathBuf>,
    parsed: ParseOutput,
    options: Value,
}

impl Prepared {
    /// Finds and imports the DAG file. `logical_date` is that of the run, as on the command line.
    async fn new(
        context: &Context<'_>,
        dag_id: &str,
        SourceArgs { conf, file }: &SourceArgs,
        logical_date: Option<&str>,
        pdb: bool,
    ) -> Result<Self, Error> {
        let conf = read_conf(conf.as_deref())?;
        let logical_date = logical_date.map(|text| read_date("--logical-date", text)).transpose()?;
        let config = context.config()?.map(|loaded| loaded.config);
        let workspace = config.as_ref().and_then(|config| config.workspace.clone());
        let max_map_length = config.as_ref().map_or(DEFAULT_MAX_MAP_LENGTH, |config| config.max_map_length);
        let interpreter = prepare_interpreter(context, config.and_then(|config| config.python).as_deref()).await?;
        let file = match file {
            Some(file) => {
                let file = env_vars::absolute(file)?;
                if !file.is_file() {
                    return Err(Error::failed(format!("{} does not exist", file.display())));
                }
                file
            }
            None => find(context, &interpreter, workspace.as_deref(), dag_id).await?,
        };
        let (request, _) = file_request(context, workspace.as_deref(), &file)?;
        let (interpreter, parsed) =
            parse_in_project_environment(context, &interpreter, &Children::new(&context.home), &request)
                .await
                .map_err(|error| Error::failed("the DAG file fails to import").cause(error))?;
        let options = json!({
            "path": request.path, "roots": request.roots, "work_in": request.folders, "dag_id": dag_id, "conf": conf, "pdb": pdb,
            "logical_date": logical_date.map(|date| date.to_string()), "socket": context.home.api_socket(),
            "settings": parsed.settings, "max_map_length": max_map_length,
        });
        Ok(Self { interpreter, file: request.path, folder: request.folders.first().cloned(), parsed, options })
    }

    /// Runs the DAG or one task on this terminal and returns the process's exit code. With `--json`, prints the result
    /// alone on standard output; what the DAG file and its tasks print goes to standard error.
    fn run(mut self, context: &Context<'_>, dag_id: &str) -> Result<u8, Error> {
        let structure = structure_of(&self, dag_id)?;
        if let Some(conf) = self.options["conf"].as_object() {
            params::check(&structure, conf).map_err(|error| {
                Error::failed(error).hint("pass the params of the run as JSON: --conf '{\"name\": \"value\"}'")
            })?;
        }
        // Removed after the run, with the socket and the result.
        let folder = temporary_folder(&context.home)?;
        let result = context.printer.json.then(|| folder.join("result.json"));
        if let Some(path) = &result {
            self.options["result"] = path.to_string_lossy().into();
        }
        let path = folder.join("planner.sock");
        let listener = unix_socket::listen(&path).map_err(Error::cannot("create", &path))?;
        self.options["planner"] = path.to_string_lossy().into();
        // The thread ends with this process; nothing joins it.
        blocking::thread(move || foreground_planner::serve(&listener, structure));
        let exit_code = self.run_process(dag_id, result.is_some());
        let result = result.map(|path| files::read_text(&path, MAX_RESULT_SIZE));
        let _ = files::remove_any(&folder);
        match (exit_code?, result) {
            (exit_code, None) => Ok(exit_code),
            (exit_code, Some(Ok(Some(text)))) => {
                let result: Value = serde_json::from_str(&text).map_err(Error::failed)?;
                context.printer.json(&result)?;
                Ok(exit_code)
            }
            // An exit code from 128 means that a signal ended the run.
            (exit_code @ 128.., Some(_)) => Ok(exit_code),
            (_, Some(_)) => Err(Error::failed(format!("the run of {dag_id} ended without a result"))
                .hint("see its output on standard error for the reason")),
        }
    }

    /// Runs the Python process; returns its exit code. Where there is a result on standard output, the process writes
    /// to standard error.
    fn run_process(&self, dag_id: &str, has_result: bool) -> Result<u8, Error> {
        let mut command = std::process::Command::new(&self.interpreter.program);
        command.args(self.interpreter.arguments(Job::Test, &self.options)).env_clear().envs(environment());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if has_result {
            let stderr = std::io::stderr().as_fd().try_clone_to_owned();
            command.stdout(stderr.map_err(|error| Error::failed("failed to duplicate standard error").cause(error))?);
        }
        // This process ignores Ctrl-C, which the debugger or the task handles.
        let status = process::ignoring_interrupts(|| command.status())
            .map_err(Error::cannot("run", &self.interpreter.program))?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(0),
            (Some(code), _) => Ok(u8::try_from(code).unwrap_or(1)),
            // SIGPIPE: the reader of its output has closed the pipe.
            (None, Some(13)) => Ok(128 + 13),
            (None, _) => {
                Err(Error::failed(format!("the process that ran {dag_id} was terminated by {}", Exit::from(status)))
                    .hint("its whole output is above"))
            }
        }
    }
}

/// Finds the file in the workspace that defines the DAG.
async fn find(
    context: &Context<'_>,
    interpreter: &Interpreter,
    workspace: Option<&Path>,
    dag_id: &str,
) -> Result<PathBuf, Error> {
    let missing = || {
        Error::failed(format!("no file in the workspace defines a DAG {dag_id:?}"))
            .hint("leoflow validate")
            .hint("or name the file: --file FILE")
    };
    let workspace = workspace.ok_or_else(missing)?;
    let mut files = dag_files(workspace, Some(workspace)).map_err(Error::cannot("read", workspace))?;
    // Likely files first: those that contain the dag_id, and those whose path does. This avoids building the
    // environments of other projects.
    files.sort_by_cached_key(|file| {
        let mentions_id =
            files::read_text(file, MAX_FILE_SIZE).ok().flatten().is_some_and(|text| text.contains(dag_id));
        (!mentions_id, !file.to_string_lossy().contains(dag_id))
    });
    let children = Children::new(&context.home);
    let mut broken = Vec::new();
    for file in files {
        let request = Request::new(file.clone(), Some(workspace), context.home.api_socket());
        let parsed = parse_in_project_environment(context, interpreter, &children, &request).await;
        match parsed.map(|(_, parsed)| parsed).map_err(|error| error.to_string()) {
            Ok(parsed) if parsed.structures.iter().any(|dag| dag["dag_id"].as_str() == Some(dag_id)) => {
                children.end().await;
                return Ok(file);
            }
            Ok(ParseOutput { error: Some(error), .. }) | Err(error) => {
                broken.push(format!("{}:\n{error}", file.display()))
            }
            Ok(_) => {}
        }
    }
    children.end().await;
    // The DAG may be in a file that fails to import.
    if broken.is_empty() { Err(missing()) } else { Err(missing().cause(broken.join("\n"))) }
}
