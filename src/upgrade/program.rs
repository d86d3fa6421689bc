//! A release's program, asked to do one thing: say what it is, migrate, serve on trial.

use super::manifest::Migration;
use crate::home::Home;
use crate::protocol::child;
use crate::sys::process::{Signal, signal_group};
use crate::sys::reaper;
use crate::sys::spawn::{Spawn, SpawnError};
use crate::sys::{command, files, listener, unix_socket};
use serde::Deserialize;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("{program} does not run: {reason}")]
    DoesNotRun { program: PathBuf, reason: String },
    #[error("{program} says that it is {found}, not {expected}")]
    OtherVersion { program: PathBuf, found: String, expected: String },
    #[error("the migration failed: {0}")]
    Migration(String),
    #[error("requests would have waited for longer than upgrade.max_pause, {} s: the migration was not done", .limit.as_secs())]
    TooSlow { limit: Duration },
    #[error("its server does not start: {0}")]
    Spawn(#[from] SpawnError),
    #[error("its server ended before it was ready: {0}")]
    Ended(String),
    #[error("its server was not ready within {} s: {log}", .limit.as_secs())]
    NotReady { limit: Duration, log: String },
    #[error("cannot prepare {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// What a program says of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct About {
    pub version: String,
    pub target: String,
    pub schema_version: i64,
    /// Of its sources.
    #[serde(default)]
    pub commit: Option<String>,
    /// Every one that it knows, oldest first.
    #[serde(default)]
    pub migrations: Vec<Migration>,
}

const ABOUT_LIMIT: Duration = Duration::from_secs(10);
/// A migration may rewrite tables; what ends it is its own lock timeout.
const MIGRATION_LIMIT: Duration = Duration::from_secs(3600);
const OUTPUT_LIMIT: u64 = 1024 * 1024;

/// How long a server may take to answer on trial.
pub fn trial_limit() -> Duration {
    crate::sys::limit("LEOFLOW_TRIAL_LIMIT", Duration::from_secs(180))
}

/// What it says that it is.
pub fn about(program: &Path) -> Result<About, ProgramError> {
    let failed = |reason: String| ProgramError::DoesNotRun { program: program.to_owned(), reason };
    let mut command = Command::new(program);
    command.args(["version", "--json"]).env_clear();
    let output = command::output_limited(&mut command, ABOUT_LIMIT, OUTPUT_LIMIT).map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// Brings a database to the program's schema: the application's, or another. Returns the files that it
/// applied. It ends with this process.
pub fn migrate(program: &Path, home: &Home, database: Option<&str>) -> Result<Vec<String>, ProgramError> {
    migrate_within(program, home, database, MIGRATION_LIMIT)
}

/// The same with a limit, after which the migration is ended and undone.
pub fn migrate_within(
    program: &Path,
    home: &Home,
    database: Option<&str>,
    limit: Duration,
) -> Result<Vec<String>, ProgramError> {
    let mut command = Command::new(program);
    command.arg("--home").arg(home.root()).args(["migrate-db", "--supervised", "--no-backup"]);
    command.args(database.iter().flat_map(|name| ["--database", name]));
    command.env_clear().envs(child::environment());
    command::dies_with_this_thread(&mut command);
    let output = command::output_limited(&mut command, limit, OUTPUT_LIMIT).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => ProgramError::TooSlow { limit },
        _ => ProgramError::DoesNotRun { program: program.to_owned(), reason: error.to_string() },
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(ProgramError::Migration(command::failure(&without_advice(&said), output.status)));
    }
    Ok(said.lines().filter_map(|line| line.strip_prefix("applied: ")).map(str::to_owned).collect())
}

/// The error that `migrate-db` prints, without its hints, which are for those who call it, and its `applied:` lines.
fn without_advice(said: &str) -> String {
    let is_of_failure = |line: &&str| !line.starts_with("hint:") && !line.starts_with("applied: ");
    said.lines().filter(is_of_failure).collect::<Vec<_>>().join("\n")
}

/// A server that serves one private socket, for as long as this lives.
pub struct TrialServer {
    pid: i32,
    ended: bool,
    pub socket: PathBuf,
    log: PathBuf,
    /// Its closing tells the server to leave, should we be killed.
    _lifeline: OwnedFd,
}

impl TrialServer {
    /// Starts it; `database` is another than the application's.
    pub fn start(program: &Path, home: &Home, port: u16, database: Option<&str>) -> Result<Self, ProgramError> {
        let socket = home.run().join("rehearsal.sock");
        let log = home.upgrade().join("trial.log");
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ProgramError::Io { path, source }
        };
        files::create_private_dir(&home.upgrade()).map_err(io(&home.upgrade()))?;
        let output = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&log);
        let output: File = output.map_err(io(&log))?;
        let private = unix_socket::listen(&socket).map_err(io(&socket))?;
        private.set_nonblocking(true).map_err(io(&socket))?;
        let (lifeline, held) = listener::pipe().map_err(io(&socket))?;
        listener::set_nonblocking(&lifeline).map_err(io(&socket))?;
        let mut arguments: Vec<OsString> = vec!["--port".into(), port.to_string().into()];
        arguments.extend(["--private-socket".into(), socket.clone().into(), "--home".into(), home.root().into()]);
        arguments.extend(database.iter().flat_map(|name| ["--database".into(), OsString::from(name)]));
        let mut environment = child::environment();
        for (name, value) in [("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "private:lifeline"), ("LISTEN_PID", "{PID}")] {
            environment.push((name.into(), value.into()));
        }
        let spawn = Spawn {
            program: program.to_owned(),
            called: Some("leoflow-server".into()),
            arguments,
            environment,
            output: output.as_fd(),
            errors: None,
            folder: None,
            passed: vec![private.as_fd(), lifeline.as_fd()],
            single_user: None,
            parent_death: None,
            own_session: false,
        };
        Ok(Self { pid: spawn.start()?, ended: false, socket, log, _lifeline: held })
    }

    /// Waits until `ask` says that it answers.
    pub async fn wait_ready(&mut self, ask: impl AsyncFn() -> bool) -> Result<(), ProgramError> {
        let deadline = Instant::now() + trial_limit();
        let mut pause = Duration::from_millis(2);
        while !ask().await {
            if let Some(exit) = reaper::ended_child(self.pid) {
                self.ended = true;
                let said = [exit.to_string(), self.last_words()];
                return Err(ProgramError::Ended(said.join("\n").trim_end().to_owned()));
            }
            if Instant::now() >= deadline {
                return Err(ProgramError::NotReady { limit: trial_limit(), log: self.last_words() });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The end of what it printed.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
        let lines: Vec<&str> = text.trim().lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for TrialServer {
    fn drop(&mut self) {
        for (signal, patience) in [(Signal::Terminate, 2), (Signal::Kill, 5)] {
            let deadline = Instant::now() + Duration::from_secs(patience);
            signal_group(self.pid, signal);
            while !self.ended && Instant::now() < deadline {
                self.ended = reaper::ended_child(self.pid).is_some();
                std::thread::sleep(Duration::from_millis(2));
            }
            if self.ended {
                break;
            }
        }
        // A socket without a listener says the same as none.
        let _ = files::remove_any(&self.socket);
    }
}
