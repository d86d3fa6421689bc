//! Asking systemd's or launchd's own command.

use super::definition::Kind;
use crate::sys::{command, env_vars, user};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// For what is answered at once.
const AT_ONCE: Duration = Duration::from_secs(20);
/// A start waits until Leoflow is ready, which may have a database to recover; a stop ends tasks' processes in turn.
const TO_START: Duration = Duration::from_secs(600);

/// Why it cannot be asked, or did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unavailable {
    #[error("this machine has no {0}")]
    NotThere(&'static str),
    /// It has, and this user's own cannot be reached from here.
    #[error("{program} does not reach the service manager of this user: {said}")]
    NotReached { program: &'static str, said: String },
    #[error("`{command}` failed: {said}")]
    Failed { command: String, said: String },
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

    fn domain(&self) -> String {
        format!("gui/{}", self.uid)
    }

    fn target(&self) -> String {
        format!("{}/{}", self.domain(), self.unit)
    }

    fn ask(&self, arguments: &[&str], limit: Duration) -> Result<Output, Unavailable> {
        let program = self.program();
        let mut command = Command::new(program);
        if self.kind == Kind::Systemd {
            command.arg("--user");
            // A shell that `su` or `ssh` began may lack it, while the user's own systemd is there.
            let runtime = PathBuf::from(format!("/run/user/{}", self.uid));
            if !env_vars::is_set("XDG_RUNTIME_DIR") && runtime.is_dir() {
                command.env("XDG_RUNTIME_DIR", runtime);
            }
        }
        command.args(arguments).env("LC_ALL", "C");
        command::output_within(&mut command, limit).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Unavailable::NotThere(match self.kind {
                Kind::Systemd => "systemd",
                Kind::Launchd => "launchd",
            }),
            _ => Unavailable::Failed { command: shown(program, arguments), said: error.to_string() },
        })
    }

    fn tell(&self, arguments: &[&str], limit: Duration) -> Result<(), Unavailable> {
        let output = self.ask(arguments, limit)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Unavailable::Failed { command: shown(self.program(), arguments), said: said(&output) })
    }

    /// Whether it is there for this user.
    pub fn check(&self) -> Result<(), Unavailable> {
        let question: &[&str] = match self.kind {
            Kind::Systemd => &["show", "--property=Version"],
            Kind::Launchd => &["managerpid"],
        };
        let output = self.ask(question, AT_ONCE)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Unavailable::NotReached { program: self.program(), said: said(&output) })
    }

    pub fn reload(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => self.tell(&["daemon-reload"], AT_ONCE),
            // It reads a file when it is loaded.
            Kind::Launchd => Ok(()),
        }
    }

    pub fn is_enabled(&self) -> Result<bool, Unavailable> {
        match self.kind {
            Kind::Systemd => Ok(self.ask(&["is-enabled", &self.unit], AT_ONCE)?.status.success()),
            // What is in its folder is loaded at login.
            Kind::Launchd => Ok(self.file.exists()),
        }
    }

    pub fn enable(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => self.tell(&["enable", &self.unit], AT_ONCE),
            Kind::Launchd => Ok(()),
        }
    }

    pub fn disable(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => self.tell(&["disable", &self.unit], AT_ONCE),
            // To forget it now would end what it runs. Without its file it is forgotten at the next login.
            Kind::Launchd => Ok(()),
        }
    }

    /// Comes back when it is ready.
    pub fn start(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => {
                // One that failed too often would not be started again.
                self.ask(&["reset-failed", &self.unit], AT_ONCE)?;
                self.tell(&["start", &self.unit], TO_START)
            }
            Kind::Launchd => {
                if !self.ask(&["print", &self.target()], AT_ONCE)?.status.success() {
                    return self.tell(&["bootstrap", &self.domain(), &self.file.to_string_lossy()], TO_START);
                }
                self.tell(&["kickstart", &self.target()], TO_START)
            }
        }
    }

    pub fn restart(&self) -> Result<(), Unavailable> {
        match self.kind {
            Kind::Systemd => self.tell(&["restart", &self.unit], TO_START),
            Kind::Launchd => self.tell(&["kickstart", "-k", &self.target()], TO_START),
        }
    }

    pub fn main_pid(&self) -> Result<Option<i32>, Unavailable> {
        let output = match self.kind {
            Kind::Systemd => self.ask(&["show", "--property=MainPID", &self.unit], AT_ONCE)?,
            Kind::Launchd => self.ask(&["print", &self.target()], AT_ONCE)?,
        };
        Ok(pid_in(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// In `MainPID=12` of systemd, or the line `pid = 12` of launchd. 0 is none.
fn pid_in(text: &str) -> Option<i32> {
    let value = |line: &str| {
        let line = line.trim();
        line.strip_prefix("MainPID=").or_else(|| line.strip_prefix("pid = "))?.parse().ok()
    };
    text.lines().find_map(value).filter(|pid| *pid > 0)
}

fn shown(program: &str, arguments: &[&str]) -> String {
    let user = if program == "systemctl" { " --user" } else { "" };
    format!("{program}{user} {}", arguments.join(" "))
}

fn said(output: &Output) -> String {
    command::failure(&String::from_utf8_lossy(&output.stderr), output.status)
}

/// Whether systemd keeps this user's services running while nobody is logged in.
pub fn lingers() -> bool {
    user::login_name(user::effective_uid()).is_some_and(|name| Path::new("/var/lib/systemd/linger").join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::pid_in;

    #[test]
    fn the_process_of_a_service_is_found_in_what_either_says() {
        assert_eq!(pid_in("MainPID=4711\n"), Some(4711));
        assert_eq!(pid_in("MainPID=0\n"), None);
        assert_eq!(pid_in("gui/501/x = {\n\tactive count = 1\n\tpid = 815\n}\n"), Some(815));
        assert_eq!(pid_in(""), None);
    }
}
