//! A server for loading untrusted dumps: the managed server or, for an external datastore, a temporary server on this
//! machine, so that untrusted content never runs on a shared server.

use leoflow_base::home::{Home, HomeError};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::user_namespace::Identity;
use leoflow_postgres::cluster::private::{PrivateError, PrivateServer};
use leoflow_postgres::cluster::{self, ClusterError, leftovers, provision};
use leoflow_postgres::credentials::CredentialsError;
use leoflow_postgres::{Access, Credentials, Endpoint, PgError};
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    #[error("cannot prepare a temporary server: {0}")]
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

pub struct StagingServer {
    pub access: Access,
    // Field order: the server is stopped before its files are removed.
    _server: Option<PrivateServer>,
    _home: Option<TemporaryHome>,
}

/// The home of a temporary server; drop removes it.
struct TemporaryHome(Home);

impl Drop for TemporaryHome {
    fn drop(&mut self) {
        // Errors are ignored: the next temporary server removes the files.
        let _ = files::remove_any(self.0.root());
    }
}

impl StagingServer {
    /// Connects to the managed server or starts a temporary one. The caller holds the operation lock and runs on the
    /// main thread.
    pub async fn open(home: &Home, access: &Access) -> Result<Self, StagingError> {
        if access.owns_server() {
            return Ok(Self { access: access.clone(), _server: None, _home: None });
        }
        let temporary = TemporaryHome(leoflow_base::home::resolve(Some(&home.run().join("workshop")))?);
        let temporary_home = &temporary.0;
        if temporary_home.root().exists() {
            // A killed process left it.
            leftovers::end(temporary_home)?;
            files::remove_any(temporary_home.root())?;
        }
        for path in [temporary_home.root().to_owned(), temporary_home.logs(), temporary_home.run()] {
            files::create_private_dir(&path)?;
        }
        let credentials = Credentials::load_or_create(temporary_home)?;
        cluster::create(temporary_home, &access.installation, &credentials, &Identity::for_postgres())?;
        let endpoint = Endpoint::for_home(temporary_home);
        let server = PrivateServer::start(temporary_home, &access.installation, &endpoint, &credentials).await?;
        drop(provision::connect(&endpoint, &credentials).await?);
        let access = Access { endpoint, credentials, installation: access.installation.clone() };
        Ok(Self { access, _server: Some(server), _home: Some(temporary) })
    }
}
