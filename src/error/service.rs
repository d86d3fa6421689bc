//! Why there is no service, in the user's words.

use super::Error;
use crate::setup::service::{Refusal, ServiceError, Unavailable};

const AT_BOOT: &str = "where cron is, a line of `crontab -e` starts it with the machine: \
                       @reboot \"HOME/bin/leoflow\" --home \"HOME\" lite start, with Leoflow's home for HOME";

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Self {
        match &error {
            Unavailable::NotThere(_) => Self::failed(&error).hint(AT_BOOT),
            Unavailable::NotReached { .. } => Self::failed(&error)
                .hint("log in as this user itself, not through su or sudo, and run the same command again")
                .hint("or have its services kept: loginctl enable-linger")
                .hint(AT_BOOT),
            Unavailable::Failed { .. } => {
                Self::failed(&error).hint("leoflow lite logs supervisor").hint("leoflow service status")
            }
        }
    }
}

impl From<ServiceError> for Error {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Write { path, source } => Self::io("write", &path, &source),
            ServiceError::Remove { path, source } => Self::io("remove", &path, &source),
            ServiceError::Receipt(error) => error.into(),
            ServiceError::Manager(error) => error.into(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let base = Self::refused(&refusal);
        match refusal {
            Refusal::OfAnotherHome { home, .. } => base
                .hint(format!("leoflow --home '{}' service uninstall", home.display()))
                .hint("if that home is gone, remove the file by hand; nothing was changed"),
            Refusal::NotOurs(_) => base.hint("move it elsewhere, then run the same command again; nothing was changed"),
            Refusal::InTerminal => {
                Self::failed(&refusal).hint("end it there with Ctrl-C, then run the same command again")
            }
        }
    }
}
