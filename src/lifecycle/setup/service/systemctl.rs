//! Runs systemctl for the units of this user.

use super::Service;
use leoflow_base::sys::process::command;
use leoflow_base::sys::{checkpoint, env_vars, user};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// Time limit for quick commands.
const QUICK_LIMIT: Duration = Duration::from_secs(20);
/// Time limit for starts and stops: a start waits until Leoflow is ready and may recover a database; a stop ends
/// processes in turn.
const START_LIMIT: Duration = Duration::from_secs(600);

/// Why the service manager could not do what was requested.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unavailable {
    #[error("systemd is not available on this machine")]
    NotInstalled,
    /// systemd exists but this user's instance of it is unreachable.
    #[error("systemctl cannot reach the service manager of this user: {output}")]
    Unreachable { output: String },
    #[error("`{command}` failed: {output}")]
    Failed { command: String, output: String },
}

fn run(arguments: &[&str], limit: Duration) -> Result<Output, Unavailable> {
    let mut command = Command::new("systemctl");
    command.arg("--user");
    // A shell started by `su` or `ssh` may lack the variable although the user's systemd runs.
    let runtime = PathBuf::from(format!("/run/user/{}", user::effective_uid()));
    if !env_vars::is_set("XDG_RUNTIME_DIR") && runtime.is_dir() {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    command.args(arguments).env("LC_ALL", "C");
    command::output_within(&mut command, limit).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Unavailable::NotInstalled,
        _ => failed(arguments, error.to_string()),
    })
}

fn run_checked(arguments: &[&str], limit: Duration) -> Result<(), Unavailable> {
    let output = run(arguments, limit)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(arguments, error_output(&output))),
    }
}

fn failed(arguments: &[&str], output: String) -> Unavailable {
    Unavailable::Failed { command: format!("systemctl --user {}", arguments.join(" ")), output }
}

fn error_output(output: &Output) -> String {
    command::failure(&String::from_utf8_lossy(&output.stderr), output.status)
}

impl Service {
    /// Checks that systemd is available to this user.
    pub fn check_manager(&self) -> Result<(), Unavailable> {
        let output = run(&["show", "--property=Version"], QUICK_LIMIT)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Unavailable::Unreachable { output: error_output(&output) }),
        }
    }

    /// Makes systemd read changed files.
    pub fn reload(&self) -> Result<(), Unavailable> {
        run_checked(&["daemon-reload"], QUICK_LIMIT)
    }

    /// True when systemd starts the service at login.
    pub fn is_enabled(&self) -> Result<bool, Unavailable> {
        Ok(run(&["is-enabled", &self.unit()], QUICK_LIMIT)?.status.success())
    }

    /// Enables the start at login or boot.
    pub fn enable(&self) -> Result<(), Unavailable> {
        run_checked(&["enable", &self.unit()], QUICK_LIMIT)?;
        checkpoint("service.enabled");
        Ok(())
    }

    pub(super) fn disable(&self) -> Result<(), Unavailable> {
        run_checked(&["disable", &self.unit()], QUICK_LIMIT)
    }

    /// Starts the service; returns when Leoflow is ready.
    pub fn start(&self) -> Result<(), Unavailable> {
        // systemd does not start a unit that failed too often.
        run(&["reset-failed", &self.unit()], QUICK_LIMIT)?;
        run_checked(&["start", &self.unit()], START_LIMIT)
    }

    /// Restarts the service; returns when it is ready.
    pub fn restart(&self) -> Result<(), Unavailable> {
        run_checked(&["restart", &self.unit()], START_LIMIT)
    }

    /// Main process of the service; `None` when it is not running.
    pub fn main_pid(&self) -> Result<Option<i32>, Unavailable> {
        let output = run(&["show", "--property=MainPID", &self.unit()], QUICK_LIMIT)?;
        Ok(pid_in(&String::from_utf8_lossy(&output.stdout)))
    }
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
