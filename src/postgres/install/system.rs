//! Finds a PostgreSQL installed on the machine.

use super::tools::{check_complete, postgres_version};
use crate::MAJOR;
use std::path::{Path, PathBuf};

/// Finds the first complete installation of the supported major version on the search path or in the distributions'
/// folders. The error lists the unsuitable ones.
pub fn find(search_path: &[PathBuf]) -> Result<(PathBuf, String), String> {
    let mut reasons = Vec::new();
    for folder in candidates(search_path) {
        if !folder.join("postgres").is_file() {
            continue;
        }
        match check(&folder) {
            Ok(version) => return Ok((folder, version)),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        Err(format!("no postgres on the PATH, in /usr/lib/postgresql/{MAJOR}/bin or in /usr/pgsql-{MAJOR}/bin"))
    } else {
        Err(reasons.join("; "))
    }
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

/// Returns the version of a complete installation of the supported major version.
fn check(bin: &Path) -> Result<String, String> {
    let (major, version) = postgres_version(bin)?;
    if major != MAJOR {
        return Err(format!("{} is version {version}, not {MAJOR}", bin.display()));
    }
    check_complete(bin).map(|()| version)
}
