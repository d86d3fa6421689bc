//! Runs systemctl for the units of this user.

use super::manager::{QUICK_LIMIT, START_LIMIT, Unavailable, checked, output_of, reachable};
use leoflow_base::sys::{env_vars, user};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

fn run(arguments: &[&str], limit: Duration) -> Result<Output, Unavailable> {
    let mut command = Command::new("systemctl");
    command.arg("--user");
    // A shell started by `su` or `ssh` may lack the variable although the user's systemd runs.
    let runtime = PathBuf::from(format!("/run/user/{}", user::effective_uid()));
    if !env_vars::is_set("XDG_RUNTIME_DIR") && runtime.is_dir() {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    command.args(arguments);
    output_of(command, limit)
}

fn run_checked(arguments: &[&str], limit: Duration) -> Result<(), Unavailable> {
    checked(run(arguments, limit)?, || format!("systemctl --user {}", arguments.join(" ")))
}

/// Checks that systemd is available to this user.
pub(super) fn check() -> Result<(), Unavailable> {
    reachable("systemctl", &run(&["show", "--property=Version"], QUICK_LIMIT)?)
}

/// Makes systemd read changed files.
pub(super) fn reload() -> Result<(), Unavailable> {
    run_checked(&["daemon-reload"], QUICK_LIMIT)
}

/// True when systemd starts the service at login.
pub(super) fn is_enabled(unit: &str) -> Result<bool, Unavailable> {
    Ok(run(&["is-enabled", unit], QUICK_LIMIT)?.status.success())
}

/// Enables the start at login or boot.
pub(super) fn enable(unit: &str) -> Result<(), Unavailable> {
    run_checked(&["enable", unit], QUICK_LIMIT)
}

pub(super) fn disable(unit: &str) -> Result<(), Unavailable> {
    run_checked(&["disable", unit], QUICK_LIMIT)
}

/// Starts the service; returns when Leoflow is ready.
pub(super) fn start(unit: &str) -> Result<(), Unavailable> {
    // systemd does not start a unit that failed too often.
    run(&["reset-failed", unit], QUICK_LIMIT)?;
    run_checked(&["start", unit], START_LIMIT)
}

/// Restarts the service; returns when it is ready.
pub(super) fn restart(unit: &str) -> Result<(), Unavailable> {
    run_checked(&["restart", unit], START_LIMIT)
}

/// Main process of the service; `None` when it is not running.
pub(super) fn main_pid(unit: &str) -> Result<Option<i32>, Unavailable> {
    let output = run(&["show", "--property=MainPID", unit], QUICK_LIMIT)?;
    Ok(pid_in(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses `MainPID=12`; `None` for 0.
fn pid_in(text: &str) -> Option<i32> {
    text.lines().find_map(|line| line.trim().strip_prefix("MainPID=")?.parse().ok()).filter(|pid| *pid > 0)
}

/// True when systemd keeps this user's services running without a login.
pub fn lingers() -> bool {
    user::login_name(user::effective_uid()).is_some_and(|name| Path::new("/var/lib/systemd/linger").join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::pid_in;

    #[test]
    fn parses_the_pid() {
        assert_eq!(pid_in("MainPID=4711\n"), Some(4711));
        assert_eq!(pid_in("MainPID=0\n"), None);
        assert_eq!(pid_in(""), None);
    }
}
