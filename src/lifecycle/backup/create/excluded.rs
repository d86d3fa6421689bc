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
    if name == ".git" && entry.kind == Kind::File || is_removed(name) {
        return true;
    }
    if entry.kind != Kind::Folder {
        return false;
    }
    VERSION_CONTROL.contains(&name)
        || CACHES.contains(&name)
        || folder.below(Path::new(name)).is_ok_and(|inside| inside.has("pyvenv.cfg") || inside.has("CACHEDIR.TAG"))
}

/// True for the name that a network file system or FUSE gives to a file that was removed while a program has it open,
/// such as the spool of this backup.
fn is_removed(name: &str) -> bool {
    [".nfs", ".fuse_hidden"].iter().any(|start| {
        name.strip_prefix(start)
            .is_some_and(|rest| rest.len() >= 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

/// Prefix of folders that a restore creates in a workspace during its work.
pub use leoflow_base::home::RESTORE_IN_WORKSPACE as OWN_FOLDER;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_files_on_shares_are_excluded() {
        for name in [".nfs000000000012d68700000001", ".fuse_hidden0000000700000001"] {
            assert!(is_removed(name), "{name}");
        }
        for name in [".nfs", ".nfs-server.yaml", ".fuse_hidden", "nfs000000000012d68700000001"] {
            assert!(!is_removed(name), "{name}");
        }
    }
}
