//! `leoflow add PACKAGE…`: adds dependencies to a project.

use super::environment;
use super::validate::prepare;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::config::project;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_python::{FileSettings, Request, as_in_workspace, dag_files, declared_with, listed_beside};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(after_help = "The packages are installed first, then written to `dependencies` in leoflow.yaml.\n\n\
                        Examples:\n  leoflow add pandas\n  leoflow add 'polars>=1' requests --project ~/leoflow/sales")]
pub struct Add {
    /// Packages in pip's syntax, for example 'polars>=1'
    #[arg(required = true, value_name = "PACKAGE")]
    pub packages: Vec<String>,
    /// The project's folder [default: the current folder]
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
}

/// Installs the packages first: a project that declares packages that cannot be installed would be broken.
pub async fn run(context: &Context<'_>, args: &Add) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone());
    let current_folder = env_vars::current_dir().map_err(Error::failed)?;
    let folder = as_in_workspace(
        workspace.as_deref(),
        &args.project.as_ref().map_or(current_folder.clone(), |path| current_folder.join(path)),
    );
    let file = dag_file(&folder, workspace.as_deref())?;
    let request = Request::new(file, workspace.as_deref(), context.home.api_socket());
    if request.project.as_ref() != Some(&folder) {
        return Err(Error::failed(format!("{} is not a project", folder.display()))
            .hint("change to a project's folder, or specify one with --project"));
    }
    let settings_file = folder.join(project::FILE);
    // Write to the target of a symlink, not over the link.
    let settings_file = settings_file.canonicalize().unwrap_or(settings_file);
    let read = || {
        files::read_text(&settings_file, project::SIZE_LIMIT).map_err(|error| Error::io("read", &settings_file, &error))
    };
    let text = read()?;
    let refused = |reason: String| {
        Error::failed(reason)
            .hint("nothing was changed; see docs/explanation/environments.md for where dependencies may be declared")
    };
    let declaring_file = listed_beside(&request, text.as_deref().unwrap_or_default()).map_err(refused)?;
    if let Some(declaring_file) = declaring_file {
        let packages = args.packages.join(", ");
        return Err(Error::failed(format!("this project's dependencies are declared in {declaring_file}"))
            .hint(format!("nothing was changed; add {packages} to {declaring_file}")));
    }
    let changed = project::add_dependencies(text.as_deref().unwrap_or_default(), &args.packages)
        .map_err(|error| refused(format!("{}: {error}", settings_file.display())))?;
    let declared = declared_with(&request, &changed).map_err(refused)?;
    let file_settings = FileSettings { settings: None, declared };
    let base_interpreter = prepare(context, config.and_then(|config| config.python).as_deref()).await?;
    environment::for_project(context, &base_interpreter, &file_settings).await.map_err(|reason| {
        Error::failed(format!("cannot install {}", args.packages.join(", "))).cause(reason).hint("nothing was changed")
    })?;
    // The file may have changed during the installation.
    if read()? != text {
        return Err(refused(format!("{} was changed in the meantime", settings_file.display()))
            .hint("run the same command again"));
    }
    let mode = files::mode(&settings_file).unwrap_or(0o644);
    files::write_atomic(&settings_file, changed.as_bytes(), mode)
        .map_err(|error| Error::io("write", &settings_file, &error))?;
    if context.printer.json {
        context.printer.json(&serde_json::json!({"packages": args.packages, "file": settings_file}))?;
        return Ok(0);
    }
    context.printer.line(format!("Installed {} and added it to {}", args.packages.join(", "), settings_file.display()));
    Ok(0)
}

/// Returns a DAG file of the project, the least nested one, to find the settings next to it.
fn dag_file(folder: &Path, workspace: Option<&Path>) -> Result<PathBuf, Error> {
    let mut candidates = dag_files(folder, workspace).map_err(|error| Error::io("read", folder, &error))?;
    candidates.sort_by_key(|file| file.components().count());
    candidates.into_iter().next().ok_or_else(|| {
        Error::failed(format!("{} has no DAG file, so it is not a project", folder.display()))
            .hint("change to a project's folder, or specify one with --project")
            .hint("create a project with leoflow init DIR")
    })
}
