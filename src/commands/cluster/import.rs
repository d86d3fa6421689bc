//! `leoflow import airflow`.

use super::dag_folder::{self, Direction};
use super::findings::{Finding, Findings};
use super::from_url::Login;
use super::taken::{DagFiles, Taken};
use super::{from_home, from_url};
use crate::cli::api::Api;
use crate::cli::args::OnExisting;
use crate::cli::cluster_args::ImportAirflow;
use crate::commands::context::Context;
use crate::commands::data::{connections, pools, variables};
use crate::engine::store::connections::Connection;
use crate::engine::store::variables::Variable;
use crate::error::Error;
use crate::recovery::datastore::not_set_up;
use crate::sys::files;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const SECRET_LIMIT: u64 = 64 * 1024;

pub async fn airflow(context: &Context<'_>, args: &ImportAirflow) -> Result<u8, Error> {
    let config = context.config()?.map(|loaded| loaded.config);
    let config = config.ok_or_else(not_set_up)?;
    let workspace = config.workspace;
    let workspace = workspace.ok_or_else(|| Error::failed("there is no workspace").hint("leoflow setup"))?;
    let project = project(&workspace, &args.project)?;
    let api = Api::new(&context.home);
    // First, because without a server nothing else can be done.
    let present = Present::read(&api).await?;
    let mut findings = Findings::default();
    let scheme = args.from.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let mut taken = match scheme.as_deref() {
        Some("http" | "https") => from_url::read(&args.from, &login(args)?, &mut findings).await?,
        Some(other) => {
            return Err(
                Error::usage(format!("--from is no {other} URL")).hint("an Airflow's home, or http://… or https://…")
            );
        }
        None if args.username.is_some() || args.token_file.is_some() => {
            return Err(
                Error::usage("a login is for a URL, and --from is a folder").hint("leave it out, or name the URL")
            );
        }
        None => from_home::read(Path::new(&args.from), &mut findings)?,
    };
    drop_odd_extras(&mut taken, &mut findings);
    let skipped = present.sift(&mut taken, args.action_on_existing_key)?;
    let made = beside(&workspace, &project);
    let files = place(&taken.files, (!args.dry_run).then_some(&made), &mut findings);
    let files = files.inspect_err(|_| drop(files::remove_any(&made)))?;
    let told = json!({
        "variables": taken.variables.len(), "connections": taken.connections.len(), "pools": taken.pools.len(), "files": files,
        "project": if files > 0 { Some(&project) } else { None }, "skipped": skipped, "does_not_fit": findings.all(), "dry_run": args.dry_run,
    });
    let outcome = match args.dry_run {
        true => Ok(()),
        false => take(&api, &taken, args.action_on_existing_key, &made, &project, files).await,
    };
    // What was moved is not there any more.
    let _ = files::remove_any(&made);
    outcome?;
    show(context, args, &told, &findings)?;
    Ok(0)
}

fn show(context: &Context<'_>, args: &ImportAirflow, told: &Value, findings: &Findings) -> Result<(), Error> {
    let printer = context.printer;
    if printer.json {
        return printer.json(told);
    }
    let would = if args.dry_run { "would be imported" } else { "imported" };
    printer.line(format!(
        "{} variables, {} connections, {} pools and {} files {would}",
        told["variables"], told["connections"], told["pools"], told["files"]
    ));
    for name in told["skipped"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        printer.note(format!("left as it is here: {name}"));
    }
    for Finding { what, why, remedy } in findings.all() {
        printer.warning(format!("{what}: {why}; {remedy}"));
    }
    if let Some(project) = told["project"].as_str()
        && !args.dry_run
    {
        printer.line(format!("DAG files: {project}; `leoflow validate {project}` says what they miss"));
    }
    Ok(())
}

/// Its folder, which is not there yet.
fn project(workspace: &Path, name: &str) -> Result<PathBuf, Error> {
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    // The workspace is where modules are looked for: one of these would be found in the place of the package.
    if !is_name || ["airflow", "leoflow"].contains(&name) {
        return Err(Error::usage(format!("a project cannot be called {name:?}"))
            .hint("letters, digits, - and _; not airflow or leoflow"));
    }
    let folder = workspace.join(name);
    match fs::symlink_metadata(&folder) {
        Ok(_) => Err(Error::refused(format!("{} is there already", folder.display()))
            .hint("--project NAME chooses another name")),
        Err(_) => Ok(folder),
    }
}

/// Where the files come together: outside of the workspace, whose files are looked at as they come, where that is on the same
/// file system.
fn beside(workspace: &Path, project: &Path) -> PathBuf {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let is_near = workspace.parent().is_some_and(|parent| device(parent) == device(workspace));
    files::temporary_neighbour(if is_near { workspace } else { project })
}

fn login(args: &ImportAirflow) -> Result<Login, Error> {
    let secret = |path: &PathBuf| -> Result<String, Error> {
        let text = files::read_text(path, SECRET_LIMIT).map_err(|error| Error::io("read", path, &error))?;
        let text = text.ok_or_else(|| Error::usage(format!("there is no file {}", path.display())))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(match (&args.token_file, &args.username, &args.password_file) {
        (Some(file), _, _) => Login::Token(secret(file)?),
        (None, Some(username), Some(file)) => Login::Password { username: username.clone(), password: secret(file)? },
        (None, Some(username), None) => {
            let password = crate::sys::terminal::read_secret(&format!("Airflow's password of {username}: "));
            Login::Password { username: username.clone(), password: password.map_err(Error::failed)? }
        }
        (None, None, _) => Login::None,
    })
}

/// Airflow 3 and we keep JSON there; what an older one took is left out.
fn drop_odd_extras(taken: &mut Taken, findings: &mut Findings) {
    for connection in &mut taken.connections {
        let is_odd = connection.extra.as_deref().is_some_and(|extra| serde_json::from_str::<Value>(extra).is_err());
        if is_odd && connection.extra.take().is_some_and(|extra| !extra.trim().is_empty()) {
            let what = format!("connection {}", connection.connection_id);
            findings.add(what, "its extra is not JSON, and was left out", "write it as JSON, and import it anew");
        }
    }
}

/// The names of what is here.
struct Present {
    variables: BTreeSet<String>,
    connections: BTreeSet<String>,
    pools: BTreeSet<String>,
}

impl Present {
    async fn read(api: &Api<'_>) -> Result<Self, Error> {
        let all: Vec<Variable> = api.patient().get(variables::LOCAL).await?;
        let variables = all.into_iter().map(|one| one.key).collect();
        let all: Vec<Connection> = api.patient().get(connections::LOCAL).await?;
        let connections = all.into_iter().map(|one| one.connection_id).collect();
        let all = api.all(pools::POOLS, "", "pools").await?;
        let pools = all.iter().filter_map(|one| one["name"].as_str()).map(str::to_owned).collect();
        Ok(Self { variables, connections, pools })
    }

    /// Leaves of it what is to be written. Returns the names of the rest.
    fn sift(&self, taken: &mut Taken, on_existing: OnExisting) -> Result<Vec<String>, Error> {
        let mut there: Vec<String> = Vec::new();
        let mut is_new = |kind: &str, present: &BTreeSet<String>, name: &str| {
            let is_there = present.contains(name);
            if is_there {
                there.push(format!("{kind} {name}"));
            }
            !is_there
        };
        if on_existing == OnExisting::Overwrite {
            return Ok(Vec::new());
        }
        taken.variables.retain(|one| is_new("variable", &self.variables, &one.key));
        taken.connections.retain(|one| is_new("connection", &self.connections, &one.connection_id));
        taken.pools.retain(|one| is_new("pool", &self.pools, &one.name));
        match there.iter().find(|name| *name != "pool default_pool") {
            Some(name) if on_existing == OnExisting::Fail => Err(Error::refused(format!("{name} is here already"))
                .hint("nothing was imported; --action-on-existing-key skip or overwrite")),
            _ => Ok(there),
        }
    }
}

/// Puts the DAG files into a folder beside their place, or with none only looks at them. Returns how many there are.
fn place(from: &DagFiles, to: Option<&PathBuf>, findings: &mut Findings) -> Result<usize, Error> {
    match from {
        DagFiles::None => Ok(0),
        DagFiles::Folder { folder, requirements } => {
            let copied = dag_folder::copy(folder, to.map(PathBuf::as_path), Direction::FromAirflow, findings)?;
            if let (Some(file), Some(to)) = (requirements, to) {
                fs::copy(file, to.join("requirements.txt")).map_err(|error| Error::io("copy", file, &error))?;
            }
            Ok(copied.files + usize::from(requirements.is_some()))
        }
        DagFiles::Texts(texts) => {
            for (path, text) in texts {
                let Some(target) = to.map(|to| to.join(path)) else { continue };
                let folder = target.parent().unwrap_or(&target);
                fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, &error))?;
                fs::write(&target, text).map_err(|error| Error::io("write", &target, &error))?;
            }
            Ok(texts.len())
        }
    }
}

/// What DAGs are given comes before they do. Cut off, it is done again: what is there already is passed over.
async fn take(
    api: &Api<'_>,
    taken: &Taken,
    on_existing: OnExisting,
    made: &Path,
    project: &Path,
    files: usize,
) -> Result<(), Error> {
    // The server looks again: what came meanwhile is as somebody has just set it.
    let _ = variables::import(api, taken.variables.clone(), on_existing).await?;
    let entries = json!({"on_existing": on_existing.for_store(), "entries": taken.connections});
    let _: Value = api.patient().put(connections::LOCAL, &entries).await?;
    for pool in &taken.pools {
        pools::set(api, &pool.name, pool.slots, pool.description.as_deref(), pool.include_deferred).await?;
    }
    if files > 0 {
        files::rename_to_new(made, project).map_err(|error| Error::io("create", project, &error))?;
    }
    Ok(())
}
