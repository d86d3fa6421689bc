//! Builds environments, immutable folders with the packages of a lock.

use super::bytecode;
use super::error::EnvironmentError;
use super::install_packages::{INSTALL_LIMIT, install};
use super::installed::{self, program};
use super::lock::Lock;
use super::uv::{self, Call, Uv};
use crate::io_error::{io, unwritable};
use crate::{Python, discover};
use leoflow_base::counted::counted;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{self, Home};
use leoflow_base::sys::checkpoint::checkpoint;
use leoflow_base::sys::clock;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::fs::flock::FileLock;
use leoflow_base::sys::process;
use leoflow_components::wheel;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Time limit for waiting until a clean-up has ended, which takes moments, or until other builds have ended.
const CLEANUP_WAIT: Duration = Duration::from_secs(600);
/// Time limit for `uv cache clean` and `uv cache prune`.
pub(super) const PRUNE_LIMIT: Duration = Duration::from_secs(120);

/// Stamp file of an environment, written last: a folder without it is incomplete or being removed.
pub(super) const STAMP: &str = ".leoflow-deps";
/// Prefix of the names of staging folders.
const STAGING: &str = ".install-";

/// Content of the stamp file, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stamp {
    #[serde(flatten)]
    pub lock: Lock,
    /// Hash of the declaration, with the values of its variables, that the lock was resolved from. `None` in the stamp
    /// of an earlier release.
    pub inputs: Option<String>,
    /// Version of the Python, such as `3.12.1`.
    pub version: String,
    /// Real path of the Python: after a system upgrade a symbolic link may lead to another one.
    pub base: PathBuf,
    /// RFC 3339.
    pub created_at: String,
}

/// Path of the environment of a lock, named after the hash of the lock and the installed Python.
fn environment_folder(home: &Home, hash: &str, python: &Python) -> PathBuf {
    let identity = serde_json::json!([python.version, python.path, wheel::platform()]);
    let python_hash = hex::encode(&Sha256::digest(identity.to_string().as_bytes())[..4]);
    home.environments().join(format!("{}{python_hash}", lock_prefix(hash)))
}

/// Prefix of the names of all environments of the lock with this hash.
fn lock_prefix(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

/// Finds a complete, usable environment of the lock with this hash: the one with the newest Python.
pub fn find(home: &Home, hash: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(home.environments()).ok()?.flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(lock_prefix(hash)))
        .filter_map(|entry| Some((stamp(&entry.path())?, entry.path())))
        .filter(|(stamp, _)| stamp.lock.hash() == hash)
        .max_by_key(|(stamp, _)| (discover::numbers(&stamp.version), stamp.created_at.clone()))
        .map(|(_, folder)| folder)
}

/// The newest environment of each lock.
pub fn newest_of_each(home: &Home) -> Vec<(PathBuf, Stamp)> {
    let is_newest = |(folder, stamp): &(PathBuf, Stamp)| find(home, &stamp.lock.hash()).as_deref() == Some(folder);
    all(home).into_iter().filter(is_newest).collect()
}

/// The hash of an environment's lock, and its Python version as in the lock.
pub(crate) fn lock_of(folder: &Path) -> Option<(String, String)> {
    stamp(folder).map(|stamp| (stamp.lock.hash(), stamp.lock.python))
}

/// Records a use of an environment as the modification time of its stamp: `prune` removes environments that were not
/// used for a long time.
pub fn record_use(folder: &Path) {
    // A failure is harmless: `prune` keeps an environment whose lock is in use.
    let _ =
        File::options().append(true).open(folder.join(STAMP)).and_then(|stamp| stamp.set_modified(SystemTime::now()));
}

/// All complete environments, with their stamps.
pub fn all(home: &Home) -> Vec<(PathBuf, Stamp)> {
    let entries = std::fs::read_dir(home.environments()).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), stamp(&entry.path())?))).collect()
}

/// The stamp of an environment that is complete and whose Python still exists.
pub fn stamp(folder: &Path) -> Option<Stamp> {
    let text = files::read_text(&folder.join(STAMP), 16 * 1024 * 1024).ok()??;
    let stamp: Stamp = serde_json::from_str(&text).ok()?;
    let has_its_python = program(folder).canonicalize().is_ok_and(|base| base == stamp.base);
    has_its_python.then_some(stamp)
}

/// Whether a build may keep an existing environment of the same lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    All,
    /// Replaces the environment.
    Nothing,
}

/// Downloads and installs the environment of a lock again, to replace a damaged one. First removes the lock's packages
/// from uv's cache: an environment's files are hard links to those of the cache, so the damage is in both.
pub fn reinstall(
    home: &Home,
    lock: &Lock,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<PathBuf, EnvironmentError> {
    let uv = uv::ensure(home, reporter)?;
    remove_cached(&uv, home, lock, reporter)?;
    make(&uv, home, lock, python, Reuse::Nothing, reporter)
}

/// Removes the lock's packages from uv's cache, and all compiled modules.
fn remove_cached(uv: &Uv, home: &Home, lock: &Lock, reporter: &dyn Reporter) -> Result<(), EnvironmentError> {
    // A concurrent build would store compiled modules.
    let _lock = exclude_builds(home, CLEANUP_WAIT)?;
    if let Some(arguments) = clean_arguments(lock) {
        uv.run(&Call::new(arguments, PRUNE_LIMIT), reporter)?;
    }
    Ok(bytecode::remove_all(home).map_err(unwritable(&home.environments()))?)
}

/// Arguments for uv to remove the lock's packages from its cache; `None` for a lock without packages, because without
/// names uv would remove the whole cache.
fn clean_arguments(lock: &Lock) -> Option<Vec<OsString>> {
    let names: Vec<OsString> = lock.packages().into_iter().map(|(name, _)| name.into()).collect();
    (!names.is_empty()).then(|| ["cache", "clean"].map(Into::into).into_iter().chain(names).collect())
}

/// Builds the environment of a lock unless it exists; returns its folder. Several builds may run at the same time, also
/// of the same environment: the first to finish stays.
pub fn build(home: &Home, lock: &Lock, python: &Python, reporter: &dyn Reporter) -> Result<PathBuf, EnvironmentError> {
    let target = environment_folder(home, &lock.hash(), python);
    if stamp(&target).is_some() {
        return Ok(target);
    }
    make(&uv::ensure(home, reporter)?, home, lock, python, Reuse::All, reporter)
}

fn make(
    uv: &Uv,
    home: &Home,
    lock: &Lock,
    python: &Python,
    reuse: Reuse,
    reporter: &dyn Reporter,
) -> Result<PathBuf, EnvironmentError> {
    let target = environment_folder(home, &lock.hash(), python);
    let _lock = begin_build(home)?;
    let staging = Staging::new(home)?;
    let tree = staging.0.join("tree");
    let packages = counted(lock.packages().len(), "package");
    reporter.report(Progress::Started(format!("Installing {packages} for Python {}", lock.python)));
    let mut arguments: Vec<OsString> =
        ["venv", "--quiet", "--relocatable", "--no-project", "--python"].map(Into::into).into();
    arguments.extend([python.path.clone().into(), tree.clone().into()]);
    uv.run(&Call::new(arguments, INSTALL_LIMIT), reporter)?;
    checkpoint("environment.made");
    install(uv, lock, &staging.0, &tree, reporter)?;
    checkpoint("environment.installed");
    let name = target.file_name().unwrap_or_default();
    let history = bytecode::link_stored(home, &tree, name);
    installed::check(&tree, &staging.0, history)?;
    bytecode::save(home, &tree, name);
    let stamp = Stamp {
        lock: lock.clone(),
        inputs: Some(lock.inputs()),
        version: python.version.clone(),
        base: program(&tree).canonicalize().map_err(io("failed to resolve its Python"))?,
        created_at: clock::now_rfc3339(),
    };
    finish(home, &tree, &target, &stamp, reuse).map_err(unwritable(&home.environments()))?;
    reporter.report(Progress::Finished(format!("{packages} for Python {}", lock.python)));
    Ok(target)
}

/// Moves a complete environment from staging to its place. Of several builds of the same environment, the first stays.
fn finish(home: &Home, tree: &Path, target: &Path, new_stamp: &Stamp, reuse: Reuse) -> io::Result<()> {
    let _finishing = FileLock::exclusive_within(lock_file(home, FINISH_LOCK)?, CLEANUP_WAIT)?;
    if reuse == Reuse::All && stamp(target).is_some() {
        return Ok(());
    }
    files::write_atomic(&tree.join(STAMP), &serde_json::to_vec_pretty(new_stamp)?, 0o600)?;
    files::sync_file_system(tree)?;
    checkpoint("environment.stamped");
    replace(tree, target)?;
    checkpoint("environment.built");
    Ok(())
}

/// Renames the new environment to its place. An existing environment there is incomplete, damaged or without its
/// Python, but tasks may run in it: renaming it into the staging folder leaves the place empty for the shortest time.
/// It is removed with the staging folder.
fn replace(tree: &Path, target: &Path) -> io::Result<()> {
    let old = tree.with_file_name("old");
    match std::fs::rename(target, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    files::rename_durably(tree, target).inspect_err(|_| {
        // The caller reports the failure; a damaged environment is better than none. If this rename fails too, the
        // next build makes a new environment.
        let _ = std::fs::rename(&old, target);
    })
}

/// Number of complete environments.
pub fn count(home: &Home) -> usize {
    all(home).len()
}

/// A staging folder beside the environments; removed with its contents when dropped.
pub(super) struct Staging(pub(super) PathBuf);

impl Staging {
    pub(super) fn new(home: &Home) -> Result<Self, EnvironmentError> {
        home.create_folder(&home.environments()).map_err(unwritable(&home.environments()))?;
        let name = format!("{STAGING}{}-{}", std::process::id(), hex::encode(leoflow_base::sys::random::bytes::<4>()));
        let folder = home.environments().join(name);
        std::fs::create_dir(&folder).map_err(unwritable(&home.environments()))?;
        Ok(Self(folder))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // If this fails, a build removes the folder once this process has ended.
        let _ = files::remove_any(&self.0);
    }
}

fn lock_file(home: &Home, name: &str) -> io::Result<File> {
    home.create_folder(&home.environments())?;
    File::options().create(true).append(true).open(home.run().join(name))
}

/// File lock: builds hold it shared, a clean-up holds it exclusively.
const BUILDS_LOCK: &str = "environments.lock";
/// File lock for moving a new environment to its place.
const FINISH_LOCK: &str = "environments-finish.lock";

/// Takes `BUILDS_LOCK` shared, and removes the staging folders of killed builds.
fn begin_build(home: &Home) -> Result<FileLock, EnvironmentError> {
    let file = lock_file(home, BUILDS_LOCK).map_err(unwritable(&home.environments()))?;
    let lock = FileLock::shared_within(file, CLEANUP_WAIT).map_err(io("environments are being cleaned up"))?;
    for entry in std::fs::read_dir(home.environments()).map_err(unwritable(&home.environments()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(suffix) = name.strip_prefix(STAGING) else { continue };
        let is_builder_alive =
            suffix.split('-').next().and_then(|pid| pid.parse().ok()).is_some_and(process::is_pid_alive);
        if !is_builder_alive {
            // A failure is ignored, because the folder only takes disk space: a task may have changed the permissions
            // of an environment in it.
            let _ = files::remove_any(&entry.path());
        }
    }
    Ok(lock)
}

/// Takes `BUILDS_LOCK` exclusively, for removing files that builds use; waits up to `wait` for running builds to end.
pub(super) fn exclude_builds(home: &Home, wait: Duration) -> Result<FileLock, EnvironmentError> {
    let file = lock_file(home, BUILDS_LOCK).map_err(unwritable(&home.environments()))?;
    let option = home::option_for(home.root()).map(|option| format!("{option} ")).unwrap_or_default();
    let is_building = format!("an environment is being built; try again when `leoflow {option}env list` shows it");
    Ok(FileLock::exclusive_within(file, wait).map_err(io(is_building))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_needs_a_stamp_and_its_python() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock { declared: Default::default(), python: "3.11".to_owned(), text: String::new() };
        let base = folder.path().canonicalize().unwrap().join("bin/python");
        let stamp_file = Stamp { lock, inputs: None, version: "3.11.7".into(), base, created_at: String::new() };
        std::fs::write(folder.path().join(STAMP), serde_json::to_vec(&stamp_file).unwrap()).unwrap();
        assert!(stamp(folder.path()).is_none());
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::write(program(folder.path()), "").unwrap();
        assert_eq!(stamp(folder.path()).unwrap().version, "3.11.7");
        // Another Python replaces the program.
        std::fs::remove_file(program(folder.path())).unwrap();
        std::os::unix::fs::symlink("/bin/sh", program(folder.path())).unwrap();
        assert!(stamp(folder.path()).is_none());
        std::fs::write(folder.path().join(STAMP), "{\"lock\"").unwrap();
        assert!(stamp(folder.path()).is_none());
    }

    #[test]
    fn a_new_environment_takes_the_place_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let (staging, target) = (folder.path().join("staging"), folder.path().join("target"));
        let tree = staging.join("tree");
        let content = |path: &Path| std::fs::read_to_string(path.join("file")).unwrap();
        std::fs::create_dir(&staging).unwrap();
        for text in ["first", "second"] {
            std::fs::create_dir(&tree).unwrap();
            std::fs::write(tree.join("file"), text).unwrap();
            replace(&tree, &target).unwrap();
            assert_eq!(content(&target), text);
        }
        assert_eq!(content(&staging.join("old")), "first");
        // Without a new one, the old one stays.
        std::fs::remove_dir_all(staging.join("old")).unwrap();
        replace(&tree, &target).unwrap_err();
        assert_eq!(content(&target), "second");
    }

    #[test]
    fn only_the_packages_of_a_lock_leave_the_cache() {
        let lock = |text: &str| Lock { declared: Default::default(), python: "3.11".into(), text: text.into() };
        assert_eq!(clean_arguments(&lock("")), None);
        assert_eq!(clean_arguments(&lock("a==1\nb==2\n")).unwrap(), ["cache", "clean", "a", "b"]);
    }
}
