//! `leoflow test [PROJECT]`: the project's pytest.

use super::env::project_python::ProjectPython;
use crate::commands::bring::other_instance_of;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::config::leoflow_yaml;
use leoflow_python::{Job, dag_files, environments};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

#[derive(Args, Debug)]
#[command(
    after_help = "Runs pytest in the project's folder, with its environment, variables and import folders, and tests that each\n\
                  DAG file can be imported and that the connections of its tasks exist. Test files have the fixtures\n\
                  dag_bag, run_dag and run_task.\n\n\
                  Examples:\n  leoflow test                           test the project in this folder\n  \
                  leoflow test sales -- -x -k total      pass options to pytest\n  \
                  leoflow test sales -- --pdb            stop in a debugger at the first failure"
)]
pub struct Test {
    /// The project: the name of a folder in the workspace, or its path
    #[arg(default_value = ".")]
    project: PathBuf,
    /// Arguments of pytest
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Replaces this process by pytest. Returns only on failure.
pub async fn run(context: &Context<'_>, args: &Test) -> Result<u8, Error> {
    let ProjectPython { request, interpreter, .. } = ProjectPython::new(context, &args.project).await?;
    let project = request.project.clone().unwrap_or_default();
    if let Some(name) = other_instance_of(&context.home, &project) {
        context.printer.warning(format!(
            "{} is in the instance {name}, whose Variables and Connections are read with: leoflow --instance {name} test",
            project.display()
        ));
    }
    let files = dag_files(&project, request.workspace.as_deref()).map_err(Error::cannot("read", &project))?;
    let pytest = match interpreter.site_folders().iter().any(|folder| folder.join("pytest").is_dir()) {
        true => None,
        false => {
            let python = interpreter.python().map_err(Error::failed)?;
            let installed = environments::ensure_pytest(&context.home, &python, context.printer);
            let failed = |error| Error::failed("cannot install pytest").cause(error).hint("leoflow add pytest");
            Some(installed.map_err(failed)?)
        }
    };
    let mut options = json!({
        "roots": request.roots, "work_in": request.folders, "pytest": pytest, "files": files,
        "settings": leoflow_yaml::load(&project).ok().flatten(), "arguments": args.arguments,
    });
    if let Some(folder) = interpreter.project_airflow_home() {
        options["airflow_home"] = folder.to_string_lossy().into();
    }
    let mut command = Command::new(&interpreter.program);
    command.args(interpreter.arguments(Job::Pytest, &options)).env_remove("PYTHONHOME");
    Err(Error::io("run", &interpreter.program, &command.exec()))
}
