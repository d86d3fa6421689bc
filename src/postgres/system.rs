//! A PostgreSQL that the machine has already.

use super::MAJOR;
use super::tools::{complete, postgres_version};
use std::path::{Path, PathBuf};

/// The first complete installation of the right major on the search path or where distributions
/// put it. The error lists what was found instead.
pub fn find(search_path: &[PathBuf]) -> Result<(PathBuf, String), String> {
    let mut others = Vec::new();
    for folder in candidates(search_path) {
        if !folder.join("postgres").is_file() {
            continue;
        }
        match check(&folder) {
            Ok(version) => return Ok((folder, version)),
            Err(reason) => others.push(reason),
        }
    }
    if others.is_empty() {
        Err(format!("no postgres on PATH nor in /usr/lib/postgresql/{MAJOR}/bin"))
    } else {
        Err(others.join("; "))
    }
}

fn candidates(search_path: &[PathBuf]) -> Vec<PathBuf> {
    let known = [format!("/usr/lib/postgresql/{MAJOR}/bin"), format!("/usr/pgsql-{MAJOR}/bin")];
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in search_path.iter().cloned().chain(known.map(PathBuf::from)) {
        // A link on PATH to a program elsewhere: its neighbours are where it really is.
        let program = folder.join("postgres").canonicalize();
        let folder = program.ok().and_then(|program| program.parent().map(Path::to_owned)).unwrap_or(folder);
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

fn check(bin: &Path) -> Result<String, String> {
    let (major, version) = postgres_version(bin)?;
    if major != MAJOR {
        return Err(format!("{} is version {version}, not {MAJOR}", bin.display()));
    }
    complete(bin).map(|()| version)
}
