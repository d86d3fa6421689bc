//! Commands in a mount namespace of their own, for disks that are small, full or somewhere else.

use super::{Done, TestHome};
use std::process::Command;

/// Runs the script as root of a namespace of its own, where a small disk can be mounted.
pub fn in_own_mounts(test: &TestHome, script: &str, arguments: &[&str]) -> Done {
    let inner = test.command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh"]);
    command.arg(&test.home).arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().unwrap().into()
}

/// Mounting in a namespace of one's own is not allowed everywhere (AppArmor, containers).
pub fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("not tested here: mounting in a user namespace is not allowed");
    }
    can
}
