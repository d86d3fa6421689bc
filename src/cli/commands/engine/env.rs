//! `leoflow env …`: the Python environments of projects.

use crate::api_client::{Api, joined, list_of, texts};
use crate::commands::engine::project_folder::project_folder;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::Subcommand;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_python::environments;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub mod link;
pub mod project_python;
mod shell;

#[derive(Subcommand, Debug)]
#[command(
    after_help = "A project declares its dependencies in leoflow.yaml (dependencies, requirements, python_version),\n\
                        pyproject.toml, requirements.txt, or a `# /// script` block of its DAG file.\n\n\
                        Examples:\n  leoflow env list\n  leoflow env show sales\n  leoflow env shell sales -- python -V\n  leoflow env link sales"
)]
pub enum EnvCommand {
    /// List all environments and the projects that use them
    #[command(after_help = "Example:\n  leoflow env list --json")]
    List,
    /// Show the packages installed for a project
    #[command(after_help = "Example:\n  leoflow env show sales")]
    Show {
        /// The project: the name of a folder in the workspace, or its path
        project: String,
    },
    /// Update the locked packages to the newest versions that fit
    #[command(
        after_help = "Examples:\n  leoflow env update sales\n  leoflow env update\n  leoflow env update sales --reinstall"
    )]
    Update {
        /// The project: the name of a folder in the workspace, or its path [default: all projects]
        project: Option<String>,
        /// Keep the versions and fetch every file again, for an environment that is damaged
        #[arg(long)]
        reinstall: bool,
    },
    /// Compare the files of environments with the hashes recorded when they were installed
    #[command(after_help = "Examples:\n  leoflow env verify sales\n  leoflow env verify")]
    Verify {
        /// The project: the name of a folder in the workspace, or its path [default: all environments]
        project: Option<String>,
    },
    /// Print a project's lock in pip's format, or write it to the project
    #[command(
        after_help = "Examples:\n  leoflow env lock sales\n  leoflow env lock sales --write    write sales/requirements.lock"
    )]
    Lock {
        /// The project: the name of a folder in the workspace, or its path
        project: String,
        /// Write requirements.lock to the project's folder, for pip and other machines
        #[arg(long)]
        write: bool,
    },
    /// Remove environments that no DAG uses, and packages of uv's cache that no environment has
    #[command(
        after_help = "The cache is pruned with `uv cache clean PACKAGE` and `uv cache prune`, not with --dry-run.\n\nExamples:\n  leoflow env prune --dry-run\n  leoflow env prune"
    )]
    Prune {
        /// Print what would be removed and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Open a shell with the project's Python and variables, or run one command in it
    #[command(after_help = "The command gets the project's .env and import folders, as its tasks do.\n\n\
                      Examples:\n  leoflow env shell sales\n  leoflow env shell sales -- python dag.py         run a file that calls dag.test()")]
    Shell {
        /// The project: the name of a folder in the workspace, or its path
        project: String,
        /// The command to run [default: an interactive shell]
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Make .venv in a project's folder: its Python, variables and import folders, for editors and pytest
    #[command(
        after_help = "The path stays the same when the project's dependencies change. Its Python reads Variables and\n\
                      Connections of the running instance, and dag.test() works in it.\n\n\
                      Examples:\n  leoflow env link sales\n  sales/.venv/bin/python sales/dag.py       run a file that calls dag.test()\n  \
                      leoflow env link sales --remove"
    )]
    Link {
        /// The project: the name of a folder in the workspace, or its path [default: the current folder]
        project: Option<PathBuf>,
        /// Remove the .venv that this command has made
        #[arg(long)]
        remove: bool,
    },
}

const ENVIRONMENTS: &str = "/local/environments";

pub async fn run(context: &Context<'_>, command: &EnvCommand) -> Result<u8, Error> {
    let api = context.api();
    match command {
        EnvCommand::List => list(context, &api.get(ENVIRONMENTS).await?),
        EnvCommand::Show { project } => show(context, &project_environment(context, &api, project).await?),
        EnvCommand::Lock { project, write } => {
            let project = &project_name(context, project)?;
            let environment = project_environment(context, &api, project).await?;
            let lock = environment["lock"].as_str().unwrap_or_default();
            if *write {
                return write_lock(context, project, lock);
            }
            context.printer.line(lock.trim_end());
            Ok(0)
        }
        EnvCommand::Update { project, reinstall } => update(context, &api, project.as_deref(), *reinstall).await,
        EnvCommand::Verify { project } => verify(context, &api, project.as_deref()).await,
        EnvCommand::Prune { dry_run } => prune(context, &api, *dry_run).await,
        EnvCommand::Shell { project, command } => shell::run(context, project, command).await,
        EnvCommand::Link { project, remove } => {
            let project = project.as_deref().unwrap_or(Path::new(""));
            if *remove { link::remove(context, project) } else { link::link(context, project).await }
        }
    }
}

async fn update(context: &Context<'_>, api: &Api<'_>, project: Option<&str>, reinstall: bool) -> Result<u8, Error> {
    let project = project.map(|project| project_name(context, project)).transpose()?;
    let body = json!({"project": project, "reinstall": reinstall});
    let response: Value = api.with_bulk_timeout().post(&format!("{ENVIRONMENTS}/update"), &body).await?;
    let problems: Vec<&str> = texts(&response["problems"]).collect();
    context.printer.show(&response, |printer| {
        let changes: Vec<&str> = texts(&response["changes"]).collect();
        match response["reinstalled"].as_u64() {
            Some(count @ 1..) => printer.line(format!("Reinstalled {}", counted(count, "environment"))),
            _ if changes.is_empty() && problems.is_empty() => printer.line("All environments are up to date"),
            _ => {}
        }
        changes.iter().for_each(|change| printer.line(change));
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::failed("some environments could not be updated")
                .cause(problems.join("\n"))
                .hint("leoflow env list")),
        }
    })?;
    Ok(u8::from(!problems.is_empty()))
}

/// An environment whose files were compared with their hashes, as `--json` prints it.
#[derive(Serialize)]
struct VerifiedEnvironment<'a> {
    hash: &'a Value,
    files: usize,
    damaged: Vec<PathBuf>,
}

/// Checks the built environments on this machine. The exit code is 1 if a file is damaged.
async fn verify(context: &Context<'_>, api: &Api<'_>, project: Option<&str>) -> Result<u8, Error> {
    let environments = match project {
        Some(project) => vec![project_environment(context, api, project).await?],
        None => list_of(&api.get::<Value>(ENVIRONMENTS).await?["environments"]).cloned().collect(),
    };
    let mut verified = Vec::new();
    for environment in &environments {
        if let Some(folder) = environment["folder"].as_str() {
            let outcome = environments::verify(Path::new(folder), None);
            let (files, damaged) = (outcome.files, outcome.damaged);
            verified.push(VerifiedEnvironment { hash: &environment["hash"], files, damaged });
        }
    }
    let is_damaged = verified.iter().any(|environment| !environment.damaged.is_empty());
    context.printer.show(&verified, |printer| {
        for VerifiedEnvironment { hash, files, damaged } in &verified {
            printer.line(format!("{}: {}, {} damaged", shortened_hash(hash), counted(files, "file"), damaged.len()));
            damaged.iter().for_each(|file| printer.line(format!("  {}", file.display())));
        }
        if is_damaged {
            let project = project.unwrap_or_default();
            printer.note(format!("fetch the files again: leoflow env update {project} --reinstall"));
        }
    })?;
    Ok(u8::from(is_damaged))
}

/// The name of a project that is given by its name or by a path to it.
fn project_name(context: &Context<'_>, project: &str) -> Result<String, Error> {
    let workspace = context.workspace()?;
    let current_folder = env_vars::current_dir().unwrap_or_default();
    Ok(name_in_workspace(workspace.as_deref(), &current_folder, project))
}

/// Returns the folder directly below the workspace that contains the path `project`. Any other text is a name already;
/// returns it without a trailing slash.
fn name_in_workspace(workspace: Option<&Path>, current_folder: &Path, project: &str) -> String {
    let folder = project_folder(workspace, current_folder, Path::new(project));
    let relative = folder.as_deref().zip(workspace).and_then(|(folder, workspace)| folder.strip_prefix(workspace).ok());
    let name = relative.and_then(|relative| relative.iter().next()).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| project.trim_end_matches('/').to_owned())
}

fn write_lock(context: &Context<'_>, project: &str, lock: &str) -> Result<u8, Error> {
    let workspace = context.workspace()?.unwrap_or_default();
    let file = workspace.join(project).join("requirements.lock");
    let mode = files::mode(&file).unwrap_or(0o644);
    files::write_atomic(&file, lock.as_bytes(), mode).map_err(Error::cannot("write", &file))?;
    context.printer.show(&json!({"file": file}), |printer| printer.line(format!("Wrote {}", file.display())))
}

/// Returns the environment of a project; `project` is the name or path of a folder of the workspace.
async fn project_environment(context: &Context<'_>, api: &Api<'_>, project: &str) -> Result<Value, Error> {
    let project = &project_name(context, project)?;
    let workspace = context.workspace()?;
    let overview: Value = api.get(ENVIRONMENTS).await?;
    let is_in = |file: &Value| file.as_str().is_some_and(|file| is_of_project(file, workspace.as_deref(), project));
    let ready = list_of(&overview["environments"]).find(|environment| list_of(&environment["files"]).any(is_in));
    let unready = list_of(&overview["wanted"])
        .find(|environment| environment["state"] != "ready" && list_of(&environment["files"]).any(is_in));
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

/// True for a file of the project. Files of environments on record are relative to the workspace, others absolute.
fn is_of_project(file: &str, workspace: Option<&Path>, project: &str) -> bool {
    let file = Path::new(file);
    let relative = workspace.and_then(|workspace| file.strip_prefix(workspace).ok()).unwrap_or(file);
    relative.starts_with(project)
}

fn list(context: &Context<'_>, overview: &Value) -> Result<u8, Error> {
    context.printer.show(overview, |printer| {
        let rows: Vec<_> = list_of(&overview["environments"]).map(row).collect();
        let is_unready = |environment: &&Value| environment["state"] != "ready";
        let unready: Vec<&Value> = list_of(&overview["wanted"]).filter(is_unready).collect();
        if rows.is_empty() && unready.is_empty() {
            printer.note("No environments yet. Declare a project's dependencies as `leoflow env --help` describes.");
        } else if !rows.is_empty() {
            printer.table(&["ENVIRONMENT", "PYTHON", "PACKAGES", "DAGS", "REQUIREMENTS"], rows);
        }
        for environment in unready {
            let state = environment["state"].as_str().unwrap_or_default();
            let requirements = shortened(&environment["declared"]["requirements"]);
            printer.line(format!("{state}: {requirements} for {}", shortened(&environment["files"])));
            let detail = environment["detail"].as_str().unwrap_or_default();
            detail.lines().for_each(|line| printer.line(format!("  {line}")));
        }
    })
}

fn row(environment: &Value) -> [String; 5] {
    let dags = shortened(&environment["dags"]);
    [
        shortened_hash(&environment["hash"]).to_owned(),
        environment["python"].as_str().unwrap_or_default().to_owned(),
        list_of(&environment["packages"]).count().to_string(),
        if dags.is_empty() { "-".to_owned() } else { dags },
        shortened(&environment["requirements"]),
    ]
}

fn shortened_hash(hash: &Value) -> &str {
    hash.as_str().and_then(|hash| hash.get(..12)).unwrap_or_default()
}

/// Number of names in a shortened list; `--json` prints all.
const SHOWN: usize = 5;

/// Joins the names; replaces more than one name beyond `SHOWN` by their number.
fn shortened(list: &Value) -> String {
    let names: Vec<&str> = texts(list).collect();
    match names.len().checked_sub(SHOWN) {
        Some(more @ 2..) => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

fn show(context: &Context<'_>, environment: &Value) -> Result<u8, Error> {
    context.printer.show(environment, |printer| {
        let python = environment["python"].as_str().unwrap_or_default();
        printer.line(format!("environment {}, Python {python}", shortened_hash(&environment["hash"])));
        printer.line(format!("requirements: {}", joined(&environment["requirements"])));
        printer.line(format!("used by: {}", joined(&environment["dags"])));
        printer.line(format!("folder: {}", environment["folder"].as_str().unwrap_or("none; built when needed")));
        let package =
            |package: &Value| ["name", "version"].map(|name| package[name].as_str().unwrap_or_default().to_owned());
        printer.table(&["PACKAGE", "VERSION"], list_of(&environment["packages"]).map(package));
    })
}

async fn prune(context: &Context<'_>, api: &Api<'_>, dry_run: bool) -> Result<u8, Error> {
    let response: Value =
        api.with_bulk_timeout().post(&format!("{ENVIRONMENTS}/prune"), &json!({"dry_run": dry_run})).await?;
    context.printer.show(&response, |printer| {
        let verb = if dry_run { "would be removed" } else { "removed" };
        let (removed, locked): (Vec<_>, Vec<_>) =
            (texts(&response["removed"]).collect(), texts(&response["locked"]).collect());
        removed.iter().for_each(|folder| printer.line(format!("{folder}: {verb}")));
        for folder in &locked {
            printer.note(format!("{folder}: kept, because a Python is being installed; run this again afterwards"));
        }
        if removed.is_empty() && locked.is_empty() {
            printer.line("All environments are in use");
        }
        if let Some(text) = response["uv_cache"].as_str() {
            printer.line(format!("uv's cache: {text}"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_given_by_name_or_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let workspace = root.join("w");
        std::fs::create_dir_all(workspace.join("sales/dags")).unwrap();
        std::fs::create_dir_all(root.join("elsewhere/sales")).unwrap();
        let name = |current_folder: &str, project: &str| {
            name_in_workspace(Some(&workspace), &root.join(current_folder), project)
        };
        for (current_folder, project) in [
            ("elsewhere", "sales"),
            ("elsewhere", "sales/"),
            ("w", "sales"),
            ("w", "./sales"),
            ("w/sales", "."),
            ("w/sales/dags", ".."),
            ("", "w/sales/dags"),
            ("w/sales", workspace.join("sales").to_str().unwrap()),
        ] {
            assert_eq!(name(current_folder, project), "sales", "{project} in {current_folder}");
        }
        assert_eq!(name("w", "unknown"), "unknown");
    }

    #[test]
    fn a_file_belongs_to_the_first_folder_of_its_path() {
        let is_of = |file: &str, project: &str| is_of_project(file, Some(Path::new("/home/a/w")), project);
        assert!(is_of("/home/a/w/sales/dag.py", "sales") && is_of("sales/dag.py", "sales"));
        assert!(!is_of("/home/a/w/b/sales/dag.py", "sales") && !is_of("b/sales/dag.py", "sales"));
        assert!(!is_of("/home/a/w/sales/dag.py", "a"), "a folder above the workspace is no project");
        assert!(!is_of("sales2/dag.py", "sales"));
    }

    #[test]
    fn long_lists_are_shortened() {
        let names = |count: usize| json!((0..count).map(|n| format!("f{n}")).collect::<Vec<_>>());
        assert_eq!(shortened(&names(500)), "f0, f1, f2, f3, f4 and 495 more");
        assert_eq!(shortened(&names(6)), "f0, f1, f2, f3, f4, f5");
    }
}
