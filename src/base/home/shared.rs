//! Downloaded files that the instances of one user share: a new instance copies them from another one instead of the
//! network. They never change in place, so they are hard links where the file system allows it, and copies elsewhere.
//! Removing an instance removes its own links only.

use super::{Home, all_instances};
use crate::sys::fs::files;
use std::fs;
use std::io;
use std::path::{Component, Path};

/// The homes of the user's other instances.
pub fn other_homes(home: &Home) -> Vec<Home> {
    let real = |home: &Home| home.root().canonicalize().unwrap_or_else(|_| home.root().to_owned());
    let own = real(home);
    all_instances().into_iter().map(|(_, other)| other).filter(|other| real(other) != own).collect()
}

/// Copies `folder`, a folder of `home`, from another instance. False when no instance has it or the copy failed; the
/// caller then downloads it.
pub fn copy_from_other_instance(home: &Home, folder: &Path) -> bool {
    let Ok(relative) = folder.strip_prefix(home.root()) else { return false };
    let others = other_homes(home).into_iter().map(|other| other.root().join(relative));
    others.filter(|other| other.is_dir()).any(|other| copy_folder(&other, folder).is_ok())
}

/// Creates `to` as a copy of the tree `from`, complete or not at all.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        files::create_private_dir(parent)?;
    }
    files::create_folder_atomic(
        to,
        |error| error,
        |staging| {
            let tree = staging.join("tree");
            link_tree(from, &tree).map(|()| tree)
        },
    )
}

/// True for a program in an instance's `versions/`. It never changes in place, unlike a build's output.
pub fn is_installed_program(path: &Path) -> bool {
    all_instances().iter().any(|(_, home)| home.versions().canonicalize().is_ok_and(|real| path.starts_with(real)))
}

/// Creates `to` as a copy of the tree `from`, with the same modes and hard links to its files where possible. Fails for
/// an absolute symbolic link, which may lead out of the tree.
pub fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    link_tree_at(from, to, 0)
}

/// Like [`link_tree`], for a folder that many levels below the tree's root.
fn link_tree_at(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            link_tree_at(&source, &target, depth + 1)?;
        } else if kind.is_symlink() {
            let pointed = fs::read_link(&source)?;
            if !stays_inside(&pointed, depth) {
                return Err(io::Error::other(format!("{} is a link to {}", source.display(), pointed.display())));
            }
            std::os::unix::fs::symlink(pointed, &target)?;
        } else if kind.is_file() {
            link_file(&source, &target)?;
        }
    }
    // Last, because a folder may be read-only.
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

/// True if a link in a folder `depth` levels below the root of a tree points into the tree. `a/..` depends on `a`, which
/// may be a link, so `..` is allowed only at the start.
fn stays_inside(pointed: &Path, depth: usize) -> bool {
    let parts = pointed.components().filter(|part| *part != Component::CurDir);
    let ups = parts.clone().take_while(|part| *part == Component::ParentDir).count();
    ups <= depth && parts.skip(ups).all(|part| matches!(part, Component::Normal(_)))
}

/// Largest text that [`relocate`] reads, in bytes.
const TEXT_LIMIT: u64 = 1024 * 1024;

/// Replaces a path in the text files of a tree that [`link_tree`] created, such as the prefix of an installed Python.
/// Writes a new file in place of a hard link, so that the other instance's file does not change.
pub fn relocate(tree: &Path, from: &Path, to: &Path) -> io::Result<()> {
    let (Some(from), Some(to)) = (from.to_str(), to.to_str()) else { return Ok(()) };
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            relocate(&path, Path::new(from), Path::new(to))?;
        } else if kind.is_file() && entry.metadata()?.len() <= TEXT_LIMIT {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            if text.contains(from) {
                files::write_atomic(&path, text.replace(from, to).as_bytes(), files::mode(&path)?)?;
            }
        }
    }
    Ok(())
}

/// Links or copies a file to a new path. A hard link can fail for many reasons: another file system, too many links, a
/// foreign owner. An existing file stays: it may be a link to `from`, and a copy onto it would empty both.
pub fn link_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::copy(from, to).map(drop),
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::files::inode;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_tree_shares_its_files_and_keeps_its_modes() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("lib")).unwrap();
        fs::write(from.join("lib/a.so.1"), "a").unwrap();
        std::os::unix::fs::symlink("a.so.1", from.join("lib/a.so")).unwrap();
        fs::set_permissions(from.join("lib"), fs::Permissions::from_mode(0o500)).unwrap();
        link_tree(&from, &to).unwrap();
        assert_eq!(inode(&from.join("lib/a.so.1")), inode(&to.join("lib/a.so.1")));
        assert_eq!(fs::read_to_string(to.join("lib/a.so")).unwrap(), "a");
        assert_eq!(fs::metadata(to.join("lib")).unwrap().permissions().mode() & 0o777, 0o500);
        fs::set_permissions(from.join("lib"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(to.join("lib"), fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn refuses_a_link_out_of_the_tree() {
        for (pointed, is_inside) in [
            ("/home/x/.leoflow/file", false),
            ("../../outside", false),
            ("../sub/../../outside", false),
            ("..", true),
            (".././sub/file", true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("from/sub")).unwrap();
            std::os::unix::fs::symlink(pointed, folder.path().join("from/sub/link")).unwrap();
            let linked = link_tree(&folder.path().join("from"), &folder.path().join("to"));
            assert_eq!(linked.is_ok(), is_inside, "{pointed}");
        }
    }

    #[test]
    fn an_existing_file_is_neither_linked_nor_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "content").unwrap();
        link_file(&from, &to).unwrap();
        assert_eq!(link_file(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&from).unwrap(), "content");
    }
}
