//! Files in a workspace that backups exclude, because other tools store them elsewhere or can recreate them. A restore
//! does not change them.

use leoflow_base::home::LOST_AND_FOUND;
use leoflow_base::sys::fs::beneath::{Entry, Folder, Kind};
use std::path::Path;

const VERSION_CONTROL: &[&str] = &[".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", "CVS"];
const CACHES: &[&str] =
    &["__pycache__", "node_modules", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".cache"];

/// True when an entry of `folder` is excluded with everything below it. A folder with `pyvenv.cfg` is a virtual
/// environment (PEP 405), one with `CACHEDIR.TAG` a cache (<https://bford.info/cachedir/>).
pub fn is_excluded(folder: &Folder, entry: &Entry) -> bool {
    let Some(name) = entry.name.to_str() else { return false };
    // `.git` is a file in a worktree or submodule.
    if name == ".git" && entry.kind == Kind::File || is_deleted_but_open(name) {
        return true;
    }
    if entry.kind != Kind::Folder {
        return false;
    }
    VERSION_CONTROL.contains(&name)
        || CACHES.contains(&name)
        || name == LOST_AND_FOUND
        || folder.below(Path::new(name)).is_ok_and(|inside| inside.has("pyvenv.cfg") || inside.has("CACHEDIR.TAG"))
}

/// True for the name that NFS or FUSE gives to a deleted file that a program still has open, such as this backup's
/// spool.
fn is_deleted_but_open(name: &str) -> bool {
    [".nfs", ".fuse_hidden"].iter().any(|start| {
        name.strip_prefix(start)
            .is_some_and(|rest| rest.len() >= 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

/// Prefix of temporary folders that a restore creates in a workspace or among task logs.
pub use leoflow_base::home::RESTORE_IN_WORKSPACE as OWN_FOLDER;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_files_on_shares_are_excluded() {
        for name in [".nfs000000000012d68700000001", ".fuse_hidden0000000700000001"] {
            assert!(is_deleted_but_open(name), "{name}");
        }
        for name in [".nfs", ".nfs-server.yaml", ".fuse_hidden", "nfs000000000012d68700000001"] {
            assert!(!is_deleted_but_open(name), "{name}");
        }
    }
}
