//! `leoflow env …`: what is installed for projects.

use crate::cli::api::{Api, list_of};
use crate::cli::args::EnvCommand;
use crate::commands::context::Context;
use crate::error::Error;
use crate::sys::{env_vars, files};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PLACE: &str = "/local/environments";

pub async fn run(context: &Context<'_>, command: &EnvCommand) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let printer = context.printer;
    match command {
        EnvCommand::List => list(context, &api.get(PLACE).await?),
        EnvCommand::Show { project } => show(context, &of_project(&api, project).await?),
        EnvCommand::Lock { project, write } => {
            let one = of_project(&api, project).await?;
            let lock = one["lock"].as_str().unwrap_or_default();
            if *write {
                return write_lock(context, project, lock);
            }
            printer.line(lock.trim_end());
            Ok(0)
        }
        EnvCommand::Update { project } => {
            let done: Value = api.patient().post(&format!("{PLACE}/update"), &json!({"project": project})).await?;
            if printer.json {
                printer.json(&done)?;
                return Ok(u8::from(list_of(&done["problems"]).next().is_some()));
            }
            if list_of(&done["changes"]).next().is_none() && list_of(&done["problems"]).next().is_none() {
                printer.line("everything is as new as it may be");
            }
            list_of(&done["changes"]).for_each(|change| printer.line(change.as_str().unwrap_or_default()));
            let problems: Vec<&str> = list_of(&done["problems"]).filter_map(Value::as_str).collect();
            if problems.is_empty() {
                return Ok(0);
            }
            Err(Error::failed("not everything could be brought up to date")
                .cause(problems.join("\n"))
                .hint("leoflow env list"))
        }
        EnvCommand::Prune { dry_run } => prune(context, &api, *dry_run).await,
        EnvCommand::Shell { project, command } => {
            let one = of_project(&api, project).await?;
            let folder = one["folder"].as_str().ok_or_else(|| {
                Error::failed("it is not built on this machine yet").hint(format!("leoflow env show {project}"))
            })?;
            Err(shell(Path::new(folder), command))
        }
    }
}

fn write_lock(context: &Context<'_>, project: &str, lock: &str) -> Result<u8, Error> {
    let workspace = context.config()?.and_then(|loaded| loaded.config.workspace).unwrap_or_default();
    let file = workspace.join(project).join("requirements.lock");
    let mode = files::mode(&file).unwrap_or(0o644);
    files::write_atomic(&file, lock.as_bytes(), mode).map_err(|error| Error::io("write", &file, &error))?;
    if context.printer.json {
        context.printer.json(&json!({"file": file}))?;
    } else {
        context.printer.line(format!("written: {}", file.display()));
    }
    Ok(0)
}

/// The environment of the DAGs of a project, which is a folder of the workspace.
async fn of_project(api: &Api<'_>, project: &str) -> Result<Value, Error> {
    let all: Value = api.get(PLACE).await?;
    let project = project.trim_end_matches('/');
    let is_in = |file: &Value| file.as_str().is_some_and(|file| Path::new(file).starts_with(project));
    let found = list_of(&all["environments"]).find(|one| list_of(&one["files"]).any(is_in));
    let is_below = |file: &Value| file.as_str().is_some_and(|file| Path::new(file).iter().any(|part| part == project));
    let wanted = list_of(&all["wanted"]).find(|one| one["state"] != "ready" && list_of(&one["files"]).any(is_below));
    found.cloned().ok_or_else(|| match wanted {
        Some(one) => Error::failed(format!(
            "the environment of {project} is not there: {}",
            one["state"].as_str().unwrap_or_default()
        ))
        .cause(one["detail"].as_str().unwrap_or_default())
        .for_now(),
        None => Error::failed(format!("no DAG of {project:?} has an environment of its own"))
            .hint("leoflow env list")
            .hint(format!("say what it depends on in {project}/leoflow.yaml, as in `dependencies: [pandas]`")),
    })
}

fn list(context: &Context<'_>, all: &Value) -> Result<u8, Error> {
    let printer = context.printer;
    if printer.json {
        printer.json(all)?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = list_of(&all["environments"]).map(row).collect();
    let wanted: Vec<&Value> = list_of(&all["wanted"]).filter(|one| one["state"] != "ready").collect();
    if rows.is_empty() && wanted.is_empty() {
        printer.note("no project has an environment of its own; `leoflow env --help` shows how to say what one needs");
    } else if !rows.is_empty() {
        printer.table(&["ENVIRONMENT", "PYTHON", "PACKAGES", "DAGS", "WANTED"], &rows);
    }
    for one in wanted {
        let state = one["state"].as_str().unwrap_or_default();
        let detail = one["detail"].as_str().unwrap_or_default();
        printer.line(format!("{state}: {} for {}", words(&one["declared"]["requirements"]), words(&one["files"])));
        detail.lines().for_each(|line| printer.line(format!("  {line}")));
    }
    Ok(0)
}

fn row(one: &Value) -> Vec<String> {
    let dags = words(&one["dags"]);
    vec![
        short(one).to_owned(),
        one["python"].as_str().unwrap_or_default().to_owned(),
        list_of(&one["packages"]).count().to_string(),
        if dags.is_empty() { "-".to_owned() } else { dags },
        words(&one["requirements"]),
    ]
}

fn short(one: &Value) -> &str {
    one["hash"].as_str().and_then(|hash| hash.get(..12)).unwrap_or_default()
}

fn words(list: &Value) -> String {
    list_of(list).filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn show(context: &Context<'_>, one: &Value) -> Result<u8, Error> {
    let printer = context.printer;
    if printer.json {
        printer.json(one)?;
        return Ok(0);
    }
    printer.line(format!("environment {}, Python {}", short(one), one["python"].as_str().unwrap_or_default()));
    printer.line(format!("wanted: {}", words(&one["requirements"])));
    printer.line(format!("used by: {}", words(&one["dags"])));
    printer.line(format!("folder: {}", one["folder"].as_str().unwrap_or("none; it is built when it is needed")));
    let package = |one: &Value| {
        vec![
            one["name"].as_str().unwrap_or_default().to_owned(),
            one["version"].as_str().unwrap_or_default().to_owned(),
        ]
    };
    let packages: Vec<Vec<String>> = list_of(&one["packages"]).map(package).collect();
    printer.table(&["PACKAGE", "VERSION"], &packages);
    Ok(0)
}

async fn prune(context: &Context<'_>, api: &Api<'_>, dry_run: bool) -> Result<u8, Error> {
    let done: Value = api.patient().post(&format!("{PLACE}/prune"), &json!({"dry_run": dry_run})).await?;
    if context.printer.json {
        context.printer.json(&done)?;
        return Ok(0);
    }
    let word = if dry_run { "would be removed" } else { "removed" };
    let removed: Vec<&str> = list_of(&done["removed"]).filter_map(Value::as_str).collect();
    removed.iter().for_each(|folder| context.printer.line(format!("{folder}: {word}")));
    if removed.is_empty() {
        context.printer.line("every environment is in use");
    }
    Ok(0)
}

/// Becomes a shell or a command with the environment's programs first. Returns only when that cannot be.
fn shell(folder: &Path, command: &[OsString]) -> Error {
    let bin = folder.join("bin");
    let path = [bin.clone()].into_iter().chain(env_vars::search_path());
    let path = std::env::join_paths(path).unwrap_or_else(|_| bin.into_os_string());
    let shell = env_vars::path("SHELL").unwrap_or_else(|| PathBuf::from("/bin/sh"));
    let (program, arguments) = match command.split_first() {
        Some((program, arguments)) => (PathBuf::from(program), arguments),
        None => (shell, command),
    };
    let mut command = Command::new(&program);
    command.args(arguments).env("PATH", path).env("VIRTUAL_ENV", folder).env_remove("PYTHONHOME");
    let error = command.exec();
    Error::io("run", &program, &error)
}
