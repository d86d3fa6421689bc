//! The Python of a project, for commands of a user who writes its DAGs.

use crate::commands::engine::add::dag_file;
use crate::commands::engine::environment;
use crate::commands::engine::project_folder::{file_request, no_project, not_a_project, project_folder};
use crate::commands::engine::validate::prepare_interpreter;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::sys::env_vars;
use leoflow_python::{Interpreter, Request};
use std::path::Path;

/// A DAG file of a project, and the Python of its environment.
pub struct ProjectPython {
    pub request: Request,
    pub interpreter: Interpreter,
    /// The Python without the project's packages.
    pub base: Interpreter,
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
        let (request, file_settings) = file_request(context, workspace.as_deref(), &file)?;
        // The folder itself, or one in it such as `dags`.
        if !request.project.as_ref().is_some_and(|project| folder.starts_with(project)) {
            return Err(not_a_project(workspace.as_deref(), &folder, &request.path));
        }
        let base = prepare_interpreter(context, config.and_then(|config| config.python).as_deref()).await?;
        let interpreter = environment::for_project(context, &base, &file_settings).await.map_err(|reason| {
            Error::failed(format!("cannot build the environment of {}", project.display()))
                .cause(reason)
                .hint("leoflow env list")
        })?;
        Ok(Self { request, interpreter, base })
    }
}
