//! Removes environments and managed Pythons that nothing uses any more.

use super::build::{self, PRUNE_LIMIT, STAMP, Stamp, stamp};
use super::error::EnvironmentError;
use super::uv::{self, Call};
use super::{bytecode, managed};
use crate::io_error::unwritable;
use leoflow_base::home::Home;
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::fs::disk_usage::{Limits, measure};
use leoflow_base::sys::fs::flock::FileLock;
use leoflow_base::sys::fs::{files, folders};
use leoflow_base::sys::mutex;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Time limit for waiting for builds to end.
const BUILDS_WAIT: Duration = Duration::from_secs(5);
/// Size of uv's cache above which every clean-up prunes it, in bytes.
const CACHE_LIMIT: u64 = 5 * 1024 * 1024 * 1024;
const MEASURING: Limits = Limits { entries: 2_000_000, time: Duration::from_secs(60) };

/// What `prune` does with unused environments and Pythons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    Remove,
    /// A dry run.
    ListOnly,
}

/// What a clean-up keeps.
#[derive(Debug, Default)]
pub struct InUse {
    /// Hashes of the locks in use, with their Python versions (`3.12` or `3.12.4`).
    pub locks: HashMap<String, String>,
    /// Programs of Pythons that run DAGs, or that were chosen for environments, even if those are not built yet.
    pub pythons: Vec<PathBuf>,
}

/// The outcome of a clean-up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The folders that were removed, or in a dry run would be.
    pub removed: Vec<PathBuf>,
    /// Unused managed Pythons that stay, because a Python is being installed.
    pub locked: Vec<PathBuf>,
    /// What uv says about the removal of packages from its cache; `None` without a removal.
    pub uv_cache: Option<String>,
}

/// A clean-up in progress. Callers must read what is in use after `begin`: then it includes every build that has ended,
/// and no build begins while this value exists. A dry run does not exclude builds.
#[derive(Debug)]
pub struct Cleanup {
    pruning: Pruning,
    _lock: Option<FileLock>,
}

impl Cleanup {
    /// Waits up to `BUILDS_WAIT` for builds to end.
    pub fn begin(home: &Home, pruning: Pruning) -> Result<Self, EnvironmentError> {
        let lock = match pruning {
            Pruning::Remove => Some(build::exclude_builds(home, BUILDS_WAIT)?),
            Pruning::ListOnly => None,
        };
        Ok(Self { pruning, _lock: lock })
    }

    /// Removes or lists the environments whose lock is not in use and that were not used for `unused_for`, broken
    /// environments, and the managed Pythons that no other environment needs, built or not.
    pub fn prune(self, home: &Home, in_use: &InUse, unused_for: Duration) -> Result<Pruned, EnvironmentError> {
        let is_unused = |(folder, stamp): &(PathBuf, Stamp)| {
            let last_used = std::fs::metadata(folder.join(STAMP)).and_then(|meta| meta.modified()).ok();
            let is_old = last_used.is_none_or(|time| time.elapsed().unwrap_or_default() >= unused_for);
            // Keeps all environments of a lock in use: agents and tasks may still use the one with an older Python.
            is_old && !in_use.locks.contains_key(&stamp.lock.hash())
        };
        // Environments that cannot be listed may use any Python.
        folders::entries(&home.environments()).map_err(unwritable(&home.environments()))?;
        let (unused, used): (Vec<_>, Vec<_>) = build::all(home).into_iter().partition(is_unused);
        let bases = bases(home, &used, in_use);
        let mut unused: Vec<PathBuf> = unused.into_iter().map(|(folder, _)| folder).collect();
        unused.extend(broken(home));
        // Taken before the Pythons are listed, so that no installation chooses one of them in the meantime.
        let install_lock = managed::exclude_installs(home);
        if self.pruning == Pruning::Remove {
            remove_environments(home, &unused)?;
        }
        let mut uv_cache = None;
        // Listed after that removal, which takes a moment: a Python may be chosen in the meantime.
        let pythons = managed::unused(home, &bases, unused_for);
        if self.pruning == Pruning::Remove {
            if let Some(install_lock) = &install_lock {
                managed::remove(home, &pythons, install_lock)?;
            }
            bytecode::remove_unused(home);
            // The packages of removed environments stay in the cache, from which they can be installed offline. A
            // clean-up on request removes them in any case.
            let cache = uv::cache(home);
            if unused_for.is_zero() || measure(&cache, MEASURING).bytes > CACHE_LIMIT {
                uv_cache = prune_uv_cache(home, &unused_packages(&cache, &used));
            }
        }
        match install_lock {
            Some(_) => {
                unused.extend(pythons);
                Ok(Pruned { removed: unused, locked: Vec::new(), uv_cache })
            }
            None => Ok(Pruned { removed: unused, locked: pythons, uv_cache }),
        }
    }
}

/// Returns the real paths of the Pythons in use: those of the environments in use, those chosen for environments that
/// are not built yet, and those that fit locks without an environment on this machine.
fn bases(home: &Home, environments: &[(PathBuf, Stamp)], in_use: &InUse) -> Vec<PathBuf> {
    let built: HashSet<String> = environments.iter().map(|(_, stamp)| stamp.lock.hash()).collect();
    let unbuilt = in_use.locks.iter().filter(|(hash, _)| !built.contains(*hash));
    let versions: BTreeSet<&str> = unbuilt.map(|(_, version)| version.as_str()).collect();
    let mut bases = managed::newest_of(home, &versions);
    bases.extend(environments.iter().map(|(_, stamp)| stamp.base.clone()));
    bases.extend(in_use.pythons.iter().filter_map(|program| program.canonicalize().ok()));
    bases
}

fn remove_environments(home: &Home, environments: &[PathBuf]) -> Result<(), EnvironmentError> {
    for folder in environments {
        // The stamp first: without it the folder counts as broken, even if its removal fails halfway.
        files::remove_any(&folder.join(STAMP)).map_err(unwritable(&home.environments()))?;
        files::remove_any(folder).map_err(unwritable(&home.environments()))?;
    }
    Ok(())
}

/// Removes packages, and what uv finds unused, from uv's cache. Returns the last lines of uv's output, or why it failed;
/// `None` without a uv. `uv cache prune` alone keeps every package that was ever installed.
fn prune_uv_cache(home: &Home, packages: &BTreeSet<String>) -> Option<String> {
    let uv = uv::find(home)?;
    let run = |arguments: Vec<OsString>| {
        let last_line = Mutex::new(String::new());
        let reporter = |progress: Progress| {
            if let Progress::Detail(line) = progress {
                *mutex::lock(&last_line) = line;
            }
        };
        let outcome = uv.run(&Call::new(arguments, PRUNE_LIMIT), &reporter);
        outcome.map_or_else(|error| error.to_string(), |()| mutex::lock(&last_line).clone())
    };
    // Without names, uv would remove the whole cache.
    let names = (!packages.is_empty()).then(|| packages.iter().map(Into::into));
    let clean = names.map(|names| run(["cache", "clean"].map(Into::into).into_iter().chain(names).collect()));
    let pruned = run(["cache", "prune"].map(Into::into).into());
    Some(clean.into_iter().chain([pruned]).collect::<Vec<_>>().join("; "))
}

/// The packages in uv's cache that none of these environments has.
fn unused_packages(cache: &Path, environments: &[(PathBuf, Stamp)]) -> BTreeSet<String> {
    let used: HashSet<String> =
        environments.iter().flat_map(|(_, stamp)| stamp.lock.packages()).map(|(name, _)| name).collect();
    let below = |folders: Vec<PathBuf>| -> Vec<PathBuf> {
        folders.iter().flat_map(|folder| folders::entries(folder).unwrap_or_default()).collect()
    };
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut kinds = below(vec![cache.to_owned()]);
    kinds.retain(|bucket| ["wheels-v", "sdists-v"].iter().any(|start| name(bucket).starts_with(start)));
    // Packages of PyPI are in `pypi/NAME`, those of other indexes in `index/HASH/NAME`.
    let (pypi, others): (Vec<_>, Vec<_>) = below(kinds).into_iter().partition(|kind| kind.ends_with("pypi"));
    let indexes = below(others.into_iter().filter(|kind| kind.ends_with("index")).collect());
    let packages = below(pypi.into_iter().chain(indexes).collect());
    packages.iter().filter(|path| path.is_dir()).map(name).filter(|name| !used.contains(name)).collect()
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
    use crate::Python;
    use crate::environments::{Declared, Lock, choose};
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

    fn new_home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        (folder, home)
    }

    fn prune(home: &Home, pruning: Pruning, in_use: &InUse) -> Pruned {
        Cleanup::begin(home, pruning).unwrap().prune(home, in_use, Duration::ZERO).unwrap()
    }

    #[test]
    fn a_python_stays_while_another_is_being_installed() {
        let (_folder, home) = new_home();
        // DAGs without an environment may run with the newest patch, so only the older one is unused.
        let (unused, _newest) = (install(&home, "3.13.1"), install(&home, "3.13.2"));
        let prune = |pruning| Pruned { uv_cache: None, ..prune(&home, pruning, &InUse::default()) };
        let installing = managed::exclude_installs(&home).unwrap();
        for pruning in [Pruning::ListOnly, Pruning::Remove] {
            assert_eq!(prune(pruning), Pruned { locked: vec![unused.clone()], ..Pruned::default() });
        }
        assert!(unused.exists());
        drop(installing);
        for pruning in [Pruning::ListOnly, Pruning::Remove] {
            assert_eq!(prune(pruning), Pruned { removed: vec![unused.clone()], ..Pruned::default() });
        }
        assert!(!unused.exists());
    }

    #[test]
    fn a_python_of_an_environment_that_is_not_built_yet_stays() {
        let (_folder, home) = new_home();
        let (older, newer) = (install(&home, "3.12.91"), install(&home, "3.12.92"));
        // The Python of DAGs without an environment.
        install(&home, "3.13.91");
        let unused = |in_use: &InUse| {
            let mut folders = prune(&home, Pruning::ListOnly, in_use).removed;
            folders.sort();
            folders
        };
        assert_eq!(unused(&InUse::default()), [older.clone(), newer.clone()]);
        let chosen = InUse { pythons: vec![older.join("bin/python3")], ..InUse::default() };
        assert_eq!(unused(&chosen), std::slice::from_ref(&newer));
        let locked = |version: &str| {
            let locks = HashMap::from([("ab".to_owned(), version.to_owned())]);
            InUse { locks, ..InUse::default() }
        };
        assert_eq!(unused(&locked("3.12")), std::slice::from_ref(&older));
        assert_eq!(unused(&locked("3.12.91")), std::slice::from_ref(&newer));
        // Another process, such as a command, has chosen it just now.
        let declared = Declared { python: vec!["3.12.91".to_owned()], ..Declared::default() };
        let plain = Python { path: "/plain/python3".into(), version: "3.13.91".to_owned() };
        assert_eq!(choose(&home, &declared, &plain).unwrap().path, older.join("bin/python3"));
        assert_eq!(unused(&InUse::default()), [newer]);
    }

    #[test]
    fn packages_without_an_environment_are_found_in_uvs_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        for path in ["wheels-v8/pypi/six", "wheels-v8/index/0a1b/paint", "sdists-v11/pypi/six", "archive-v0/x"] {
            fs::create_dir_all(cache.join(path)).unwrap();
        }
        assert_eq!(unused_packages(&cache, &[]), BTreeSet::from(["paint".to_owned(), "six".to_owned()]));
        let lock = Lock { declared: Declared::default(), python: "3.12".into(), text: "six==1.17.0\n".into() };
        let stamp =
            Stamp { lock, inputs: None, version: "3.12.1".into(), base: PathBuf::new(), created_at: String::new() };
        let used = unused_packages(&cache, &[(PathBuf::new(), stamp)]);
        assert_eq!(used, BTreeSet::from(["paint".to_owned()]));
    }
}
