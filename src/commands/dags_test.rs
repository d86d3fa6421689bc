//! `leoflow dags test`: a whole DAG in the foreground, in one Python process with this terminal, so
//! that `print` and the debugger are where the user is.

use super::context::Context;
use super::run_inputs::{read_conf, read_date};
use super::validate::prepare;
use crate::cli::engine_args::Test;
use crate::error::Error;
use crate::python::{
    Found, Interpreter, Job, Request, as_in_workspace, environment, is_dag_file, parse, python_files, settings_problem,
};
use crate::sys::{env_vars, process};
use serde_json::json;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

pub async fn run(context: &Context<'_>, args: &Test) -> Result<u8, Error> {
    let conf = read_conf(args.conf.as_deref())?;
    let logical_date = match &args.logical_date {
        None => None,
        Some(text) => Some(read_date(text)?),
    };
    let config = context.config()?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone());
    let interpreter = prepare(context, config.and_then(|config| config.python).as_deref())?;
    let here = env_vars::current_dir().map_err(Error::failed)?;
    let file = match &args.file {
        Some(file) => {
            let file = as_in_workspace(workspace.as_deref(), &here.join(file));
            if !file.is_file() {
                return Err(Error::failed(format!("there is no file {}", file.display())));
            }
            file
        }
        None => find(context, &interpreter, workspace.as_deref(), &args.dag_id).await?,
    };
    let request = Request::new(file, workspace.as_deref(), context.home.api_socket());
    if let Some(problem) = request.project.as_deref().and_then(settings_problem) {
        return Err(Error::failed("the project's settings are not good").cause(problem).hint("leoflow verify-config"));
    }
    let options = json!({
        "path": request.path, "roots": request.roots, "dag_id": args.dag_id, "conf": conf, "pdb": args.pdb,
        "logical_date": logical_date.map(|date| date.to_string()), "socket": context.home.api_socket(),
    });
    let mut command = std::process::Command::new(&interpreter.program);
    command.args(interpreter.arguments(Job::Test, &options)).env_clear().envs(environment());
    if let Some(folder) = request.roots.first() {
        command.current_dir(folder);
    }
    // Ctrl-C is the debugger's, or the task's.
    let status = process::ignoring_interrupts(|| command.status())
        .map_err(|error| Error::io("run", &interpreter.program, &error))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(0),
        (Some(code), _) => Ok(u8::try_from(code).unwrap_or(1)),
        // Whoever read its output has left.
        (None, Some(13)) => Ok(128 + 13),
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
    let mut broken = Vec::new();
    for file in files {
        let request = Request::new(file.clone(), Some(workspace), context.home.api_socket());
        match parse(interpreter, &request).await {
            Ok(found) if found.structures.iter().any(|dag| dag["dag_id"].as_str() == Some(dag_id)) => return Ok(file),
            Ok(Found { error: Some(error), .. }) | Err(error) => broken.push(format!("{}:\n{error}", file.display())),
            Ok(_) => {}
        }
    }
    // It may be one of those that cannot be imported.
    if broken.is_empty() { Err(missing()) } else { Err(missing().cause(broken.join("\n"))) }
}
