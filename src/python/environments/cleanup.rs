//! Removes environments and managed Pythons that nothing uses any more.

use super::build::{self, PRUNE_LIMIT, STAMP, Stamp, stamp, unwritable};
use super::uv::{self, Call};
use super::{bytecode, managed};
use leoflow_base::home::Home;
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::fs::flock::FileLock;
use std::path::PathBuf;
use std::time::Duration;

/// Time limit for waiting for builds to end.
const BUILDS_WAIT: Duration = Duration::from_secs(5);

/// What `prune` does with unused environments and Pythons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    Remove,
    /// A dry run.
    ListOnly,
}

/// A clean-up in progress. Callers must read the locks in use after `begin`: then the list includes every build that
/// has ended, and no build begins while this value exists. A dry run does not exclude builds.
#[derive(Debug)]
pub struct Cleanup {
    pruning: Pruning,
    _lock: Option<FileLock>,
}

impl Cleanup {
    /// Waits up to `BUILDS_WAIT` for builds to end. The error is a message for the user.
    pub fn begin(home: &Home, pruning: Pruning) -> Result<Self, String> {
        let lock = match pruning {
            Pruning::Remove => Some(build::exclude_builds(home, BUILDS_WAIT)?),
            Pruning::ListOnly => None,
        };
        Ok(Self { pruning, _lock: lock })
    }

    /// Removes or lists the environments whose lock is not in use (`in_use`, hashes) and that were not used for
    /// `unused_for`, broken environments, and the managed Pythons that no other environment needs. Returns their
    /// folders.
    pub fn prune(self, home: &Home, in_use: &[String], unused_for: Duration) -> Result<Vec<PathBuf>, String> {
        let is_unused = |(folder, stamp): &(PathBuf, Stamp)| {
            let last_used = std::fs::metadata(folder.join(STAMP)).and_then(|meta| meta.modified()).ok();
            let is_old = last_used.is_none_or(|time| time.elapsed().unwrap_or_default() >= unused_for);
            // Keeps all environments of a lock in use: agents and tasks may still use the one with an older Python.
            is_old && !in_use.contains(&stamp.lock.hash())
        };
        let (unused, used): (Vec<_>, Vec<_>) = build::all(home).into_iter().partition(is_unused);
        let bases: Vec<PathBuf> = used.into_iter().map(|(_, stamp)| stamp.base).collect();
        let mut unused: Vec<PathBuf> = unused.into_iter().map(|(folder, _)| folder).collect();
        unused.extend(broken(home));
        let pythons = managed::unused(home, &bases, unused_for);
        if self.pruning == Pruning::Remove {
            remove(home, &unused, &pythons)?;
        }
        unused.extend(pythons);
        Ok(unused)
    }
}

/// Removes these environments and Pythons, then the compiled modules and cached files that only they used.
fn remove(home: &Home, environments: &[PathBuf], pythons: &[PathBuf]) -> Result<(), String> {
    for folder in environments {
        // The stamp first: without it the folder counts as broken, even if its removal fails halfway.
        files::remove_any(&folder.join(STAMP)).map_err(|error| unwritable(home, &error))?;
        files::remove_any(folder).map_err(|error| unwritable(home, &error))?;
    }
    managed::remove(home, pythons)?;
    bytecode::remove_unused(home);
    if let Some(uv) = uv::find(home).filter(|_| !environments.is_empty()) {
        // Files of environments are hard links to files of uv's cache: only pruning the cache frees their space.
        let _ = uv.run(&Call::new(["cache", "prune"].map(Into::into).into(), PRUNE_LIMIT), &|_: Progress| {});
    }
    Ok(())
}

/// Lists broken environments: those whose Python is gone or whose removal was interrupted.
fn broken(home: &Home) -> Vec<PathBuf> {
    let is_environment_name = |name: &str| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let entries = std::fs::read_dir(home.environments()).into_iter().flatten().flatten();
    let named = entries.filter(|entry| is_environment_name(&entry.file_name().to_string_lossy()));
    named.map(|entry| entry.path()).filter(|folder| stamp(folder).is_none()).collect()
}
