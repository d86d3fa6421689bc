//! Operations: what a command or the server does with a home as a whole. Each is the same sequence: open (take the home
//! and finish what was interrupted), plan, apply, and a result that the caller shows. Nothing here prints or asks;
//! progress goes to the reporter.

pub mod backup;
pub mod change;
pub mod copies;
pub mod data_migrations;
mod error;
pub mod instance;
pub mod migrations;
pub mod move_datastore;
pub mod open;
pub mod prune;
pub mod restore;
pub mod restore_run;
pub mod rollback;
pub mod set_up;
pub mod summary;
pub mod upgrade;
pub mod verify;

pub use error::{LostConfig, OperationError, Reversal};

use leoflow_base::config::{self, ConfigError, Loaded};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};

/// Whether an operation only shows what it would do; then it may not finish an operation that has changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    Yes,
    No,
}

impl From<bool> for DryRun {
    fn from(is_dry_run: bool) -> Self {
        if is_dry_run { Self::Yes } else { Self::No }
    }
}

/// The context of an operation: the home, this program's version and the reporter.
#[derive(Clone, Copy)]
pub struct OperationContext<'a> {
    pub home: &'a Home,
    pub version: &'static str,
    pub reporter: &'a dyn Reporter,
}

impl OperationContext<'_> {
    /// Loads the configuration and reports its warnings.
    pub fn config(&self) -> Result<Option<Loaded>, ConfigError> {
        Ok(self.with_warnings_reported(config::load(&self.home.config())?))
    }

    /// Reports the warnings of a configuration and returns it.
    fn with_warnings_reported(&self, loaded: Option<Loaded>) -> Option<Loaded> {
        for warning in loaded.iter().flat_map(|loaded| loaded.warning_lines(&self.home.config())) {
            self.reporter.report(Progress::Warning(warning));
        }
        loaded
    }

    fn note(&self, text: impl Into<String>) {
        self.reporter.report(Progress::Note(text.into()));
    }

    fn warn(&self, text: impl Into<String>) {
        self.reporter.report(Progress::Warning(text.into()));
    }
}
