//! A server for the duration of one command while Lite is stopped: same data, same socket, stopped when the command
//! ends. For a container or an external server it is the relay to it.

use super::{leftovers, server};
use crate::connect::within;
use crate::fatal_message::{self, FatalMessage};
use crate::{Credentials, Endpoint, Installation, PgError};
use leoflow_base::home::Home;
use leoflow_base::sys::process::reaper::{self, Exit};
use leoflow_base::sys::process::spawn::SpawnError;
use leoflow_base::sys::process::{Signal, signal_process};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use tokio_postgres::Client;

#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    #[error("cannot start the datastore: {0}")]
    Spawn(#[from] SpawnError),
    #[error(
        "the datastore exited during startup ({exit}){}; see logs/postgres.log",
        message.as_ref().map(|message| format!(": {}", message.text)).unwrap_or_default()
    )]
    Ended { exit: Exit, message: Option<FatalMessage> },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the datastore did not become ready: {0}")]
    NotReady(PgError),
}

/// Time limit for the server to become ready, counted from its last report that it is recovering.
const READY_LIMIT: Duration = Duration::from_secs(120);

pub struct PrivateServer {
    pid: i32,
    ended: bool,
    endpoint: Endpoint,
}

impl PrivateServer {
    /// Starts the server and waits until it answers. The caller holds the home's lock and runs on the main thread,
    /// because the server gets a signal when the thread that started it ends.
    pub async fn start(
        home: &Home,
        installation: &Installation,
        endpoint: &Endpoint,
        credentials: &Credentials,
    ) -> Result<Self, PrivateError> {
        leftovers::end(home)?;
        endpoint.prepare()?;
        let (spawn, _) = server::command(home, installation, endpoint);
        let log_path = home.logs().join("postgres.log");
        let log_offset = std::fs::metadata(&log_path).map_or(0, |meta| meta.len());
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path)?;
        let pid = spawn.start(log.as_fd())?;
        let mut server = Self { pid, ended: false, endpoint: endpoint.clone() };
        match server.wait_ready(endpoint, credentials).await {
            Err(PrivateError::Ended { exit, .. }) => {
                Err(PrivateError::Ended { exit, message: fatal_message_since(&log_path, log_offset) })
            }
            ready => ready.map(|()| server),
        }
    }

    async fn wait_ready(&mut self, endpoint: &Endpoint, credentials: &Credentials) -> Result<(), PrivateError> {
        let mut deadline = tokio::time::Instant::now() + READY_LIMIT;
        let mut pause = Duration::from_millis(1);
        loop {
            let error = match probe(endpoint, credentials).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if let Some(exit) = reaper::ended_child(self.pid) {
                self.ended = true;
                return Err(PrivateError::Ended { exit, message: None });
            }
            // A container may still be starting; an external server is either up or not.
            let may_be_starting = matches!(error, PgError::ExternalServer(_)) && credentials.has_superuser();
            let is_temporary = match error {
                PgError::Unreachable(_) | PgError::Recovering => true,
                PgError::Timeout(_) => credentials.has_superuser(),
                _ => false,
            };
            let is_final = !may_be_starting && !is_temporary;
            if matches!(error, PgError::Recovering) {
                // Recovery may take any time, and a stopped recovery starts from its beginning.
                deadline = tokio::time::Instant::now() + READY_LIMIT;
            }
            if is_final || tokio::time::Instant::now() >= deadline {
                return Err(PrivateError::NotReady(error));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Sends the signal and waits for the exit, up to `limit`.
    fn end(&mut self, signal: Signal, limit: Duration) {
        signal_process(self.pid, signal);
        let deadline = std::time::Instant::now() + limit;
        while !self.ended && std::time::Instant::now() < deadline {
            self.ended = reaper::ended_child(self.pid).is_some();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        for (signal, seconds) in [(Signal::Interrupt, 30), (Signal::Quit, 5), (Signal::Kill, 5)] {
            if !self.ended {
                self.end(signal, Duration::from_secs(seconds));
            }
        }
        self.endpoint.remove_socket_folder();
    }
}

/// Finds the reason of the exit in the log, starting at byte `from`.
fn fatal_message_since(log: &Path, from: u64) -> Option<FatalMessage> {
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(1024 * 1024).read_to_end(&mut bytes).ok()?;
    let lines: Vec<String> = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
    fatal_message::last(&lines)
}

/// Checks that the server answers a real query. Returns the connection, so that a further query needs no second process
/// of the server.
pub async fn probe(endpoint: &Endpoint, credentials: &Credentials) -> Result<Client, PgError> {
    within(Duration::from_secs(5), async {
        // The superuser exists even before the application's role is created.
        let config = credentials.superuser(endpoint, "postgres");
        let client = endpoint.connect(&config.unwrap_or_else(|| credentials.application(endpoint))).await?;
        client.simple_query("SELECT 1").await?;
        Ok(client)
    })
    .await
    .map_err(|error| credentials.explain(error))
}

/// Counts checksum failures of any reader since the statistics were reset.
pub async fn checksum_failures(client: &Client, credentials: &Credentials) -> Result<i64, PgError> {
    within(Duration::from_secs(5), async {
        // Counts the current database and shared objects; a retained copy may be the damaged one.
        let query = "SELECT coalesce(sum(checksum_failures), 0)::bigint FROM pg_stat_database
                     WHERE datid = 0 OR datname = $1::text::name";
        Ok(client.query_one(query, &[&credentials.application.database]).await?.get(0))
    })
    .await
}
