//! `.venv` in a project's folder: a virtual environment for editors that leads to the project's environment and keeps
//! its path while the dependencies change. `leoflow/outside/virtual_env.py` writes it.

use super::discover::LINK_MARKER;
use super::environments;
use super::interpreter::{Interpreter, Job};
use super::io_error::{IoError, io, unreadable, unwritable};
use super::roots::Request;
use leoflow_base::config::leoflow_yaml;
use leoflow_base::home::{self, Home};
use leoflow_base::sys::fs::flock::FileLock;
use leoflow_base::sys::fs::{files, folders};
use leoflow_base::sys::process;
use leoflow_base::sys::shell;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
#[derive(Debug, Deserialize)]
struct Marker {
    home: PathBuf,
    /// `Inputs` of this release or of another one.
    #[serde(default)]
    inputs: Value,
    /// False while the files are being written.
    #[serde(default)]
    is_complete: bool,
}

/// What the files depend on.
#[derive(Debug, Serialize)]
struct Inputs {
    /// The DAG file whose environment it is; files of one project may have different ones.
    file: PathBuf,
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
    let venv = project.join(FOLDER);
    write_if_changed(interpreter, &venv, request, Trigger::Command)?;
    Ok(venv)
}

/// Brings the `.venv` of a project up to date if it is ours and of the DAG file of the request. Blocks.
pub fn refresh(interpreter: &Interpreter, project: &Path, request: &Request) -> Result<(), LinkError> {
    match write_if_changed(interpreter, &project.join(FOLDER), request, Trigger::Change) {
        // The user's own, or that of another instance.
        Err(LinkError::NotOurs(_) | LinkError::OfOtherHome { .. }) => Ok(()),
        written => written,
    }
}

/// The command that makes the project's `.venv`, for messages outside of a command.
pub fn command(interpreter: &Interpreter, project: &Path) -> String {
    let option = home::option_for(interpreter.home.root()).map(|option| format!("{option} ")).unwrap_or_default();
    format!("leoflow {option}env link {}", shell::word(&project.to_string_lossy()))
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
    markers
        .filter_map(|marker| environments::lock_of(Path::new(marker.inputs["program"].as_str()?).parent()?.parent()?))
        .collect()
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
    let marker = match marker(venv) {
        // A damaged marker; the home has a record of the folder.
        Err(_) if record(home, venv).is_symlink() => {
            Some(Marker { home: home.root().to_owned(), inputs: Value::Null, is_complete: false })
        }
        marker => marker?,
    };
    match marker {
        // What a killed command leaves.
        None if folders::entries(venv).is_ok_and(|entries| entries.iter().all(|entry| is_partial_marker(entry))) => {
            Ok(None)
        }
        None => Err(LinkError::NotOurs(venv.to_owned())),
        Some(marker) if marker.home != home.root() => {
            Err(LinkError::OfOtherHome { venv: venv.to_owned(), home: marker.home })
        }
        // `python -m venv` keeps the marker and writes a configuration of its own.
        Some(marker) if marker.is_complete && !has_own_configuration(venv) => Err(LinkError::NotOurs(venv.to_owned())),
        Some(marker) => Ok(Some(marker)),
    }
}

fn is_partial_marker(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{LINK_MARKER}.")))
}

/// True if `pyvenv.cfg` has the key that `virtual_env.py` adds.
fn has_own_configuration(venv: &Path) -> bool {
    let text = files::read_text(&venv.join("pyvenv.cfg"), MARKER_LIMIT).ok().flatten();
    text.is_some_and(|text| text.lines().any(|line| line.starts_with("leoflow-link")))
}

/// Why a `.venv` is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trigger {
    /// `leoflow env link`.
    Command,
    /// The project may have changed; a missing `.venv` stays missing.
    Change,
}

/// Writes the files unless they are complete and depend on nothing that has changed.
fn write_if_changed(
    interpreter: &Interpreter,
    venv: &Path,
    request: &Request,
    trigger: Trigger,
) -> Result<(), LinkError> {
    let home = &interpreter.home;
    let outdated = || {
        let before = existing(home, venv)?;
        let file_before = before.as_ref().and_then(|marker| marker.inputs["file"].as_str()).map(Path::new);
        let is_of_other_file = file_before.is_some_and(|file| file != request.path && file.exists());
        if trigger == Trigger::Change && (before.is_none() || is_of_other_file) {
            return Ok(None);
        }
        let inputs = json!(Inputs {
            file: request.path.clone(),
            program: interpreter.program.clone(),
            package: interpreter.package.clone(),
            support: interpreter.options(&json!({}))["support"].as_str().map(PathBuf::from),
            roots: request.roots.clone(),
            airflow_2: venv.parent().is_some_and(is_for_airflow_2),
        });
        let is_current = before.is_some_and(|marker| marker.is_complete && marker.inputs == inputs)
            && record(home, venv).is_symlink();
        Ok::<_, LinkError>((!is_current).then_some(inputs))
    };
    if outdated()?.is_none() {
        return Ok(());
    }
    // The server parses the files of a project at the same time.
    let file = File::options().create(true).append(true).open(home.run().join(LOCK));
    let lock = file.and_then(|file| FileLock::exclusive_within(file, LIMIT));
    let _lock = lock.map_err(io("another command writes a virtual environment"))?;
    let Some(inputs) = outdated()? else { return Ok(()) };
    write(interpreter, venv, &inputs)?;
    // Recorded last: a record leads to a `.venv` that is ours.
    home.create_folder(&home.linked()).map_err(unwritable(&home.linked()))?;
    let record = record(home, venv);
    files::replace_link(&canonical(venv), &record).map_err(unwritable(&record))?;
    Ok(())
}

fn write(interpreter: &Interpreter, venv: &Path, inputs: &Value) -> Result<(), LinkError> {
    let options = json!({
        "venv": venv, "project_airflow_home": interpreter.project_airflow_home(),
        "command": command(interpreter, venv.parent().unwrap_or(venv)),
        "marker": {"home": interpreter.home.root(), "inputs": inputs},
    });
    let mut python = Command::new(&interpreter.program);
    python.args(interpreter.arguments(Job::Link, &options));
    let output =
        process::command::output_within(&mut python, LIMIT).map_err(io("failed to run the project's Python"))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = process::command::failure(&String::from_utf8_lossy(&output.stderr), output.status);
    Err(LinkError::Failed { venv: venv.to_owned(), reason })
}

/// True for a project's folder whose settings have `airflow_2: true`. The server reports settings that cannot be read.
fn is_for_airflow_2(project: &Path) -> bool {
    leoflow_yaml::load(project).ok().flatten().is_some_and(|settings| settings["airflow_2"] == true)
}

/// The record of a `.venv` in the home, a link to it. It does not lead through the workspace, whose link to the project
/// may be removed first.
fn record(home: &Home, venv: &Path) -> PathBuf {
    home.linked().join(hex::encode(&Sha256::digest(canonical(venv).as_os_str().as_encoded_bytes())[..8]))
}

/// The path of a `.venv` in the project's folder without links.
fn canonical(venv: &Path) -> PathBuf {
    let project = venv.parent().and_then(|project| project.canonicalize().ok());
    project.map_or_else(|| venv.to_owned(), |project| project.join(FOLDER))
}
