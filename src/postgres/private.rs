//! A server for one command's moment, while Lite is stopped: the same data directory, the same
//! socket, ended when the command is done.

use super::connect::within;
use super::words::{self, Words};
use super::{Credentials, Endpoint, Installation, PgError, leftovers, server};
use crate::home::Home;
use crate::sys::process::{Signal, signal_process};
use crate::sys::reaper::{self, Exit};
use crate::sys::spawn::{Spawn, SpawnError};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use tokio_postgres::Config;

#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    #[error("PostgreSQL does not start: {0}")]
    Spawn(#[from] SpawnError),
    #[error("PostgreSQL ended at once ({exit}){}; see logs/postgres.log", words.as_ref().map(|words| format!(": {}", words.text)).unwrap_or_default())]
    Ended { exit: Exit, words: Option<Words> },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("PostgreSQL did not get ready: {0}")]
    NotReady(PgError),
}

/// How long it may be silent; while it says that it is recovering, it is waited for.
const READY_LIMIT: Duration = Duration::from_secs(120);

pub struct PrivateServer {
    pid: i32,
    ended: bool,
    endpoint: Endpoint,
}

impl PrivateServer {
    /// Starts it and waits until it answers. The caller holds the home's lock and runs on the main
    /// thread, whose end would end the server too.
    pub async fn start(
        home: &Home,
        installation: &Installation,
        endpoint: &Endpoint,
        credentials: &Credentials,
    ) -> Result<Self, PrivateError> {
        leftovers::end(home)?;
        endpoint.prepare()?;
        let command = server::command(home, installation, endpoint);
        let log_path = home.logs().join("postgres.log");
        let said_before = std::fs::metadata(&log_path).map_or(0, |meta| meta.len());
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path)?;
        let pid = Spawn {
            single_user: command.identity().single_user().cloned(),
            program: command.program,
            called: command.called,
            arguments: command.arguments,
            environment: command.environment,
            output: log.as_fd(),
            errors: None,
            folder: None,
            passed: Vec::new(),
            parent_death: Some(Signal::Interrupt),
            own_session: false,
        }
        .start()?;
        let mut server = Self { pid, ended: false, endpoint: endpoint.clone() };
        match server.wait_ready(endpoint, credentials).await {
            Err(PrivateError::Ended { exit, .. }) => {
                Err(PrivateError::Ended { exit, words: words_since(&log_path, said_before) })
            }
            ready => ready.map(|()| server),
        }
    }

    async fn wait_ready(&mut self, endpoint: &Endpoint, credentials: &Credentials) -> Result<(), PrivateError> {
        let mut deadline = tokio::time::Instant::now() + READY_LIMIT;
        let mut pause = Duration::from_millis(1);
        loop {
            let error = match probe(endpoint, credentials).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if let Some(exit) = reaper::ended_child(self.pid) {
                self.ended = true;
                return Err(PrivateError::Ended { exit, words: None });
            }
            // A container is asked before it is up; a server that is elsewhere is or is not.
            let comes_up = matches!(error, PgError::Far(_)) && credentials.has_superuser();
            let may_pass = match error {
                PgError::Unreachable(_) | PgError::Recovering => true,
                PgError::Timeout(_) => credentials.has_superuser(),
                _ => false,
            };
            let final_answer = !comes_up && !may_pass;
            if matches!(error, PgError::Recovering) {
                // It takes what it takes; cutting it short would only begin it again.
                deadline = tokio::time::Instant::now() + READY_LIMIT;
            }
            if final_answer || tokio::time::Instant::now() >= deadline {
                return Err(PrivateError::NotReady(error));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

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
        self.endpoint.tidy();
    }
}

/// Why it ended, by what it wrote from there on.
fn words_since(log: &Path, from: u64) -> Option<Words> {
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(1024 * 1024).read_to_end(&mut bytes).ok()?;
    let lines: Vec<String> = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
    words::last(&lines)
}

/// Whether the server answers a real query.
pub async fn probe(endpoint: &Endpoint, credentials: &Credentials) -> Result<(), PgError> {
    within(Duration::from_secs(5), async {
        endpoint.connect(&any_login(endpoint, credentials)).await?.simple_query("SELECT 1").await?;
        Ok(())
    })
    .await
    .map_err(|error| credentials.explain(error))
}

/// One that is there before the application's is made.
fn any_login(endpoint: &Endpoint, credentials: &Credentials) -> Config {
    credentials.superuser(endpoint, "postgres").unwrap_or_else(|| credentials.application(endpoint))
}

/// How many pages were read by anybody that are not what was written, since the counts began.
pub async fn checksum_failures(endpoint: &Endpoint, credentials: &Credentials) -> Result<i64, PgError> {
    within(Duration::from_secs(5), async {
        let client = endpoint.connect(&any_login(endpoint, credentials)).await?;
        // Of the database in force, and of what all share: a copy that is kept may be the damaged one.
        let query = "SELECT coalesce(sum(checksum_failures), 0)::bigint FROM pg_stat_database
                     WHERE datid = 0 OR datname = $1::text::name";
        Ok(client.query_one(query, &[&credentials.application.database]).await?.get(0))
    })
    .await
}
