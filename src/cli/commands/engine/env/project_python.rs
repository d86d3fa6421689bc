//! The Python of a project, for commands of a user who writes its DAGs.

use crate::commands::engine::add::dag_file;
use crate::commands::engine::environment;
use crate::commands::engine::project_folder::{no_project, project_folder};
use crate::commands::engine::validate::prepare_interpreter;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::sys::env_vars;
use leoflow_python::{Interpreter, Request, file_context};
use std::path::{Path, PathBuf};

/// A project, one of its DAG files, and the Python of its environment.
pub struct ProjectPython {
    pub folder: PathBuf,
    pub request: Request,
    pub interpreter: Interpreter,
}

impl ProjectPython {
    /// Builds the project's environment if needed. `project` is a path, or the name of a folder in the workspace.
    pub async fn new(context: &Context<'_>, project: &Path) -> Result<Self, Error> {
        let config = context.config()?.map(|loaded| loaded.config);
        let workspace = config.as_ref().and_then(|config| config.workspace.clone());
        let current_folder = env_vars::current_dir().unwrap_or_default();
        let folder = project_folder(workspace.as_deref(), &current_folder, project)
            .ok_or_else(|| no_project(workspace.as_deref(), project))?;
        let file = dag_file(&folder, workspace.as_deref())?;
        // As for a scan, any other folder is a project in a workspace that is its parent.
        let is_elsewhere = workspace.as_ref().is_none_or(|workspace| !folder.starts_with(workspace));
        let is_nested = file.parent() != Some(&folder);
        let around = if is_elsewhere && is_nested { folder.parent() } else { workspace.as_deref() };
        let request = Request::new(file, around, context.home.api_socket());
        let file_settings = file_context(&request).settings.map_err(|problem| {
            Error::failed("the project's settings are invalid").cause(problem).hint("leoflow verify-config")
        })?;
        let base = prepare_interpreter(context, config.and_then(|config| config.python).as_deref()).await?;
        let interpreter = environment::for_project(context, &base, &file_settings).await.map_err(|reason| {
            Error::failed(format!("cannot build the environment of {}", project.display()))
                .cause(reason)
                .hint("leoflow env list")
        })?;
        Ok(Self { folder, request, interpreter })
    }
}
