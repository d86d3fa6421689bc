//! The program that starts services of the user: systemd, or launchd on a Mac.

use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::command;
use std::process::{Command, Output};
use std::time::Duration;

/// Time limit for quick commands.
pub(super) const QUICK_LIMIT: Duration = Duration::from_secs(20);
/// Time limit for starts and stops: a start waits until Leoflow is ready and may recover a database; a stop ends
/// processes in turn.
pub(super) const START_LIMIT: Duration = Duration::from_secs(600);

/// Comment at the top of a service's file.
pub(super) const HEAD: &str = "Made by `leoflow service install`; `leoflow service uninstall` removes it.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    Systemd,
    Launchd,
}

/// Why a request to the service manager failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unavailable {
    #[error("systemd is not available on this machine")]
    NotInstalled,
    /// The manager exists but this user's instance of it is unreachable.
    #[error("{program} cannot reach the service manager of this user: {output}")]
    Unreachable { program: &'static str, output: String },
    #[error("`{command}` failed: {output}")]
    Failed { command: String, output: String },
}

impl Manager {
    /// launchd where its command is, which only Macs have.
    pub(super) fn of_this_system() -> Self {
        match env_vars::search_path().iter().any(|folder| folder.join("launchctl").is_file()) {
            true => Self::Launchd,
            false => Self::Systemd,
        }
    }
}

/// Runs a command of a service manager; its messages are in English.
pub(super) fn output_of(mut command: Command, limit: Duration) -> Result<Output, Unavailable> {
    command::output_within(command.env("LC_ALL", "C"), limit).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Unavailable::NotInstalled,
        _ => Unavailable::Failed { command: command.get_program().to_string_lossy().into(), output: error.to_string() },
    })
}

pub(super) fn checked(output: Output, command: impl FnOnce() -> String) -> Result<(), Unavailable> {
    match output.status.success() {
        true => Ok(()),
        false => Err(Unavailable::Failed { command: command(), output: error_output(&output) }),
    }
}

pub(super) fn reachable(program: &'static str, output: &Output) -> Result<(), Unavailable> {
    match output.status.success() {
        true => Ok(()),
        false => Err(Unavailable::Unreachable { program, output: error_output(output) }),
    }
}

fn error_output(output: &Output) -> String {
    command::failure(&String::from_utf8_lossy(&output.stderr), output.status)
}
