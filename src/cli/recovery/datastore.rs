//! Opens the datastore for a command: the running one, or a private server while the command runs.

use super::{AfterUpgrade, Recovery, access, claims};
use crate::error::Error;
use leoflow_base::home::Home;
use leoflow_base::home::lock::{self, HomeLock};
use leoflow_base::protocol::control;
use leoflow_lifecycle::backup::restore::quarantine;
use leoflow_postgres::Access;
use leoflow_postgres::cluster::private::PrivateServer;
use leoflow_postgres::cluster::provision;
use leoflow_postgres::cluster::{self, ClusterState};
use tokio_postgres::Client;

/// An open datastore; a private server stops when this is dropped.
pub struct Datastore {
    pub access: Access,
    /// True for the datastore of the running instance. Otherwise the datastore holds the home's lock.
    pub is_of_running_instance: bool,
    home: Home,
    // Fields are dropped in order, so the server stops before the home's lock is released.
    server: Option<PrivateServer>,
    lock: Option<HomeLock>,
}

impl Datastore {
    /// Opens the datastore. `command` names the holder of the home's lock in other processes' messages.
    pub async fn open(recovery: &Recovery<'_>, command: &str) -> Result<Self, Error> {
        let home = recovery.home;
        if !home.exists() {
            return Err(not_set_up());
        }
        if lock::is_held(home).map_err(Error::failed)? && control::status_of(home).is_some() {
            check(home)?;
            return Ok(Self {
                access: access(home).ok_or_else(not_set_up)??,
                is_of_running_instance: true,
                home: home.clone(),
                server: None,
                lock: None,
            });
        }
        let quarantined =
            quarantine::pending(home).map_err(|error| Error::io("read", &home.quarantine_note(), &error))?;
        if !home.journal().exists() && quarantined.is_none() {
            // The folder is checked before anything is written, because it may not be ours.
            check(home)?;
        }
        home.create().map_err(|error| Error::io("create", home.root(), &error))?;
        let home_lock = recovery.take_home(command, None, AfterUpgrade::GoOn).await?;
        Self::open_held(home, home_lock).await
    }

    /// Like [`Self::open`], for a caller that holds the home's lock; the datastore keeps it.
    pub async fn open_held(home: &Home, home_lock: HomeLock) -> Result<Self, Error> {
        check(home)?;
        let access = access(home).ok_or_else(not_set_up)??;
        let server = PrivateServer::start(home, &access.installation, &access.endpoint, &access.credentials).await?;
        Ok(Self {
            access,
            is_of_running_instance: false,
            home: home.clone(),
            server: Some(server),
            lock: Some(home_lock),
        })
    }

    /// The access, and the private server with the lock if Lite is stopped.
    pub fn into_parts(self) -> (Access, Option<(PrivateServer, HomeLock)>) {
        (self.access, self.server.zip(self.lock))
    }

    /// Connects as the application; creates its role and database if missing.
    pub async fn connect(&self) -> Result<Client, Error> {
        let client = provision::connect(&self.access.endpoint, &self.access.credentials).await?;
        claims::require(&self.home, &client).await?;
        Ok(client)
    }
}

/// Fails unless there is a datastore that this release may open.
pub fn check(home: &Home) -> Result<(), Error> {
    match cluster::state(home) {
        ClusterState::Ready => Ok(()),
        ClusterState::Absent => Err(not_set_up()),
        ClusterState::OtherMajor(major) => Err(Error::refused(format!("the datastore belongs to PostgreSQL {major}"))
            .hint("run the leoflow release that created it")),
        ClusterState::NotACluster(reason) => {
            Err(Error::refused(format!("managed-postgres/data is not a datastore: {reason}")).hint("leoflow doctor"))
        }
    }
}

/// The error of every command that needs a home.
pub fn not_set_up() -> Error {
    Error::failed("Leoflow is not set up in this home").hint("leoflow setup")
}
