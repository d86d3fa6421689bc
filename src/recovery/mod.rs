//! What was begun and did not come to its end is finished, or undone: by the next command that takes the home.

pub mod claims;
pub mod datastore;
mod home;
mod restores;
mod rollbacks;
mod strays;
mod upgrades;

pub use home::AfterUpgrade;
pub use restores::tell_conflicts;
pub use rollbacks::{refuse_beside_a_rollback, rollback_record};
pub use upgrades::interrupted_upgrade;

use crate::config::{self, Loaded};
use crate::error::Error;
use crate::home::Home;
use crate::home::progress::{Progress, Reporter};
use crate::postgres::private::PrivateServer;
use crate::postgres::{Access, Credentials, Endpoint, install};
use crate::supervisor;

/// Whoever comes to the home: as which release, and who is told what was found there.
#[derive(Clone, Copy)]
pub struct Recovery<'a> {
    pub home: &'a Home,
    pub version: &'static str,
    pub reporter: &'a dyn Reporter,
}

impl Recovery<'_> {
    /// The configuration, its warnings said.
    pub fn config(&self) -> Result<Option<Loaded>, Error> {
        Ok(self.telling(config::load(&self.home.config())?))
    }

    fn telling(&self, loaded: Option<Loaded>) -> Option<Loaded> {
        for warning in loaded.iter().flat_map(|loaded| loaded.told(&self.home.config())) {
            self.reporter.report(Progress::Warning(warning));
        }
        loaded
    }

    fn end_leftovers(&self) -> Result<(), Error> {
        supervisor::end_leftovers(self.home).map(drop).map_err(|error| {
            Error::failed("what an earlier run left cannot be ended").cause(error).hint("leoflow doctor")
        })
    }

    /// A server for the moment. The caller holds the home's lock.
    async fn private_server(&self) -> Result<(Access, PrivateServer), Error> {
        let access =
            access(self.home).ok_or_else(|| Error::failed("PostgreSQL's files are gone").hint("leoflow setup"))??;
        let server =
            PrivateServer::start(self.home, &access.installation, &access.endpoint, &access.credentials).await?;
        Ok((access, server))
    }
}

/// How the datastore of a home is reached; `None` where PostgreSQL is not installed.
fn access(home: &Home) -> Option<Result<Access, Error>> {
    let installation = install::installed(home)?;
    let credentials = Credentials::require(home).map_err(Error::from);
    Some(credentials.map(|credentials| Access { endpoint: Endpoint::for_home(home), credentials, installation }))
}
