//! `leoflow env shell`: a shell or one command with a project's Python, variables and import folders.

use crate::commands::engine::add::dag_file;
use crate::commands::engine::environment;
use crate::commands::engine::project_folder::{no_project, project_folder};
use crate::commands::engine::validate::prepare_interpreter;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::sys::env_vars;
use leoflow_python::{Job, Request, file_context};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Replaces this process by the command, or by the user's shell. Returns only on failure.
pub async fn run(context: &Context<'_>, project: &str, command: &[String]) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone());
    let current_folder = env_vars::current_dir().unwrap_or_default();
    let folder = project_folder(workspace.as_deref(), &current_folder, Path::new(project))
        .ok_or_else(|| no_project(workspace.as_deref(), Path::new(project)))?;
    let request =
        Request::new(dag_file(&folder, workspace.as_deref())?, workspace.as_deref(), context.home.api_socket());
    let file_settings = file_context(&request).settings.map_err(|problem| {
        Error::failed("the project's settings are invalid").cause(problem).hint("leoflow verify-config")
    })?;
    let base = prepare_interpreter(context, config.and_then(|config| config.python).as_deref()).await?;
    let interpreter = environment::for_project(context, &base, &file_settings).await.map_err(|reason| {
        Error::failed(format!("cannot build the environment of {project}")).cause(reason).hint("leoflow env list")
    })?;
    let shell = env_vars::path("SHELL").unwrap_or_else(|| PathBuf::from("/bin/sh"));
    let command = if command.is_empty() { vec![shell.to_string_lossy().into_owned()] } else { command.to_vec() };
    let mut options = json!({
        "command": command, "cwd": current_folder, "roots": request.roots, "work_in": request.folders,
    });
    if let Some(folder) = interpreter.environment_folder().filter(|_| interpreter.has_airflow_sdk) {
        // Airflow's home is in the environment's folder and removed with it, because its database has the tables of
        // that Airflow version.
        options["airflow_home"] = folder.join("airflow").to_string_lossy().into();
    }
    let error = Command::new(&interpreter.program)
        .args(interpreter.arguments(Job::Shell, &options))
        .env_remove("PYTHONHOME")
        .exec();
    Err(Error::io("run", &interpreter.program, &error))
}
