//! Where the datastore listens and how to reach it.

use super::SOCKET_PORT;
use super::words::{Cause, cause_of};
use crate::home::Home;
use crate::sys::{files, unix_socket, user};
use deadpool_postgres::ClientWrapper;
use sha2::{Digest, Sha256};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// What went wrong between us and the server, as far as anybody has to decide on it.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    #[error("the datastore does not answer at {0}")]
    Unreachable(PathBuf),
    /// A server that is elsewhere, in the relay's words.
    #[error("{0}")]
    Far(String),
    #[error("this needs a server that is Leoflow's own")]
    NotOurs,
    #[error("the datastore is starting up or recovering")]
    Recovering,
    #[error("the datastore refuses the stored password: its data directory is of another instance")]
    WrongPassword,
    #[error("the database does not exist")]
    NoDatabase,
    #[error("the connection to the datastore was cut")]
    Cut,
    #[error("the datastore did not answer within {0:?}")]
    Timeout(Duration),
    #[error("{}", describe(.0))]
    Query(#[from] tokio_postgres::Error),
}

impl PgError {
    /// PostgreSQL's own code for what was wrong with a query; `None` where the connection was.
    pub fn sql_state(&self) -> Option<&SqlState> {
        let Self::Query(error) = self else { return None };
        error.as_db_error().map(tokio_postgres::error::DbError::code)
    }

    /// True for what a server says while it is short of something, is being stopped, or has trouble with its machine: classes
    /// 08, 53, 57 and 58 of <https://www.postgresql.org/docs/18/errcodes-appendix.html>. Another attempt may succeed.
    pub fn passes(&self) -> bool {
        let passes = |code: &str| ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class));
        !self.is_damage() && self.sql_state().is_some_and(|state| passes(state.code()))
    }

    /// Whether the files are not what they were: classes of Postgres's own for that, or what reading a page says.
    pub fn is_damage(&self) -> bool {
        let Self::Query(error) = self else { return false };
        let damaged = [&SqlState::DATA_CORRUPTED, &SqlState::INDEX_CORRUPTED];
        error.as_db_error().is_some_and(|db| {
            // Classes 58 and XX: trouble with the system, or inside; not what is wrong with a query.
            let system = ["58", "XX"].iter().any(|class| db.code().code().starts_with(class));
            damaged.contains(&db.code()) || (system && cause_of(db.message()) == Cause::Damaged)
        })
    }
}

/// The server's own words where it said something; the library's `Display` hides them.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{}: {}{detail}", db.severity(), db.message())
        }
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// A socket folder; the application needs nothing more than this and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub socket_folder: PathBuf,
}

/// Where a socket is when the home's path does not do.
const FALLBACK: &str = "/tmp";
/// `/.s.PGSQL.5432`
const SOCKET_NAME_LENGTH: usize = 14;

impl Endpoint {
    /// `run/`, or a short folder elsewhere when a socket's path would be too long there, or would
    /// be taken for a list of hosts by libpq.
    pub fn for_home(home: &Home) -> Self {
        let run = home.run();
        let path = run.as_os_str().as_bytes();
        if path.len() + SOCKET_NAME_LENGTH <= unix_socket::PATH_LIMIT && !path.contains(&b',') {
            return Self { socket_folder: run };
        }
        let hash = hex::encode(&Sha256::digest(home.root().as_os_str().as_bytes())[..8]);
        Self { socket_folder: Path::new(FALLBACK).join(format!("leoflow-{}-{hash}", user::effective_uid())) }
    }

    /// Removes the folder again where it was made for the socket alone.
    pub fn tidy(&self) {
        if self.socket_folder.parent() == Some(Path::new(FALLBACK)) {
            // Only when it is empty: with a socket in it, it is in use.
            let _ = std::fs::remove_dir(&self.socket_folder);
        }
    }

    /// Makes the folder, and refuses one in a shared place that is not ours alone.
    pub fn prepare(&self) -> io::Result<()> {
        files::create_private_dir(&self.socket_folder)?;
        let meta = std::fs::symlink_metadata(&self.socket_folder)?;
        if !meta.is_dir() || meta.uid() != user::effective_uid() {
            let message = format!("{} belongs to somebody else", self.socket_folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(())
    }

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

    /// False where the folder of the socket, in a place that all users share, is another user's: ours may have been removed.
    fn is_own(&self) -> bool {
        self.socket_folder.parent() != Some(Path::new(FALLBACK))
            || std::fs::symlink_metadata(&self.socket_folder)
                .is_ok_and(|meta| meta.is_dir() && meta.uid() == user::effective_uid())
    }

    /// Connects; the connection's own work goes on in a task of the current runtime.
    pub async fn connect(&self, config: &Config) -> Result<Client, PgError> {
        if !self.is_own() {
            return Err(PgError::Unreachable(self.socket_folder.clone()));
        }
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                // An error here ends the connection, which the client reports at its next use.
                tokio::spawn(async move { drop(connection.await) });
                Ok(client)
            }
            Err(error) => Err(self.classify(error)),
        }
    }

    /// Connects and listens: the receiver gets the payload of each notification on `channel`, and
    /// ends with the connection, which keeps the statements that it has prepared.
    pub async fn listen(
        &self,
        config: &Config,
        channel: &str,
    ) -> Result<(ClientWrapper, mpsc::UnboundedReceiver<String>), PgError> {
        if !self.is_own() {
            return Err(PgError::Unreachable(self.socket_folder.clone()));
        }
        let (client, mut connection) = config.connect(NoTls).await.map_err(|error| self.classify(error))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let work = tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    // Nobody left to hear it: the client still needs the connection.
                    let _ = sender.send(notification.payload().to_owned());
                }
            }
        });
        let client = ClientWrapper::new(client, work);
        client.batch_execute(&format!("LISTEN {channel}")).await?;
        Ok((client, receiver))
    }

    pub(super) fn classify(&self, error: tokio_postgres::Error) -> PgError {
        match error.code() {
            Some(&SqlState::CANNOT_CONNECT_NOW) => PgError::Recovering,
            Some(&SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION) => {
                PgError::Far(error.as_db_error().map(|db| db.message().to_owned()).unwrap_or_default())
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

/// Runs `work`, at most `limit`.
pub async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, PgError>>) -> Result<T, PgError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(PgError::Timeout(limit)))
}
