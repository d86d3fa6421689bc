//! Which Python an environment is for, and that it is there.

use super::build::{self, Lock, Stamp};
use super::declared::Declared;
use super::{managed, uv};
use crate::home::Home;
use crate::home::progress::Reporter;
use crate::python::discover::{self, Python};
use std::path::PathBuf;

/// There is no Python on this machine that will do.
#[derive(Debug)]
pub struct Missing {
    /// What it has to hold to.
    pub ranges: Vec<String>,
    /// For people.
    pub message: String,
}

/// The plain interpreter where it will do, else the newest on this machine that does. Asks each, which takes a moment.
pub fn choose(home: &Home, declared: &Declared, plain: &Python) -> Result<Python, Missing> {
    let Err(range) = declared.takes_python(&plain.version) else { return Ok(plain.clone()) };
    let mut others = discover::all();
    others.extend(managed::all(home));
    others.sort_by_key(|python| std::cmp::Reverse(discover::numbers(&python.version)));
    if let Some(found) = others.iter().find(|python| declared.takes_python(&python.version).is_ok()) {
        return Ok(found.clone());
    }
    let versions: Vec<&str> =
        [plain.version.as_str()].into_iter().chain(others.iter().map(|one| one.version.as_str())).collect();
    let wanted = declared.python.join(" and ");
    let message = format!(
        "Python {wanted} is wanted, and this machine has none: {} does not do for {range:?}",
        versions.join(", ")
    );
    Err(Missing { ranges: declared.python.clone(), message })
}

/// The same; one that is not on this machine is got, which may take minutes. The error is for people.
pub fn choose_or_get(
    home: &Home,
    declared: &Declared,
    plain: &Python,
    reporter: &dyn Reporter,
) -> Result<Python, String> {
    choose(home, declared, plain).or_else(|missing| missing.get(home, reporter))
}

impl Missing {
    /// While one is got; for people.
    pub fn what_is_done(&self) -> String {
        managed::what_is_done(&self.ranges)
    }

    /// Gets one. The error is for people.
    pub fn get(&self, home: &Home, reporter: &dyn Reporter) -> Result<Python, String> {
        managed::get(home, &self.ranges, reporter).map_err(|reason| {
            format!("{}.\nNone could be had: {reason}\nInstall one, or change what is wanted.", self.message)
        })
    }
}

/// The environment of what is declared, for this Python: the one that is there, or else a new one. `known` is the lock to
/// go by where one was chosen before; one that is not allowed any more counts as none. Returns the lock and the folder. It
/// may take minutes; the error is for people.
pub fn ensure(
    home: &Home,
    declared: &Declared,
    python: &Python,
    known: Option<Lock>,
    reporter: &dyn Reporter,
) -> Result<(Lock, PathBuf), String> {
    let known = known.and_then(|lock| lock.allowed().ok());
    let Some(lock) = known.or_else(|| of_same_inputs(home, &declared.inputs_with(python))) else {
        return renew(home, declared, python, reporter);
    };
    let folder = of_lock(home, &lock, python, reporter)?;
    Ok((lock, folder))
}

/// The environment of exactly this lock, built where it is not there. The error is for people.
pub fn of_lock(home: &Home, lock: &Lock, python: &Python, reporter: &dyn Reporter) -> Result<PathBuf, String> {
    match build::find(home, &lock.hash()) {
        Some(folder) => Ok(folder),
        None => build::build(&uv::get(home, reporter)?, home, lock, python, reporter),
    }
}

/// What the newest environment on this machine has that was made for the same.
fn of_same_inputs(home: &Home, inputs: &str) -> Option<Lock> {
    let mut found: Vec<Stamp> =
        build::all(home).into_iter().map(|(_, stamp)| stamp).filter(|stamp| stamp.lock.inputs() == inputs).collect();
    found.sort_by(|a, b| b.created_at.cmp(&a.created_at));
    found.into_iter().find_map(|stamp| stamp.lock.allowed().ok())
}

/// The newest versions that do for what is declared, installed. The error is for people.
pub fn renew(
    home: &Home,
    declared: &Declared,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<(Lock, PathBuf), String> {
    let uv = uv::get(home, reporter)?;
    let may_be_newer = managed::is_of(home, &python.path) && declared.python_of_lock(python) == python.minor();
    let newer = may_be_newer.then(|| managed::newer(home, python, &declared.python, reporter)).flatten();
    let python = newer.as_ref().unwrap_or(python);
    let lock = build::lock(&uv, home, declared, python, reporter)?;
    let folder = build::build(&uv, home, &lock, python, reporter)?;
    Ok((lock, folder))
}

/// Environments of these locks with a Python that Leoflow has got are built again where there is a newer patch of it that
/// their projects take. Returns how many were, and what could not be done; those of before stay until nothing needs them.
pub fn renew_managed(home: &Home, in_use: &[String], reporter: &dyn Reporter) -> (usize, Vec<String>) {
    let (mut renewed, mut problems) = (0, Vec::new());
    for python in managed::all(home) {
        // A lock for one patch stays with it.
        let is_with = |stamp: &Stamp| {
            stamp.version == python.version
                && stamp.lock.python == python.minor()
                && in_use.contains(&stamp.lock.hash())
                && managed::is_of(home, &stamp.base)
        };
        for (_, stamp) in build::newest_of_each(home).into_iter().filter(|(_, stamp)| is_with(stamp)) {
            let ranges = &stamp.lock.declared.python;
            let Some(newer) = managed::newer(home, &python, ranges, reporter) else { continue };
            let built = uv::get(home, reporter).and_then(|uv| build::build(&uv, home, &stamp.lock, &newer, reporter));
            match built {
                Ok(_) => renewed += 1,
                Err(reason) => problems.push(reason),
            }
        }
    }
    (renewed, problems)
}
