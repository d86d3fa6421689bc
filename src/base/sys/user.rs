//! The current user and host.

use nix::unistd::{Uid, User};

/// The effective user id of this process.
pub fn effective_uid() -> u32 {
    Uid::effective().as_raw()
}

/// The login name, if the user id has a passwd entry.
pub fn login_name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

/// The home directory from the passwd entry, regardless of the environment.
pub fn home_by_passwd() -> Option<std::path::PathBuf> {
    User::from_uid(Uid::effective()).ok().flatten().map(|user| user.dir).filter(|path| path.is_absolute())
}

/// True when this process may create and remove entries in a folder.
pub fn may_write(folder: &std::path::Path) -> bool {
    nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK).is_ok()
}

/// A user id other than root with a passwd entry, preferably that of the user `nobody`: the identity of Postgres inside
/// its user namespace.
pub(crate) fn some_named_ordinary_uid() -> Option<u32> {
    let nobody = 65534;
    if login_name(nobody).is_some() {
        return Some(nobody);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd
        .lines()
        .filter_map(|line| line.split(':').nth(2)?.parse().ok())
        .find(|uid| *uid != 0 && login_name(*uid).is_some())
}

/// The kernel and the processor as uname(1) names them: `Darwin 23.5.0 arm64`.
pub fn kernel() -> String {
    let part = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    nix::sys::utsname::uname().map_or_else(
        |error| error.to_string(),
        |name| [name.sysname(), name.release(), name.machine()].map(part).join(" "),
    )
}

/// The machine's name; `localhost` if it cannot be read.
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".to_owned())
}
