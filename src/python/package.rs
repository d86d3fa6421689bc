//! The Python package inside this binary, put where Python finds it.

use crate::home::Home;
use crate::sys::files;
use sha2::{Digest, Sha256};
use std::io;
use std::path::PathBuf;

/// `(path, text)`, made by the build script from `src/python/package/`.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/python_package.rs"));

/// The folder of the package, complete. Named by its content, so that every version has its own
/// and a task that runs keeps the one it began with.
pub fn install(home: &Home) -> io::Result<PathBuf> {
    let mut hasher = Sha256::new();
    for (path, text) in FILES {
        hasher.update(path.as_bytes());
        hasher.update([0]);
        hasher.update(text.as_bytes());
        hasher.update([0]);
    }
    let folder = home.python().join(format!("leoflow-{}", hex::encode(&hasher.finalize()[..8])));
    if folder.is_dir() {
        return Ok(folder);
    }
    files::create_private_dir(&home.python())?;
    let staging = files::temporary_neighbour(&folder);
    files::remove_any(&staging)?;
    for (path, text) in FILES {
        let target = staging.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(target, text)?;
    }
    files::sync_file_system(&staging)?;
    match files::rename_durably(&staging, &folder) {
        // Another process was faster; what it wrote is the same.
        Err(_) if folder.is_dir() => files::remove_any(&staging)?,
        other => other?,
    }
    Ok(folder)
}
