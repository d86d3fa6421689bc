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

/// The outcome of a clean-up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The folders that were removed, or in a dry run would be.
    pub removed: Vec<PathBuf>,
    /// Unused managed Pythons that stay, because a Python is being installed.
    pub locked: Vec<PathBuf>,
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
    /// `unused_for`, broken environments, and the managed Pythons that no other environment needs.
    pub fn prune(self, home: &Home, in_use: &[String], unused_for: Duration) -> Result<Pruned, String> {
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
        // Taken before the Pythons are listed, so that no installation chooses one of them in the meantime.
        let install_lock = managed::exclude_installs(home);
        let pythons = managed::unused(home, &bases, unused_for);
        if self.pruning == Pruning::Remove {
            remove(home, &unused, &pythons, install_lock.as_ref())?;
        }
        match install_lock {
            Some(_) => {
                unused.extend(pythons);
                Ok(Pruned { removed: unused, locked: Vec::new() })
            }
            None => Ok(Pruned { removed: unused, locked: pythons }),
        }
    }
}

/// Removes these environments and, if no other process installs a Python, these Pythons; then the compiled modules and
/// cached files that only they used.
fn remove(
    home: &Home,
    environments: &[PathBuf],
    pythons: &[PathBuf],
    install_lock: Option<&FileLock>,
) -> Result<(), String> {
    for folder in environments {
        // The stamp first: without it the folder counts as broken, even if its removal fails halfway.
        files::remove_any(&folder.join(STAMP)).map_err(|error| unwritable(home, &error))?;
        files::remove_any(folder).map_err(|error| unwritable(home, &error))?;
    }
    if let Some(install_lock) = install_lock {
        managed::remove(home, pythons, install_lock)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    /// A managed Python that says it has this version and was installed long ago.
    fn install(home: &Home, version: &str) -> PathBuf {
        let folder = managed::folder(home).join(format!("cpython-{version}"));
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::write(folder.join(".leoflow-python"), "").unwrap();
        let program = folder.join("bin/python3");
        fs::write(&program, format!("#!/bin/sh\necho {version} $0\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::File::open(&folder).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        folder
    }

    #[test]
    fn a_python_stays_while_another_is_being_installed() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        // DAGs without an environment may run with the newest patch, so only the older one is unused.
        let (unused, _newest) = (install(&home, "3.13.1"), install(&home, "3.13.2"));
        let prune = |pruning| Cleanup::begin(&home, pruning).unwrap().prune(&home, &[], Duration::ZERO).unwrap();
        let installing = managed::exclude_installs(&home).unwrap();
        for pruning in [Pruning::ListOnly, Pruning::Remove] {
            assert_eq!(prune(pruning), Pruned { removed: Vec::new(), locked: vec![unused.clone()] });
        }
        assert!(unused.exists());
        drop(installing);
        for pruning in [Pruning::ListOnly, Pruning::Remove] {
            assert_eq!(prune(pruning), Pruned { removed: vec![unused.clone()], locked: Vec::new() });
        }
        assert!(!unused.exists());
    }
}
