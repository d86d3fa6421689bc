//! Asks the service manager of the user about a service, and starts and stops it.

use super::{Manager, Service, Unavailable, launchctl, systemctl};
use leoflow_base::home::Home;
use leoflow_base::sys::checkpoint;

impl Service {
    fn manager(&self) -> Manager {
        self.definition.manager
    }

    /// Checks that the manager is available to this user.
    pub fn check_manager(&self) -> Result<(), Unavailable> {
        match self.manager() {
            Manager::Systemd => systemctl::check(),
            Manager::Launchd => launchctl::check(),
        }
    }

    /// Makes the manager read changed files. launchd reads a file at each start and login.
    pub fn reload(&self) -> Result<(), Unavailable> {
        match self.manager() {
            Manager::Systemd => systemctl::reload(),
            Manager::Launchd => Ok(()),
        }
    }

    /// True when the manager starts the service at login.
    pub fn is_enabled(&self) -> Result<bool, Unavailable> {
        match self.manager() {
            Manager::Systemd => systemctl::is_enabled(&self.unit()),
            Manager::Launchd => Ok(self.file.exists() && !launchctl::is_disabled(&self.unit())?),
        }
    }

    /// Enables the start at login or boot.
    pub fn enable(&self) -> Result<(), Unavailable> {
        match self.manager() {
            Manager::Systemd => systemctl::enable(&self.unit()),
            Manager::Launchd => launchctl::enable(&self.unit()),
        }?;
        checkpoint("service.enabled");
        Ok(())
    }

    pub(super) fn disable(&self) -> Result<(), Unavailable> {
        match self.manager() {
            Manager::Systemd => systemctl::disable(&self.unit()),
            // Without its file, launchd does not load the service at the next login.
            Manager::Launchd => launchctl::unload_unless_running(&self.unit()),
        }
    }

    /// Starts the service; returns when Leoflow is ready.
    pub fn start(&self, home: &Home) -> Result<(), Unavailable> {
        match self.manager() {
            Manager::Systemd => systemctl::start(&self.unit()),
            Manager::Launchd => launchctl::start(&self.unit(), &self.file, home),
        }
    }

    /// Restarts the service; returns when it is ready.
    pub fn restart(&self, home: &Home) -> Result<(), Unavailable> {
        match self.manager() {
            Manager::Systemd => systemctl::restart(&self.unit()),
            Manager::Launchd => launchctl::start(&self.unit(), &self.file, home),
        }
    }

    /// Main process of the service; `None` when it is not running.
    pub fn main_pid(&self) -> Result<Option<i32>, Unavailable> {
        match self.manager() {
            Manager::Systemd => systemctl::main_pid(&self.unit()),
            Manager::Launchd => launchctl::main_pid(&self.unit()),
        }
    }
}
