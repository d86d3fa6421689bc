//! What was fetched, made ready beside what is in use: the program in `versions/`, components in a staging folder.

use super::program::{self, About, ProgramError};
use crate::home::Home;
use crate::sys::{checkpoint, files};
use flate2::bufread::GzDecoder;
use semver::Version;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("{archive} cannot be unpacked: {reason}")]
    Archive { archive: PathBuf, reason: String },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// A program is tens of megabytes.
const PROGRAM_LIMIT: u64 = 512 * 1024 * 1024;

/// A wheel is less than one.
const WHEEL_LIMIT: u64 = 64 * 1024 * 1024;
/// Beside the program.
const PACKAGES: &str = "python-packages";

/// Where a version's program is.
pub fn program_of(home: &Home, version: &Version) -> PathBuf {
    home.versions().join(version.to_string()).join("leoflow")
}

/// Takes the program out of a release's tarball, asks it who it is, and puts it into its place among the
/// versions. What is there already and says that it is this version stays.
pub fn program(home: &Home, archive: &Path, version: &Version) -> Result<About, StageError> {
    let place = program_of(home, version);
    let folder = place.parent().unwrap_or(&place).to_owned();
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| StageError::Write { path, source }
    };
    files::create_private_dir(&folder).map_err(write(&folder))?;
    let neighbour = files::temporary_neighbour(&place);
    let staged = unpack_packages(archive, &folder)
        .and_then(|()| unpack(archive, &neighbour))
        .and_then(|()| check(&neighbour, version));
    let about = match staged {
        Ok(about) => about,
        Err(error) => {
            // Incomplete and ours; the error that matters is already in hand.
            let _ = files::remove_any(&neighbour);
            if !place.exists() {
                let _ = files::remove_any(&folder.join(PACKAGES));
            }
            let _ = fs::remove_dir(&folder);
            return Err(error);
        }
    };
    files::rename_durably(&neighbour, &place).map_err(write(&place))?;
    checkpoint("upgrade.program-staged");
    Ok(about)
}

/// Whether it is what it should be.
pub fn check(program: &Path, version: &Version) -> Result<About, StageError> {
    let about = program::about(program)?;
    if about.version != version.to_string() {
        let (found, expected) = (about.version, version.to_string());
        return Err(ProgramError::OtherVersion { program: program.to_owned(), found, expected }.into());
    }
    Ok(about)
}

/// The entry `…/leoflow` of the tarball, into `place`.
fn unpack(archive: &Path, place: &Path) -> Result<(), StageError> {
    let fault = |error: io::Error| StageError::Archive { archive: archive.to_owned(), reason: error.to_string() };
    let file = File::open(archive).map_err(fault)?;
    let mut tarball = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    for entry in tarball.entries().map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let path = entry.path().map_err(fault)?.into_owned();
        if !is_program(&path) || entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let copied = OpenOptions::new().write(true).create_new(true).mode(0o755).open(place).and_then(|mut file| {
            let length = io::copy(&mut entry.take(PROGRAM_LIMIT + 1), &mut file)?;
            file.sync_all()?;
            Ok(length)
        });
        let length = copied.map_err(|source| StageError::Write { path: place.to_owned(), source })?;
        if length > PROGRAM_LIMIT {
            let reason = "its program is larger than any".to_owned();
            return Err(StageError::Archive { archive: archive.to_owned(), reason });
        }
        return Ok(());
    }
    Err(StageError::Archive { archive: archive.to_owned(), reason: "there is no program in it".to_owned() })
}

/// The wheels that come with it, where its setup looks for them and checks each. Without some it does without.
fn unpack_packages(archive: &Path, folder: &Path) -> Result<(), StageError> {
    let place = folder.join(PACKAGES);
    if place.exists() {
        return Ok(());
    }
    let fault = |error: io::Error| StageError::Archive { archive: archive.to_owned(), reason: error.to_string() };
    let neighbour = files::temporary_neighbour(&place);
    let write = |source| StageError::Write { path: neighbour.clone(), source };
    let result = (|| {
        let file = File::open(archive).map_err(fault)?;
        let mut tarball = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
        files::remove_any(&neighbour).map_err(write)?;
        for entry in tarball.entries().map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let path = entry.path().map_err(fault)?.into_owned();
            let Some(name) = wheel_name(&path).filter(|_| entry.header().entry_type() == tar::EntryType::Regular)
            else {
                continue;
            };
            fs::create_dir_all(&neighbour).map_err(write)?;
            let mut file = File::create(neighbour.join(name)).map_err(write)?;
            io::copy(&mut entry.take(WHEEL_LIMIT), &mut file).map_err(write)?;
        }
        if neighbour.exists() {
            files::sync_file_system(&neighbour).map_err(write)?;
            files::rename_durably(&neighbour, &place).map_err(write)?;
        }
        Ok(())
    })();
    if result.is_err() {
        // Incomplete and ours.
        let _ = files::remove_any(&neighbour);
    }
    result
}

/// Of `<folder>/python-packages/<name>.whl`.
fn wheel_name(path: &Path) -> Option<&Path> {
    let names: Vec<Component<'_>> = path.components().filter(|part| *part != Component::CurDir).collect();
    match names.as_slice() {
        [Component::Normal(_), Component::Normal(packages), Component::Normal(name)] if *packages == PACKAGES => {
            Some(Path::new(*name)).filter(|name| name.extension().is_some_and(|end| end == "whl"))
        }
        _ => None,
    }
}

/// `leoflow`, or `<folder>/leoflow`.
fn is_program(path: &Path) -> bool {
    let names: Vec<Component<'_>> = path.components().filter(|part| *part != Component::CurDir).collect();
    matches!(names.as_slice(), [Component::Normal(name)] | [Component::Normal(_), Component::Normal(name)] if *name == "leoflow")
}
