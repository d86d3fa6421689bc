//! `leoflow add PACKAGE…`: one more thing that a project depends on.

use super::environment;
use super::validate::prepare;
use crate::cli::env_args::Add;
use crate::commands::context::Context;
use crate::config::project;
use crate::error::Error;
use crate::python::{Request, Said, as_in_workspace, dag_files, declared_with, listed_beside};
use crate::sys::{env_vars, files};
use std::path::{Path, PathBuf};

/// What is added is installed first: a project that asks for what cannot be had would be broken.
pub async fn run(context: &Context<'_>, args: &Add) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone());
    let here = env_vars::current_dir().map_err(Error::failed)?;
    let folder =
        as_in_workspace(workspace.as_deref(), &args.project.as_ref().map_or(here.clone(), |one| here.join(one)));
    let file = dag_file(&folder, workspace.as_deref())?;
    let request = Request::new(file, workspace.as_deref(), context.home.api_socket());
    if request.project.as_ref() != Some(&folder) {
        return Err(Error::failed(format!("{} is no project of its own", folder.display()))
            .hint("go to a project's folder, or name one with --project"));
    }
    let place = folder.join(project::FILE);
    // Where a link leads.
    let place = place.canonicalize().unwrap_or(place);
    let read = || files::read_text(&place, project::SIZE_LIMIT).map_err(|error| Error::io("read", &place, &error));
    let text = read()?;
    let refused =
        |why: String| Error::failed(why).hint("nothing was changed; docs/environments.md says where it may stand");
    let listed = listed_beside(&request, text.as_deref().unwrap_or_default()).map_err(refused)?;
    if let Some(listed) = listed {
        let what = args.packages.join(", ");
        return Err(Error::failed(format!("{listed} lists what this project depends on"))
            .hint(format!("nothing was changed; add {what} to it")));
    }
    let changed = project::add_dependencies(text.as_deref().unwrap_or_default(), &args.packages)
        .map_err(|error| refused(format!("{}: {error}", place.display())))?;
    let declared = declared_with(&request, &changed).map_err(refused)?;
    let said = Said { settings: None, declared };
    let plain = prepare(context, config.and_then(|config| config.python).as_deref()).await?;
    environment::of(context, &plain, &said).await.map_err(|reason| {
        Error::failed(format!("{} cannot be installed", args.packages.join(", ")))
            .cause(reason)
            .hint("nothing was changed")
    })?;
    // That took a while.
    if read()? != text {
        return Err(refused(format!("{} was changed meanwhile", place.display())).hint("the same command again"));
    }
    let mode = files::mode(&place).unwrap_or(0o644);
    files::write_atomic(&place, changed.as_bytes(), mode).map_err(|error| Error::io("write", &place, &error))?;
    context.printer.line(format!("{}: {} added and installed", place.display(), args.packages.join(", ")));
    Ok(0)
}

/// Some DAG file of the project, by which it is known what stands beside it.
fn dag_file(folder: &Path, workspace: Option<&Path>) -> Result<PathBuf, Error> {
    let mut found = dag_files(folder, workspace).map_err(|error| Error::io("read", folder, &error))?;
    found.sort_by_key(|file| file.components().count());
    found.into_iter().next().ok_or_else(|| {
        Error::failed(format!("{} has no DAG file, so it is no project", folder.display()))
            .hint("go to a project's folder, or name one with --project")
            .hint("leoflow init DIR makes one")
    })
}
