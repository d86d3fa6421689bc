//! Managed Pythons: builds of python-build-standalone that Leoflow installs with uv, which knows their URLs and hashes.

use super::declaration::python_range::PythonRange;
use super::error::EnvironmentError;
use super::uv;
use crate::discover::{self, MINIMUM, Python};
use crate::io_error::{io, unwritable};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{Home, shared};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::fs::flock::FileLock;
use std::collections::BTreeSet;
use std::fs::{DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Minor versions of Python 3 in order of preference: first those with wheels of most packages.
const PREFERRED: [u32; 5] = [13, 12, 14, 11, 10];
/// Upper bound of patch numbers; more than any minor version has had.
const PATCHES: u32 = 60;
/// Time limit for downloading some 35 MB over a slow line, and for waiting until another process has done so.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(900);
/// A Python that was installed or chosen within this time is not pruned: an environment is about to use it. Longer than
/// a command takes from its choice to the end of the build.
const RECENTLY_CHOSEN: Duration = Duration::from_secs(3600);
/// Stamp file in the folder of a complete Python.
const STAMP: &str = ".leoflow-python";
/// Folder in which uv unpacks.
const UNPACK_FOLDER: &str = ".temp";
/// Lock file, held while Pythons are installed or removed.
const LOCK: &str = ".leoflow.lock";

/// The folder of managed Pythons, in subfolders that uv names after version and platform.
pub fn folder(home: &Home) -> PathBuf {
    home.python().join("managed")
}

/// Returns the version request for uv that matches all these ranges.
fn request(ranges: &[String]) -> Result<String, EnvironmentError> {
    let parsed: Vec<PythonRange> = ranges.iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
    let has_matching_patch =
        |minor: u32| (0..PATCHES).any(|patch| parsed.iter().all(|range| range.contains(&format!("3.{minor}.{patch}"))));
    let preferred = PREFERRED.iter().find(|minor| has_matching_patch(**minor)).map(|minor| format!("==3.{minor}.*"));
    let oldest = format!(">={}.{}", MINIMUM.0, MINIMUM.1);
    let specifiers = parsed.into_iter().map(|range| range.specifiers).chain([preferred.unwrap_or(oldest)]);
    Ok(specifiers.collect::<Vec<_>>().join(","))
}

/// Progress text for an installation.
pub fn progress_text(ranges: &[String]) -> String {
    format!("Installing Python {}", ranges.join(" and ")).trim_end().to_owned()
}

/// Installs the newest patch of a Python that matches all these ranges, which may take minutes.
pub fn install(home: &Home, ranges: &[String], reporter: &dyn Reporter) -> Result<Python, EnvironmentError> {
    let requested = request(ranges)?;
    let uv = uv::ensure(home, reporter)?;
    let folder = folder(home);
    let _lock = lock_folder(home, DOWNLOAD_LIMIT)?;
    let write_error = unwritable(&folder);
    // Removes the leftovers of a killed or failed installation.
    let leftovers = folders(home).filter(|folder| !folder.join(STAMP).is_file()).chain([folder.join(UNPACK_FOLDER)]);
    for incomplete in leftovers {
        files::remove_any(&incomplete).map_err(&write_error)?;
    }
    if let Some(python) = copy_from_other_home(home, &shared::other_homes(home), &requested) {
        return Ok(python);
    }
    reporter.report(Progress::Started(progress_text(ranges)));
    uv.install_python(&requested, &folder, DOWNLOAD_LIMIT, reporter)?;
    for installed in folders(home) {
        File::options().create(true).append(true).open(installed.join(STAMP)).map_err(&write_error)?;
    }
    let matches = |python: &Python| {
        ranges.iter().all(|range| range.parse::<PythonRange>().is_ok_and(|range| range.contains(&python.version)))
    };
    let python = all(home).into_iter().find(matches).inspect(|python| record_choice(home, python));
    python.ok_or(EnvironmentError::UnusablePython(requested))
}

/// Copies a Python that matches the request from another instance. `None` after a failure too: uv then downloads one.
fn copy_from_other_home(home: &Home, others: &[Home], requested: &str) -> Option<Python> {
    let ranges: Vec<PythonRange> = requested.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    others.iter().find_map(|other| {
        let matches = |python: &Python| ranges.iter().all(|range| range.contains(&python.version));
        let python = all(other).into_iter().find(matches)?;
        let from = folders(other).find(|folder| python.path.starts_with(folder))?;
        let to = folder(home).join(from.file_name()?);
        // The stamp comes last: a folder without it is incomplete, and the next installation removes it.
        let copy = || -> io::Result<()> {
            shared::copy_folder(&from, &to)?;
            files::remove_any(&to.join(STAMP))?;
            shared::relocate(&to, &folder(other), &folder(home))?;
            File::create_new(to.join(STAMP)).map(drop)
        };
        copy().ok()?;
        all(home).into_iter().find(matches)
    })
}

/// Installs a newer patch of a Python that also matches these ranges, if uv knows one. `None` without a newer patch and
/// after a failure: the caller keeps the installed one.
pub fn install_newer(home: &Home, python: &Python, ranges: &[String], reporter: &dyn Reporter) -> Option<Python> {
    let mut all_ranges = vec![format!("=={}.*", python.minor()), format!(">{}", python.version)];
    all_ranges.extend_from_slice(ranges);
    install(home, &all_ranges, reporter).ok()
}

/// The managed Python for DAGs without an environment: the newest patch of the most preferred minor version.
pub fn plain(home: &Home) -> Option<Python> {
    let rank = |python: &Python| {
        let minor = discover::numbers(&python.version).get(1).copied();
        PREFERRED.iter().position(|preferred| Some(*preferred) == minor).unwrap_or(PREFERRED.len())
    };
    // Of equal ranks the first is returned, which is the newest of a minor version.
    all(home).into_iter().min_by_key(rank)
}

/// True if a program belongs to a managed Python.
pub fn is_managed(home: &Home, program: &Path) -> bool {
    let folder = folder(home);
    program.starts_with(&folder) || folder.canonicalize().is_ok_and(|real| program.starts_with(real))
}

/// Lists the managed Pythons that run, newest first. Runs each, which takes a moment.
pub fn all(home: &Home) -> Vec<Python> {
    discover::usable_pythons(programs(home))
}

fn programs(home: &Home) -> impl Iterator<Item = PathBuf> {
    let complete = folders(home).filter(|folder| folder.join(STAMP).is_file());
    complete.map(|folder| folder.join("bin/python3")).filter(|program| program.is_file())
}

/// The folders of all managed Pythons, complete or not. Skips uv's symbolic links from a minor version to its newest
/// patch: through such a link, an environment's Python would change.
fn folders(home: &Home) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder(home)).into_iter().flatten().flatten();
    let is_python = |entry: &DirEntry| {
        !entry.file_name().to_string_lossy().starts_with('.') && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    entries.filter(is_python).map(|entry| entry.path())
}

/// Records that an environment is about to use a Python, as the modification time of the Python's folder. Ignores a
/// Python that is not managed.
pub fn record_choice(home: &Home, python: &Python) {
    let Ok(program) = python.path.canonicalize() else { return };
    if let Some(folder) = folders(home).find(|folder| folder.canonicalize().is_ok_and(|real| program.starts_with(real)))
    {
        // A failure is ignored: most Pythons are used by another environment, too.
        let _ = File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
    }
}

/// Returns the real paths of the newest installed Python of each of these versions (`3.12` or `3.12.4`). Runs each
/// Python, which takes a moment.
pub fn newest_of(home: &Home, versions: &BTreeSet<&str>) -> Vec<PathBuf> {
    let pythons = if versions.is_empty() { Vec::new() } else { all(home) };
    let newest = |version: &&str| {
        let python = pythons.iter().find(|python| python.version == *version || python.minor() == *version);
        python?.path.canonicalize().ok()
    };
    versions.iter().filter_map(newest).collect()
}

/// Lists the folders of Pythons that were installed or chosen longer than `unused_for` ago and that are not in use.
/// `bases` are the real paths of the Pythons in use.
pub fn unused(home: &Home, bases: &[PathBuf], unused_for: Duration) -> Vec<PathBuf> {
    let is_old = |folder: &Path| {
        let chosen_at = std::fs::metadata(folder).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        chosen_at.elapsed().unwrap_or_default() >= unused_for.max(RECENTLY_CHOSEN)
    };
    let installed_folders = programs(home).filter_map(|program| Some(program.parent()?.parent()?.to_owned()));
    let is_used =
        |folder: &Path| folder.canonicalize().is_ok_and(|real| bases.iter().any(|base| base.starts_with(&real)));
    // Keeps the one that runs DAGs without an environment if the machine has no other Python.
    let plain = plain(home).map(|python| python.path);
    let is_plain = |folder: &Path| plain.as_ref().is_some_and(|program| program.starts_with(folder));
    installed_folders.filter(|folder| is_old(folder) && !is_used(folder) && !is_plain(folder)).collect()
}

/// Removes Pythons and the symbolic links to them, under the lock of `exclude_installs`.
pub fn remove(home: &Home, pythons: &[PathBuf], _lock: &FileLock) -> Result<(), EnvironmentError> {
    if pythons.is_empty() {
        return Ok(());
    }
    let remove = || -> io::Result<()> {
        for python in pythons {
            // The stamp first: without it the folder is incomplete, even if its removal fails halfway.
            files::remove_any(&python.join(STAMP))?;
            files::remove_any(python)?;
        }
        for entry in std::fs::read_dir(folder(home))?.flatten() {
            let path = entry.path();
            if path.is_symlink() && !path.exists() {
                files::remove_any(&path)?;
            }
        }
        Ok(())
    };
    Ok(remove().map_err(io(folder(home).display()))?)
}

/// Takes the lock for removing Pythons. `None` if there are none, and while another process installs one, because it may
/// be about to use any of them.
pub fn exclude_installs(home: &Home) -> Option<FileLock> {
    folder(home).is_dir().then(|| lock_folder(home, Duration::ZERO).ok()).flatten()
}

/// Takes the lock for installing and removing Pythons.
fn lock_folder(home: &Home, wait_limit: Duration) -> Result<FileLock, EnvironmentError> {
    let folder = folder(home);
    let write_error = unwritable(&folder);
    home.create_folder(&folder).map_err(&write_error)?;
    let lock = File::options().create(true).append(true).open(folder.join(LOCK)).map_err(&write_error)?;
    let is_busy = io("another Python is being installed or removed");
    Ok(FileLock::exclusive_within(lock, wait_limit).map_err(is_busy)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(ranges: &[&str]) -> String {
        request(&ranges.iter().map(|range| (*range).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn copies_and_relocates_a_python_of_another_instance() {
        let folder_of = tempfile::tempdir().unwrap();
        let home = |name: &str| {
            let home = leoflow_base::home::resolve(Some(&folder_of.path().join(name))).unwrap();
            home.create().unwrap();
            home
        };
        let (other, own) = (home("other"), home("own"));
        let installed = folder(&other).join("cpython-x");
        std::fs::create_dir_all(installed.join("bin")).unwrap();
        std::fs::write(installed.join(STAMP), "").unwrap();
        std::fs::write(installed.join("prefix.py"), format!("prefix = '{}'\n", installed.display())).unwrap();
        let program = installed.join("bin/python3");
        std::fs::write(&program, "#!/bin/sh\nexec /usr/bin/env python3 \"$@\"\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(copy_from_other_home(&own, std::slice::from_ref(&other), ">=99.0").is_none());
        let python = copy_from_other_home(&own, std::slice::from_ref(&other), ">=3.0").unwrap();
        let copied = folder(&own).join("cpython-x");
        assert!(python.path.starts_with(&copied), "{python:?}");
        let read = |file: &Path| std::fs::read_to_string(file).unwrap();
        assert_eq!(read(&copied.join("prefix.py")), format!("prefix = '{}'\n", copied.display()));
        assert_eq!(read(&installed.join("prefix.py")), format!("prefix = '{}'\n", installed.display()));
    }

    #[test]
    fn prefers_the_minor_version_with_most_wheels() {
        assert_eq!(requested(&["3.12"]), "==3.12.*,==3.12.*");
        assert_eq!(requested(&[">=3.10,<3.13", "!=3.12.4"]), ">=3.10,<3.13,!=3.12.4,==3.12.*");
        assert_eq!(requested(&[">=3.10"]), ">=3.10,==3.13.*");
        assert_eq!(requested(&["3.12.4"]), "==3.12.4,==3.12.*");
        assert_eq!(requested(&[">=3.15"]), ">=3.15,>=3.10");
        assert_eq!(requested(&[]), "==3.13.*");
        assert!(request(&["two".to_owned()]).is_err());
    }
}
