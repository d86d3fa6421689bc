//! Files in a workspace that backups exclude: other tools store them in another place or can recreate them. A restore
//! leaves them untouched.

use leoflow_base::sys::fs::beneath::{Entry, Folder, Kind};
use std::path::Path;

const VERSION_CONTROL: &[&str] = &[".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", "CVS"];
const CACHES: &[&str] =
    &["__pycache__", "node_modules", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".cache"];

/// True when an entry of `folder` is excluded with everything below it. A virtual environment is recognized by the file
/// from PEP 405, a cache by its name or by the tag of <https://bford.info/cachedir/>.
pub fn is_excluded(folder: &Folder, entry: &Entry) -> bool {
    let Some(name) = entry.name.to_str() else { return false };
    // `.git` is a file in a worktree or submodule.
    if name == ".git" && entry.kind == Kind::File {
        return true;
    }
    if entry.kind != Kind::Folder {
        return false;
    }
    VERSION_CONTROL.contains(&name)
        || CACHES.contains(&name)
        || folder.below(Path::new(name)).is_ok_and(|inside| inside.has("pyvenv.cfg") || inside.has("CACHEDIR.TAG"))
}

/// Prefix of folders that a restore creates in a workspace during its work.
pub use leoflow_base::home::RESTORE_IN_WORKSPACE as OWN_FOLDER;
