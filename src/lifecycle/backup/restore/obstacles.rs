//! Finds paths that cannot be replaced or moved, before anything changes.

use crate::backup::create::own_backups::OwnBackups;
use crate::backup::create::selection::{omitted_in_task_logs, omitted_in_workspace};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::beneath::Folder;
use leoflow_base::sys::fs::{files, mounts};
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error("{0} is a mount point in the workspace and cannot be moved")]
    MountInWorkspace(PathBuf),
    #[error("{0} is a mount point and cannot be replaced")]
    Mount(PathBuf),
    #[error("{0} is a link and cannot be replaced without losing its target")]
    Link(PathBuf),
    #[error("{0} is a dangling link")]
    DanglingLink(PathBuf),
    #[error("{0} is not writable for this user and cannot be moved")]
    NotWritable(PathBuf),
    #[error("{from} and {to} are on different file systems, so nothing can be renamed between them")]
    DifferentFileSystems { from: PathBuf, to: PathBuf },
}

/// Finds an obstacle to an exchange, which renames files of the home and the entries of the workspace and task logs.
/// Like the other functions, returns `None` if there is no obstacle.
pub(crate) fn find_in_exchange(home: &Home, workspace: Option<&Path>) -> io::Result<Option<Obstacle>> {
    for file in [home.config(), home.receipt()] {
        if let Some(obstacle) = find_in_file(&file)? {
            return Ok(Some(obstacle));
        }
    }
    if let Some(workspace) = workspace {
        let own = OwnBackups::of(home);
        let omitted = |folder: &Folder| omitted_in_workspace(folder, &own);
        if let Some(obstacle) = find_in_content(workspace, Obstacle::MountInWorkspace, omitted)? {
            return Ok(Some(obstacle));
        }
    }
    find_in_content(&home.task_logs(), Obstacle::Mount, omitted_in_task_logs)
}

/// True for a folder that this user cannot move to another parent, as that changes its entry `..`: rename(2), EACCES.
pub(crate) fn is_fixed(path: &Path) -> bool {
    is_fixed_by(path, &allows).unwrap_or(false)
}

fn is_fixed_by(path: &Path, allows: Allows<'_>) -> io::Result<bool> {
    Ok(fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) && !allows(path, AccessFlags::W_OK)?)
}

type Allows<'a> = &'a dyn Fn(&Path, AccessFlags) -> io::Result<bool>;

/// Finds an obstacle to moving the entries of `real`. The exchange leaves a fixed folder there if it is one of
/// `omitted`, the paths that no backup contains. Those further down are carried over one by one, so that each and its
/// parent folder must be writable.
fn find_in_entries(real: &Path, omitted: &[PathBuf], allows: Allows<'_>) -> io::Result<Option<Obstacle>> {
    for entry in fs::read_dir(real)? {
        let path = entry?.path();
        if is_fixed_by(&path, allows)? && !omitted.iter().any(|omitted| real.join(omitted) == path) {
            return Ok(Some(Obstacle::NotWritable(path)));
        }
    }
    for path in omitted.iter().map(|path| real.join(path)) {
        let Some(parent) = path.parent().filter(|parent| *parent != real) else { continue };
        if !allows(parent, AccessFlags::W_OK | AccessFlags::X_OK)? {
            return Ok(Some(Obstacle::NotWritable(parent.to_owned())));
        }
        if is_fixed_by(&path, allows)? {
            return Ok(Some(Obstacle::NotWritable(path)));
        }
    }
    Ok(None)
}

/// Finds an obstacle to moving the data directory.
pub(crate) fn find_in_cluster(home: &Home) -> io::Result<Option<Obstacle>> {
    let data = home.postgres_data();
    match fs::symlink_metadata(&data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(meta) if meta.is_symlink() => Ok(Some(Obstacle::Link(data))),
        Ok(_) if mounts::is_mount(&data)? => Ok(Some(Obstacle::Mount(data))),
        Ok(_) => not_writable(&data),
    }
}

/// Finds an obstacle to replacing a file, or the target of a link, by a rename.
pub(crate) fn find_in_file(path: &Path) -> io::Result<Option<Obstacle>> {
    if !files::is_there(path)? {
        return Ok(None);
    }
    let Ok(real) = path.canonicalize() else { return Ok(Some(Obstacle::DanglingLink(path.to_owned()))) };
    if mounts::is_mount(&real)? {
        return Ok(Some(Obstacle::Mount(path.to_owned())));
    }
    real.parent().map_or(Ok(None), not_writable_folder)
}

/// Finds an obstacle to renaming a folder from one parent to another, by doing so with an empty folder.
pub(crate) fn find_between(from: &Path, to: &Path) -> io::Result<Option<Obstacle>> {
    let name = format!(".leoflow-probe-{}", std::process::id());
    let (source_probe, target_probe) = (from.join(&name), to.join(&name));
    files::remove_any(&source_probe)?;
    fs::create_dir(&source_probe)?;
    let moved = fs::rename(&source_probe, &target_probe);
    files::remove_any(&source_probe).and(files::remove_any(&target_probe))?;
    match moved {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            Ok(Some(Obstacle::DifferentFileSystems { from: from.to_owned(), to: to.to_owned() }))
        }
        other => other.map(|()| None),
    }
}

/// Finds an obstacle to moving the entries of a folder, which may itself be a mount point or a link.
fn find_in_content(
    folder: &Path,
    mount: impl Fn(PathBuf) -> Obstacle,
    omitted: impl Fn(&Folder) -> io::Result<Vec<PathBuf>>,
) -> io::Result<Option<Obstacle>> {
    if !files::is_there(folder)? {
        return Ok(None);
    }
    let Ok(real) = folder.canonicalize() else { return Ok(Some(Obstacle::DanglingLink(folder.to_owned()))) };
    if let Some(inside) = mounts::below(&real)?.into_iter().next() {
        return Ok(Some(mount(inside)));
    }
    if let Some(obstacle) = not_writable_folder(&real)? {
        return Ok(Some(obstacle));
    }
    find_in_entries(&real, &omitted(&Folder::open(&real)?)?, &allows)
}

/// Returns an obstacle if the user may not write to the path.
fn not_writable(path: &Path) -> io::Result<Option<Obstacle>> {
    denied(path, AccessFlags::W_OK)
}

/// Returns an obstacle if the user may not add or remove entries of the folder.
fn not_writable_folder(path: &Path) -> io::Result<Option<Obstacle>> {
    denied(path, AccessFlags::W_OK | AccessFlags::X_OK)
}

fn denied(path: &Path, required: AccessFlags) -> io::Result<Option<Obstacle>> {
    Ok((!allows(path, required)?).then(|| Obstacle::NotWritable(path.to_owned())))
}

/// True when the user has these permissions.
fn allows(path: &Path, required: AccessFlags) -> io::Result<bool> {
    match access(path, required) {
        Ok(()) => Ok(true),
        Err(nix::Error::EACCES | nix::Error::EPERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn home() -> (tempfile::TempDir, Home, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        fs::write(home.config(), "port: 1\n").unwrap();
        let workspace = folder.path().join("w");
        fs::create_dir_all(workspace.join("data")).unwrap();
        (folder, home, workspace)
    }

    #[test]
    fn valid_links_are_no_obstacle() {
        let (folder, home, workspace) = home();
        let log_folder = folder.path().join("big");
        fs::create_dir(&log_folder).unwrap();
        symlink(&log_folder, home.task_logs()).unwrap();
        assert_eq!(find_in_exchange(&home, Some(&workspace)).unwrap(), None);
        fs::remove_dir(&log_folder).unwrap();
        assert_eq!(find_in_exchange(&home, Some(&workspace)).unwrap(), Some(Obstacle::DanglingLink(home.task_logs())));
    }

    #[test]
    fn a_cluster_behind_a_link_is_not_moved() {
        let (folder, home, _) = home();
        fs::create_dir_all(home.postgres()).unwrap();
        symlink(folder.path(), home.postgres_data()).unwrap();
        assert_eq!(find_in_cluster(&home).unwrap(), Some(Obstacle::Link(home.postgres_data())));
    }

    #[test]
    fn finds_folders_that_cannot_be_moved() {
        if nix::unistd::geteuid().is_root() {
            return;
        }
        let (_folder, home, workspace) = home();
        let data = workspace.join("data");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).unwrap();
        let obstacle = find_in_exchange(&home, Some(&workspace)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(obstacle, Some(Obstacle::NotWritable(data.canonicalize().unwrap())));
    }

    #[test]
    fn finds_omitted_paths_that_cannot_be_moved() {
        let (_folder, _home, workspace) = home();
        let workspace = workspace.canonicalize().unwrap();
        fs::create_dir_all(workspace.join("data/secret")).unwrap();
        fs::write(workspace.join("data/file"), "").unwrap();
        fs::create_dir(workspace.join("lost+found")).unwrap();
        let omitted = ["data/file", "data/secret", "lost+found"].map(PathBuf::from);
        // Independent of the user's own permissions: root may write everywhere.
        let denying = |denied: PathBuf| {
            let allows = move |path: &Path, _: AccessFlags| Ok(path != denied);
            find_in_entries(&workspace, &omitted, &allows).unwrap()
        };
        let not_writable = |path: &str| Some(Obstacle::NotWritable(workspace.join(path)));
        assert_eq!(denying(workspace.join("data")), not_writable("data"));
        assert_eq!(denying(workspace.join("data/secret")), not_writable("data/secret"));
        assert_eq!(denying(workspace.join("data/file")), None, "moving a file needs only write access to its folder");
        assert_eq!(denying(workspace.join("lost+found")), None, "it stays where it is");
    }
}
