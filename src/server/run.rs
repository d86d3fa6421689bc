//! The server process from its start to its end.

use super::database::Database;
use super::state::{AppState, Secrets};
use super::{app, dag_files, listen};
use crate::auth::cipher::{Cipher, CipherError};
use crate::config::{self, ConfigError};
use crate::engine::store::StoreError;
use crate::engine::{instance_key, scheduler};
use crate::home::Home;
use crate::postgres::credentials::CredentialsError;
use crate::postgres::{Credentials, Endpoint};
use crate::protocol::child::{Inheritance, Notifier, keep_saying_alive};
use crate::schema::{self, SchemaError};
use crate::sys::memory;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

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

/// Serves until told to leave, then lets what is under way finish. `port` is the one that the TCP
/// listener has, for the check of `Host`.
pub async fn run(
    home: &Home,
    port: u16,
    mut inheritance: Inheritance,
    version: &'static str,
) -> Result<(), ServerError> {
    memory::return_large_blocks();
    let leave = inheritance.until_told_to_leave()?;
    let notifier = inheritance.notifier();
    let http = inheritance.listener("http").ok_or(ServerError::NotSupervised)?;
    let api = inheritance.listener("api").ok_or(ServerError::NotSupervised)?;

    let loaded = config::load(&home.config())?;
    let config = loaded.ok_or(ServerError::MissingSecret { path: home.config(), key: "content" })?.config;
    let missing = |key| ServerError::MissingSecret { path: home.config(), key };
    let key = config.encryption_key.as_deref().ok_or(missing("encryption_key"))?;
    let cipher = Cipher::new(key).map_err(|_| missing("valid encryption_key"))?;
    let secrets = Secrets::new(home.config(), &config).map_err(missing)?;

    let endpoint = Endpoint::for_home(home);
    let credentials = Credentials::require(home)?;
    let database = Database::new(&credentials.application(&endpoint));
    tokio::pin!(leave);
    tokio::select! {
        // The datastore may be slow or frozen; being told to leave is not.
        () = &mut leave => return Ok(()),
        checked = check_datastore(home, &endpoint, &credentials, &cipher, &notifier) => checked?,
    }
    let state = Arc::new(AppState::new(home.clone(), port, version, database, cipher, secrets));
    let serving = listen::serve(http, api, &app::routers(state.clone()))?;
    notifier.ready("serving");
    let alive = tokio::task::spawn_local(keep_saying_alive(notifier.clone()));
    let mut engine = tokio::task::spawn_local({
        let (state, database) = (state.clone(), credentials.application(&endpoint));
        async move { scheduler::run(&endpoint, &database, |event| state.changes.tell(event)).await }
    });
    let mut files = config
        .workspace
        .map(|workspace| tokio::task::spawn_local(dag_files::run(state.clone(), workspace, config.python)));
    if files.is_none() {
        state.first_look.send_replace(true);
    }
    let failed = tokio::select! {
        () = &mut leave => None,
        ended = &mut engine => Some(ended),
        Some(ended) = async { match &mut files { Some(files) => Some(files.await), None => None } } => Some(ended),
    };
    if let Some(ended) = failed {
        // Neither ends by itself. Without one of the two this would be half a server: a new one is better.
        let reason = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
        return Err(ServerError::Io(io::Error::other(format!("a part of the server failed: {reason}"))));
    }
    notifier.stopping();
    // What they do is in transactions: cut off, it has not happened.
    engine.abort();
    files.iter().for_each(|files| files.abort());
    state.changes.leave();
    serving.drain().await;
    alive.abort();
    Ok(())
}

/// The schema is ours and current, and the key is the one that its secrets were written with.
async fn check_datastore(
    home: &Home,
    endpoint: &Endpoint,
    credentials: &Credentials,
    cipher: &Cipher,
    notifier: &Notifier,
) -> Result<(), ServerError> {
    let client = endpoint.connect(&credentials.application(endpoint)).await.map_err(SchemaError::from)?;
    notifier.schema(schema::require_current(&client, schema::known()).await?);
    instance_key::check(&client, cipher).await.map_err(|error| match error {
        StoreError::Cipher(CipherError::CannotOpen | CipherError::BadKey) => ServerError::WrongKey(home.config()),
        other => ServerError::Store(other),
    })
}
