//! The server process from its start to its end.

use super::api_error::ApiError;
use super::app::{self, Routers};
use super::background::Background;
use super::database::Database;
use super::listen::Serving;
use super::settings_reload;
use super::state::{AppState, Secrets};
use crate::auth::cipher::{Cipher, CipherError};
use crate::config::{self, ConfigError, Loaded, in_force};
use crate::engine::store::StoreError;
use crate::engine::store::encryption_key;
use crate::home::Home;
use crate::postgres::credentials::CredentialsError;
use crate::postgres::{Credentials, Endpoint};
use crate::protocol::child::{Inheritance, Notifier, keep_saying_alive};
use crate::schema::{self, SchemaError};
use crate::sys::memory;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tracing::warn;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{path} has no {key}")]
    MissingSecret { path: PathBuf, key: &'static str },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The key is not the one that the stored secrets were encrypted with.
    #[error("the encryption_key in {0} is not the one this datastore was written with")]
    WrongKey(PathBuf),
    #[error(transparent)]
    Store(StoreError),
    #[error("this process is started by `leoflow lite`, with the listeners it serves")]
    NotSupervised,
}

/// What the command line says.
pub struct Options {
    /// The one that the TCP listener has, for the check of `Host`.
    pub port: u16,
    /// Another database than the application's, for a rehearsal.
    pub database: Option<String>,
    /// Where the listener `private` is, for what this server starts itself.
    pub private_socket: Option<PathBuf>,
}

/// Serves until told to leave, then lets what is under way finish. With a listener `private` it is on
/// trial: it serves that one alone, without a scheduler, until a byte comes through `doors`.
pub async fn run(
    home: &Home,
    options: Options,
    mut inheritance: Inheritance,
    version: &'static str,
) -> Result<(), ServerError> {
    memory::return_large_blocks();
    let leave = inheritance.until_told_to_leave()?;
    let hangups = settings_reload::hangups()?;
    tokio::pin!(leave);
    let notifier = inheritance.notifier();
    let mut listeners = Listeners::take(&mut inheritance)?;
    let opened = Opened::of(home, options.database.as_deref())?;
    tokio::select! {
        // The datastore may be slow or frozen; being told to leave is not.
        () = &mut leave => return Ok(()),
        checked = opened.check(home, &notifier) => checked?,
    }
    let Opened { settings, cipher, secrets, endpoint, application } = opened;
    let private_socket = match &listeners.private {
        Some(_) => Some(options.private_socket.ok_or(ServerError::NotSupervised)?),
        None => None,
    };
    let (keys, database) = ((cipher, secrets), Database::new(&application));
    let state = Arc::new(AppState::new(
        home.clone(),
        options.port,
        version,
        database,
        keys,
        private_socket,
        settings.config.python.clone(),
    ));
    tokio::select! {
        () = &mut leave => return Ok(()),
        loaded = state.revoked.load(&state.database) => loaded.map_err(unreadable)?,
    }
    let reloading = tokio::task::spawn_local(settings_reload::on_hangup(state.clone(), hangups));
    let routers = app::routers(state.clone());
    let mut serving = Serving::default();
    match listeners.private.take() {
        Some(private) => serving.over_unix(private, &routers)?,
        None => listeners.open(&mut serving, &routers)?,
    }
    notifier.ready("serving");
    let alive = tokio::task::spawn_local(keep_saying_alive(notifier.clone()));
    let mut background = Background::parsing(&state, settings.config.workspace.clone());
    if !*state.doors.borrow() {
        tokio::select! {
            () = &mut leave => return Ok(()),
            opened = may_open(listeners.doors.take()) => opened?,
        }
        // Who has logged out with the server before, meanwhile.
        tokio::select! {
            () = &mut leave => return Ok(()),
            loaded = state.revoked.load(&state.database) => loaded.map_err(unreadable)?,
        }
        listeners.open(&mut serving, &routers)?;
        state.doors.send_replace(true);
    }
    if options.database.is_none()
        && let Err(error) = in_force::note(home, &settings)
    {
        warn!("which settings are in force cannot be written down: {error}");
    }
    drop(settings);
    background.schedule(&state, endpoint, application);
    tokio::select! {
        () = &mut leave => {}
        // Neither ends by itself. Without one of the two this would be half a server: a new one is better.
        reason = background.failed() => {
            return Err(ServerError::Io(io::Error::other(format!("a part of the server failed: {reason}"))));
        }
    }
    notifier.stopping();
    background.stop();
    state.changes.leave();
    serving.drain().await;
    alive.abort();
    reloading.abort();
    Ok(())
}

fn unreadable(error: ApiError) -> ServerError {
    ServerError::Io(io::Error::other(format!("the datastore could not be read: {}", error.message())))
}

/// What is read before anything is served.
struct Opened {
    settings: Loaded,
    cipher: Cipher,
    secrets: Secrets,
    endpoint: Endpoint,
    application: tokio_postgres::Config,
}

impl Opened {
    /// `database` is another than the application's.
    fn of(home: &Home, database: Option<&str>) -> Result<Self, ServerError> {
        let missing = |key| ServerError::MissingSecret { path: home.config(), key };
        let settings = config::load_with_secrets(&home.config())?.ok_or(missing("content"))?;
        let config = &settings.config;
        let key = config.encryption_key.as_deref().ok_or(missing("encryption_key"))?;
        let cipher = Cipher::new(key).map_err(|_| missing("valid encryption_key"))?;
        let secrets = Secrets::new(home.config(), &settings).map_err(missing)?;
        let endpoint = Endpoint::for_home(home);
        let mut application = Credentials::require(home)?.application(&endpoint);
        if let Some(database) = database {
            application.dbname(database);
        }
        Ok(Self { settings, cipher, secrets, endpoint, application })
    }

    /// The schema is ours and current, and the key is the one that its secrets were written with.
    async fn check(&self, home: &Home, notifier: &Notifier) -> Result<(), ServerError> {
        let client = self.endpoint.connect(&self.application).await.map_err(SchemaError::from)?;
        notifier.schema(schema::require_current(&client, schema::known()).await?);
        encryption_key::check(&client, &self.cipher).await.map_err(|error| match error {
            StoreError::Cipher(CipherError::CannotOpen | CipherError::BadKey) => ServerError::WrongKey(home.config()),
            other => ServerError::Store(other),
        })
    }
}

/// What the supervisor gave, or the command that rehearses.
struct Listeners {
    http: Option<OwnedFd>,
    api: Option<OwnedFd>,
    private: Option<OwnedFd>,
    doors: Option<OwnedFd>,
}

impl Listeners {
    fn take(inheritance: &mut Inheritance) -> Result<Self, ServerError> {
        let [http, api, private, doors] = ["http", "api", "private", "doors"].map(|name| inheritance.listener(name));
        if private.is_none() && (http.is_none() || api.is_none()) {
            return Err(ServerError::NotSupervised);
        }
        Ok(Self { http, api, private, doors })
    }

    fn open(&mut self, serving: &mut Serving, routers: &Routers) -> io::Result<()> {
        self.http.take().map_or(Ok(()), |http| serving.over_tcp(http, routers))?;
        self.api.take().map_or(Ok(()), |api| serving.over_unix(api, routers))
    }
}

/// Completes when the byte comes; never without a pipe, as in a rehearsal.
async fn may_open(doors: Option<OwnedFd>) -> io::Result<()> {
    use tokio::io::AsyncReadExt;
    let Some(doors) = doors else { return std::future::pending().await };
    // Made non-blocking by the supervisor.
    let mut doors = tokio::net::unix::pipe::Receiver::from_owned_fd(doors)?;
    doors.read_u8().await.map(drop)
}
