//! `run/control.sock`: one JSON request a line, one JSON answer a line. It belongs to the supervisor and only controls
//! processes, so it works when the server and the datastore do not.

use super::status::InstanceStatus;
use crate::home::{Home, lock};
use crate::sys::net::unix_socket;
use crate::sys::process;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    Status,
    /// The answer comes at once; the connection closes when the supervisor has exited.
    Stop,
    /// Restarts the children in place; the answer comes when they are healthy or have failed.
    Restart,
    /// For an upgrade: starts and stops children until those of `level` run. With `program`, children are started from
    /// it from now on. The answer comes when the children are up or have failed. A caller that requests less than
    /// `Whole` must own the upgrade journal: once no process works on that upgrade any more, the supervisor starts
    /// `leoflow upgrade --resume`.
    Run {
        level: Level,
        #[serde(default)]
        program: Option<PathBuf>,
        /// For `Level::Trial`: how long the server may take to get ready, milliseconds. The supervisor does not restart
        /// this server if it ends, and the answer does not wait for its exit.
        #[serde(default)]
        limit_ms: Option<u64>,
    },
    /// Executes `program` as the supervisor in the same process; children, listeners and locks stay. On success the
    /// connection closes without an answer.
    Become {
        program: PathBuf,
    },
}

/// Which processes of an instance run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// No child; only the supervisor runs.
    Nothing,
    /// The datastore: Postgres, or the relay to it.
    Datastore,
    /// The datastore and a server that only serves `run/trial.sock`; connections to the other listeners wait.
    Trial,
    /// All processes; a server on trial gets the listeners.
    Whole,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Status(Box<InstanceStatus>),
    Accepted,
    Error(String),
}

/// Longest request or answer in bytes.
pub const LINE_LIMIT: u64 = 1024 * 1024;

/// Time limit for a supervisor's status. On a busy machine it may be late, which does not mean that none runs.
const STATUS_LIMIT: Duration = Duration::from_secs(15);
/// Time limit for the status of a supervisor that is stopped (SIGSTOP) and answers only if it is continued.
const STOPPED_LIMIT: Duration = Duration::from_secs(5);

/// A connection to a supervisor.
pub struct ControlClient {
    stream: BufReader<UnixStream>,
}

impl ControlClient {
    /// Connects to the supervisor. `Ok(None)` when none listens.
    pub fn connect(home: &Home) -> io::Result<Option<Self>> {
        match unix_socket::connect(&home.control_socket()) {
            Ok(stream) => Ok(Some(Self { stream: BufReader::new(stream) })),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Sends a request and waits at most `limit` for the answer.
    pub fn ask(&mut self, request: &Request, limit: Duration) -> io::Result<Answer> {
        self.stream.get_ref().set_read_timeout(Some(limit))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = String::new();
        (&mut self.stream).take(LINE_LIMIT).read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&answer)?)
    }

    /// Waits until the supervisor closes the connection; `false` when it is still open after `limit`.
    pub fn wait_closed(&mut self, limit: Duration) -> bool {
        let _ = self.stream.get_ref().set_read_timeout(Some(limit));
        let mut ignored = Vec::new();
        (&mut self.stream).take(LINE_LIMIT).read_to_end(&mut ignored).is_ok()
    }
}

/// Asks the running instance for its status; `None` when none runs or it does not answer.
pub fn status_of(home: &Home) -> Option<InstanceStatus> {
    let is_stopped = lock::holder(home).is_some_and(|holder| process::is_stopped(holder.process.pid));
    let limit = if is_stopped { STOPPED_LIMIT } else { STATUS_LIMIT };
    let mut client = ControlClient::connect(home).ok()??;
    match client.ask(&Request::Status, limit).ok()? {
        Answer::Status(status) => Some(*status),
        Answer::Accepted | Answer::Error(_) => None,
    }
}
