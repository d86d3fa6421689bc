//! Leoflow as a service of the user, started at login or at boot by a systemd unit or a launchd file. The file runs
//! `bin/leoflow`, so upgrades and rollbacks need no change to it.

mod apply;
mod definition;
mod manager;
mod plan;

pub use apply::{ServiceError, enable, load, remove, start, write};
pub use definition::{Definition, Kind};
pub use manager::Unavailable;
pub(crate) use manager::lingers;
pub use plan::{Facts, FileState, Instance, Plan, Refusal, Step, plan};

use super::receipt::{Receipt, ReceiptError};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{env_vars, user};
use manager::Manager;
use std::path::PathBuf;

/// The service of a home, installed or not.
#[derive(Debug, Clone)]
pub struct Service {
    pub definition: Definition,
    /// Path where the manager expects the file.
    pub file: PathBuf,
    manager: Manager,
}

/// Size limit of the file, in bytes.
const LIMIT: u64 = 1024 * 1024;

impl Service {
    /// The service that this release would install. `None` for a user without a home directory.
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

    fn with_file(self, file: PathBuf) -> Self {
        Self { manager: Manager { file: file.clone(), ..self.manager }, file, ..self }
    }

    /// Inspects the file at the service's path.
    pub fn file_state(&self) -> FileState {
        match files::read_text(&self.file, LIMIT) {
            Ok(None) => FileState::Absent,
            Ok(Some(text)) => match self.definition.home_in(&text) {
                Some(home) if home == self.definition.home.to_string_lossy() => {
                    FileState::Ours { is_current: self.definition.is_same(&text) }
                }
                Some(home) => FileState::OtherHome(home.into()),
                None => FileState::Foreign,
            },
            Err(_) => FileState::Foreign,
        }
    }

    /// True when the file is the one that this release writes.
    pub fn is_current(&self) -> bool {
        self.file_state() == FileState::Ours { is_current: true }
    }

    /// True when systemd starts the service at boot. False for launchd, which starts user agents at login.
    pub fn starts_at_boot(&self) -> bool {
        self.definition.kind == Kind::Systemd && lingers()
    }

    /// True when the service of this home is installed.
    pub fn is_installed(&self) -> bool {
        matches!(self.file_state(), FileState::Ours { .. })
    }

    /// True when the manager starts the service at login.
    pub fn is_enabled(&self) -> Result<bool, Unavailable> {
        self.manager.is_enabled()
    }

    /// Main process of the service; `None` when it is not running.
    pub fn main_pid(&self) -> Result<Option<i32>, Unavailable> {
        self.manager.main_pid()
    }

    /// Checks that the manager is available.
    pub fn check_manager(&self) -> Result<(), Unavailable> {
        self.manager.check()
    }

    pub fn unit(&self) -> &str {
        &self.manager.unit
    }

    /// Restarts the service; returns when it is ready.
    pub fn restart(&self) -> Result<(), Unavailable> {
        self.manager.restart()
    }
}

/// Returns the installed service of a home, at the path in the receipt.
pub fn installed(home: &Home) -> Result<Option<Service>, ReceiptError> {
    let recorded = Receipt::load(home)?.and_then(|receipt| receipt.service);
    let service = Service::of(home).map(|service| match recorded {
        Some(file) => service.with_file(file),
        None => service,
    });
    Ok(service.filter(Service::is_installed))
}

/// File of the installed service of a home.
pub(crate) fn installed_file(home: &Home) -> Result<Option<PathBuf>, ReceiptError> {
    Ok(installed(home)?.map(|service| service.file))
}

/// When the service starts Leoflow, as a relative clause.
pub fn start_description(service: &Service) -> &'static str {
    match service.starts_at_boot() {
        true => "which starts Leoflow when the machine starts",
        false => "which starts Leoflow when you log in",
    }
}

/// Returns the installed service of a home if `pid` is its main process.
pub fn running_with_pid(home: &Home, pid: i32) -> Option<Service> {
    let service = installed(home).ok().flatten()?;
    (service.main_pid().ok()? == Some(pid)).then_some(service)
}
