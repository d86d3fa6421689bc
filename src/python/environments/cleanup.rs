//! Removes environments that nothing uses any more.

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

/// What `prune` does with what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    Remove,
    /// A dry run.
    ListOnly,
}

/// A clean-up that has begun. What is in use must be read after that: a build that ends before is counted then, and
/// none begins while this exists. A dry run excludes no builds.
#[derive(Debug)]
pub struct Cleanup {
    pruning: Pruning,
    _lock: Option<FileLock>,
}

impl Cleanup {
    /// Waits a few seconds for builds to end. The error is for people.
    pub fn begin(home: &Home, pruning: Pruning) -> Result<Self, String> {
        let lock = match pruning {
            Pruning::Remove => Some(build::exclude_builds(home, BUILDS_WAIT)?),
            Pruning::ListOnly => None,
        };
        Ok(Self { pruning, _lock: lock })
    }

    /// Removes or lists environments whose lock is not in use and that were unused for `unused_for`, and Pythons that
    /// nothing needs then.
    pub fn prune(self, home: &Home, in_use: &[String], unused_for: Duration) -> Result<Vec<PathBuf>, String> {
        let is_unused = |(folder, stamp): &(PathBuf, Stamp)| {
            let last_used = std::fs::metadata(folder.join(STAMP)).and_then(|meta| meta.modified()).ok();
            let is_old = last_used.is_none_or(|time| time.elapsed().unwrap_or_default() >= unused_for);
            // An environment that was rebuilt with a newer Python is kept too: agents and tasks may still use it.
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

/// Removes these environments and Pythons, and what only they used.
fn remove(home: &Home, environments: &[PathBuf], pythons: &[PathBuf]) -> Result<(), String> {
    for folder in environments {
        // Without its stamp it does not count as an environment, even if its removal fails halfway.
        files::remove_any(&folder.join(STAMP)).map_err(|error| unwritable(home, &error))?;
        files::remove_any(folder).map_err(|error| unwritable(home, &error))?;
    }
    managed::remove(home, pythons)?;
    bytecode::remove_unused(home);
    if let Some(uv) = uv::find(home).filter(|_| !environments.is_empty()) {
        // Files of environments are hard links into uv's cache: only pruning that frees their space.
        let _ = uv.run(&Call::new(["cache", "prune"].map(Into::into).into(), PRUNE_LIMIT), &|_: Progress| {});
    }
    Ok(())
}

/// Broken environments: their Python is gone, or their removal was interrupted.
fn broken(home: &Home) -> Vec<PathBuf> {
    let is_environment_name = |name: &str| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let entries = std::fs::read_dir(home.environments()).into_iter().flatten().flatten();
    let named = entries.filter(|entry| is_environment_name(&entry.file_name().to_string_lossy()));
    named.map(|entry| entry.path()).filter(|folder| stamp(folder).is_none()).collect()
}
