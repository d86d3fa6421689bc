//! The Python package inside this binary, put where Python finds it.

use crate::home::Home;
use crate::sys::files;
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};

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
    home.create_folder(&home.python())?;
    let write = |staging: &Path| {
        // Not the staging folder itself, which goes away.
        let tree = staging.join("tree");
        for (path, text) in FILES {
            let target = tree.join(path);
            if let Some(parent) = target.parent() {
                files::create_private_dir_in(staging, parent)?;
            }
            std::fs::write(target, text)?;
        }
        Ok(tree)
    };
    files::make_whole(&folder, |error| error, write)?;
    Ok(folder)
}
