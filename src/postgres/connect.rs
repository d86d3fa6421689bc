//! The datastore's endpoint, and connections to it.

use super::SOCKET_PORT;
use super::error::PgError;
use deadpool_postgres::ClientWrapper;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::net::unix_socket;
use leoflow_base::sys::user;
use sha2::{Digest, Sha256};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};

/// The folder of the datastore's socket. Connections need only this and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub socket_folder: PathBuf,
}

/// Parent of the socket folder when the home's path is unsuitable.
const FALLBACK: &str = "/tmp";
/// Length of `/.s.PGSQL.5432`, in bytes.
const SOCKET_NAME_LENGTH: usize = 14;

impl Endpoint {
    /// `run/`, or a short folder under /tmp when the socket's path would be too long, or contains a comma, which libpq
    /// reads as a list of hosts.
    pub fn for_home(home: &Home) -> Self {
        let run = home.run();
        let path = run.as_os_str().as_bytes();
        if path.len() + SOCKET_NAME_LENGTH <= unix_socket::PATH_LIMIT && !path.contains(&b',') {
            return Self { socket_folder: run };
        }
        let hash = hex::encode(&Sha256::digest(home.root().as_os_str().as_bytes())[..8]);
        Self { socket_folder: Path::new(FALLBACK).join(format!("leoflow-{}-{hash}", user::effective_uid())) }
    }

    /// Removes the folder if it is one under /tmp, created only for the socket.
    pub fn remove_socket_folder(&self) {
        if self.socket_folder.parent() == Some(Path::new(FALLBACK)) {
            // Fails if it is not empty: a socket in it is in use.
            let _ = std::fs::remove_dir(&self.socket_folder);
        }
    }

    /// Creates the folder, and refuses one in a shared location that belongs to another user.
    pub fn prepare(&self) -> io::Result<()> {
        files::create_private_dir(&self.socket_folder)?;
        if !is_own_folder(&std::fs::symlink_metadata(&self.socket_folder)?) {
            let message = format!("{} belongs to another user", self.socket_folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(())
    }

    /// Configuration of a connection over the socket.
    pub fn config(&self, role: &str, password: &str, database: &str) -> Config {
        let mut config = Config::new();
        if !password.is_empty() {
            config.password(password);
        }
        config
            .host_path(&self.socket_folder)
            .port(SOCKET_PORT)
            .user(role)
            .dbname(database)
            .application_name("leoflow")
            .connect_timeout(Duration::from_secs(5));
        config
    }

    /// False when the socket folder in /tmp belongs to another user, who may have replaced ours.
    fn is_own(&self) -> bool {
        self.socket_folder.parent() != Some(Path::new(FALLBACK))
            || std::fs::symlink_metadata(&self.socket_folder).is_ok_and(|meta| is_own_folder(&meta))
    }

    async fn open(&self, config: &Config) -> Result<(Client, Connection<Socket, NoTlsStream>), PgError> {
        if !self.is_own() {
            return Err(PgError::Unreachable(self.socket_folder.clone()));
        }
        config.connect(NoTls).await.map_err(|error| self.classify(error))
    }

    /// Connects; a task of the current runtime drives the connection.
    pub async fn connect(&self, config: &Config) -> Result<Client, PgError> {
        let (client, connection) = self.open(config).await?;
        // An error here ends the connection, which the client reports at its next use.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// Connects and listens: the receiver gets the payload of each notification on `channel` and ends with the
    /// connection. The client caches prepared statements.
    pub async fn listen(
        &self,
        config: &Config,
        channel: &str,
    ) -> Result<(ClientWrapper, mpsc::UnboundedReceiver<String>), PgError> {
        let (client, mut connection) = self.open(config).await?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    // A dropped receiver is no error: the client still needs the connection.
                    let _ = sender.send(notification.payload().to_owned());
                }
            }
        });
        let client = ClientWrapper::new(client, driver);
        client.batch_execute(&format!("LISTEN {channel}")).await?;
        Ok((client, receiver))
    }

    /// Converts an error of connecting.
    pub(super) fn classify(&self, error: tokio_postgres::Error) -> PgError {
        match error.code() {
            Some(&SqlState::CANNOT_CONNECT_NOW) => PgError::Recovering,
            Some(&SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION) => {
                PgError::ExternalServer(error.as_db_error().map(|db| db.message().to_owned()).unwrap_or_default())
            }
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                PgError::WrongPassword
            }
            Some(&SqlState::INVALID_CATALOG_NAME) => PgError::NoDatabase,
            Some(_) => PgError::Query(error),
            None => PgError::Unreachable(self.socket_folder.clone()),
        }
    }
}

fn is_own_folder(meta: &Metadata) -> bool {
    meta.is_dir() && meta.uid() == user::effective_uid()
}

/// Runs `work` with a time limit; exceeding it is `PgError::Timeout`.
pub async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, PgError>>) -> Result<T, PgError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(PgError::Timeout(limit)))
}
