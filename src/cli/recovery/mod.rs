//! Recovery: the next command that takes the home finishes or undoes an interrupted operation.

pub mod claims;
pub mod datastore;
mod home;
mod leftovers;
mod restores;
mod rollbacks;
mod upgrades;

pub(crate) use home::AfterUpgrade;
pub(crate) use restores::report_conflicts;
pub(crate) use rollbacks::{refuse_during_rollback, rollback_record};
pub(crate) use upgrades::interrupted_upgrade;
pub use upgrades::{Abort, InstalledRelease};

use crate::error::Error;
use leoflow_base::config::{self, Loaded};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_postgres::cluster::private::PrivateServer;
use leoflow_postgres::{Access, Credentials, Endpoint, install};
use leoflow_processes::supervisor;

/// Whether the command only shows what it would do; then it may not finish an operation that has changed something.
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

/// The context of a recovery: the home, this program's version and the reporter.
#[derive(Clone, Copy)]
pub struct Recovery<'a> {
    pub home: &'a Home,
    pub version: &'static str,
    pub reporter: &'a dyn Reporter,
}

impl Recovery<'_> {
    /// Loads the configuration and reports its warnings.
    pub fn config(&self) -> Result<Option<Loaded>, Error> {
        Ok(self.with_warnings_reported(config::load(&self.home.config())?))
    }

    /// Reports the warnings of a configuration and returns it.
    fn with_warnings_reported(&self, loaded: Option<Loaded>) -> Option<Loaded> {
        for warning in loaded.iter().flat_map(|loaded| loaded.warning_lines(&self.home.config())) {
            self.reporter.report(Progress::Warning(warning));
        }
        loaded
    }

    /// Stops the processes of an earlier run.
    fn end_leftovers(&self) -> Result<(), Error> {
        supervisor::end_leftovers(self.home).map(drop).map_err(|error| {
            Error::failed("cannot stop the processes of an earlier run").cause(error).hint("leoflow doctor")
        })
    }

    /// Starts a private server. The caller holds the home's lock.
    async fn private_server(&self) -> Result<(Access, PrivateServer), Error> {
        let access = access(self.home)?;
        let server =
            PrivateServer::start(self.home, &access.installation, &access.endpoint, &access.credentials).await?;
        Ok((access, server))
    }
}

/// The access to a home's datastore.
fn access(home: &Home) -> Result<Access, Error> {
    let installation = install::installed(home).ok_or_else(|| {
        let reason = install::why_incomplete(home).map(|reason| format!(": {reason}")).unwrap_or_default();
        Error::failed(format!("PostgreSQL's programs are missing{reason}")).hint("install them again: leoflow setup")
    })?;
    let credentials = Credentials::require(home)?;
    Ok(Access { endpoint: Endpoint::for_home(home), credentials, installation })
}
