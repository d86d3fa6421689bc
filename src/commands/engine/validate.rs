//! `leoflow validate [PATH]`: imports DAG files as the server would, and keeps nothing.

use super::environment::parse_in_its_own;
use crate::cli::api::Api;
use crate::cli::engine_args::Validate;
use crate::commands::context::Context;
use crate::engine::dag_check;
use crate::error::Error;
use crate::python::{Children, Found, Interpreter, Request, as_in_workspace, dag_files};
use crate::setup::ServersPython;
use crate::sys::env_vars;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What became of one file.
struct Checked {
    path: PathBuf,
    dag_ids: Vec<String>,
    error: Option<String>,
}

pub async fn run(context: &Context<'_>, args: &Validate) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.clone());
    let python = config.and_then(|config| config.python);
    let mut files = Vec::new();
    for path in paths_of(args, workspace.as_deref())? {
        files.extend(files_of(path, workspace.as_deref())?);
    }
    // Named twice, it is still one.
    files.sort();
    files.dedup();
    let interpreter = prepare(context, python.as_deref()).await?;
    let children = Children::new(&context.home);
    let mut checked = Vec::new();
    for path in files {
        let request = Request::new(path.clone(), workspace.as_deref(), context.home.api_socket());
        let parsed = parse_in_its_own(context, &interpreter, &children, &request).await.map(|(_, found)| found);
        checked.push(Checked::new(path, parsed));
    }
    children.end().await;
    mark_duplicates(&mut checked);
    print(context, &checked)
}

const SERVERS_PATIENCE: Duration = Duration::from_secs(3);

/// The Python that a running server has for DAGs, which may have another search path than this shell. Nobody answers
/// where none runs.
pub async fn servers_python(context: &Context<'_>) -> Option<ServersPython> {
    if !context.home.api_socket().exists() {
        return None;
    }
    let api = Api::new(&context.home);
    // A server that does not answer is another check's trouble.
    let asked = tokio::time::timeout(SERVERS_PATIENCE, api.get("/local/python")).await;
    asked.ok()?.ok()
}

/// A Python with our package, the server's where there is one; made ready in a home that is not set up, too.
pub async fn prepare(context: &Context<'_>, configured: Option<&Path>) -> Result<Interpreter, Error> {
    let servers = servers_python(context).await.and_then(|servers| servers.python);
    let python = servers.as_deref().or(configured);
    context.home.create().map_err(|error| Error::io("create", context.home.root(), &error))?;
    Interpreter::prepare(&context.home, python).map_err(|missing| {
        let mut lines = missing.reason.lines();
        let base = Error::failed(lines.next().unwrap_or_default());
        lines.fold(base, |error, line| error.hint(line))
    })
}

fn paths_of(args: &Validate, workspace: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    let here = env_vars::current_dir().map_err(Error::failed)?;
    match workspace {
        _ if !args.paths.is_empty() => {
            Ok(args.paths.iter().map(|path| as_in_workspace(workspace, &here.join(path))).collect())
        }
        Some(workspace) => Ok(vec![workspace.to_owned()]),
        None => Err(Error::failed("Leoflow is not set up in this home, so there is no workspace")
            .hint("leoflow validate FILE")
            .hint("leoflow setup")),
    }
}

fn files_of(path: PathBuf, workspace: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    if path.is_file() {
        return Ok(vec![path]);
    }
    dag_files(&path, workspace).map_err(|error| Error::io("read", &path, &error))
}

impl Checked {
    fn new(path: PathBuf, parsed: Result<Found, String>) -> Self {
        let id = |dag: &Value| dag["dag_id"].as_str().unwrap_or_default().to_owned();
        match parsed {
            // What the server would refuse is refused here.
            Ok(found) => Self {
                path,
                dag_ids: found.structures.iter().map(id).collect(),
                error: found.error.or_else(|| dag_check::read(&found.structures).err()),
            },
            Err(reason) => Self { path, dag_ids: Vec::new(), error: Some(reason) },
        }
    }
}

fn mark_duplicates(checked: &mut [Checked]) {
    for at in 0..checked.len() {
        let (before, rest) = checked.split_at_mut(at);
        let one = &mut rest[0];
        for other in before {
            if let Some(id) = one.dag_ids.iter().find(|id| other.dag_ids.contains(id)) {
                let (first, second) = (other.path.display().to_string(), one.path.display().to_string());
                one.error = Some(dag_check::used_twice(id, &first, &second));
                break;
            }
        }
    }
}

fn print(context: &Context<'_>, checked: &[Checked]) -> Result<u8, Error> {
    let failed = checked.iter().filter(|one| one.error.is_some()).count();
    if context.printer.json {
        let files: Vec<Value> =
            checked.iter().map(|one| json!({"file": one.path, "dag_ids": one.dag_ids, "error": one.error})).collect();
        context.printer.json(&json!({"ok": failed == 0, "files": files}))?;
        return Ok(u8::from(failed > 0));
    }
    for one in checked {
        match &one.error {
            None if one.dag_ids.is_empty() => context.printer.line(format!("{}: makes no DAG", one.path.display())),
            None => context.printer.line(format!("{}: {}", one.path.display(), one.dag_ids.join(", "))),
            Some(error) => {
                context.printer.line(format!("{}: cannot be imported", one.path.display()));
                error.lines().for_each(|line| context.printer.line(format!("  {line}")));
            }
        }
    }
    if checked.is_empty() {
        context.printer.line("no DAG files there");
    } else if failed > 0 {
        context.printer.note(format!("{failed} of {} file(s) cannot be imported", checked.len()));
    }
    Ok(u8::from(failed > 0))
}
