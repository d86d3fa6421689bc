//! Runs systemctl or launchctl.

use super::definition::Kind;
use leoflow_base::sys::process::command;
use leoflow_base::sys::{env_vars, user};
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
    #[error("{0} is not available on this machine")]
    NotInstalled(&'static str),
    /// The manager exists but this user's instance of it is unreachable.
    #[error("{program} cannot reach the service manager of this user: {output}")]
    Unreachable { program: &'static str, output: String },
    #[error("`{command}` failed: {output}")]
    Failed { command: String, output: String },
}

#[derive(Debug, Clone)]
pub struct Manager {
    pub kind: Kind,
    pub unit: String,
    pub file: PathBuf,
    pub uid: u32,
}

impl Manager {
    fn program(&self) -> &'static str {
        match self.kind {
            Kind::Systemd => "systemctl",
            Kind::Launchd => "launchctl",
        }
    }

    /// launchd's domain of this user.
    fn domain(&self) -> String {
        format!("gui/{}", self.uid)
    }

    /// launchd's name for the service.
    fn target(&self) -> String {
        format!("{}/{}", self.domain(), self.unit)
    }

    fn run(&self, arguments: &[&str], limit: Duration) -> Result<Output, Unavailable> {
        let program = self.program();
        let mut command = Command::new(program);
        if self.kind == Kind::Systemd {
            command.arg("--user");
            // A shell started by `su` or `ssh` may lack the variable although the user's systemd runs.
            let runtime = PathBuf::from(format!("/run/user/{}", self.uid));
            if !env_vars::is_set("XDG_RUNTIME_DIR") && runtime.is_dir() {
                command.env("XDG_RUNTIME_DIR", runtime);
            }
        }
        command.args(arguments).env("LC_ALL", "C");
        command::output_within(&mut command, limit).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Unavailable::NotInstalled(match self.kind {
                Kind::Systemd => "systemd",
                Kind::Launchd => "launchd",
            }),
            _ => Unavailable::Failed { command: command_line(program, arguments), output: error.to_string() },
        })
    }

    fn run_checked(&self, arguments: &[&str], limit: Duration) -> Result<(), Unavailable> {
        let output = self.run(arguments, limit)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Unavailable::Failed { command: command_line(self.program(), arguments), output: error_output(&output) })
    }

    /// Checks that the manager is available to this user.
    pub fn check(&self) -> Result<(), Unavailable> {
        let arguments: &[&str] = match self.kind {
            Kind::Systemd => &["show", "--property=Version"],
            Kind::Launchd => &["managerpid"],
        };
        let output = self.run(arguments, QUICK_LIMIT)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Unavailable::Unreachable { program: self.program(), output: error_output(&output) })
    }

    /// Makes the manager read changed files.
    pub fn reload(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => self.run_checked(&["daemon-reload"], QUICK_LIMIT),
            // launchd reads the file when it loads it.
            Kind::Launchd => Ok(()),
        }
    }

    pub fn is_enabled(&self) -> Result<bool, Unavailable> {
        match self.kind {
            Kind::Systemd => Ok(self.run(&["is-enabled", &self.unit], QUICK_LIMIT)?.status.success()),
            // launchd loads every file in its folder at login.
            Kind::Launchd => Ok(self.file.exists()),
        }
    }

    pub fn enable(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => self.run_checked(&["enable", &self.unit], QUICK_LIMIT),
            Kind::Launchd => Ok(()),
        }
    }

    pub fn disable(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => self.run_checked(&["disable", &self.unit], QUICK_LIMIT),
            // Unloading would stop the service. After its file is removed, launchd does not load it at the next login.
            Kind::Launchd => Ok(()),
        }
    }

    /// Starts the service. systemd waits until it is ready, launchd does not.
    pub fn start(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => {
                // systemd does not start a unit that failed too often.
                self.run(&["reset-failed", &self.unit], QUICK_LIMIT)?;
                self.run_checked(&["start", &self.unit], START_LIMIT)
            }
            Kind::Launchd => {
                if !self.run(&["print", &self.target()], QUICK_LIMIT)?.status.success() {
                    return self.run_checked(&["bootstrap", &self.domain(), &self.file.to_string_lossy()], START_LIMIT);
                }
                self.run_checked(&["kickstart", &self.target()], START_LIMIT)
            }
        }
    }

    pub fn restart(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => self.run_checked(&["restart", &self.unit], START_LIMIT),
            Kind::Launchd => self.run_checked(&["kickstart", "-k", &self.target()], START_LIMIT),
        }
    }

    /// Main process of the service; `None` when it is not running.
    pub fn main_pid(&self) -> Result<Option<i32>, Unavailable> {
        let output = match self.kind {
            Kind::Systemd => self.run(&["show", "--property=MainPID", &self.unit], QUICK_LIMIT)?,
            Kind::Launchd => self.run(&["print", &self.target()], QUICK_LIMIT)?,
        };
        Ok(pid_in(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// Parses `MainPID=12` of systemd or `pid = 12` of launchd; `None` for 0.
fn pid_in(text: &str) -> Option<i32> {
    let value = |line: &str| {
        let line = line.trim();
        line.strip_prefix("MainPID=").or_else(|| line.strip_prefix("pid = "))?.parse().ok()
    };
    text.lines().find_map(value).filter(|pid| *pid > 0)
}

fn command_line(program: &str, arguments: &[&str]) -> String {
    let user = if program == "systemctl" { " --user" } else { "" };
    format!("{program}{user} {}", arguments.join(" "))
}

fn error_output(output: &Output) -> String {
    command::failure(&String::from_utf8_lossy(&output.stderr), output.status)
}

/// True when systemd keeps this user's services running without a login.
pub(crate) fn lingers() -> bool {
    user::login_name(user::effective_uid()).is_some_and(|name| Path::new("/var/lib/systemd/linger").join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::pid_in;

    #[test]
    fn parses_the_pid_of_either_manager() {
        assert_eq!(pid_in("MainPID=4711\n"), Some(4711));
        assert_eq!(pid_in("MainPID=0\n"), None);
        assert_eq!(pid_in("gui/501/x = {\n\tactive count = 1\n\tpid = 815\n}\n"), Some(815));
        assert_eq!(pid_in(""), None);
    }
}
