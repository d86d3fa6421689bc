//! `leoflow dags test`: a whole DAG in the foreground, in one Python process with this terminal, so
//! that `print` and the debugger are where the user is.

use super::environment::parse_in_its_own;
use super::foreground_planner;
use super::run_inputs::{read_conf, read_date};
use super::task_names;
use super::validate::prepare;
use crate::cli::engine_args::Test;
use crate::cli::task_args::TestTask;
use crate::commands::context::Context;
use crate::config::DEFAULT_MAX_MAP_LENGTH;
use crate::engine::dag::Structure;
use crate::error::Error;
use crate::python::{Children, Found, Interpreter, Job, Request, as_in_workspace, beside, dag_files, environment};
use crate::sys::blocking;
use crate::sys::reaper::Exit;
use crate::sys::{env_vars, files, process, random, unix_socket};
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

/// Bytes; a DAG file has some thousands.
const LARGEST_FILE: u64 = 4 * 1024 * 1024;

pub async fn run(context: &Context<'_>, args: &Test) -> Result<u8, Error> {
    let wanted = Wanted {
        dag_id: &args.dag_id,
        file: args.file.as_deref(),
        conf: args.conf.as_deref(),
        logical_date: args.logical_date.as_deref().or(args.date.as_deref()),
        pdb: args.pdb,
    };
    wanted.prepare(context).await?.run(&args.dag_id)
}

/// One task alone, or its template fields.
pub async fn task(context: &Context<'_>, args: &TestTask, render: bool) -> Result<u8, Error> {
    let (task_id, map_index) = task_names::one_of(&args.task_id, args.map_index)?;
    let wanted = Wanted {
        dag_id: &args.dag_id,
        file: args.file.as_deref(),
        conf: args.conf.as_deref(),
        logical_date: args.logical_date.as_deref(),
        pdb: args.pdb,
    };
    let mut prepared = wanted.prepare(context).await?;
    prepared.options["task_id"] = task_id.into();
    prepared.options["map_index"] = map_index.into();
    prepared.options["render"] = render.into();
    prepared.run(&args.dag_id)
}

fn temporary_folder() -> Result<PathBuf, Error> {
    let folder = env_vars::temporary_folder().join(format!("leoflow-{}", hex::encode(random::bytes::<8>())));
    files::create_private_dir(&folder).map_err(|error| Error::io("create", &folder, &error))?;
    Ok(folder)
}

fn structure_of(prepared: &Prepared, dag_id: &str) -> Result<Structure, Error> {
    let found = prepared.found.structures.iter().find(|dag| dag["dag_id"].as_str() == Some(dag_id));
    match (found, &prepared.found.error) {
        (Some(found), _) => serde_json::from_value(found.clone()).map_err(Error::failed),
        (None, Some(error)) => Err(Error::failed("the DAG file cannot be imported").cause(error)),
        (None, None) => {
            let ids: Vec<&str> = prepared.found.structures.iter().filter_map(|dag| dag["dag_id"].as_str()).collect();
            Err(Error::failed(format!(
                "{} makes no DAG {dag_id:?}; it makes: {}",
                prepared.file.display(),
                ids.join(", ")
            )))
        }
    }
}

/// What was asked for.
struct Wanted<'a> {
    dag_id: &'a str,
    file: Option<&'a Path>,
    conf: Option<&'a str>,
    logical_date: Option<&'a str>,
    pdb: bool,
}

/// A file that was imported, and what the process that runs it is told.
struct Prepared {
    interpreter: Interpreter,
    file: PathBuf,
    folder: Option<PathBuf>,
    found: Found,
    options: Value,
}

impl Wanted<'_> {
    async fn prepare(&self, context: &Context<'_>) -> Result<Prepared, Error> {
        let conf = read_conf(self.conf)?;
        let logical_date = match self.logical_date {
            None => None,
            Some(text) => Some(read_date("--logical-date", text)?),
        };
        let config = context.config()?.map(|loaded| loaded.config);
        let workspace = config.as_ref().and_then(|config| config.workspace.clone());
        let max_map_length = config.as_ref().map_or(DEFAULT_MAX_MAP_LENGTH, |config| config.max_map_length);
        let interpreter = prepare(context, config.and_then(|config| config.python).as_deref()).await?;
        let here = env_vars::current_dir().map_err(Error::failed)?;
        let file = match self.file {
            Some(file) => {
                let file = as_in_workspace(workspace.as_deref(), &here.join(file));
                if !file.is_file() {
                    return Err(Error::failed(format!("there is no file {}", file.display())));
                }
                file
            }
            None => find(context, &interpreter, workspace.as_deref(), self.dag_id).await?,
        };
        let request = Request::new(file, workspace.as_deref(), context.home.api_socket());
        if let Err(problem) = beside(&request).said {
            return Err(Error::failed("the project's settings are not good")
                .cause(problem)
                .hint("leoflow verify-config"));
        }
        let (interpreter, found) = parse_in_its_own(context, &interpreter, &Children::new(&context.home), &request)
            .await
            .map_err(|error| Error::failed("the DAG file cannot be imported").cause(error))?;
        let options = json!({
            "path": request.path, "roots": request.roots, "work_in": request.folders, "dag_id": self.dag_id, "conf": conf, "pdb": self.pdb,
            "logical_date": logical_date.map(|date| date.to_string()), "socket": context.home.api_socket(),
            "settings": found.settings, "max_map_length": max_map_length,
        });
        Ok(Prepared { interpreter, file: request.path, folder: request.folders.first().cloned(), found, options })
    }
}

impl Prepared {
    /// Runs it in this terminal; the exit code is that of its end.
    fn run(mut self, dag_id: &str) -> Result<u8, Error> {
        let structure = structure_of(&self, dag_id)?;
        // Gone with the folder, when the run is over.
        let folder = temporary_folder()?;
        let path = folder.join("planner.sock");
        let listener = unix_socket::listen(&path).map_err(|error| Error::io("make", &path, &error))?;
        self.options["planner"] = path.to_string_lossy().into();
        // It ends with the process that asks; until that has come, nobody waits for it.
        blocking::thread(move || foreground_planner::serve(&listener, structure));
        let done = self.run_process(dag_id);
        let _ = files::remove_any(&folder);
        done
    }

    fn run_process(&self, dag_id: &str) -> Result<u8, Error> {
        let mut command = std::process::Command::new(&self.interpreter.program);
        command.args(self.interpreter.arguments(Job::Test, &self.options)).env_clear().envs(environment());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        // Ctrl-C is the debugger's, or the task's.
        let status = process::ignoring_interrupts(|| command.status())
            .map_err(|error| Error::io("run", &self.interpreter.program, &error))?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(0),
            (Some(code), _) => Ok(u8::try_from(code).unwrap_or(1)),
            // Whoever read its output has left.
            (None, Some(13)) => Ok(128 + 13),
            (None, _) => {
                Err(Error::failed(format!("the process that ran {dag_id} was ended by {}", Exit::from(status)))
                    .hint("the lines above are all that it printed"))
            }
        }
    }
}

/// The file of the workspace that makes the DAG.
async fn find(
    context: &Context<'_>,
    interpreter: &Interpreter,
    workspace: Option<&Path>,
    dag_id: &str,
) -> Result<PathBuf, Error> {
    let missing = || {
        Error::failed(format!("no file of the workspace makes a DAG {dag_id:?}"))
            .hint("leoflow validate")
            .hint(format!("leoflow dags test {dag_id} --file FILE"))
    };
    let workspace = workspace.ok_or_else(missing)?;
    let mut files = dag_files(workspace, Some(workspace)).map_err(|error| Error::io("read", workspace, &error))?;
    // The likely ones first: those that name it, and a project is often called as its DAG is. What the others depend on
    // is not to be installed for nothing.
    files.sort_by_cached_key(|file| {
        let names = files::read_text(file, LARGEST_FILE).ok().flatten().is_some_and(|text| text.contains(dag_id));
        (!names, !file.to_string_lossy().contains(dag_id))
    });
    let children = Children::new(&context.home);
    let mut broken = Vec::new();
    for file in files {
        let request = Request::new(file.clone(), Some(workspace), context.home.api_socket());
        match parse_in_its_own(context, interpreter, &children, &request).await.map(|(_, found)| found) {
            Ok(found) if found.structures.iter().any(|dag| dag["dag_id"].as_str() == Some(dag_id)) => {
                children.end().await;
                return Ok(file);
            }
            Ok(Found { error: Some(error), .. }) | Err(error) => broken.push(format!("{}:\n{error}", file.display())),
            Ok(_) => {}
        }
    }
    children.end().await;
    // It may be one of those that cannot be imported.
    if broken.is_empty() { Err(missing()) } else { Err(missing().cause(broken.join("\n"))) }
}
