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
    /// it from now on; `/proc/self/exe` is the supervisor's own, on every system. The answer comes when the children are
    /// up or have failed. A caller that requests less than `Whole` must own the upgrade journal: once no process works on
    /// that upgrade any more, the supervisor starts `leoflow upgrade --resume`.
    Run {
        level: Level,
        program: Option<PathBuf>,
        /// For `Level::Trial`: how long the server may take to get ready, milliseconds. The supervisor does not restart
        /// this server if it ends, and the answer does not wait for its exit.
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
    socket: PathBuf,
    /// A request was not answered within its time limit, so the next line on the stream may be its late answer.
    is_answer_late: bool,
}

impl ControlClient {
    /// Connects to the supervisor. `Ok(None)` when none listens.
    pub fn connect(home: &Home) -> io::Result<Option<Self>> {
        let socket = home.control_socket();
        match unix_socket::connect(&socket) {
            Ok(stream) => Ok(Some(Self { stream: BufReader::new(stream), socket, is_answer_late: false })),
            Err(error) if unix_socket::is_not_listening(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and waits at most `limit` for the answer. After a request that was not answered in time, the
    /// next one uses a new connection. `UnexpectedEof` means that the supervisor has exited, or closed the connection.
    pub fn ask(&mut self, request: &Request, limit: Duration) -> io::Result<Answer> {
        let answer = self.reconnect_if_late().and_then(|()| self.send_and_read(request, limit));
        self.is_answer_late |= answer.as_ref().is_err_and(is_timeout);
        answer.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => io::ErrorKind::UnexpectedEof.into(),
            _ if unix_socket::is_not_listening(&error) => io::ErrorKind::UnexpectedEof.into(),
            _ => error,
        })
    }

    fn reconnect_if_late(&mut self) -> io::Result<()> {
        if self.is_answer_late {
            self.stream = BufReader::new(unix_socket::connect(&self.socket)?);
            self.is_answer_late = false;
        }
        Ok(())
    }

    fn send_and_read(&mut self, request: &Request, limit: Duration) -> io::Result<Answer> {
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

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What a home's supervisor replies to a request for its status.
#[derive(Debug)]
pub enum StatusReply {
    Status(Box<InstanceStatus>),
    /// A supervisor has its socket open, but does not respond.
    NoAnswer,
    /// No supervisor has its socket open: none runs, or it starts or exits.
    NotListening,
}

impl StatusReply {
    pub fn status(&self) -> Option<&InstanceStatus> {
        match self {
            Self::Status(status) => Some(status),
            Self::NoAnswer | Self::NotListening => None,
        }
    }
}

/// Asks a home's supervisor for its status.
pub fn request_status(home: &Home) -> StatusReply {
    let is_stopped = lock::holder(home).is_some_and(|holder| process::is_stopped(holder.process.pid));
    let limit = if is_stopped { STOPPED_LIMIT } else { STATUS_LIMIT };
    let answer = match ControlClient::connect(home) {
        Ok(Some(mut client)) => client.ask(&Request::Status, limit),
        Ok(None) => return StatusReply::NotListening,
        Err(error) => Err(error),
    };
    match answer {
        Ok(Answer::Status(status)) => StatusReply::Status(status),
        Err(error) if is_timeout(&error) => StatusReply::NoAnswer,
        Ok(Answer::Accepted | Answer::Error(_)) | Err(_) => StatusReply::NotListening,
    }
}

/// Asks the running instance for its status; `None` when none runs or it does not answer.
pub fn status_of(home: &Home) -> Option<InstanceStatus> {
    match request_status(home) {
        StatusReply::Status(status) => Some(*status),
        StatusReply::NoAnswer | StatusReply::NotListening => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(folder.path())).unwrap();
        std::fs::create_dir_all(home.run()).unwrap();
        let listener = UnixListener::bind(home.control_socket()).unwrap();
        let mut client = ControlClient::connect(&home).unwrap().unwrap();
        let (mut first, _) = listener.accept().unwrap();
        let unanswered = client.ask(&Request::Restart, Duration::from_millis(50)).unwrap_err();
        assert_eq!(unanswered.kind(), io::ErrorKind::WouldBlock);
        first.write_all(b"\"accepted\"\n").unwrap();
        let supervisor = std::thread::spawn(move || {
            let (mut second, _) = listener.accept().unwrap();
            BufReader::new(&second).read_line(&mut String::new()).unwrap();
            second.write_all(b"{\"error\": \"no\"}\n").unwrap();
        });
        let answer = client.ask(&Request::Stop, Duration::from_secs(20)).unwrap();
        assert_eq!(answer, Answer::Error("no".to_owned()));
        supervisor.join().unwrap();
        // The listener is closed: a supervisor that has exited answers nothing, also if a late answer was sent.
        client.is_answer_late = true;
        for _ in 0..2 {
            let error = client.ask(&Request::Stop, Duration::from_secs(20)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
