//! `leoflow import airflow`.

use super::airflow_content::{AirflowContent, DagFiles, FolderCopy};
use super::dag_folder::{self, Direction};
use super::data_files::{connections, pools, variables};
use super::findings::{Finding, Findings};
use super::from_url::Login;
use super::{from_home, from_url};
use crate::api_client::{Api, texts};
use crate::args::OnExisting;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use clap::{Args, Subcommand};
use leoflow_base::sys::fs::files;
use leoflow_engine::store::secret::connections::Connection;
use leoflow_engine::store::secret::variables::Variable;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Subcommand, Debug)]
#[command(after_help = "Example:\n  leoflow import airflow --from ~/airflow --dry-run")]
pub enum Import {
    /// Import variables, connections, pools and DAG files from Apache Airflow
    #[command(after_help = "Examples:\n  leoflow import airflow --from ~/airflow --dry-run\n  \
                      leoflow import airflow --from http://localhost:8080 --username admin --password-file FILE\n\n\
                      From an Airflow home, Leoflow reads the DAG folder and the files that its CLI exports there:\n\
                      variables.json, connections.json and pools.json. A URL must be that of an Airflow 3 server,\n\
                      whose API masks passwords and returns DAG files without the modules they import.\n\
                      What cannot be imported is listed. For a repository, see `leoflow bring`.")]
    Airflow(ImportAirflow),
}

#[derive(Args, Debug)]
pub struct ImportAirflow {
    /// An Airflow home folder, or the URL of an Airflow 3 server
    #[arg(long, value_name = "DIR|URL")]
    pub from: String,
    /// With a URL: the user to log in as
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// The file whose first line is that user's password [default: prompt for it]
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// The file whose first line is an access token for that Airflow
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    pub token_file: Option<PathBuf>,
    /// The workspace folder for the DAG files; it must not exist yet
    #[arg(long, value_name = "NAME", default_value = "imported")]
    pub project: String,
    /// What to do with variables, connections and pools that already exist
    #[arg(long, value_enum, default_value_t = OnExisting::Skip)]
    pub action_on_existing_key: OnExisting,
    /// Print what would be imported and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Size limit of a file with a password or token, in bytes.
const SECRET_LIMIT: u64 = 64 * 1024;

pub async fn airflow(context: &Context<'_>, args: &ImportAirflow) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let config = config.ok_or_else(Error::not_set_up)?;
    let workspace = config.workspace;
    let workspace = workspace.ok_or_else(|| Error::failed("no workspace is configured").hint("leoflow setup"))?;
    let project_folder = new_project_folder(&workspace, &args.project)?;
    let api = context.api();
    // Reads from Leoflow before Airflow, so that the command fails at once when Leoflow's server is not running.
    let existing = ExistingNames::read(&api).await?;
    let mut findings = Findings::default();
    let scheme = args.from.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let mut content = match scheme.as_deref() {
        Some("http" | "https") => from_url::read(&args.from, &login(args)?, &mut findings).await?,
        Some(other) => {
            return Err(Error::usage(format!("--from does not support {other} URLs"))
                .hint("use the home of an Airflow, or an http:// or https:// URL"));
        }
        None if args.username.is_some() || args.token_file.is_some() => {
            return Err(Error::usage("a login needs a URL, but --from is a folder")
                .hint("leave the login out, or use --from URL"));
        }
        None => from_home::read(Path::new(&args.from), &mut findings)?,
    };
    drop_invalid_extras(&mut content, &mut findings);
    let skipped = existing.retain_new(&mut content, args.action_on_existing_key)?;
    let staging = staging_path(&workspace, &project_folder);
    let staged = stage_files(&content.files, (!args.dry_run).then_some(&staging), &mut findings);
    let file_count = staged.inspect_err(|_| drop(files::remove_any(&staging)))?;
    // The JSON output lists the findings under the key `does_not_fit`.
    let report = json!({
        "variables": content.variables.len(), "connections": content.connections.len(), "pools": content.pools.len(),
        "files": file_count, "project": if file_count > 0 { Some(&project_folder) } else { None }, "skipped": skipped,
        "does_not_fit": findings.all(), "dry_run": args.dry_run,
    });
    let outcome = match args.dry_run {
        true => Ok(()),
        false => {
            import_content(&api, &content, args.action_on_existing_key, &staging, &project_folder, file_count).await
        }
    };
    // After a success the staging folder has been renamed; after a failure it may still exist.
    let _ = files::remove_any(&staging);
    outcome?;
    context.printer.show(&report, |printer| print_report(printer, args, &report, &findings))
}

fn print_report(printer: &Printer, args: &ImportAirflow, report: &Value, findings: &Findings) {
    let verb = if args.dry_run { "Would import" } else { "Imported" };
    printer.line(format!(
        "{verb} {}, {}, {} and {}",
        counted(&report["variables"], "variable"),
        counted(&report["connections"], "connection"),
        counted(&report["pools"], "pool"),
        counted(&report["files"], "file")
    ));
    for name in texts(&report["skipped"]) {
        printer.note(format!("Skipped, because it already exists: {name}"));
    }
    for Finding { what, why, remedy } in findings.all() {
        printer.warning(format!("{what}: {why}; {remedy}"));
    }
    if let Some(project) = report["project"].as_str()
        && !args.dry_run
    {
        printer.advice(format!("DAG files: {project}; check them with `leoflow validate {project}`"));
    }
}

/// Names of packages that a folder of the workspace would shadow, because the workspace is a module search path.
pub const SHADOWING_NAMES: [&str; 2] = ["airflow", "leoflow"];

/// Refuses a name that a new project cannot have.
pub fn check_project_name(name: &str) -> Result<(), Error> {
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if !is_name || SHADOWING_NAMES.contains(&name) {
        return Err(Error::usage(format!("{name:?} is not a valid project name"))
            .hint("use letters, digits, - and _; not airflow or leoflow"));
    }
    Ok(())
}

/// Returns the folder of the new project `name`. Refuses an invalid name and a folder that exists.
fn new_project_folder(workspace: &Path, name: &str) -> Result<PathBuf, Error> {
    check_project_name(name)?;
    let folder = workspace.join(name);
    match fs::symlink_metadata(&folder) {
        Ok(_) => Err(Error::refused(format!("{} already exists", folder.display()))
            .hint("choose another name with --project NAME")),
        Err(_) => Ok(folder),
    }
}

/// Path of a staging folder for the DAG files, which is later renamed to the project folder. It is next to the
/// workspace, so that a killed import leaves nothing in the workspace. If the workspace's parent is on another file
/// system, where the rename would fail, it is next to the project folder, under a hidden name that the DAG file scan
/// skips.
fn staging_path(workspace: &Path, project_folder: &Path) -> PathBuf {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let is_same_file_system = workspace.parent().is_some_and(|parent| device(parent) == device(workspace));
    files::temporary_neighbour(if is_same_file_system { workspace } else { project_folder })
}

/// Returns the login that the arguments specify; prompts for a missing password.
fn login(args: &ImportAirflow) -> Result<Login, Error> {
    let secret = |path: &PathBuf| -> Result<String, Error> {
        let text = files::read_text(path, SECRET_LIMIT).map_err(Error::cannot("read", path))?;
        let text = text.ok_or_else(|| Error::usage(format!("{} does not exist", path.display())))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(match (&args.token_file, &args.username, &args.password_file) {
        (Some(file), _, _) => Login::Token(secret(file)?),
        (None, Some(username), Some(file)) => Login::Password { username: username.clone(), password: secret(file)? },
        (None, Some(username), None) => {
            let password = leoflow_base::sys::terminal::read_secret(&format!("Airflow password of {username}: "));
            Login::Password { username: username.clone(), password: password.map_err(Error::failed)? }
        }
        (None, None, _) => Login::None,
    })
}

/// Drops each `extra` that is not JSON. Older Airflow versions allowed other text; Airflow 3 and Leoflow do not.
fn drop_invalid_extras(content: &mut AirflowContent, findings: &mut Findings) {
    for connection in &mut content.connections {
        let is_invalid = connection.extra.as_deref().is_some_and(|extra| serde_json::from_str::<Value>(extra).is_err());
        if is_invalid && connection.extra.take().is_some_and(|extra| !extra.trim().is_empty()) {
            let name = format!("connection {}", connection.connection_id);
            findings.add(name, "its extra is not JSON and was not imported", "write it as JSON and import it again");
        }
    }
}

/// Names of the variables, connections and pools that already exist in Leoflow.
#[derive(Default)]
pub struct ExistingNames {
    pub variables: BTreeSet<String>,
    pub connections: BTreeSet<String>,
    pub pools: BTreeSet<String>,
}

impl ExistingNames {
    pub async fn read(api: &Api<'_>) -> Result<Self, Error> {
        let entries: Vec<Variable> = api.with_bulk_timeout().get(variables::LOCAL).await?;
        let variables = entries.into_iter().map(|entry| entry.key).collect();
        let entries: Vec<Connection> = api.with_bulk_timeout().get(connections::LOCAL).await?;
        let connections = entries.into_iter().map(|entry| entry.connection_id).collect();
        let entries = api.all(pools::POOLS, "", "pools").await?;
        let pools = entries.iter().filter_map(|entry| entry["name"].as_str()).map(str::to_owned).collect();
        Ok(Self { variables, connections, pools })
    }

    /// Removes existing entries from `content`, unless they are to be overwritten. Returns the names of the removed
    /// entries. With `OnExisting::Fail`, an existing entry is an error.
    pub fn retain_new(&self, content: &mut AirflowContent, on_existing: OnExisting) -> Result<Vec<String>, Error> {
        let mut left_out: Vec<String> = Vec::new();
        let mut is_new = |kind: &str, existing: &BTreeSet<String>, name: &str| {
            let exists = existing.contains(name);
            if exists {
                left_out.push(format!("{kind} {name}"));
            }
            !exists
        };
        if on_existing == OnExisting::Overwrite {
            return Ok(Vec::new());
        }
        content.variables.retain(|entry| is_new("variable", &self.variables, &entry.key));
        content.connections.retain(|entry| is_new("connection", &self.connections, &entry.connection_id));
        content.pools.retain(|entry| is_new("pool", &self.pools, &entry.name));
        // default_pool always exists, so it is no conflict.
        match left_out.iter().find(|name| *name != "pool default_pool") {
            Some(name) if on_existing == OnExisting::Fail => Err(Error::refused(format!("{name} already exists"))
                .hint("nothing was imported; use --action-on-existing-key skip or overwrite")),
            _ => Ok(left_out),
        }
    }
}

/// Copies the DAG files into the staging folder `to`, or with `None` only checks them. Returns the number of files.
fn stage_files(from: &DagFiles, to: Option<&PathBuf>, findings: &mut Findings) -> Result<usize, Error> {
    match from {
        DagFiles::None => Ok(0),
        DagFiles::Folders { folders, files } => {
            let mut count = files.len();
            for FolderCopy { from, to: place } in folders {
                let target = to.map(|to| to.join(place));
                if let Some(parent) = target.as_deref().and_then(Path::parent).filter(|_| !place.as_os_str().is_empty())
                {
                    fs::create_dir_all(parent).map_err(Error::cannot("create", parent))?;
                }
                count += dag_folder::copy(from, target.as_deref(), Direction::FromAirflow, findings)?.files;
            }
            for (file, to) in files.iter().filter_map(|file| Some((file, to?.join(file.file_name()?)))) {
                fs::copy(file, to).map_err(Error::cannot("copy", file))?;
            }
            Ok(count)
        }
        DagFiles::Texts(texts) => {
            for (path, text) in texts {
                let Some(target) = to.map(|to| to.join(path)) else { continue };
                let folder = target.parent().unwrap_or(&target);
                fs::create_dir_all(folder).map_err(Error::cannot("create", folder))?;
                fs::write(&target, text).map_err(Error::cannot("write", &target))?;
            }
            Ok(texts.len())
        }
    }
}

/// Imports variables, connections and pools, then the DAG files, which may need them. Safe to repeat after an
/// interruption.
async fn import_content(
    api: &Api<'_>,
    content: &AirflowContent,
    on_existing: OnExisting,
    staging: &Path,
    project_folder: &Path,
    file_count: usize,
) -> Result<(), Error> {
    import_entries(api, content, on_existing).await?;
    if file_count > 0 {
        files::rename_to_new(staging, project_folder).map_err(Error::cannot("create", project_folder))?;
    }
    Ok(())
}

/// Imports variables, connections and pools.
pub async fn import_entries(api: &Api<'_>, content: &AirflowContent, on_existing: OnExisting) -> Result<(), Error> {
    // The server applies `on_existing` again, to variables and connections that were created in the meantime.
    let _ = variables::import(api, content.variables.clone(), on_existing).await?;
    let entries = json!({"on_existing": on_existing.for_store(), "entries": content.connections});
    let _: Value = api.with_bulk_timeout().put(connections::LOCAL, &entries).await?;
    for pool in &content.pools {
        pools::set(api, pool).await?;
    }
    Ok(())
}
