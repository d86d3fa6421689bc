//! `leoflow env link`: a virtual environment in a project's folder, for editors.

use super::project_python::ProjectPython;
use crate::commands::engine::project_folder::{no_project, project_folder};
use crate::context::Context;
use crate::error::Error;
use leoflow_base::sys::{env_vars, shell};
use leoflow_python::linked_venv::{self, LinkError};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Makes the `.venv` of a project, or brings it up to date; returns its path.
pub async fn make(context: &Context<'_>, project: &Path) -> Result<PathBuf, Error> {
    let ProjectPython { request, interpreter, .. } = ProjectPython::new(context, project).await?;
    let folder = request.project.clone().unwrap_or_default();
    linked_venv::link(&interpreter, &folder, &request).map_err(|error| refusal(error, project))
}

pub async fn link(context: &Context<'_>, project: &Path) -> Result<u8, Error> {
    let venv = make(context, project).await?;
    let python = venv.join("bin/python");
    context.printer.show(&json!({"venv": venv, "python": python}), |printer| {
        printer.line(format!("{} leads to the project's environment", venv.display()));
        printer.note(format!("Select this interpreter in your editor: {}", python.display()));
        let activate = venv.join("bin/activate");
        printer.note(format!("or in a terminal: source {}", shell::word(&activate.to_string_lossy())));
    })
}

pub fn remove(context: &Context<'_>, project: &Path) -> Result<u8, Error> {
    let workspace = context.workspace()?;
    let current_folder = env_vars::current_dir().unwrap_or_default();
    let folder = project_folder(workspace.as_deref(), &current_folder, project)
        .ok_or_else(|| no_project(workspace.as_deref(), project))?;
    // Also if the project has no DAG file any more.
    let folder = match folder.parent() {
        Some(parent) if folder.ends_with("dags") && !folder.join(linked_venv::FOLDER).exists() => parent.to_owned(),
        _ => folder,
    };
    let is_removed = linked_venv::unlink(&context.home, &folder).map_err(|error| refusal(error, project))?;
    let venv = folder.join(linked_venv::FOLDER);
    context.printer.show(&json!({"venv": venv, "removed": is_removed}), |printer| {
        printer.line(match is_removed {
            true => format!("Removed {}", venv.display()),
            false => format!("There is no {}", venv.display()),
        });
    })
}

fn refusal(error: LinkError, project: &Path) -> Error {
    let shown = match project.as_os_str().is_empty() {
        true => ".".to_owned(),
        false => shell::word(&project.to_string_lossy()),
    };
    let hints = match &error {
        LinkError::NotOurs(venv) => vec![
            format!("move it away, then repeat this: mv {0} {0}.old", shell::word(&venv.to_string_lossy())),
            format!("or use the project's Python without it: leoflow env shell {shown}"),
        ],
        LinkError::OfOtherHome { home, .. } => {
            vec![format!("leoflow --home {} env link --remove {shown}", shell::word(&home.to_string_lossy()))]
        }
        LinkError::Failed { .. } | LinkError::Io(_) => vec![format!("leoflow env shell {shown}")],
    };
    hints.into_iter().fold(Error::failed(error), |error, hint| error.hint(hint))
}
