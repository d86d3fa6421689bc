//! The server process from start to end.

use super::app;
use super::background::Background;
use super::listen::Serving;
use super::settings_reload;
use crate::app_state::AppState;
use crate::login::credentials::Secrets;
use crate::release::Release;
use crate::state::Core;
use crate::state::database::{Database, DatastoreError};
use crate::state::phase::Phase;
use axum::Router;
use leoflow_base::auth::cipher::{Cipher, CipherError};
use leoflow_base::config::{self, ConfigError, Loaded, running_settings};
use leoflow_base::home::Home;
use leoflow_base::protocol::child::{Inheritance, Notifier, send_heartbeats};
use leoflow_base::sys::process::{self, memory};
use leoflow_engine::store::StoreError;
use leoflow_engine::store::secret::encryption_key;
use leoflow_postgres::credentials::CredentialsError;
use leoflow_postgres::schema::{self, SchemaError};
use leoflow_postgres::{Credentials, Endpoint};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tracing::warn;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0} does not exist")]
    NoSettings(PathBuf),
    #[error("{path} has no {key}")]
    MissingSecret { path: PathBuf, key: &'static str },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The stored secrets were encrypted with another key.
    #[error("the encryption_key in {0} is not the one this datastore was written with")]
    WrongKey(PathBuf),
    #[error(transparent)]
    Store(StoreError),
    #[error("this process is started by `leoflow lite`, with the listeners it serves")]
    NotSupervised,
}

/// Command-line options.
pub struct Options {
    /// The port of the TCP listener, for the check of `Host`.
    pub port: u16,
    /// A database other than the application's, for the rehearsal of an upgrade on a copy.
    pub database: Option<String>,
    /// Path of the listener `private`, for processes that this server starts.
    pub private_socket: Option<PathBuf>,
}

/// Serves until a shutdown is requested, then lets running requests finish. With a listener `private` the server starts
/// on trial, as during an upgrade: it serves only that listener, without a scheduler. A byte through the pipe `doors`
/// ends the trial: the server then opens the public listeners.
pub async fn run(
    home: &Home,
    options: Options,
    mut inheritance: Inheritance,
    version: &'static str,
) -> Result<(), ServerError> {
    memory::return_large_blocks();
    let until_shutdown = inheritance.until_shutdown()?;
    let shutdown = async { _ = until_shutdown.await };
    let hangups = settings_reload::hangups()?;
    tokio::pin!(shutdown);
    let notifier = inheritance.notifier();
    let listeners = Listeners::take(&mut inheritance)?;
    let startup = Startup::load(home, options.database.as_deref())?;
    tokio::select! {
        // Stopping must not wait for a slow or frozen datastore.
        () = &mut shutdown => return Ok(()),
        checked = startup.check(home, &notifier) => checked?,
    }
    let Startup { settings, cipher, secrets, endpoint, application } = startup;
    let private_socket = listeners.private_socket(options.private_socket)?;
    let phase = Phase::new(options.port, private_socket);
    let core = Core::new(home.clone(), Database::new(&application), cipher, phase);
    let python = settings.config.python.clone();
    let state = AppState::new(Arc::new(core), Release::new(version, settings.config.web_ui), secrets, python);
    tokio::select! {
        () = &mut shutdown => return Ok(()),
        loaded = load_revoked(&state) => loaded?,
    }
    let reloading = tokio::task::spawn_local(settings_reload::reload_on_hangup(state.auth.clone(), hangups));
    let effective_home = options.database.is_none().then_some(home);
    let server = Server { state, listeners, notifier, settings, endpoint, application };
    let served = server.serve(effective_home, shutdown).await;
    reloading.abort();
    process::kill_dependent_children();
    served
}

/// A server whose state is loaded.
struct Server {
    state: AppState,
    listeners: Listeners,
    notifier: Notifier,
    settings: Loaded,
    endpoint: Endpoint,
    application: tokio_postgres::Config,
}

impl Server {
    /// Serves until the shutdown, and starts the background work. Once the public listeners are open, records in `home`
    /// that the settings are in effect.
    async fn serve(
        self,
        home: Option<&Home>,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), ServerError> {
        let Self { state, mut listeners, notifier, settings, endpoint, application } = self;
        let router = app::router(state.clone());
        let mut serving = Serving::default();
        match listeners.private.take() {
            Some(private) => serving.over_unix(private, &router)?,
            None => listeners.open(&mut serving, &router)?,
        }
        notifier.ready("serving");
        let heartbeats = tokio::task::spawn_local(send_heartbeats(notifier.clone()));
        let mut background = Background::start_parsing(&state, settings.config.workspace.clone());
        if !*state.core.phase.is_public.borrow() {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                ended = end_trial(&state, &mut listeners, &mut serving, &router) => ended?,
            }
        }
        if let Some(Err(error)) = home.map(|home| running_settings::record(home, &settings)) {
            warn!("failed to record the effective settings: {error}");
        }
        drop(settings);
        background.start_scheduling(&state, endpoint, application);
        tokio::select! {
            () = &mut shutdown => {}
            // The scheduler and the parser never end in normal operation. After a failure the supervisor restarts the
            // server.
            reason = background.wait_for_failure() => {
                return Err(ServerError::Io(io::Error::other(format!("a part of the server failed: {reason}"))));
            }
        }
        notifier.stopping();
        background.stop();
        state.core.changes.announce_shutdown();
        serving.drain().await;
        heartbeats.abort();
        Ok(())
    }
}

async fn load_revoked(state: &AppState) -> Result<(), ServerError> {
    let unreadable = |error: DatastoreError| io::Error::other(format!("failed to read the datastore: {error}"));
    Ok(state.auth.revoked.load(&state.core.database).await.map_err(unreadable)?)
}

/// Waits for the end of the trial, then opens the public listeners.
async fn end_trial(
    state: &AppState,
    listeners: &mut Listeners,
    serving: &mut Serving,
    router: &Router,
) -> Result<(), ServerError> {
    wait_for_doors(listeners.doors.take()).await?;
    // Picks up logouts recorded by the previous server in the meantime.
    load_revoked(state).await?;
    listeners.open(serving, router)?;
    state.core.phase.is_public.send_replace(true);
    Ok(())
}

/// Settings, keys and credentials, which are read before serving.
struct Startup {
    settings: Loaded,
    cipher: Cipher,
    secrets: Secrets,
    endpoint: Endpoint,
    application: tokio_postgres::Config,
}

impl Startup {
    /// Reads the files of the home; `database` overrides the application's database.
    fn load(home: &Home, database: Option<&str>) -> Result<Self, ServerError> {
        let missing = |key| ServerError::MissingSecret { path: home.config(), key };
        let settings = config::load_with_secrets(&home.config())?.ok_or(ServerError::NoSettings(home.config()))?;
        let config = &settings.config;
        let key = config.encryption_key.as_deref().ok_or(missing("encryption_key"))?;
        let cipher = Cipher::new(key).map_err(|_| missing("valid encryption_key"))?;
        let secrets = Secrets::new(home.clone(), &settings).map_err(missing)?;
        let endpoint = Endpoint::for_home(home);
        let mut application = Credentials::require(home)?.application(&endpoint);
        if let Some(database) = database {
            application.dbname(database);
        }
        Ok(Self { settings, cipher, secrets, endpoint, application })
    }

    /// Checks that the schema is current and that the key matches the stored secrets.
    async fn check(&self, home: &Home, notifier: &Notifier) -> Result<(), ServerError> {
        let client = self.endpoint.connect(&self.application).await.map_err(SchemaError::from)?;
        notifier.schema(schema::require_current(&client, schema::known()).await?);
        encryption_key::check(&client, &self.cipher).await.map_err(|error| match error {
            StoreError::Cipher(CipherError::CannotOpen | CipherError::BadKey) => ServerError::WrongKey(home.config()),
            other => ServerError::Store(other),
        })
    }
}

/// The listeners from the supervisor, or from the command that rehearses an upgrade.
struct Listeners {
    http: Option<OwnedFd>,
    api: Option<OwnedFd>,
    private: Option<OwnedFd>,
    /// A pipe, not a listener: a byte from the supervisor opens the public listeners.
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

    /// Returns the path of the private listener; fails if a server on trial was started without it.
    fn private_socket(&self, path: Option<PathBuf>) -> Result<Option<PathBuf>, ServerError> {
        match self.private {
            Some(_) => path.map(Some).ok_or(ServerError::NotSupervised),
            None => Ok(None),
        }
    }

    /// Serves the public listeners.
    fn open(&mut self, serving: &mut Serving, router: &Router) -> io::Result<()> {
        self.http.take().map_or(Ok(()), |http| serving.over_tcp(http, router))?;
        self.api.take().map_or(Ok(()), |api| serving.over_unix(api, router))
    }
}

/// Completes when the byte through `doors` arrives; pends for ever without a pipe, as in a rehearsal of an upgrade.
async fn wait_for_doors(doors: Option<OwnedFd>) -> io::Result<()> {
    use tokio::io::AsyncReadExt;
    let Some(doors) = doors else { return std::future::pending().await };
    // The supervisor has made it non-blocking.
    let mut doors = tokio::net::unix::pipe::Receiver::from_owned_fd(doors)?;
    doors.read_u8().await.map(drop)
}
