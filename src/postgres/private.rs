//! A server for one command's moment, while Lite is stopped: the same data directory, the same
//! socket, ended when the command is done.

use super::connect::within;
use super::{Credentials, Endpoint, Installation, PgError, leftovers, server};
use crate::home::Home;
use crate::sys::process::{Signal, signal_process};
use crate::sys::reaper::{self, Exit};
use crate::sys::spawn::{Spawn, SpawnError};
use crate::sys::user_namespace::Identity;
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    #[error("PostgreSQL does not start: {0}")]
    Spawn(#[from] SpawnError),
    #[error("PostgreSQL ended at once ({0}); see logs/postgres.log")]
    Ended(Exit),
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
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(home.logs().join("postgres.log"))?;
        let pid = Spawn {
            program: command.program,
            called: None,
            arguments: command.arguments,
            environment: command.environment,
            output: log.as_fd(),
            errors: None,
            folder: None,
            passed: Vec::new(),
            single_user: Identity::for_postgres().single_user().cloned(),
            parent_death: Some(Signal::Interrupt),
        }
        .start()?;
        let mut server = Self { pid, ended: false, endpoint: endpoint.clone() };
        server.wait_ready(endpoint, credentials).await?;
        Ok(server)
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
                return Err(PrivateError::Ended(exit));
            }
            let final_answer = !matches!(error, PgError::Unreachable(_) | PgError::Recovering | PgError::Timeout(_));
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

/// Whether the server answers a real query.
pub async fn probe(endpoint: &Endpoint, credentials: &Credentials) -> Result<(), PgError> {
    within(Duration::from_secs(5), async {
        let client = endpoint.connect(&credentials.superuser(endpoint, "postgres")).await?;
        client.simple_query("SELECT 1").await?;
        Ok(())
    })
    .await
}
