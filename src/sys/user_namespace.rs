//! A user namespace with a single user: how Postgres, which refuses to run as root, runs for root
//! (containers, CI), and how `initdb`, which wants a passwd entry, runs for a user without one.

use super::user;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The identity shown inside; outside it stays ours. The two maps are written after `fork`, where
/// nothing may be allocated, so they are made before.
#[derive(Debug, Clone)]
pub struct SingleUser {
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
}

/// Whether Postgres can run as we are, and if not, as whom.
#[derive(Debug, Clone)]
pub enum Identity {
    /// An ordinary user with a name.
    Own,
    /// Root, or a user without a name: shown to Postgres as another user.
    Mapped(SingleUser),
    /// Needed, but there is no name to be shown as: no passwd file worth the name.
    Impossible,
}

impl Identity {
    pub fn for_postgres() -> Self {
        let uid = user::effective_uid();
        if uid != 0 && user::login_name(uid).is_some() {
            return Self::Own;
        }
        match user::some_named_ordinary_uid() {
            Some(inside) => Self::Mapped(SingleUser::new(inside)),
            None => Self::Impossible,
        }
    }

    pub fn single_user(&self) -> Option<&SingleUser> {
        match self {
            Self::Mapped(single) => Some(single),
            Self::Own | Self::Impossible => None,
        }
    }
}

impl SingleUser {
    fn new(inside: u32) -> Self {
        Self {
            uid_map: format!("{inside} {} 1", Uid::effective()).into_bytes(),
            gid_map: format!("{inside} {} 1", Gid::effective()).into_bytes(),
        }
    }

    /// Whether the kernel lets us: tries it with a program that does nothing.
    pub fn check_allowed(&self) -> io::Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("version").env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut command);
        command.status().map(drop)
    }

    /// Enters the namespace. Called between `fork` and `exec`: system calls only.
    pub(super) fn enter(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        // user_namespaces(7): without this the group map may not be written unprivileged.
        write_proc("/proc/self/setgroups", b"deny")?;
        write_proc("/proc/self/uid_map", &self.uid_map)?;
        write_proc("/proc/self/gid_map", &self.gid_map)
    }

    /// Makes `command` start inside the namespace.
    pub fn apply(&self, command: &mut Command) {
        let single = self.clone();
        // SAFETY: `enter` makes system calls on data prepared beforehand and allocates nothing
        // (the paths are short enough for std's stack buffer).
        unsafe {
            command.pre_exec(move || single.enter());
        }
    }
}

fn write_proc(path: &str, content: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(content)
}
