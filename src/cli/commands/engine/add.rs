//! `leoflow add PACKAGE…`: adds dependencies to a project.

use super::environment;
use super::project_folder::{no_project, project_folder};
use super::validate::prepare_interpreter;
use crate::api_client::encode;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::config::leoflow_yaml;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_python::environments::{Declared, added_to};
use leoflow_python::{
    FileSettings, Request, dag_files, declared_with, file_context, find_requirements_source, linked_venv,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args, Debug)]
#[command(after_help = "The packages are installed first, then written to the project's requirements.txt, or to\n\
                        `dependencies` in leoflow.yaml if it has none.\n\n\
                        Examples:\n  leoflow add pandas\n  leoflow add 'polars>=1' requests --project sales")]
pub struct Add {
    /// Packages in pip's syntax, for example 'polars>=1'
    #[arg(required = true, value_name = "PACKAGE")]
    pub packages: Vec<String>,
    /// The project: a path, or the name of a folder in the workspace [default: the current folder]
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<PathBuf>,
}

/// The change of the file that lists a project's dependencies.
struct Change {
    file: PathBuf,
    /// The current text; `None` if the file does not exist.
    before: Option<String>,
    /// The text with the added packages.
    after: String,
    /// The dependencies that the project declares after the change.
    declared: Option<Declared>,
}

/// Installs the packages before it changes the file, so that no project declares packages that cannot be installed.
pub async fn run(context: &Context<'_>, args: &Add) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone());
    let current_folder = match args.project {
        Some(_) => env_vars::current_dir().unwrap_or_default(),
        None => env_vars::absolute(Path::new(""))?,
    };
    let project = args.project.as_deref().unwrap_or(Path::new(""));
    let folder = project_folder(workspace.as_deref(), &current_folder, project)
        .ok_or_else(|| no_project(workspace.as_deref(), project))?;
    let file = dag_file(&folder, workspace.as_deref())?;
    let request = Request::new(file, workspace.as_deref(), context.home.api_socket());
    if request.project.as_ref() != Some(&folder) {
        return Err(Error::failed(format!("{} is not a project", folder.display()))
            .hint("change to a project's folder, or specify one with --project"));
    }
    let change = change(&request, &leoflow_yaml::path(&folder), &args.packages)?;
    let file_settings = FileSettings { declared: change.declared.clone(), ..FileSettings::default() };
    let base_interpreter = prepare_interpreter(context, config.and_then(|config| config.python).as_deref()).await?;
    let interpreter = environment::for_project(context, &base_interpreter, &file_settings).await.map_err(|reason| {
        Error::failed(format!("cannot install {}", args.packages.join(", "))).cause(reason).hint("nothing was changed")
    })?;
    // The file may have changed during the installation.
    if read(&change.file)? != change.before {
        return Err(refused(format!("{} was changed in the meantime", change.file.display()))
            .hint("run the same command again"));
    }
    let mode = files::mode(&change.file).unwrap_or(0o644);
    files::write_atomic(&change.file, change.after.as_bytes(), mode).map_err(Error::cannot("write", &change.file))?;
    linked_venv::refresh(&interpreter, &folder, &request).unwrap_or_else(|error| {
        context.printer.warning(format!("{error}; run: {}", linked_venv::command(&interpreter, &folder)));
    });
    if workspace.as_ref().is_some_and(|workspace| folder.starts_with(workspace)) {
        wait_until_imported(context, &folder).await;
    }
    context.printer.show(&json!({"packages": args.packages, "file": change.file}), |printer| {
        printer.line(format!("Installed {} and added it to {}", args.packages.join(", "), change.file.display()));
    })
}

/// How long to wait until the running server has imported the project's DAGs with the new packages, so that the next
/// command shows the result.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until the running server has imported the DAG files of the project again, at most `IMPORT_TIMEOUT`. Returns at
/// once without a server.
async fn wait_until_imported(context: &Context<'_>, folder: &Path) {
    if !context.home.api_socket().exists() {
        return;
    }
    let api = context.api();
    let path = format!("/local/dag-refresh?folder={}", encode(&folder.to_string_lossy()));
    let imported = async {
        // The server answers before the end of the import if it takes longer than 10 s or if the environment is still
        // being built.
        while let Ok(answer) = api.post::<Value>(&path, &json!({})).await
            && (answer["state"] == "importing" || answer["state"] == "building")
        {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    // The import may take longer; nothing depends on its end.
    let _ = tokio::time::timeout(IMPORT_TIMEOUT, imported).await;
}

fn read(file: &Path) -> Result<Option<String>, Error> {
    files::read_text(file, leoflow_yaml::SIZE_LIMIT).map_err(Error::cannot("read", file))
}

fn refused(reason: impl ToString) -> Error {
    Error::failed(reason.to_string())
        .hint("nothing was changed; see docs/explanation/environments.md for where dependencies may be declared")
}

/// Decides which file gets the packages: the requirements file in use, or the project's settings.
fn change(request: &Request, settings_file: &Path, packages: &[String]) -> Result<Change, Error> {
    // Write to the target of a symlink, not over the link.
    let settings_file = settings_file.canonicalize().unwrap_or_else(|_| settings_file.to_owned());
    let settings = read(&settings_file)?;
    let text = settings.clone().unwrap_or_default();
    let has_own_list = leoflow_yaml::has_additional_dependencies(&text);
    let other_list = if has_own_list { None } else { find_requirements_source(request, &text).map_err(refused)? };
    let Some(file) = other_list else {
        let after = leoflow_yaml::add_dependencies(&text, packages)
            .map_err(|error| refused(format!("{}: {error}", settings_file.display())))?;
        let declared = declared_with(request, &after).map_err(refused)?;
        return Ok(Change { file: settings_file, before: settings, after, declared });
    };
    if file.extension().is_none_or(|extension| extension != "txt" && extension != "in") {
        let (shown, packages) = (file.display(), packages.join(", "));
        return Err(Error::failed(format!("this project's dependencies are declared in {shown}"))
            .hint(format!("nothing was changed; add {packages} to {shown}")));
    }
    let file = file.canonicalize().unwrap_or(file);
    let before = read(&file)?;
    let after = added_to(before.as_deref().unwrap_or_default(), packages);
    let declared = file_context(request).settings.map_err(refused)?.declared;
    let declared = declared.unwrap_or_default().with_packages(packages).map_err(refused)?;
    Ok(Change { file, before, after, declared: Some(declared) })
}

/// Returns a DAG file of the project, the least nested one, to find the settings next to it.
pub(super) fn dag_file(folder: &Path, workspace: Option<&Path>) -> Result<PathBuf, Error> {
    let mut candidates = dag_files(folder, workspace).map_err(Error::cannot("read", folder))?;
    candidates.sort_by_key(|file| file.components().count());
    candidates.into_iter().next().ok_or_else(|| {
        Error::failed(format!("{} has no DAG file, so it is not a project", folder.display()))
            .hint("change to a project's folder, or name a project in the command")
            .hint("create a project with leoflow init DIR")
    })
}
