//! Stages a downloaded release beside the one in use: the program in `versions/`, components in a staging folder.

use super::program::{self, About, ProgramError};
use flate2::bufread::GzDecoder;
use leoflow_base::home::Home;
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::files;
use semver::Version;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("failed to unpack {archive}: {reason}")]
    Archive { archive: PathBuf, reason: String },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Size limit of a program in bytes, which has tens of megabytes.
const PROGRAM_LIMIT: u64 = 512 * 1024 * 1024;

/// Size limit of a wheel (a Python package file) in bytes, which has less than a megabyte.
const WHEEL_LIMIT: u64 = 64 * 1024 * 1024;
/// The folder of wheels beside the program.
const PACKAGES: &str = "python-packages";

/// The path of a version's program.
pub fn program_of(home: &Home, version: &Version) -> PathBuf {
    home.versions().join(version.to_string()).join("leoflow")
}

/// Unpacks the program from a release's tarball, checks its version and moves it into `versions/`, replacing an
/// existing one.
pub fn program(home: &Home, archive: &Path, version: &Version) -> Result<About, StageError> {
    let destination = program_of(home, version);
    let folder = destination.parent().unwrap_or(&destination).to_owned();
    let write_error = |path: &Path| {
        let path = path.to_owned();
        move |source| StageError::Write { path, source }
    };
    files::create_private_dir(&folder).map_err(write_error(&folder))?;
    let temporary = files::temporary_neighbour(&destination);
    let staged = unpack_packages(archive, &folder)
        .and_then(|()| unpack(archive, &temporary))
        .and_then(|()| check(&temporary, version));
    let about = match staged {
        Ok(about) => about,
        Err(error) => {
            // Removes our incomplete files. If that fails too, the first error is the one to report.
            let _ = files::remove_any(&temporary);
            if !destination.exists() {
                let _ = files::remove_any(&folder.join(PACKAGES));
            }
            let _ = fs::remove_dir(&folder);
            return Err(error);
        }
    };
    files::rename_durably(&temporary, &destination).map_err(write_error(&destination))?;
    checkpoint("upgrade.program-staged");
    Ok(about)
}

/// Checks that the program reports the expected version.
pub fn check(program: &Path, version: &Version) -> Result<About, StageError> {
    let about = program::about(program)?;
    if about.version != version.to_string() {
        let (found, expected) = (about.version, version.to_string());
        return Err(ProgramError::OtherVersion { program: program.to_owned(), found, expected }.into());
    }
    Ok(about)
}

/// Unpacks the entry `…/leoflow` of the tarball to `destination`.
fn unpack(archive: &Path, destination: &Path) -> Result<(), StageError> {
    let archive_error =
        |error: io::Error| StageError::Archive { archive: archive.to_owned(), reason: error.to_string() };
    let file = File::open(archive).map_err(archive_error)?;
    let mut tarball = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    for entry in tarball.entries().map_err(archive_error)? {
        let entry = entry.map_err(archive_error)?;
        let path = entry.path().map_err(archive_error)?.into_owned();
        if !is_program(&path) || entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o755).open(destination).and_then(|mut file| {
                let length = io::copy(&mut entry.take(PROGRAM_LIMIT + 1), &mut file)?;
                file.sync_all()?;
                Ok(length)
            });
        let length = written.map_err(|source| StageError::Write { path: destination.to_owned(), source })?;
        if length > PROGRAM_LIMIT {
            let reason = "its program exceeds the size limit".to_owned();
            return Err(StageError::Archive { archive: archive.to_owned(), reason });
        }
        return Ok(());
    }
    Err(StageError::Archive { archive: archive.to_owned(), reason: "it contains no program".to_owned() })
}

/// Unpacks the tarball's wheels to where setup looks for them and verifies each. A tarball without wheels is fine.
fn unpack_packages(archive: &Path, folder: &Path) -> Result<(), StageError> {
    let destination = folder.join(PACKAGES);
    if destination.exists() {
        return Ok(());
    }
    let archive_error =
        |error: io::Error| StageError::Archive { archive: archive.to_owned(), reason: error.to_string() };
    let temporary = files::temporary_neighbour(&destination);
    let write_error = |source| StageError::Write { path: temporary.clone(), source };
    let outcome = (|| {
        let file = File::open(archive).map_err(archive_error)?;
        let mut tarball = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
        files::remove_any(&temporary).map_err(write_error)?;
        for entry in tarball.entries().map_err(archive_error)? {
            let entry = entry.map_err(archive_error)?;
            let path = entry.path().map_err(archive_error)?.into_owned();
            let Some(name) = wheel_name(&path).filter(|_| entry.header().entry_type() == tar::EntryType::Regular)
            else {
                continue;
            };
            fs::create_dir_all(&temporary).map_err(write_error)?;
            let mut file = File::create(temporary.join(name)).map_err(write_error)?;
            io::copy(&mut entry.take(WHEEL_LIMIT), &mut file).map_err(write_error)?;
        }
        if temporary.exists() {
            files::sync_file_system(&temporary).map_err(write_error)?;
            files::rename_durably(&temporary, &destination).map_err(write_error)?;
        }
        Ok(())
    })();
    if outcome.is_err() {
        // Removes our incomplete files.
        let _ = files::remove_any(&temporary);
    }
    outcome
}

/// The file name in `<folder>/python-packages/<name>.whl`; `None` for other paths.
fn wheel_name(path: &Path) -> Option<&Path> {
    let names: Vec<Component<'_>> = path.components().filter(|part| *part != Component::CurDir).collect();
    match names.as_slice() {
        [Component::Normal(_), Component::Normal(packages), Component::Normal(name)] if *packages == PACKAGES => {
            Some(Path::new(*name)).filter(|name| name.extension().is_some_and(|extension| extension == "whl"))
        }
        _ => None,
    }
}

/// True for `leoflow` and `<folder>/leoflow`.
fn is_program(path: &Path) -> bool {
    let names: Vec<Component<'_>> = path.components().filter(|part| *part != Component::CurDir).collect();
    matches!(names.as_slice(), [Component::Normal(name)] | [Component::Normal(_), Component::Normal(name)] if *name == "leoflow")
}
