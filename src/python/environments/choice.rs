//! Which Python an environment is for, and that it is there.

use super::build::{self, Lock, Stamp};
use super::declared::Declared;
use super::uv;
use crate::home::Home;
use crate::home::progress::Reporter;
use crate::python::discover::{self, Python};
use std::path::PathBuf;

/// The plain interpreter where it will do, else the newest on this machine that does. Asks each, which takes a moment.
/// The error is for people.
pub fn choose(declared: &Declared, plain: &Python) -> Result<Python, String> {
    let Err(range) = declared.takes_python(&plain.version) else { return Ok(plain.clone()) };
    let all = discover::all();
    if let Some(found) = all.iter().find(|python| declared.takes_python(&python.version).is_ok()) {
        return Ok(found.clone());
    }
    let versions: Vec<&str> =
        [plain.version.as_str()].into_iter().chain(all.iter().map(|one| one.version.as_str())).collect();
    let wanted = declared.python.join(" and ");
    Err(format!(
        "Python {wanted} is wanted, and this machine has none: {} does not do for {range:?}\n\
         Install one, for example with `uv python install {}`, or change what is wanted.",
        versions.join(", "),
        range.trim_start_matches(|c: char| !c.is_ascii_digit()).split(',').next().unwrap_or_default()
    ))
}

/// The environment of what is declared, for this Python: the one that is there, or else a new one. `known` is the lock to
/// go by where one was chosen before. Returns the lock and the folder. It may take minutes; the error is for people.
pub fn ensure(
    home: &Home,
    declared: &Declared,
    python: &Python,
    known: Option<Lock>,
    reporter: &dyn Reporter,
) -> Result<(Lock, PathBuf), String> {
    let Some(lock) = known.or_else(|| of_same_inputs(home, &declared.inputs_with(python))) else {
        return renew(home, declared, python, reporter);
    };
    let folder = match build::find(home, &lock.hash()) {
        Some(folder) => folder,
        None => build::build(&uv::get(home, reporter)?, home, &lock, python, reporter)?,
    };
    Ok((lock, folder))
}

/// What the newest environment on this machine has that was made for the same.
fn of_same_inputs(home: &Home, inputs: &str) -> Option<Lock> {
    let mut found: Vec<Stamp> =
        build::all(home).into_iter().map(|(_, stamp)| stamp).filter(|stamp| stamp.lock.inputs() == inputs).collect();
    found.sort_by(|a, b| a.created_at.cmp(&b.created_at));
    found.pop().map(|stamp| stamp.lock)
}

/// The newest versions that do for what is declared, installed. The error is for people.
pub fn renew(
    home: &Home,
    declared: &Declared,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<(Lock, PathBuf), String> {
    let uv = uv::get(home, reporter)?;
    let lock = build::lock(&uv, home, declared, python, reporter)?;
    let folder = build::build(&uv, home, &lock, python, reporter)?;
    Ok((lock, folder))
}
