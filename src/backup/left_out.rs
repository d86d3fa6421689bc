//! What of a workspace a backup leaves out: what other tools keep elsewhere or can make again. A
//! restore leaves these in their place.

use crate::sys::beneath::{Entry, Folder, Kind};
use std::path::Path;

const VERSION_CONTROL: &[&str] = &[".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", "CVS"];
const CACHES: &[&str] =
    &["__pycache__", "node_modules", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".cache"];

/// Whether a name in `folder` is left out, with all below it. A virtual environment is known by the file
/// that PEP 405 puts into it, a cache by its name or by the tag of <https://bford.info/cachedir/>.
pub fn is_left_out(folder: &Folder, entry: &Entry) -> bool {
    let Some(name) = entry.name.to_str() else { return false };
    // `.git` is a file in a worktree and in a submodule.
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

/// The prefix of folders that a restore makes in a workspace while it works there.
pub use crate::home::RESTORE_IN_WORKSPACE as OWN_FOLDER;
