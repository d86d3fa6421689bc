//! `leoflow env …`: the Python environments of projects.

use crate::api_client::{Api, list_of};
use crate::args::output::Output;
use crate::context::Context;
use crate::error::Error;
use clap::{Args, Subcommand};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Args, Debug)]
pub struct Env {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: EnvCommand,
}

#[derive(Subcommand, Debug)]
#[command(
    after_help = "A project declares its dependencies in leoflow.yaml (dependencies, requirements, python_version),\n\
                        pyproject.toml, requirements.txt, or a `# /// script` block of its DAG file.\n\n\
                        Examples:\n  leoflow env list\n  leoflow env show sales\n  leoflow env shell sales -- python -V"
)]
pub enum EnvCommand {
    /// List all environments and the projects that use them
    #[command(after_help = "Example:\n  leoflow env list --json")]
    List,
    /// Show the packages installed for a project
    #[command(after_help = "Example:\n  leoflow env show sales")]
    Show {
        /// The project: the name of a folder in the workspace
        project: String,
    },
    /// Update the locked packages to the newest versions that fit
    #[command(after_help = "Examples:\n  leoflow env update sales\n  leoflow env update")]
    Update {
        /// The project: the name of a folder in the workspace [default: all projects]
        project: Option<String>,
    },
    /// Print a project's lock in pip's format, or write it to the project
    #[command(
        after_help = "Examples:\n  leoflow env lock sales\n  leoflow env lock sales --write    write sales/requirements.lock"
    )]
    Lock {
        /// The project: the name of a folder in the workspace
        project: String,
        /// Write requirements.lock to the project's folder, for pip and other machines
        #[arg(long)]
        write: bool,
    },
    /// Remove environments that no DAG uses
    #[command(after_help = "Examples:\n  leoflow env prune --dry-run\n  leoflow env prune")]
    Prune {
        /// Print what would be removed and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Open a shell with the project's Python, or run one command in it
    #[command(
        after_help = "Examples:\n  leoflow env shell sales\n  leoflow env shell sales -- python -c 'import pandas'"
    )]
    Shell {
        /// The project: the name of a folder in the workspace
        project: String,
        /// The command to run [default: an interactive shell]
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

const ENVIRONMENTS: &str = "/local/environments";

pub async fn run(context: &Context<'_>, command: &EnvCommand) -> Result<u8, Error> {
    let api = Api::new(&context.home);
    let printer = context.printer;
    match command {
        EnvCommand::List => list(context, &api.get(ENVIRONMENTS).await?),
        EnvCommand::Show { project } => show(context, &project_environment(&api, project).await?),
        EnvCommand::Lock { project, write } => {
            let environment = project_environment(&api, project).await?;
            let lock = environment["lock"].as_str().unwrap_or_default();
            if *write {
                return write_lock(context, project, lock);
            }
            printer.line(lock.trim_end());
            Ok(0)
        }
        EnvCommand::Update { project } => {
            let response: Value =
                api.with_bulk_timeout().post(&format!("{ENVIRONMENTS}/update"), &json!({"project": project})).await?;
            if printer.json {
                printer.json(&response)?;
                return Ok(u8::from(list_of(&response["problems"]).next().is_some()));
            }
            if list_of(&response["changes"]).next().is_none() && list_of(&response["problems"]).next().is_none() {
                printer.line("All environments are up to date");
            }
            list_of(&response["changes"]).for_each(|change| printer.line(change.as_str().unwrap_or_default()));
            let problems: Vec<&str> = list_of(&response["problems"]).filter_map(Value::as_str).collect();
            if problems.is_empty() {
                return Ok(0);
            }
            Err(Error::failed("some environments could not be updated")
                .cause(problems.join("\n"))
                .hint("leoflow env list"))
        }
        EnvCommand::Prune { dry_run } => prune(context, &api, *dry_run).await,
        EnvCommand::Shell { project, command } => {
            let environment = project_environment(&api, project).await?;
            let folder = environment["folder"].as_str().ok_or_else(|| {
                Error::failed("the environment is not built on this machine yet")
                    .hint(format!("leoflow env show {project}"))
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
        context.printer.line(format!("Wrote {}", file.display()));
    }
    Ok(0)
}

/// Returns the environment of a project, which is a folder of the workspace.
async fn project_environment(api: &Api<'_>, project: &str) -> Result<Value, Error> {
    let overview: Value = api.get(ENVIRONMENTS).await?;
    let project = project.trim_end_matches('/');
    let is_in = |file: &Value| file.as_str().is_some_and(|file| Path::new(file).starts_with(project));
    let ready = list_of(&overview["environments"]).find(|environment| list_of(&environment["files"]).any(is_in));
    let is_below = |file: &Value| file.as_str().is_some_and(|file| Path::new(file).iter().any(|part| part == project));
    let unready = list_of(&overview["wanted"])
        .find(|environment| environment["state"] != "ready" && list_of(&environment["files"]).any(is_below));
    ready.cloned().ok_or_else(|| match unready {
        Some(environment) => Error::failed(format!(
            "the environment of {project} is not ready: {}",
            environment["state"].as_str().unwrap_or_default()
        ))
        .cause(environment["detail"].as_str().unwrap_or_default())
        .transient(),
        None => Error::failed(format!("no DAG of {project:?} has its own environment"))
            .hint("leoflow env list")
            .hint(format!("declare dependencies in {project}/leoflow.yaml, for example `dependencies: [pandas]`")),
    })
}

fn list(context: &Context<'_>, overview: &Value) -> Result<u8, Error> {
    let printer = context.printer;
    if printer.json {
        printer.json(overview)?;
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = list_of(&overview["environments"]).map(row).collect();
    let unready: Vec<&Value> =
        list_of(&overview["wanted"]).filter(|environment| environment["state"] != "ready").collect();
    if rows.is_empty() && unready.is_empty() {
        printer.note("No environments yet. Declare a project's dependencies as `leoflow env --help` describes.");
    } else if !rows.is_empty() {
        printer.table(&["ENVIRONMENT", "PYTHON", "PACKAGES", "DAGS", "REQUIREMENTS"], &rows);
    }
    for environment in unready {
        let state = environment["state"].as_str().unwrap_or_default();
        let detail = environment["detail"].as_str().unwrap_or_default();
        printer.line(format!(
            "{state}: {} for {}",
            joined(&environment["declared"]["requirements"]),
            joined(&environment["files"])
        ));
        detail.lines().for_each(|line| printer.line(format!("  {line}")));
    }
    Ok(0)
}

fn row(environment: &Value) -> Vec<String> {
    let dags = joined(&environment["dags"]);
    vec![
        short_hash(environment).to_owned(),
        environment["python"].as_str().unwrap_or_default().to_owned(),
        list_of(&environment["packages"]).count().to_string(),
        if dags.is_empty() { "-".to_owned() } else { dags },
        joined(&environment["requirements"]),
    ]
}

fn short_hash(environment: &Value) -> &str {
    environment["hash"].as_str().and_then(|hash| hash.get(..12)).unwrap_or_default()
}

fn joined(list: &Value) -> String {
    list_of(list).filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn show(context: &Context<'_>, environment: &Value) -> Result<u8, Error> {
    let printer = context.printer;
    if printer.json {
        printer.json(environment)?;
        return Ok(0);
    }
    printer.line(format!(
        "environment {}, Python {}",
        short_hash(environment),
        environment["python"].as_str().unwrap_or_default()
    ));
    printer.line(format!("requirements: {}", joined(&environment["requirements"])));
    printer.line(format!("used by: {}", joined(&environment["dags"])));
    printer.line(format!("folder: {}", environment["folder"].as_str().unwrap_or("none; built when needed")));
    let package = |package_entry: &Value| {
        vec![
            package_entry["name"].as_str().unwrap_or_default().to_owned(),
            package_entry["version"].as_str().unwrap_or_default().to_owned(),
        ]
    };
    let packages: Vec<Vec<String>> = list_of(&environment["packages"]).map(package).collect();
    printer.table(&["PACKAGE", "VERSION"], &packages);
    Ok(0)
}

async fn prune(context: &Context<'_>, api: &Api<'_>, dry_run: bool) -> Result<u8, Error> {
    let response: Value =
        api.with_bulk_timeout().post(&format!("{ENVIRONMENTS}/prune"), &json!({"dry_run": dry_run})).await?;
    if context.printer.json {
        context.printer.json(&response)?;
        return Ok(0);
    }
    let verb = if dry_run { "would be removed" } else { "removed" };
    let removed: Vec<&str> = list_of(&response["removed"]).filter_map(Value::as_str).collect();
    removed.iter().for_each(|folder| context.printer.line(format!("{folder}: {verb}")));
    if removed.is_empty() {
        context.printer.line("All environments are in use");
    }
    Ok(0)
}

/// Replaces this process by a shell or command with the environment's `bin` first on the PATH. Returns only on failure.
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
