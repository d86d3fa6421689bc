//! Where a dump that nobody has proven is loaded: beside the database in force where the server is ours, else on a server
//! for the moment on this machine, so that nothing of a stranger's is ever run on somebody else's.

use crate::home::{Home, HomeError};
use crate::postgres::cluster::{self, ClusterError};
use crate::postgres::credentials::CredentialsError;
use crate::postgres::private::{PrivateError, PrivateServer};
use crate::postgres::{Access, Credentials, Endpoint, PgError, leftovers, provision};
use crate::sys::files;
use crate::sys::user_namespace::Identity;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum WorkshopError {
    #[error("cannot prepare a server for the moment: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Postgres(#[from] PgError),
}

pub struct Workshop {
    pub access: Access,
    // In this order: the server is stopped before its files go.
    _server: Option<PrivateServer>,
    _folder: Option<Folder>,
}

/// Removed with everything in it.
struct Folder(Home);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next one.
        let _ = files::remove_any(self.0.root());
    }
}

impl Workshop {
    /// The caller has the operation to itself, and is on the main thread.
    pub async fn open(home: &Home, access: &Access) -> Result<Self, WorkshopError> {
        if access.is_ours() {
            return Ok(Self { access: access.clone(), _server: None, _folder: None });
        }
        let folder = Folder(crate::home::resolve(Some(&home.run().join("workshop")))?);
        let own = &folder.0;
        if own.root().exists() {
            // Of one that was killed.
            leftovers::end(own)?;
            files::remove_any(own.root())?;
        }
        for path in [own.root().to_owned(), own.logs(), own.run()] {
            files::create_private_dir(&path)?;
        }
        let credentials = Credentials::load_or_create(own)?;
        cluster::create(own, &access.installation, &credentials, &Identity::for_postgres())?;
        let endpoint = Endpoint::for_home(own);
        let server = PrivateServer::start(own, &access.installation, &endpoint, &credentials).await?;
        drop(provision::connect(&endpoint, &credentials).await?);
        let access = Access { endpoint, credentials, installation: access.installation.clone() };
        Ok(Self { access, _server: Some(server), _folder: Some(folder) })
    }
}
