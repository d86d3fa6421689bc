//! Leoflow as a service of the user, which systemd (on a Mac launchd) starts at login or at boot. Its file runs
//! `bin/leoflow`, so upgrades and rollbacks need no change to it.

mod apply;
mod control;
mod definition;
mod launchctl;
mod manager;
mod plan;
mod property_list;
mod systemctl;

pub use apply::{ServiceError, remove, write};
pub use definition::Definition;
pub use manager::{Manager, Unavailable};
pub use plan::{Facts, FileState, Instance, Plan, Refusal, Step, plan};
pub use systemctl::lingers;

use super::receipt::{Receipt, ReceiptError};
use leoflow_base::home::Home;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use std::path::PathBuf;

/// The service of a home, installed or not.
#[derive(Debug, Clone)]
pub struct Service {
    pub definition: Definition,
    /// Path where the manager expects the file.
    pub file: PathBuf,
}

/// Size limit of the file, in bytes.
const LIMIT: u64 = 1024 * 1024;

impl Service {
    /// The service that this release would install. `None` for a user without a home directory.
    pub fn of(home: &Home) -> Option<Self> {
        let user_home = env_vars::user_home()?;
        let root = home.root().canonicalize().unwrap_or_else(|_| home.root().to_owned());
        let definition = Definition {
            manager: Manager::of_this_system(),
            name: definition::name(&root, &user_home.canonicalize().unwrap_or_else(|_| user_home.clone())),
            program: root.join("bin/leoflow"),
            search_path: env_vars::text("PATH"),
            home: root,
        };
        let config = env_vars::path("XDG_CONFIG_HOME").filter(|folder| folder.is_absolute());
        let folder = match definition.manager {
            Manager::Systemd => config.unwrap_or_else(|| user_home.join(".config")).join("systemd/user"),
            Manager::Launchd => user_home.join("Library/LaunchAgents"),
        };
        Some(Self { file: folder.join(definition.file_name()), definition })
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

    /// True when the service of this home is installed.
    pub fn is_installed(&self) -> bool {
        matches!(self.file_state(), FileState::Ours { .. })
    }

    pub fn unit(&self) -> String {
        self.definition.unit()
    }
}

/// Returns the installed service of a home, at the path in the receipt.
pub fn installed(home: &Home) -> Result<Option<Service>, ReceiptError> {
    let recorded = Receipt::load(home)?.and_then(|receipt| receipt.service);
    let service = Service::of(home).map(|service| Service { file: recorded.unwrap_or(service.file), ..service });
    Ok(service.filter(Service::is_installed))
}

/// When the service starts Leoflow, as a relative clause.
pub fn start_description() -> &'static str {
    match lingers() {
        true => "which starts Leoflow when the machine starts",
        false => "which starts Leoflow when you log in",
    }
}

/// Returns the installed service of a home if `pid` is its main process.
pub fn running_with_pid(home: &Home, pid: i32) -> Option<Service> {
    let service = installed(home).ok().flatten()?;
    (service.main_pid().ok()? == Some(pid)).then_some(service)
}
