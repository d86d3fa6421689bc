//! Runs a release's program to report its version, to migrate a database, or as a candidate server.

use super::manifest::Migration;
use leoflow_base::home::Home;
use leoflow_base::protocol::child;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::net::{listener, unix_socket};
use leoflow_base::sys::process::spawn::{Spawn, SpawnError};
use leoflow_base::sys::process::{Signal, command, reaper, signal_group};
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
    #[error("failed to run {program}: {reason}")]
    DoesNotRun { program: PathBuf, reason: String },
    #[error("{program} is version {found}, not {expected}")]
    OtherVersion { program: PathBuf, found: String, expected: String },
    #[error("the migration failed: {0}")]
    Migration(String),
    #[error(
        "the migration was cancelled after its time limit of {} s; for a live upgrade, see upgrade.max_pause",
        .limit.as_secs()
    )]
    TooSlow { limit: Duration },
    #[error("the candidate server does not start: {0}")]
    Spawn(#[from] SpawnError),
    #[error("the candidate server exited before it was ready: {0}")]
    Ended(String),
    #[error("the candidate server was not ready within {} s: {log}", .limit.as_secs())]
    NotReady { limit: Duration, log: String },
    #[error("cannot prepare {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// The output of `leoflow version --json`.
#[derive(Debug, Clone, Deserialize)]
pub struct About {
    pub version: String,
    pub target: String,
    pub schema_version: i64,
    /// The commit that the program was built from.
    pub commit: Option<String>,
    /// Every migration that the program knows, oldest first.
    #[serde(default)]
    pub migrations: Vec<Migration>,
}

const ABOUT_LIMIT: Duration = Duration::from_secs(10);
/// Time limit of a migration, which may rewrite tables. A blocked one normally ends earlier, by its lock timeout.
const MIGRATION_LIMIT: Duration = Duration::from_secs(3600);
const OUTPUT_LIMIT: u64 = 1024 * 1024;

/// Time limit for a candidate server to become ready.
pub fn trial_limit() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_TRIAL_LIMIT", Duration::from_secs(180))
}

/// Reads the program's version and migrations.
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

/// Migrates a database, by default the application's, to the program's schema. Returns the applied files. The kernel
/// kills the migration when the calling thread ends.
pub fn migrate(program: &Path, home: &Home, database: Option<&str>) -> Result<Vec<String>, ProgramError> {
    migrate_within(program, home, database, MIGRATION_LIMIT)
}

/// Like [`migrate`], with a time limit, after which the migration is cancelled and rolled back.
pub(crate) fn migrate_within(
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
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(ProgramError::Migration(command::failure(&without_advice(&stderr), output.status)));
    }
    Ok(stderr.lines().filter_map(|line| line.strip_prefix("applied: ")).map(str::to_owned).collect())
}

/// The error text of `migrate-db` without `applied:` lines and without hints, which do not apply to an upgrade.
fn without_advice(stderr: &str) -> String {
    let is_error_line = |line: &&str| !line.starts_with("hint:") && !line.starts_with("applied: ");
    stderr.lines().filter(is_error_line).collect::<Vec<_>>().join("\n")
}

/// A candidate server: serves one private socket until it is dropped.
pub struct CandidateServer {
    pid: i32,
    ended: bool,
    pub socket: PathBuf,
    log: PathBuf,
    /// Write end of a pipe. It closes when this process is killed, so that the server exits.
    _lifeline: OwnedFd,
}

impl CandidateServer {
    /// Starts the server without waiting until it is ready. It uses `database` instead of the application's database,
    /// if given.
    pub fn start(program: &Path, home: &Home, port: u16, database: Option<&str>) -> Result<Self, ProgramError> {
        let socket = home.run().join("rehearsal.sock");
        let log = home.upgrade().join("trial.log");
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| ProgramError::Io { path, source }
        };
        files::create_private_dir(&home.upgrade()).map_err(io_error(&home.upgrade()))?;
        let output = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&log);
        let output: File = output.map_err(io_error(&log))?;
        let private = unix_socket::listen(&socket).map_err(io_error(&socket))?;
        private.set_nonblocking(true).map_err(io_error(&socket))?;
        let (lifeline, lifeline_writer) = listener::pipe().map_err(io_error(&socket))?;
        listener::set_nonblocking(&lifeline).map_err(io_error(&socket))?;
        let mut arguments: Vec<OsString> = vec!["--port".into(), port.to_string().into()];
        arguments.extend(["--private-socket".into(), socket.clone().into(), "--home".into(), home.root().into()]);
        arguments.extend(database.iter().flat_map(|name| ["--database".into(), OsString::from(name)]));
        let mut environment = child::environment();
        for (name, value) in [("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "private:lifeline"), ("LISTEN_PID", "{PID}")] {
            environment.push((name.into(), value.into()));
        }
        let spawn = Spawn {
            argv0: Some("leoflow-server".into()),
            arguments,
            environment,
            passed: vec![private.as_fd(), lifeline.as_fd()],
            ..Spawn::new(program)
        };
        Ok(Self { pid: spawn.start(output.as_fd())?, ended: false, socket, log, _lifeline: lifeline_writer })
    }

    /// Waits until `answers` returns true. Fails if the server exits or the time limit passes.
    pub async fn wait_ready(&mut self, answers: impl AsyncFn() -> bool) -> Result<(), ProgramError> {
        let deadline = Instant::now() + trial_limit();
        let mut pause = Duration::from_millis(2);
        while !answers().await {
            if let Some(exit) = reaper::ended_child(self.pid) {
                self.ended = true;
                let message = [exit.to_string(), self.log_tail()];
                return Err(ProgramError::Ended(message.join("\n").trim_end().to_owned()));
            }
            if Instant::now() >= deadline {
                return Err(ProgramError::NotReady { limit: trial_limit(), log: self.log_tail() });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The last lines of the server's output.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
        let lines: Vec<&str> = text.trim().lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for CandidateServer {
    fn drop(&mut self) {
        for (signal, seconds) in [(Signal::Terminate, 2), (Signal::Kill, 5)] {
            let deadline = Instant::now() + Duration::from_secs(seconds);
            signal_group(self.pid, signal);
            while !self.ended && Instant::now() < deadline {
                self.ended = reaper::ended_child(self.pid).is_some();
                std::thread::sleep(Duration::from_millis(2));
            }
            if self.ended {
                break;
            }
        }
        // A socket file without a listener is harmless.
        let _ = files::remove_any(&self.socket);
    }
}
