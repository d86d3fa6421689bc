//! `.venv` in a project's folder: a virtual environment for editors that leads to the project's environment and keeps
//! its path while the dependencies change. `leoflow/outside/virtual_env.py` writes it.

use super::discover::LINK_MARKER;
use super::environments;
use super::interpreter::{Interpreter, Job};
use super::io_error::{IoError, io, unreadable, unwritable};
use super::roots::Request;
use super::roots::is_for_airflow_2;
use leoflow_base::home::{self, Home};
use leoflow_base::sys::fs::flock::FileLock;
use leoflow_base::sys::fs::{files, folders};
use leoflow_base::sys::process::command;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub const FOLDER: &str = ".venv";
/// Bytes; a marker has at most the names of an environment's commands.
const MARKER_LIMIT: u64 = 1024 * 1024;
/// File lock, in the home's `run`, for writing a `.venv`.
const LOCK: &str = "linked.lock";
/// Time limit for writing a `.venv`, which takes a second.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0} exists and was not made by `leoflow env link`")]
    NotOurs(PathBuf),
    #[error("{venv} leads to the instance in {home}")]
    OfOtherHome { venv: PathBuf, home: PathBuf },
    #[error("failed to write {venv}: {reason}")]
    Failed { venv: PathBuf, reason: String },
    #[error(transparent)]
    Io(#[from] IoError),
}

/// The content of a marker.
#[derive(Debug, Deserialize, Serialize)]
struct Marker {
    home: PathBuf,
    inputs: Inputs,
    /// False while the files are being written.
    is_complete: bool,
}

/// What the files depend on.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Inputs {
    program: PathBuf,
    package: PathBuf,
    /// Packages that DAG files expect.
    support: Option<PathBuf>,
    roots: Vec<PathBuf>,
    /// True to translate what Airflow 3 removed, a setting of the project.
    airflow_2: bool,
}

/// Makes the project's `.venv`, or brings it up to date; returns its path. Blocks.
pub fn link(interpreter: &Interpreter, project: &Path, request: &Request) -> Result<PathBuf, LinkError> {
    let (home, venv) = (&interpreter.home, project.join(FOLDER));
    write_if_changed(interpreter, &venv, Some(&request.roots))?;
    // Recorded last: a record leads to a `.venv` that is ours.
    home.create_folder(&home.linked()).map_err(unwritable(&home.linked()))?;
    let record = record(home, &venv);
    files::replace_link(&venv, &record).map_err(unwritable(&record))?;
    Ok(venv)
}

/// Brings the `.venv` of a project up to date if it is ours. Blocks.
pub fn refresh(interpreter: &Interpreter, project: &Path) -> Result<(), LinkError> {
    match write_if_changed(interpreter, &project.join(FOLDER), None) {
        // The user's own, or that of another instance.
        Err(LinkError::NotOurs(_) | LinkError::OfOtherHome { .. }) => Ok(()),
        written => written,
    }
}

/// Removes the project's `.venv`; returns whether there was one.
pub fn unlink(home: &Home, project: &Path) -> Result<bool, LinkError> {
    let venv = project.join(FOLDER);
    let is_ours = existing(home, &venv)?.is_some();
    if is_ours {
        files::remove_any(&venv).map_err(unwritable(&venv))?;
    }
    let record = record(home, &venv);
    files::remove_any(&record).map_err(unwritable(&record))?;
    Ok(is_ours)
}

/// The `.venv` folders that this home's commands have made and that still exist.
pub fn all(home: &Home) -> Vec<PathBuf> {
    let venvs =
        folders::entries(&home.linked()).unwrap_or_default().into_iter().filter_map(|record| record.read_link().ok());
    venvs.filter(|venv| matches!(existing(home, venv), Ok(Some(_)))).collect()
}

/// The locks of the environments to which the `.venv` folders lead, by hash, with their Python versions.
pub fn locks(home: &Home) -> Vec<(String, String)> {
    let markers = all(home).into_iter().filter_map(|venv| marker(&venv).ok()?);
    markers.filter_map(|marker| environments::lock_of(marker.inputs.program.parent()?.parent()?)).collect()
}

fn marker(venv: &Path) -> Result<Option<Marker>, IoError> {
    let path = venv.join(LINK_MARKER);
    files::read_json(&path, MARKER_LIMIT).map_err(unreadable(&path))
}

/// The marker of a `.venv` of this home; `None` if there is nothing. Anything else is an error.
fn existing(home: &Home, venv: &Path) -> Result<Option<Marker>, LinkError> {
    match venv.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(venv)(error).into()),
        Ok(meta) if !meta.is_dir() => return Err(LinkError::NotOurs(venv.to_owned())),
        Ok(_) => {}
    }
    match marker(venv)? {
        // What a killed command leaves.
        None if folders::entries(venv).is_ok_and(|entries| entries.is_empty()) => Ok(None),
        None => Err(LinkError::NotOurs(venv.to_owned())),
        Some(marker) if marker.home != home.root() => {
            Err(LinkError::OfOtherHome { venv: venv.to_owned(), home: marker.home })
        }
        Some(marker) => Ok(Some(marker)),
    }
}

/// Writes the files unless they are complete and depend on nothing that has changed. Without `roots`, the import
/// folders of the project, those stay as they are, and a missing `.venv` stays missing.
fn write_if_changed(interpreter: &Interpreter, venv: &Path, roots: Option<&[PathBuf]>) -> Result<(), LinkError> {
    let home = &interpreter.home;
    let support = interpreter.options(&json!({}))["support"].as_str().map(PathBuf::from);
    let outdated = || {
        let before = existing(home, venv)?;
        let Some(roots) = roots.or(before.as_ref().map(|marker| marker.inputs.roots.as_slice())) else {
            return Ok(None);
        };
        let (program, package) = (interpreter.program.clone(), interpreter.package.clone());
        let airflow_2 = venv.parent().is_some_and(is_for_airflow_2);
        let inputs = Inputs { program, package, support: support.clone(), roots: roots.to_owned(), airflow_2 };
        let is_current = before.is_some_and(|marker| marker.is_complete && marker.inputs == inputs);
        Ok::<_, LinkError>((!is_current).then_some(inputs))
    };
    if outdated()?.is_none() {
        return Ok(());
    }
    // The server parses the files of a project at the same time.
    let file = File::options().create(true).append(true).open(home.run().join(LOCK));
    let lock = file.and_then(|file| FileLock::exclusive_within(file, LIMIT));
    let _lock = lock.map_err(io("another command writes a virtual environment"))?;
    match outdated()? {
        Some(inputs) => write(interpreter, venv, &inputs),
        None => Ok(()),
    }
}

fn write(interpreter: &Interpreter, venv: &Path, inputs: &Inputs) -> Result<(), LinkError> {
    let home = interpreter.home.root();
    let option = home::option_for(home).map(|option| format!("{option} ")).unwrap_or_default();
    let options = json!({
        "venv": venv, "project_airflow_home": interpreter.project_airflow_home(),
        "command": format!("leoflow {option}env link"), "marker": {"home": home, "inputs": inputs},
    });
    let mut python = Command::new(&interpreter.program);
    python.args(interpreter.arguments(Job::Link, &options));
    let output = command::output_within(&mut python, LIMIT).map_err(io("failed to run the project's Python"))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = command::failure(&String::from_utf8_lossy(&output.stderr), output.status);
    Err(LinkError::Failed { venv: venv.to_owned(), reason })
}

/// The record of a `.venv` in the home, a link to it.
fn record(home: &Home, venv: &Path) -> PathBuf {
    home.linked().join(hex::encode(&Sha256::digest(venv.as_os_str().as_encoded_bytes())[..8]))
}
