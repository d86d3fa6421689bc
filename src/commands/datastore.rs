//! A datastore to talk to, whether or not Lite runs: the running one, or a private one for this
//! command's moment.

use super::context::Context;
use super::recovery;
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
    _server: Option<PrivateServer>,
    _lock: Option<HomeLock>,
}

impl Datastore {
    /// `command` is what others are told who want the home meanwhile.
    pub async fn open(context: &Context<'_>, command: &str) -> Result<Self, Error> {
        let home = &context.home;
        let not_set_up = || Error::failed("Leoflow is not set up in this home").hint("leoflow setup");
        match cluster::state(home) {
            ClusterState::Ready => {}
            ClusterState::Absent => return Err(not_set_up()),
            ClusterState::OtherMajor(major) => {
                return Err(Error::refused(format!("the datastore is of PostgreSQL {major}"))
                    .hint("run the leoflow release that made it"));
            }
            ClusterState::NotACluster(why) => {
                return Err(
                    Error::refused(format!("managed-postgres/data is not a datastore: {why}")).hint("leoflow doctor")
                );
            }
        }
        let installation = install::installed(home).ok_or_else(not_set_up)?;
        let credentials = Credentials::require(home)?;
        let endpoint = Endpoint::for_home(home);
        let runs_for_lite = lock::is_held(home).map_err(Error::failed)? && control::status_of(home).is_some();
        let (mut server, mut held) = (None, None);
        if !runs_for_lite {
            home.create().map_err(|error| Error::io("create", home.root(), &error))?;
            held = Some(recovery::take_home(context, command, None, context.printer).await?);
            server = Some(PrivateServer::start(home, &installation, &endpoint, &credentials).await?);
        }
        let access = Access { endpoint, credentials, installation };
        Ok(Self { access, runs_for_lite, _server: server, _lock: held })
    }

    /// A connection as the application, its role and database made where they are missing.
    pub async fn connect(&self) -> Result<Client, Error> {
        Ok(provision::connect(&self.access.endpoint, &self.access.credentials).await?)
    }
}
