//! Chooses the Python of an environment, and ensures that the environment exists.

use super::build::{self, Stamp};
use super::declaration::declared::Declared;
use super::error::EnvironmentError;
use super::lock::Lock;
use super::{managed, resolve, uv};
use crate::discover::{self, Python};
use leoflow_base::home::Home;
use leoflow_base::home::progress::Reporter;
use std::path::PathBuf;

/// No Python on this machine matches.
#[derive(Debug)]
pub struct MissingPython {
    /// The version ranges that a Python must all match.
    pub ranges: Vec<String>,
    /// Message for the user.
    pub message: String,
}

/// Chooses the plain Python (the one for DAGs without an environment) if it matches, else the newest matching Python on
/// this machine. Runs each of them, which takes a moment. Records the choice, so that `prune` keeps the Python.
pub fn choose(home: &Home, declared: &Declared, plain: &Python) -> Result<Python, MissingPython> {
    let Some(range) = declared.mismatch(&plain.version) else {
        managed::record_choice(home, plain);
        return Ok(plain.clone());
    };
    let mut others = discover::all();
    others.extend(managed::all(home));
    others.sort_by_key(|python| std::cmp::Reverse(discover::numbers(&python.version)));
    if let Some(python) = others.iter().find(|python| declared.mismatch(&python.version).is_none()) {
        managed::record_choice(home, python);
        return Ok(python.clone());
    }
    let versions: Vec<&str> =
        [plain.version.as_str()].into_iter().chain(others.iter().map(|other| other.version.as_str())).collect();
    let required = declared.python.join(" and ");
    let message = format!(
        "Python {required} is required, but this machine has none: {} does not match {range:?}",
        versions.join(", ")
    );
    Err(MissingPython { ranges: declared.python.clone(), message })
}

/// Like `choose`, but installs a missing Python, which may take minutes.
pub fn choose_or_install(
    home: &Home,
    declared: &Declared,
    plain: &Python,
    reporter: &dyn Reporter,
) -> Result<Python, EnvironmentError> {
    choose(home, declared, plain).or_else(|missing| missing.install(home, reporter))
}

impl MissingPython {
    /// Progress text during an installation.
    pub fn progress_text(&self) -> String {
        managed::progress_text(&self.ranges)
    }

    /// Installs a matching Python.
    pub fn install(&self, home: &Home, reporter: &dyn Reporter) -> Result<Python, EnvironmentError> {
        managed::install(home, &self.ranges, reporter).map_err(|source| EnvironmentError::MissingPython {
            message: self.message.clone(),
            source: Box::new(source),
        })
    }
}

/// Returns the lock and the folder of the environment for this declaration and this Python; builds it if missing, which
/// may take minutes. `known` is the lock chosen before, if any; it is ignored if `Lock::allowed` now refuses it.
pub fn ensure(
    home: &Home,
    declared: &Declared,
    python: &Python,
    known: Option<Lock>,
    reporter: &dyn Reporter,
) -> Result<(Lock, PathBuf), EnvironmentError> {
    let known = known.and_then(|lock| lock.allowed().ok());
    let Some(mut lock) = known.or_else(|| lock_with_inputs(home, &declared.inputs_with(python))) else {
        return renew(home, declared, python, reporter);
    };
    // Values of variables are not stored with a lock.
    lock.declared.variables = declared.variables.clone();
    let folder = environment_of_lock(home, &lock, python, reporter)?;
    Ok((lock, folder))
}

/// Returns the folder of this lock's environment; builds it if missing.
pub fn environment_of_lock(
    home: &Home,
    lock: &Lock,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<PathBuf, EnvironmentError> {
    match build::find(home, &lock.hash()) {
        Some(folder) => Ok(folder),
        None => build::build(home, lock, python, reporter),
    }
}

/// The lock of the newest environment on this machine with the same inputs.
fn lock_with_inputs(home: &Home, inputs: &str) -> Option<Lock> {
    let has_inputs = |stamp: &Stamp| stamp.inputs.clone().unwrap_or_else(|| stamp.lock.inputs()) == inputs;
    let mut stamps: Vec<Stamp> = build::all(home).into_iter().map(|(_, stamp)| stamp).filter(has_inputs).collect();
    stamps.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    stamps.into_iter().find_map(|stamp| stamp.lock.allowed().ok())
}

/// Resolves the newest matching versions and installs them; first installs a newer patch of a managed Python, if any.
pub fn renew(
    home: &Home,
    declared: &Declared,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<(Lock, PathBuf), EnvironmentError> {
    let uv = uv::ensure(home, reporter)?;
    let may_be_newer = managed::is_managed(home, &python.path) && declared.python_of_lock(python) == python.minor();
    let newer = may_be_newer.then(|| managed::install_newer(home, python, &declared.python, reporter)).flatten();
    let python = newer.as_ref().unwrap_or(python);
    let lock = resolve::lock(&uv, home, declared, python, reporter)?;
    let folder = build::build(home, &lock, python, reporter)?;
    Ok((lock, folder))
}

/// Rebuilds the environments of these locks (`in_use`, hashes) that use a managed Python, if a newer patch of that
/// Python is available and their projects accept it. Returns how many were rebuilt, and the failures. `prune` removes
/// the old environments.
pub fn renew_managed(home: &Home, in_use: &[String], reporter: &dyn Reporter) -> (usize, Vec<EnvironmentError>) {
    let (mut renewed, mut problems) = (0, Vec::new());
    for python in managed::all(home) {
        // A lock for an exact patch (`3.12.4`) must keep that patch: it does not equal the minor version.
        let uses_python = |stamp: &Stamp| {
            stamp.version == python.version
                && stamp.lock.python == python.minor()
                && in_use.contains(&stamp.lock.hash())
                && managed::is_managed(home, &stamp.base)
        };
        for (_, stamp) in build::newest_of_each(home).into_iter().filter(|(_, stamp)| uses_python(stamp)) {
            let ranges = &stamp.lock.declared.python;
            let Some(newer) = managed::install_newer(home, &python, ranges, reporter) else { continue };
            match build::build(home, &stamp.lock, &newer, reporter) {
                Ok(_) => renewed += 1,
                Err(error) => problems.push(error),
            }
        }
    }
    (renewed, problems)
}
