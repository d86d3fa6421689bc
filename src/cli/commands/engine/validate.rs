//! `leoflow validate [PATH]`: imports DAG files as the server does, and stores nothing.

use super::environment::{ParseError, ProjectPythons};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::Args;
use leoflow_base::sys::env_vars;
use leoflow_engine::model::dag_check;
use leoflow_lifecycle::setup::ServerPython;
use leoflow_python::{Children, Interpreter, ParseOutput, Request, dag_files, path_in_workspace};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow validate                  check every DAG file in the workspace\n  leoflow validate reports/dag.py   check some files or folders"
)]
pub struct Validate {
    /// The files and folders to check [default: the workspace]
    pub paths: Vec<PathBuf>,
}

/// The result of one file, as `--json` prints it.
#[derive(Serialize)]
pub struct CheckedFile {
    #[serde(rename = "file")]
    pub path: PathBuf,
    dag_ids: Vec<String>,
    pub error: Option<String>,
    warnings: Vec<String>,
}

pub async fn run(context: &Context<'_>, args: &Validate) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone());
    let python = config.and_then(|config| config.python);
    let mut files = Vec::new();
    for path in paths_of(args, workspace.as_deref())? {
        files.extend(files_of(path, workspace.as_deref())?);
    }
    // Check a file only once, even if several arguments include it.
    files.sort();
    files.dedup();
    let interpreter = prepare_interpreter(context, python.as_deref()).await?;
    print(context, &check_files(context, &interpreter, files, workspace.as_deref()).await)
}

/// Imports DAG files as the server does, and stores nothing.
pub async fn check_files(
    context: &Context<'_>,
    interpreter: &Interpreter,
    files: Vec<PathBuf>,
    workspace: Option<&Path>,
) -> Vec<CheckedFile> {
    let children = Children::new(&context.home);
    let mut checked = Vec::new();
    let mut pythons = ProjectPythons::default();
    let count = files.len();
    for (index, path) in files.into_iter().enumerate() {
        if count > 1 {
            context.printer.progress(&format!("Importing file {} of {count}: {}", index + 1, path.display()));
        }
        let request = Request::new(path.clone(), workspace, context.home.api_socket());
        let request = Request { is_validation: true, ..request };
        let parsed = pythons.parse(context, interpreter, &children, &request).await;
        checked.push(CheckedFile::new(path, parsed));
    }
    children.end().await;
    mark_duplicates(&mut checked);
    checked
}

/// Time limit for the server's answer.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the Python that a running server uses for DAGs, whose PATH may differ from this shell's. `None` when no
/// server responds.
pub async fn servers_python(context: &Context<'_>) -> Option<ServerPython> {
    if !context.home.api_socket().exists() {
        return None;
    }
    let api = context.api();
    // `leoflow doctor` and `leoflow lite status` report a server that does not respond.
    let response = tokio::time::timeout(SERVER_TIMEOUT, api.get("/local/python")).await;
    response.ok()?.ok()
}

/// Prepares an interpreter with the `leoflow` package: the server's Python if a server responds, else the configured
/// one or one that it finds. Also works in a home that is not set up.
pub async fn prepare_interpreter(context: &Context<'_>, configured: Option<&Path>) -> Result<Interpreter, Error> {
    let server_python = servers_python(context).await.and_then(|server_python| server_python.python);
    let python = server_python.as_deref().or(configured);
    context.home.create().map_err(Error::cannot("create", context.home.root()))?;
    Interpreter::prepare(&context.home, python).map_err(|missing| {
        let mut lines = missing.reason.lines();
        let base = Error::failed(lines.next().unwrap_or_default());
        lines.fold(base, |error, line| error.hint(line))
    })
}

/// The paths to check: the arguments, or the workspace.
fn paths_of(args: &Validate, workspace: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    match workspace {
        _ if !args.paths.is_empty() => {
            args.paths.iter().map(|path| Ok(path_in_workspace(workspace, &env_vars::absolute(path)?))).collect()
        }
        Some(workspace) => Ok(vec![workspace.to_owned()]),
        None => Err(Error::failed("Leoflow is not set up in this home, so it has no workspace")
            .hint("leoflow validate FILE")
            .hint("leoflow setup")),
    }
}

/// The DAG files in a folder, or the file itself.
fn files_of(path: PathBuf, workspace: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    if path.is_file() {
        return Ok(vec![path]);
    }
    dag_files(&path, workspace).map_err(|error| {
        Error::io("read", &path, &error).hint("leoflow validate without a path checks every DAG file in the workspace")
    })
}

impl CheckedFile {
    fn new(path: PathBuf, parsed: Result<ParseOutput, ParseError>) -> Self {
        let dag_id = |dag: &Value| dag["dag_id"].as_str().unwrap_or_default().to_owned();
        match parsed {
            // Run the server's checks on the structures, too.
            Ok(output) => Self {
                path,
                dag_ids: output.structures.iter().map(dag_id).collect(),
                error: output
                    .error
                    .or_else(|| dag_check::read(&output.structures).err().map(|error| error.to_string())),
                warnings: output.warnings,
            },
            Err(error) => Self { path, dag_ids: Vec::new(), error: Some(error.to_string()), warnings: Vec::new() },
        }
    }
}

/// Sets an error on each file that defines a DAG id of an earlier file.
fn mark_duplicates(checked: &mut [CheckedFile]) {
    for index in 0..checked.len() {
        let (earlier_files, remaining_files) = checked.split_at_mut(index);
        let checked_file = &mut remaining_files[0];
        for other in earlier_files {
            if let Some(id) = checked_file.dag_ids.iter().find(|id| other.dag_ids.contains(id)) {
                let (first, second) = (other.path.display().to_string(), checked_file.path.display().to_string());
                checked_file.error = Some(dag_check::used_twice(id, &first, &second));
                break;
            }
        }
    }
}

fn print(context: &Context<'_>, checked: &[CheckedFile]) -> Result<u8, Error> {
    let failed = checked.iter().filter(|checked_file| checked_file.error.is_some()).count();
    context.printer.show(&json!({"ok": failed == 0, "files": checked}), |printer| {
        for CheckedFile { path, dag_ids, error, .. } in checked {
            let path = path.display();
            match error {
                None if dag_ids.is_empty() => printer.line(format!("{path}: defines no DAG")),
                None => printer.line(format!("{path}: {}", dag_ids.join(", "))),
                Some(error) => {
                    printer.line(format!("{path}: fails to import"));
                    error.lines().for_each(|line| printer.line(format!("  {line}")));
                }
            }
        }
        // A set, because the files of a project share its `.env` and so its warnings.
        let warnings: BTreeSet<&String> = checked.iter().flat_map(|checked_file| &checked_file.warnings).collect();
        warnings.into_iter().for_each(|warning| printer.warning(warning));
        if checked.is_empty() {
            printer.line("No DAG files found");
        } else if failed > 0 {
            printer.note(format!("Failed to import {failed} of {}", counted(checked.len(), "file")));
        }
    })?;
    Ok(u8::from(failed > 0))
}
