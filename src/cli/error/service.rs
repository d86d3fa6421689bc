//! Maps the errors of the login service to messages with hints.

use super::Error;
use leoflow_lifecycle::setup::service::{Refusal, ServiceError, Unavailable};

const AT_BOOT: &str = "where cron is available, this line in `crontab -e` starts Leoflow at boot: \
                       @reboot \"HOME/bin/leoflow\" --home \"HOME\" lite start (replace HOME by Leoflow's home)";

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Self {
        match &error {
            Unavailable::NotInstalled => Self::failed(&error).hint(AT_BOOT),
            Unavailable::Unreachable { program: "launchctl", .. } => {
                Self::failed(&error).hint("log in to the Mac's desktop as this user, then run the same command there")
            }
            Unavailable::Unreachable { .. } => Self::failed(&error)
                .hint("log in directly as this user, not through su or sudo, and rerun the same command")
                .hint("or keep its services running: loginctl enable-linger")
                .hint(AT_BOOT),
            Unavailable::Failed { .. } => {
                Self::failed(&error).hint("leoflow lite logs supervisor").hint("leoflow service status")
            }
        }
    }
}

from_error! {
    error: ServiceError;
    passed_on: Receipt;
    ServiceError::Read { ref path, .. } => {
        Self::refused(&error).hint(format!("move it elsewhere and run the same command again: {}", path.display()))
    }
    ServiceError::Write { path, source } => Self::io("write", &path, &source),
    ServiceError::Remove { path, source } => Self::io("remove", &path, &source),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let base = Self::refused(&refusal);
        match refusal {
            Refusal::OfAnotherHome { home, .. } => base
                .hint(format!("leoflow --home '{}' service uninstall", home.display()))
                .hint("if that home is gone, remove the file by hand; nothing was changed"),
            Refusal::NotOurs(_) => base.hint("move it elsewhere, then rerun the same command; nothing was changed"),
            Refusal::InTerminal => Self::failed(&refusal).hint("press Ctrl-C there, then rerun the same command"),
        }
    }
}
