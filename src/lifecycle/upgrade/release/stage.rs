//! Unpacks the archive of a downloaded release: the program and its companion files into `versions/`.

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

/// Size limit of a program, in bytes; a program has tens of megabytes.
const PROGRAM_LIMIT: u64 = 512 * 1024 * 1024;

/// Size limit of each companion file, in bytes; the largest, a wheel, has less than a megabyte.
const COMPANION_LIMIT: u64 = 64 * 1024 * 1024;

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
    let is_new = !destination.exists();
    let staged = unpack_companions(archive, &folder)
        .and_then(|()| unpack(archive, &temporary))
        .and_then(|()| check(&temporary, version));
    let about = match staged {
        Ok(about) => about,
        Err(error) => {
            // Remove the incomplete files. The caller reports the first error, so one from the cleanup is ignored.
            let _ = files::remove_any(&temporary);
            if is_new {
                let _ = files::remove_any(&folder);
            }
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
                files::sync(&file)?;
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

/// Unpacks the program of a release that plans the upgrade to itself, and returns its path. No link in `bin/` points to
/// it.
pub(crate) fn upgrader(home: &Home, archive: &Path, version: &Version) -> Result<PathBuf, StageError> {
    let folder = home.upgraders().join(version.to_string());
    let program = folder.join("leoflow");
    if program.is_file() && check(&program, version).is_ok() {
        return Ok(program);
    }
    let write_error = |source| StageError::Write { path: folder.clone(), source };
    // Programs of earlier upgrades are no longer needed.
    files::remove_any(&home.upgraders()).and_then(|()| files::create_private_dir(&folder)).map_err(write_error)?;
    unpack(archive, &program)?;
    check(&program, version)?;
    Ok(program)
}

/// Unpacks the companion files, which are in the archive next to the program: licences, shell completions, and the
/// wheels that setup looks for. Does not replace an existing file or folder.
fn unpack_companions(archive: &Path, folder: &Path) -> Result<(), StageError> {
    let archive_error =
        |error: io::Error| StageError::Archive { archive: archive.to_owned(), reason: error.to_string() };
    let temporary = files::temporary_neighbour(&folder.join("companions"));
    let write_error = |source| StageError::Write { path: temporary.clone(), source };
    let outcome = (|| {
        let file = File::open(archive).map_err(archive_error)?;
        let mut tarball = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
        files::remove_any(&temporary).map_err(write_error)?;
        files::create_private_dir(&temporary).map_err(write_error)?;
        for entry in tarball.entries().map_err(archive_error)? {
            let entry = entry.map_err(archive_error)?;
            let path = entry.path().map_err(archive_error)?.into_owned();
            let Some(path) = companion(&path).filter(|_| entry.header().entry_type() == tar::EntryType::Regular) else {
                continue;
            };
            let path = temporary.join(path);
            files::create_private_dir(path.parent().unwrap_or(&temporary)).map_err(write_error)?;
            let mut file = File::create(path).map_err(write_error)?;
            io::copy(&mut entry.take(COMPANION_LIMIT), &mut file).map_err(write_error)?;
        }
        files::sync_file_system(&temporary).map_err(write_error)?;
        for part in fs::read_dir(&temporary).map_err(write_error)?.flatten() {
            let target = folder.join(part.file_name());
            if !target.exists() {
                files::rename_durably(&part.path(), &target).map_err(write_error)?;
            }
        }
        Ok(())
    })();
    // Remove the temporary folder, which is empty or incomplete.
    let _ = files::remove_any(&temporary);
    outcome
}

/// The path of a companion file below the version's folder: the archive's path `FOLDER/FILE` or `FOLDER/SUBFOLDER/FILE`
/// without `FOLDER`. `None` for the program and for other paths.
fn companion(path: &Path) -> Option<PathBuf> {
    let names: Vec<Component<'_>> = path.components().filter(|part| *part != Component::CurDir).collect();
    let is_plain = names.iter().all(|name| matches!(name, Component::Normal(_)));
    match names.as_slice() {
        [_, file] if is_plain && !is_program(path) => Some(Path::new(file).to_owned()),
        [_, folder, file] if is_plain => Some(Path::new(folder).join(file)),
        _ => None,
    }
}

/// True for `leoflow` and `<folder>/leoflow`.
fn is_program(path: &Path) -> bool {
    let names: Vec<Component<'_>> = path.components().filter(|part| *part != Component::CurDir).collect();
    matches!(names.as_slice(), [Component::Normal(name)] | [Component::Normal(_), Component::Normal(name)] if *name == "leoflow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_file_of_the_archive_but_the_program() {
        for (path, kept) in [
            ("leoflow-0.2.0/LICENSE", Some("LICENSE")),
            ("./leoflow-0.2.0/THIRD-PARTY-LICENSES.txt", Some("THIRD-PARTY-LICENSES.txt")),
            ("leoflow-0.2.0/completions/leoflow.zsh", Some("completions/leoflow.zsh")),
            ("leoflow-0.2.0/python-packages/six.whl", Some("python-packages/six.whl")),
            ("leoflow-0.2.0/leoflow", None),
            ("leoflow", None),
            ("leoflow-0.2.0/../../bin/sh", None),
            ("/etc/passwd", None),
            ("a/b/c/d", None),
        ] {
            assert_eq!(companion(Path::new(path)).as_deref(), kept.map(Path::new), "{path}");
        }
    }
}
