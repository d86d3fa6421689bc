//! Leoflow as a service of the user: systemd's or launchd's own file says how it starts, at login or at boot. The file runs
//! `bin/leoflow`, so an upgrade or a rollback changes what it starts without changing the file.

mod apply;
mod definition;
mod manager;
mod plan;

pub use apply::{ServiceError, enable, load, remove, start, write};
pub use definition::{Definition, Kind};
pub use manager::{Unavailable, lingers};
pub use plan::{Facts, Found, Instance, Plan, Refusal, Step, plan};

use super::receipt::{Receipt, ReceiptError};
use crate::home::Home;
use crate::sys::{env_vars, files, user};
use manager::Manager;
use std::path::PathBuf;

/// The service that a home has, or could have.
#[derive(Debug, Clone)]
pub struct Service {
    pub definition: Definition,
    /// Where the manager looks for it.
    pub file: PathBuf,
    manager: Manager,
}

/// No service of this user is longer.
const LIMIT: u64 = 64 * 1024;

impl Service {
    /// `None` for a user without a home directory, who has no services either.
    pub fn of(home: &Home) -> Option<Self> {
        let kind = Kind::of_this_system();
        let user_home = env_vars::user_home()?;
        let root = home.root().canonicalize().unwrap_or_else(|_| home.root().to_owned());
        let definition = Definition {
            kind,
            name: definition::name(&root, &user_home.canonicalize().unwrap_or_else(|_| user_home.clone())),
            program: root.join("bin/leoflow"),
            log: root.join("logs/lite.log"),
            search_path: env_vars::text("PATH"),
            home: root,
        };
        let folder = match kind {
            Kind::Systemd => {
                let config = env_vars::path("XDG_CONFIG_HOME").filter(|folder| folder.is_absolute());
                config.unwrap_or_else(|| user_home.join(".config")).join("systemd/user")
            }
            Kind::Launchd => user_home.join("Library/LaunchAgents"),
        };
        let file = folder.join(definition.file_name());
        let manager = Manager { kind, unit: definition.unit(), file: file.clone(), uid: user::effective_uid() };
        Some(Self { definition, file, manager })
    }

    fn at(self, file: PathBuf) -> Self {
        Self { manager: Manager { file: file.clone(), ..self.manager }, file, ..self }
    }

    /// What is where its file belongs.
    pub fn found(&self) -> Found {
        match files::read_text(&self.file, LIMIT) {
            Ok(None) => Found::Nothing,
            Ok(Some(text)) => match self.definition.home_in(&text) {
                Some(home) if home == self.definition.home.to_string_lossy() => {
                    Found::Ours { is_current: self.definition.is_same(&text) }
                }
                Some(home) => Found::OfAnotherHome(home.into()),
                None => Found::NotOurs,
            },
            Err(_) => Found::NotOurs,
        }
    }

    /// Whether it is there as this release writes it.
    pub fn is_current(&self) -> bool {
        self.found() == Found::Ours { is_current: true }
    }

    /// Whether systemd starts it with the machine; elsewhere that is not known.
    pub fn starts_at_boot(&self) -> bool {
        self.definition.kind == Kind::Systemd && lingers()
    }

    /// Whether there is one of this home.
    pub fn is_installed(&self) -> bool {
        matches!(self.found(), Found::Ours { .. })
    }

    /// Whether the manager starts it at login.
    pub fn is_enabled(&self) -> Result<bool, Unavailable> {
        self.manager.is_enabled()
    }

    /// The process that it runs as, `None` where it does not run.
    pub fn main_pid(&self) -> Result<Option<i32>, Unavailable> {
        self.manager.main_pid()
    }

    /// Whether the manager can be asked, and why not.
    pub fn check_manager(&self) -> Result<(), Unavailable> {
        self.manager.check()
    }

    pub fn unit(&self) -> &str {
        &self.manager.unit
    }

    /// Stops what it runs and starts it again; comes back when that is ready.
    pub fn restart(&self) -> Result<(), Unavailable> {
        self.manager.restart()
    }
}

/// The service of a home at the place where it was installed, if it is there.
pub fn installed(home: &Home) -> Result<Option<Service>, ReceiptError> {
    let noted = Receipt::load(home)?.and_then(|receipt| receipt.service);
    let service = Service::of(home).map(|service| match noted {
        Some(file) => service.at(file),
        None => service,
    });
    Ok(service.filter(Service::is_installed))
}

pub fn installed_file(home: &Home) -> Result<Option<PathBuf>, ReceiptError> {
    Ok(installed(home)?.map(|service| service.file))
}

pub fn starts_in_words(service: &Service) -> &'static str {
    match service.starts_at_boot() {
        true => "which starts Leoflow when the machine starts",
        false => "which starts Leoflow when you log in",
    }
}

/// The installed service of a home that runs as this process.
pub fn running_as(home: &Home, pid: i32) -> Option<Service> {
    let service = installed(home).ok().flatten()?;
    (service.main_pid().ok()? == Some(pid)).then_some(service)
}
