//! Pythons that Leoflow gets itself, by uv, which knows where the builds of python-build-standalone are and their sha256.

use super::python_range::PythonRange;
use super::uv;
use crate::home::Home;
use crate::home::progress::{Progress, Reporter};
use crate::python::discover::{self, MINIMUM, Python};
use crate::sys::{files, flock::FileLock};
use std::fs::{DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The minor versions to get where several do, the best first: those that most packages have wheels for.
const PREFERRED: [u32; 5] = [13, 12, 14, 11, 10];
/// More patches than any minor version has had.
const PATCHES: u32 = 60;
/// For some 35 MB over a slow line.
const GET_LIMIT: Duration = Duration::from_secs(900);
/// One that was just got is about to be used.
const NEW: Duration = Duration::from_secs(3600);
/// In the folder of one that is whole.
const STAMP: &str = ".leoflow-python";
/// Where uv unpacks.
const UNPACKED: &str = ".temp";
/// Held while one is got.
const LOCK: &str = ".leoflow.lock";

/// Where they are, in folders that uv names after version and platform.
pub fn folder(home: &Home) -> PathBuf {
    home.python().join("managed")
}

/// What uv is asked for that holds to all these ranges. The error is for people.
fn request(ranges: &[String]) -> Result<String, String> {
    let parsed: Vec<PythonRange> = ranges.iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
    let holds =
        |minor: u32| (0..PATCHES).any(|patch| parsed.iter().all(|range| range.holds(&format!("3.{minor}.{patch}"))));
    let preferred = PREFERRED.iter().find(|minor| holds(**minor)).map(|minor| format!("==3.{minor}.*"));
    let oldest = format!(">={}.{}", MINIMUM.0, MINIMUM.1);
    let all: Vec<String> = parsed.iter().map(PythonRange::specifiers).chain([preferred.unwrap_or(oldest)]).collect();
    Ok(all.join(","))
}

/// For people.
pub fn what_is_done(ranges: &[String]) -> String {
    format!("Getting Python {}", ranges.join(" and ")).trim_end().to_owned()
}

/// Gets the newest patch of a Python that holds to all these ranges, or says in uv's words why there is none. It may take
/// minutes.
pub fn get(home: &Home, ranges: &[String], reporter: &dyn Reporter) -> Result<Python, String> {
    let wanted = request(ranges)?;
    let uv = uv::get(home, reporter)?;
    let folder = folder(home);
    let _held = turn(home, GET_LIMIT)?;
    let told = |error: io::Error| format!("{} cannot be written: {error}", folder.display());
    // What a kill or an error has left is never taken for one.
    let left = folders(home).filter(|folder| !folder.join(STAMP).is_file()).chain([folder.join(UNPACKED)]);
    for half_made in left {
        files::remove_any(&half_made).map_err(told)?;
    }
    reporter.report(Progress::Started(what_is_done(ranges)));
    uv.install_python(&wanted, &folder, GET_LIMIT, reporter)?;
    for got in folders(home) {
        File::options().create(true).append(true).open(got.join(STAMP)).map_err(told)?;
    }
    let is_it = |python: &Python| {
        ranges.iter().all(|range| range.parse::<PythonRange>().is_ok_and(|range| range.holds(&python.version)))
    };
    let found = all(home).into_iter().find(is_it);
    found.ok_or_else(|| format!("uv got {wanted}, and what it got does not run here"))
}

/// The same with a newer patch that holds to these ranges, too, where uv's list has one. What stands in the way is no error: the one that is there will do.
pub fn newer(home: &Home, python: &Python, ranges: &[String], reporter: &dyn Reporter) -> Option<Python> {
    let mut wanted = vec![format!("=={}.*", python.minor()), format!(">{}", python.version)];
    wanted.extend_from_slice(ranges);
    get(home, &wanted, reporter).ok()
}

/// The one for whatever asks for none: of the minor version that most packages have wheels for, the newest patch.
pub fn plain(home: &Home) -> Option<Python> {
    let mut all = all(home);
    let rank = |python: &Python| {
        let minor = discover::numbers(&python.version).get(1).copied();
        PREFERRED.iter().position(|preferred| Some(*preferred) == minor).unwrap_or(PREFERRED.len())
    };
    // Those of one minor version stay as they are, the newest first.
    all.sort_by_key(rank);
    all.into_iter().next()
}

/// Whether a program is of one of these.
pub fn is_of(home: &Home, program: &Path) -> bool {
    let folder = folder(home);
    program.starts_with(&folder) || folder.canonicalize().is_ok_and(|real| program.starts_with(real))
}

/// Those that are there and run, the newest first. Asks each, which takes a moment.
pub fn all(home: &Home) -> Vec<Python> {
    discover::of(programs(home))
}

fn programs(home: &Home) -> impl Iterator<Item = PathBuf> {
    let whole = folders(home).filter(|folder| folder.join(STAMP).is_file());
    whole.map(|folder| folder.join("bin/python3")).filter(|program| program.is_file())
}

/// Whole or not. Links of uv's own lead from a minor version to its newest patch, and would change what an environment
/// has: they are passed over.
fn folders(home: &Home) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder(home)).into_iter().flatten().flatten();
    let is_one = |entry: &DirEntry| {
        !entry.file_name().to_string_lossy().starts_with('.') && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    entries.filter(is_one).map(|entry| entry.path())
}

/// Those that none of `bases`, the real programs of environments, is of, and that were got longer ago than `unused_for`.
pub fn unused(home: &Home, bases: &[PathBuf], unused_for: Duration) -> Vec<PathBuf> {
    let is_old = |folder: &Path| {
        let got = std::fs::metadata(folder).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        got.elapsed().unwrap_or_default() >= unused_for.max(NEW)
    };
    let of_programs = programs(home).filter_map(|program| Some(program.parent()?.parent()?.to_owned()));
    let is_used =
        |folder: &Path| folder.canonicalize().is_ok_and(|real| bases.iter().any(|base| base.starts_with(&real)));
    // That of a machine without any is used by what has no environment.
    let plain = plain(home).map(|python| python.path);
    let is_plain = |folder: &Path| plain.as_ref().is_some_and(|program| program.starts_with(folder));
    of_programs.filter(|folder| is_old(folder) && !is_used(folder) && !is_plain(folder)).collect()
}

/// Removes them, with the links to them; nothing while another is being got.
pub fn remove(home: &Home, pythons: &[PathBuf]) -> Result<(), String> {
    if pythons.is_empty() {
        return Ok(());
    }
    let Ok(_held) = turn(home, Duration::ZERO) else { return Ok(()) };
    let remove = || -> io::Result<()> {
        for python in pythons {
            // Without its stamp it is none any more, whatever is left of it.
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
    remove().map_err(|error| format!("{}: {error}", folder(home).display()))
}

/// Nobody else gets or removes one as long as this is held.
fn turn(home: &Home, patience: Duration) -> Result<FileLock, String> {
    let folder = folder(home);
    let told = |error: io::Error| format!("{} cannot be written: {error}", folder.display());
    home.create_folder(&folder).map_err(told)?;
    let lock = File::options().create(true).append(true).open(folder.join(LOCK)).map_err(told)?;
    FileLock::exclusive_within(lock, patience).map_err(|error| format!("another is being got: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(ranges: &[&str]) -> String {
        request(&ranges.iter().map(|range| (*range).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn asks_for_the_minor_version_that_most_packages_know() {
        assert_eq!(asked(&["3.12"]), "==3.12.*,==3.12.*");
        assert_eq!(asked(&[">=3.10,<3.13", "!=3.12.4"]), ">=3.10,<3.13,!=3.12.4,==3.12.*");
        assert_eq!(asked(&[">=3.10"]), ">=3.10,==3.13.*");
        assert_eq!(asked(&["3.12.4"]), "==3.12.4,==3.12.*");
        assert_eq!(asked(&[">=3.15"]), ">=3.15,>=3.10");
        assert_eq!(asked(&[]), "==3.13.*");
        assert!(request(&["two".to_owned()]).is_err());
    }
}
