//! Finds a PostgreSQL installed on the machine.

use super::SourceError;
use crate::MAJOR;
use crate::install::tools::{check_complete, postgres_version};
use std::path::{Path, PathBuf};

/// Finds the first complete installation of the supported major version on the search path or in the distributions'
/// folders, and returns the folder of its programs. The error lists the unsuitable ones.
pub fn find(search_path: &[PathBuf]) -> Result<PathBuf, SourceError> {
    let mut unsuitable = Vec::new();
    for folder in candidates(search_path).into_iter().filter(|folder| folder.join("postgres").is_file()) {
        match check(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => unsuitable.push(error),
        }
    }
    Err(if unsuitable.is_empty() { SourceError::NoSystemServer } else { SourceError::Unsuitable(unsuitable) })
}

/// Folders that may contain PostgreSQL's programs, without duplicates.
fn candidates(search_path: &[PathBuf]) -> Vec<PathBuf> {
    let standard_folders = [format!("/usr/lib/postgresql/{MAJOR}/bin"), format!("/usr/pgsql-{MAJOR}/bin")];
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in search_path.iter().cloned().chain(standard_folders.map(PathBuf::from)) {
        // For a link on the PATH, the other programs are next to its target.
        let program = folder.join("postgres").canonicalize();
        let folder = program.ok().and_then(|program| program.parent().map(Path::to_owned)).unwrap_or(folder);
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Checks that an installation is complete and of the supported major version.
fn check(bin: &Path) -> Result<(), SourceError> {
    let (major, version) = postgres_version(bin)?;
    if major != MAJOR {
        return Err(SourceError::OtherSystemVersion { bin: bin.to_owned(), version });
    }
    Ok(check_complete(bin)?)
}
