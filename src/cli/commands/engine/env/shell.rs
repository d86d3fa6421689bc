//! `leoflow env shell`: a shell or one command with a project's Python, variables and import folders.

use super::project_python::ProjectPython;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::sys::env_vars;
use leoflow_python::Job;
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Replaces this process by the command, or by the user's shell. Returns only on failure.
pub async fn run(context: &Context<'_>, project: &str, command: &[String]) -> Result<u8, Error> {
    let ProjectPython { request, interpreter, .. } = ProjectPython::new(context, Path::new(project)).await?;
    let shell = env_vars::path("SHELL").unwrap_or_else(|| PathBuf::from("/bin/sh"));
    let command = if command.is_empty() { vec![shell.to_string_lossy().into_owned()] } else { command.to_vec() };
    let mut options = json!({
        "command": command, "cwd": env_vars::current_dir().unwrap_or_default(), "roots": request.roots,
        "work_in": request.folders,
    });
    if let Some(folder) = interpreter.project_airflow_home() {
        options["airflow_home"] = folder.to_string_lossy().into();
    }
    let error = Command::new(&interpreter.program)
        .args(interpreter.arguments(Job::Shell, &options))
        .env_remove("PYTHONHOME")
        .exec();
    Err(Error::io("run", &interpreter.program, &error))
}
