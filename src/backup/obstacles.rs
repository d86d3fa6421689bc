//! What of the paths that are to be replaced or moved cannot be, found before anything is changed.

use super::own_backups::OwnBackups;
use super::selection::{unheld_in_task_logs, unheld_in_workspace};
use crate::home::Home;
use crate::sys::beneath::Folder;
use crate::sys::{files, mounts};
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error("{0} is a mount point in the workspace, and cannot be moved aside")]
    InWorkspace(PathBuf),
    #[error("{0} is a mount point, and cannot be replaced")]
    Mount(PathBuf),
    #[error("{0} is a link, and cannot be replaced without losing where it leads")]
    Link(PathBuf),
    #[error("{0} is a link that leads nowhere")]
    LeadsNowhere(PathBuf),
    #[error("{0} is not writable for this user, and cannot be moved")]
    NotWritable(PathBuf),
    #[error("{from} and {to} are on two file systems, and nothing can be renamed from one into the other")]
    Apart { from: PathBuf, to: PathBuf },
}

/// Of what an exchange replaces: files of the home by renames over them, folders entry by entry.
pub fn of_exchange(home: &Home, workspace: Option<&Path>) -> io::Result<Option<Obstacle>> {
    for file in [home.config(), home.receipt()] {
        if let Some(found) = of_file(&file)? {
            return Ok(Some(found));
        }
    }
    if let Some(workspace) = workspace {
        if let Some(found) = of_content(workspace, Obstacle::InWorkspace)? {
            return Ok(Some(found));
        }
        let own = OwnBackups::of(home);
        if let Some(found) = of_unheld(workspace, |folder| unheld_in_workspace(folder, &own), &allows)? {
            return Ok(Some(found));
        }
    }
    let logs = home.task_logs();
    match of_content(&logs, Obstacle::Mount)? {
        None => of_unheld(&logs, unheld_in_task_logs, &allows),
        found => Ok(found),
    }
}

/// Of what no backup holds: it is moved back by itself, so it and the folder that it is in must be writable.
fn of_unheld(
    folder: &Path,
    unheld: impl Fn(&Folder) -> io::Result<Vec<PathBuf>>,
    allows: &dyn Fn(&Path, AccessFlags) -> io::Result<bool>,
) -> io::Result<Option<Obstacle>> {
    if !files::is_there(folder)? {
        return Ok(None);
    }
    let real = folder.canonicalize()?;
    for path in unheld(&Folder::open(&real)?)? {
        let place = real.join(path);
        let parent = place.parent().unwrap_or(&real);
        if !allows(parent, AccessFlags::W_OK | AccessFlags::X_OK)? {
            return Ok(Some(Obstacle::NotWritable(parent.to_owned())));
        }
        // A folder that gets another parent has to be writable itself: rename(2), EACCES.
        let is_folder = fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_dir());
        if is_folder && !allows(&place, AccessFlags::W_OK)? {
            return Ok(Some(Obstacle::NotWritable(place)));
        }
    }
    Ok(None)
}

/// Of a cluster that is moved as a whole.
pub fn of_cluster(home: &Home) -> io::Result<Option<Obstacle>> {
    let data = home.postgres_data();
    match fs::symlink_metadata(&data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(meta) if meta.is_symlink() => Ok(Some(Obstacle::Link(data))),
        Ok(_) if is_mount(&data)? => Ok(Some(Obstacle::Mount(data))),
        Ok(_) => not_writable(&data),
    }
}

/// Of a file that is replaced by a rename, where a link to it leads.
pub fn of_file(path: &Path) -> io::Result<Option<Obstacle>> {
    if !files::is_there(path)? {
        return Ok(None);
    }
    let Ok(real) = path.canonicalize() else { return Ok(Some(Obstacle::LeadsNowhere(path.to_owned()))) };
    if is_mount(&real)? {
        return Ok(Some(Obstacle::Mount(path.to_owned())));
    }
    real.parent().map_or(Ok(None), not_writable_folder)
}

/// Whether a folder can be renamed from one place to another.
pub fn between(from: &Path, to: &Path) -> io::Result<Option<Obstacle>> {
    let name = format!(".leoflow-probe-{}", std::process::id());
    let (here, there) = (from.join(&name), to.join(&name));
    files::remove_any(&here)?;
    fs::create_dir(&here)?;
    let moved = fs::rename(&here, &there);
    files::remove_any(&here).and(files::remove_any(&there))?;
    match moved {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            Ok(Some(Obstacle::Apart { from: from.to_owned(), to: to.to_owned() }))
        }
        other => other.map(|()| None),
    }
}

/// Of the entries of a folder, which may be a mount point or a link itself.
fn of_content(folder: &Path, mount: impl Fn(PathBuf) -> Obstacle) -> io::Result<Option<Obstacle>> {
    if !files::is_there(folder)? {
        return Ok(None);
    }
    let Ok(real) = folder.canonicalize() else { return Ok(Some(Obstacle::LeadsNowhere(folder.to_owned()))) };
    if let Some(inside) = mounts::at_or_below(&real)?.into_iter().find(|point| *point != real) {
        return Ok(Some(mount(inside)));
    }
    if let Some(found) = not_writable_folder(&real)? {
        return Ok(Some(found));
    }
    for entry in fs::read_dir(&real)? {
        let entry = entry?;
        // A folder that gets another parent has to be writable itself: rename(2), EACCES.
        if entry.file_type()?.is_dir()
            && let Some(found) = not_writable(&entry.path())?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn is_mount(real: &Path) -> io::Result<bool> {
    Ok(mounts::at_or_below(real)?.iter().any(|point| point == real))
}

fn not_writable(path: &Path) -> io::Result<Option<Obstacle>> {
    denied(path, AccessFlags::W_OK)
}

fn not_writable_folder(path: &Path) -> io::Result<Option<Obstacle>> {
    denied(path, AccessFlags::W_OK | AccessFlags::X_OK)
}

fn denied(path: &Path, wanted: AccessFlags) -> io::Result<Option<Obstacle>> {
    Ok((!allows(path, wanted)?).then(|| Obstacle::NotWritable(path.to_owned())))
}

fn allows(path: &Path, wanted: AccessFlags) -> io::Result<bool> {
    match access(path, wanted) {
        Ok(()) => Ok(true),
        Err(nix::Error::EACCES | nix::Error::EROFS | nix::Error::EPERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn home() -> (tempfile::TempDir, Home, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        fs::write(home.config(), "port: 1\n").unwrap();
        let workspace = folder.path().join("w");
        fs::create_dir_all(workspace.join("data")).unwrap();
        (folder, home, workspace)
    }

    #[test]
    fn links_that_lead_somewhere_are_no_obstacle() {
        let (folder, home, workspace) = home();
        let big = folder.path().join("big");
        fs::create_dir(&big).unwrap();
        symlink(&big, home.task_logs()).unwrap();
        assert_eq!(of_exchange(&home, Some(&workspace)).unwrap(), None);
        fs::remove_dir(&big).unwrap();
        assert_eq!(of_exchange(&home, Some(&workspace)).unwrap(), Some(Obstacle::LeadsNowhere(home.task_logs())));
    }

    #[test]
    fn a_cluster_behind_a_link_is_not_moved() {
        let (folder, home, _) = home();
        fs::create_dir_all(home.postgres()).unwrap();
        symlink(folder.path(), home.postgres_data()).unwrap();
        assert_eq!(of_cluster(&home).unwrap(), Some(Obstacle::Link(home.postgres_data())));
    }

    #[test]
    fn a_folder_that_cannot_be_moved_is_found() {
        if nix::unistd::geteuid().is_root() {
            return;
        }
        let (_folder, home, workspace) = home();
        let data = workspace.join("data");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).unwrap();
        let found = of_exchange(&home, Some(&workspace)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(found, Some(Obstacle::NotWritable(data.canonicalize().unwrap())));
    }

    #[test]
    fn unheld_paths_that_cannot_be_carried_are_found() {
        let (_folder, _home, workspace) = home();
        let workspace = workspace.canonicalize().unwrap();
        fs::create_dir_all(workspace.join("data/secret")).unwrap();
        fs::write(workspace.join("data/odd"), "").unwrap();
        let unheld = |_: &Folder| Ok(vec![PathBuf::from("data/odd"), PathBuf::from("data/secret")]);
        // Decided without the user's own rights: root may write everywhere.
        let denying = |denied: PathBuf| {
            let allows = move |path: &Path, _: AccessFlags| Ok(path != denied);
            of_unheld(&workspace, unheld, &allows).unwrap()
        };
        let not_writable = |path: &str| Some(Obstacle::NotWritable(workspace.join(path)));
        assert_eq!(denying(workspace.join("data")), not_writable("data"));
        assert_eq!(denying(workspace.join("data/secret")), not_writable("data/secret"));
        assert_eq!(denying(workspace.join("data/odd")), None, "a file moves with the rights of its folder");
    }
}
