//! A datastore to talk to, whether or not Lite runs: the running one, or a private one for this
//! command's moment.

use super::{AfterUpgrade, Recovery, access, claims};
use crate::backup::set_aside;
use crate::error::Error;
use crate::home::Home;
use crate::home::lock::{self, HomeLock};
use crate::postgres::cluster::{self, ClusterState};
use crate::postgres::private::PrivateServer;
use crate::postgres::{Access, provision};
use crate::protocol::control;
use tokio_postgres::Client;

pub struct Datastore {
    pub access: Access,
    pub runs_for_lite: bool,
    home: Home,
    // In this order: the server is stopped before the home is let go.
    server: Option<PrivateServer>,
    lock: Option<HomeLock>,
}

impl Datastore {
    /// `command` is what others are told who want the home meanwhile.
    pub async fn open(recovery: &Recovery<'_>, command: &str) -> Result<Self, Error> {
        let home = recovery.home;
        if !home.exists() {
            return Err(not_set_up());
        }
        if lock::is_held(home).map_err(Error::failed)? && control::status_of(home).is_some() {
            check(home)?;
            return Ok(Self {
                access: access(home).ok_or_else(not_set_up)??,
                runs_for_lite: true,
                home: home.clone(),
                server: None,
                lock: None,
            });
        }
        let aside = set_aside::pending(home).map_err(|error| Error::io("read", &home.set_aside_note(), &error))?;
        if !home.journal().exists() && aside.is_none() {
            // Before anything is written into a folder that is not ours.
            check(home)?;
        }
        home.create().map_err(|error| Error::io("create", home.root(), &error))?;
        let held = recovery.take_home(command, None, AfterUpgrade::GoOn).await?;
        Self::open_held(home, held).await
    }

    /// The same for a caller that has the home: the datastore keeps the lock.
    pub async fn open_held(home: &Home, held: HomeLock) -> Result<Self, Error> {
        check(home)?;
        let access = access(home).ok_or_else(not_set_up)??;
        let server = PrivateServer::start(home, &access.installation, &access.endpoint, &access.credentials).await?;
        Ok(Self { access, runs_for_lite: false, home: home.clone(), server: Some(server), lock: Some(held) })
    }

    /// What to talk to, and what goes with it where Lite is stopped.
    pub fn into_parts(self) -> (Access, Option<(PrivateServer, HomeLock)>) {
        (self.access, self.server.zip(self.lock))
    }

    /// A connection as the application, its role and database made where they are missing.
    pub async fn connect(&self) -> Result<Client, Error> {
        let client = provision::connect(&self.access.endpoint, &self.access.credentials).await?;
        claims::require(&self.home, &client).await?;
        Ok(client)
    }
}

/// Whether there is a datastore that this release may open.
pub fn check(home: &Home) -> Result<(), Error> {
    match cluster::state(home) {
        ClusterState::Ready => Ok(()),
        ClusterState::Absent => Err(not_set_up()),
        ClusterState::OtherMajor(major) => Err(Error::refused(format!("the datastore is of PostgreSQL {major}"))
            .hint("run the leoflow release that made it")),
        ClusterState::NotACluster(why) => {
            Err(Error::refused(format!("managed-postgres/data is not a datastore: {why}")).hint("leoflow doctor"))
        }
    }
}

/// What every command says that needs a home.
pub fn not_set_up() -> Error {
    Error::failed("Leoflow is not set up in this home").hint("leoflow setup")
}
