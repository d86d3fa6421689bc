//! `leoflow dags test`: a whole DAG in the foreground, in one Python process with this terminal, so
//! that `print` and the debugger are where the user is.

use super::context::Context;
use super::dags::read_conf;
use super::validate::prepare;
use crate::cli::engine_args::Test;
use crate::error::Error;
use crate::python::{Interpreter, Job, Request, environment, is_dag_file, parse, python_files, roots};
use crate::sys::{env_vars, process};
use serde_json::json;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

pub async fn run(context: &Context<'_>, args: &Test) -> Result<u8, Error> {
    let conf = read_conf(args.conf.as_deref())?;
    let logical_date = match &args.logical_date {
        None => None,
        Some(text) => Some(text.parse::<jiff::Timestamp>().map_err(|error| {
            Error::usage(format!("--logical-date: {error}")).hint("for example 2026-01-31T00:00:00Z")
        })?),
    };
    let config = context.config()?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone());
    let interpreter = prepare(context, config.and_then(|config| config.python).as_deref())?;
    let here = env_vars::current_dir().map_err(Error::failed)?;
    let file = match &args.file {
        Some(file) => {
            let file = here.join(file);
            file.canonicalize().map_err(|error| Error::io("read", &file, &error))?
        }
        None => find(context, &interpreter, workspace.as_deref(), &args.dag_id).await?,
    };
    let roots = match workspace.filter(|workspace| file.starts_with(workspace)) {
        Some(workspace) => roots(&workspace, &file),
        None => file.parent().map(Path::to_owned).into_iter().collect(),
    };
    let options = json!({
        "path": file, "roots": roots, "dag_id": args.dag_id, "conf": conf, "pdb": args.pdb,
        "logical_date": logical_date.map(|date| date.to_string()), "socket": context.home.api_socket(),
    });
    let mut command = std::process::Command::new(&interpreter.program);
    command.args(interpreter.arguments(Job::Test, &options)).env_clear().envs(environment());
    if let Some(folder) = roots.first() {
        command.current_dir(folder);
    }
    // Ctrl-C is the debugger's, or the task's.
    let status = process::ignoring_interrupts(|| command.status())
        .map_err(|error| Error::io("run", &interpreter.program, &error))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(0),
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(1)),
        (None, signal) => Err(Error::failed(format!(
            "the process that ran {} was ended by signal {}",
            args.dag_id,
            signal.unwrap_or_default()
        ))
        .hint("the lines above are all that it said")),
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
    let mut files = python_files(workspace).map_err(|error| Error::io("read", workspace, &error))?;
    files.retain(|file| is_dag_file(file));
    // The likely ones first: a project is often called as its DAG is.
    files.sort_by_key(|file| !file.to_string_lossy().contains(dag_id));
    for file in files {
        let request =
            Request { roots: roots(workspace, &file), path: file.clone(), api_socket: context.home.api_socket() };
        let Ok(found) = parse(interpreter, &request).await else { continue };
        if found.structures.iter().any(|dag| dag["dag_id"].as_str() == Some(dag_id)) {
            return Ok(file);
        }
    }
    Err(missing())
}
