//! Runs commands in their own mount namespace, to test small, full and separate disks.

use super::{CommandOutput, TestHome};
use std::process::Command;

/// Runs the script as root of a new namespace, where it can mount a small disk. Its arguments are the home, then the
/// `leoflow` command.
pub fn run_in_mount_namespace(test: &TestHome, script: &str, arguments: &[&str]) -> CommandOutput {
    let leoflow = test.command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh"]);
    command.arg(&test.home).arg(leoflow.get_program()).args(leoflow.get_args()).env_clear();
    command.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().unwrap().into()
}

/// True if mounting in a user namespace is allowed; AppArmor and containers may forbid it.
pub fn can_mount() -> bool {
    let mount = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    let is_allowed = mount.is_ok_and(|output| output.status.success());
    if !is_allowed {
        eprintln!("skipped: mounting in a user namespace is not allowed");
    }
    is_allowed
}
