//! Hints for errors of file systems: which file system lacks which resource, and which limit or mount is the cause.

use super::Error;
use leoflow_base::sys::fs::disk::{self, Shortage, human_size};
use leoflow_base::sys::fs::folders::DanglingLink;
use leoflow_base::sys::fs::{files, mounts};
use leoflow_base::sys::process::limits;
use std::io;
use std::path::Path;

/// Adds a hint if `cause` is an error of the disk or of permissions. For an error whose file is unknown.
pub(super) fn with_disk_hint(error: Error, cause: Option<&io::Error>) -> Error {
    match cause.and_then(|cause| hint(cause, None)) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Like [`with_disk_hint`], for the file or folder `path`, existing or not.
pub(super) fn with_disk_hint_at(error: Error, cause: &io::Error, path: &Path) -> Error {
    match hint(cause, Some(path)) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Adds a hint about a shortage that was found before the files of the failed operation were removed.
pub(super) fn with_shortage_hint(error: Error, shortage: Shortage, path: &Path) -> Error {
    let place = place_of(path);
    error.hint(format!("{} and {AGAIN}", shortage.remedy(place.as_deref())))
}

fn place_of(path: &Path) -> Option<String> {
    mounts::containing(path).ok().map(|point| point.display().to_string())
}

/// The end of hints about a shortage.
const AGAIN: &str = "rerun the same command; nothing was lost";

fn hint(cause: &io::Error, path: Option<&Path>) -> Option<String> {
    let place = path.and_then(place_of);
    let place = place.as_deref();
    match cause.kind() {
        io::ErrorKind::ResourceBusy => Some("it is a mount point or in use: `findmnt` shows mounts".to_owned()),
        io::ErrorKind::FileTooLarge => Some(too_large(limits::file_size(), place)),
        io::ErrorKind::QuotaExceeded => {
            Some(format!("the quota of your user is used up{}: free some space and {AGAIN}", on(place)))
        }
        io::ErrorKind::StorageFull => {
            // An error with a text is not from the kernel: a check of Leoflow failed because some space must stay free.
            let shortage = match cause.get_ref() {
                Some(_) => Shortage::Bytes,
                None => path.and_then(|path| disk::shortage(path).ok()).unwrap_or(Shortage::Unknown),
            };
            Some(format!("{} and {AGAIN}", shortage.remedy(place)))
        }
        io::ErrorKind::PermissionDenied => Some(no_permission(cause, path, place)),
        io::ErrorKind::ReadOnlyFilesystem => Some(match place {
            Some(place) => {
                format!("{place} is mounted read-only: choose another place (for Leoflow's own files: --home DIR)")
            }
            None => "the disk is mounted read-only; choose another home with --home".to_owned(),
        }),
        _ if cause.get_ref().is_some_and(|cause| cause.is::<DanglingLink>()) => {
            Some(format!("mount the disk that the link leads to, or remove the link; then {AGAIN}"))
        }
        _ => None,
    }
}

fn no_permission(cause: &io::Error, path: Option<&Path>, place: Option<&str>) -> String {
    const EPERM: i32 = 1;
    match (path, place) {
        (Some(path), Some(place)) if is_program(path) && disk::forbids_programs(path) => {
            format!("{place} is mounted noexec, so that no program there can run: choose another home with --home DIR")
        }
        // EACCES is a matter of the path's owners and modes, EPERM is not.
        (Some(_), Some(place)) if cause.raw_os_error() == Some(EPERM) => format!(
            "the file system on {place} refuses it: permissions are fixed by its mount, or the file is immutable \
             (`lsattr`); choose another place (for Leoflow's own files: --home DIR)"
        ),
        _ => "check the owner of the folder with `ls -ld`".to_owned(),
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && files::mode(path).is_ok_and(|mode| mode & 0o111 != 0)
}

fn on(place: Option<&str>) -> String {
    place.map_or_else(String::new, |place| format!(" on {place}"))
}

fn too_large(limit: Option<u64>, place: Option<&str>) -> String {
    match limit {
        Some(bytes) => {
            format!("files may have at most {} here (`ulimit -f`): raise that limit and {AGAIN}", human_size(bytes))
        }
        None => format!("the file system{} takes no file of this size (FAT: 4 GiB): choose another place", on(place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_cause() {
        let place = Some("/mnt/usb");
        let full = hint(&io::ErrorKind::StorageFull.into(), None).unwrap();
        let unknown = "the disk is full, or no more files can be created (`df -i`): free some space";
        assert_eq!(full, format!("{unknown} and rerun the same command; nothing was lost"));
        let own_check = hint(&io::Error::new(io::ErrorKind::StorageFull, "too little"), Some(Path::new("/")));
        assert!(own_check.unwrap().starts_with("the disk is full on /"));
        assert!(too_large(Some(8_000_000), place).contains("(`ulimit -f`)"));
        assert!(
            too_large(None, place).starts_with("the file system on /mnt/usb takes no file of this size (FAT: 4 GiB)")
        );
        let read_only = hint(&io::ErrorKind::ReadOnlyFilesystem.into(), Some(Path::new("/proc/x")));
        assert!(read_only.unwrap().starts_with("/proc is mounted read-only"));
        let fixed = hint(&io::Error::from_raw_os_error(1), Some(Path::new("/proc/x"))).unwrap();
        assert!(
            fixed.starts_with("the file system on /proc refuses it: permissions are fixed by its mount"),
            "{fixed}"
        );
        let owner = hint(&io::Error::from_raw_os_error(13), Some(Path::new("/proc/self/environ"))).unwrap();
        assert_eq!(owner, "check the owner of the folder with `ls -ld`");
        assert_eq!(hint(&io::ErrorKind::NotFound.into(), None), None);
    }
}
