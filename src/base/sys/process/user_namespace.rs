//! A user namespace with a single user. It lets root (containers, CI) run Postgres, which refuses to run as root, and a
//! user without a passwd entry run `initdb`, which needs one.

use crate::sys::{env_vars, user};
use nix::unistd::{Gid, Uid};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The identity inside the namespace, as the contents of its uid map and gid map. They are prepared in advance, because
/// they are written after `fork`, where nothing may be allocated.
#[derive(Debug, Clone)]
pub struct SingleUser {
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
}

/// The identity that Postgres runs as.
#[derive(Debug, Clone)]
pub enum Identity {
    /// The current user: an ordinary user with a passwd entry.
    Own,
    /// Another user inside a namespace, because the current one is root or has no passwd entry. Only on Linux.
    Mapped(SingleUser),
    /// A namespace is needed, but the passwd file has no ordinary user.
    Impossible,
}

impl Identity {
    /// Determines the identity for the current user.
    pub fn for_postgres() -> Self {
        let uid = user::effective_uid();
        if uid != 0 && user::login_name(uid).is_some() {
            return Self::Own;
        }
        match user::some_named_ordinary_uid() {
            Some(inside_uid) if cfg!(target_os = "linux") => Self::Mapped(SingleUser::new(inside_uid)),
            _ => Self::Impossible,
        }
    }

    /// The namespace to enter; `None` if none is needed or possible.
    pub fn single_user(&self) -> Option<&SingleUser> {
        match self {
            Self::Mapped(single_user) => Some(single_user),
            Self::Own | Self::Impossible => None,
        }
    }
}

impl SingleUser {
    fn new(inside_uid: u32) -> Self {
        Self {
            uid_map: format!("{inside_uid} {} 1", Uid::effective()).into_bytes(),
            gid_map: format!("{inside_uid} {} 1", Gid::effective()).into_bytes(),
        }
    }

    /// Checks that the kernel allows the namespace by running `leoflow version` in it.
    pub fn check_allowed(&self) -> io::Result<()> {
        let mut command = Command::new(env_vars::running_program());
        command.arg("version").env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut command);
        command.status().map(drop)
    }

    /// Enters the namespace. Called between `fork` and `exec`: system calls only.
    #[cfg(target_os = "linux")]
    pub(crate) fn enter(&self) -> io::Result<()> {
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // user_namespaces(7): without this the group map may not be written unprivileged.
        write_proc("/proc/self/setgroups", b"deny")?;
        write_proc("/proc/self/uid_map", &self.uid_map)?;
        write_proc("/proc/self/gid_map", &self.gid_map)
    }

    /// Other systems have no such namespaces.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn enter(&self) -> io::Result<()> {
        let _ = (&self.uid_map, &self.gid_map);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes `command` start inside the namespace.
    pub fn apply(&self, command: &mut Command) {
        let single_user = self.clone();
        // SAFETY: `enter` makes system calls on prepared data and allocates nothing (the paths fit into std's stack
        // buffer).
        unsafe {
            command.pre_exec(move || single_user.enter());
        }
    }
}

#[cfg(target_os = "linux")]
fn write_proc(path: &str, content: &[u8]) -> io::Result<()> {
    io::Write::write_all(&mut std::fs::OpenOptions::new().write(true).open(path)?, content)
}
