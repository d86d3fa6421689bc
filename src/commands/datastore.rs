//! A datastore to talk to, whether or not Lite runs: the running one, or a private one for this
//! command's moment.

use crate::backup::set_aside;
use crate::commands::context::Context;
use crate::commands::recovery::{self, Purges};
use crate::error::Error;
use crate::home::lock::{self, HomeLock};
use crate::postgres::cluster::{self, ClusterState};
use crate::postgres::private::PrivateServer;
use crate::postgres::{Access, Credentials, Endpoint, install, provision};
use crate::protocol::control;
use tokio_postgres::Client;

pub struct Datastore {
    pub access: Access,
    pub runs_for_lite: bool,
    // In this order: the server is stopped before the home is let go.
    server: Option<PrivateServer>,
    lock: Option<HomeLock>,
}

impl Datastore {
    /// `command` is what others are told who want the home meanwhile.
    pub async fn open(context: &Context<'_>, command: &str) -> Result<Self, Error> {
        let home = &context.home;
        if !home.exists() {
            return Err(not_set_up());
        }
        if lock::is_held(home).map_err(Error::failed)? && control::status_of(home).is_some() {
            check(context)?;
            return Ok(Self { access: access(context)?, runs_for_lite: true, server: None, lock: None });
        }
        if !home.journal().exists() && set_aside::pending(home).is_none() {
            // Before anything is written into a folder that is not ours.
            check(context)?;
        }
        home.create().map_err(|error| Error::io("create", home.root(), &error))?;
        let held = recovery::take_home(context, command, None, Purges::Refuse, context.printer).await?;
        Self::open_held(context, held).await
    }

    /// The same for a caller that has the home: the datastore keeps the lock.
    pub async fn open_held(context: &Context<'_>, held: HomeLock) -> Result<Self, Error> {
        check(context)?;
        let access = access(context)?;
        let server =
            PrivateServer::start(&context.home, &access.installation, &access.endpoint, &access.credentials).await?;
        Ok(Self { access, runs_for_lite: false, server: Some(server), lock: Some(held) })
    }

    /// What to talk to, and what goes with it where Lite is stopped.
    pub fn into_parts(self) -> (Access, Option<(PrivateServer, HomeLock)>) {
        (self.access, self.server.zip(self.lock))
    }

    /// A connection as the application, its role and database made where they are missing.
    pub async fn connect(&self) -> Result<Client, Error> {
        Ok(provision::connect(&self.access.endpoint, &self.access.credentials).await?)
    }
}

fn access(context: &Context<'_>) -> Result<Access, Error> {
    let home = &context.home;
    let installation = install::installed(home).ok_or_else(not_set_up)?;
    Ok(Access { endpoint: Endpoint::for_home(home), credentials: Credentials::require(home)?, installation })
}

/// Whether there is a datastore that this release may open.
pub fn check(context: &Context<'_>) -> Result<(), Error> {
    match cluster::state(&context.home) {
        ClusterState::Ready => Ok(()),
        ClusterState::Absent => Err(not_set_up()),
        ClusterState::OtherMajor(major) => Err(Error::refused(format!("the datastore is of PostgreSQL {major}"))
            .hint("run the leoflow release that made it")),
        ClusterState::NotACluster(why) => {
            Err(Error::refused(format!("managed-postgres/data is not a datastore: {why}")).hint("leoflow doctor"))
        }
    }
}

fn not_set_up() -> Error {
    Error::failed("Leoflow is not set up in this home").hint("leoflow setup")
}
