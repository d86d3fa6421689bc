//! Controls the instance during an upgrade: a running instance through its supervisor, which stops and starts its parts
//! on request, or a stopped instance with a private Postgres.

use super::release::program::{CandidateServer, ProgramError, trial_limit};
use super::smoke::{ServerEndpoint, Smoke};
use leoflow_base::home::Home;
use leoflow_base::home::lock::{self, HomeLock};
use leoflow_base::protocol::control::{self, Answer, ControlClient, Level, Request};
use leoflow_base::sys::env_vars;
use leoflow_postgres::cluster::private::{PrivateError, PrivateServer};
use leoflow_postgres::{Access, install};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time limit for reaching a level; covers all stop deadlines in sequence, or a crash recovery.
const LEVEL_LIMIT: Duration = Duration::from_secs(330);
/// Time limit for replacing the supervisor's program; requests are served meanwhile.
const BECOME_LIMIT: Duration = Duration::from_secs(60);
/// A supervisor that accepts no connection for this long counts as exited. The new program may be slow to open its
/// socket; but a fresh start in the same process locks the home, then waits for this upgrade.
const EXITED_LIMIT: Duration = Duration::from_secs(45);
/// How much longer than the server's own time limit to wait for the supervisor's answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(30);

pub enum Host {
    /// A running instance, reached through its control socket.
    Live { control: ControlClient },
    /// No instance runs. Fields are dropped in order, so the server stops before the home's lock is released.
    Stopped { server: Option<PrivateServer>, candidate: Option<CandidateServer>, _lock: Option<HomeLock> },
}

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("the supervisor does not answer: {0}")]
    NoAnswer(io::Error),
    /// The supervisor's message, or the message of the child that failed.
    #[error("{0}")]
    Refused(String),
    #[error("the instance was stopped in the meantime")]
    InstanceStopped,
    #[error("the supervisor exited instead of becoming {0}; see logs/supervisor.log")]
    SupervisorExited(String),
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Extracts the message from the supervisor's reason, which is JSON with a `message` if a child failed.
fn failure_message(reason: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(reason).ok();
    let message = json.as_ref().and_then(|json| json["message"].as_str());
    message.unwrap_or(reason).to_owned()
}

/// The previous release's program, which the supervisor still runs.
fn supervisors_program() -> PathBuf {
    env_vars::OWN_PROGRAM.into()
}

impl Host {
    /// Connects to the running instance; `None` if none runs.
    pub fn live(home: &Home) -> io::Result<Option<Self>> {
        Ok(ControlClient::connect(home)?.map(|control| Self::Live { control }))
    }

    /// A stopped instance with the private Postgres `server`. `lock` is `None` when the caller keeps the home's lock.
    pub fn stopped(server: PrivateServer, lock: Option<HomeLock>) -> Self {
        Self::Stopped { server: Some(server), candidate: None, _lock: lock }
    }

    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// Stops server and agent; tasks continue and requests wait.
    pub fn pause(&mut self) -> Result<(), HostError> {
        self.ask_level(Level::Datastore, None)
    }

    /// Restarts the datastore with the newest installed PostgreSQL.
    pub(crate) async fn restart_datastore(&mut self, home: &Home, access: &mut Access) -> Result<(), HostError> {
        if let Some(installation) = install::installed(home) {
            access.installation = installation;
        }
        match self {
            Self::Live { .. } => {
                self.ask_level(Level::Nothing, None)?;
                self.ask_level(Level::Datastore, None)
            }
            Self::Stopped { server, .. } => {
                drop(server.take());
                let started =
                    PrivateServer::start(home, &access.installation, &access.endpoint, &access.credentials).await?;
                *server = Some(started);
                Ok(())
            }
        }
    }

    /// Starts the candidate server and returns its private socket.
    pub(crate) async fn start_candidate(
        &mut self,
        program: &Path,
        home: &Home,
        smoke: &Smoke<'_>,
        limit: Duration,
    ) -> Result<PathBuf, HostError> {
        match self {
            Self::Live { .. } => {
                let limit_ms = u64::try_from(limit.as_millis()).ok();
                let request = Request::Run { level: Level::Trial, program: Some(program.to_owned()), limit_ms };
                // An older supervisor ignores `limit_ms` and applies its own limit.
                self.ask(&request, trial_limit() + ANSWER_MARGIN)?;
                Ok(home.trial_socket())
            }
            Self::Stopped { candidate, .. } => {
                let mut started = CandidateServer::start(program, home, smoke.config.port, None)?;
                let endpoint = ServerEndpoint::Private(started.socket.clone());
                let probe = Smoke::new(smoke.config, endpoint, smoke.version.clone());
                started.wait_ready(async || probe.is_healthy().await).await?;
                let socket = started.socket.clone();
                *candidate = Some(started);
                Ok(socket)
            }
        }
    }

    /// Hands the listeners to the candidate server and starts the agent from `program`. A stopped instance has no
    /// listeners and stays stopped: its candidate server is only stopped.
    pub fn open(&mut self, program: &Path) -> Result<(), HostError> {
        if let Self::Stopped { candidate, .. } = self {
            *candidate = None;
        }
        self.ask_level(Level::Whole, Some(program.to_owned()))
    }

    /// Stops everything, including the datastore.
    pub(crate) fn stop_all(&mut self) -> Result<(), HostError> {
        if let Self::Stopped { candidate, server, .. } = self {
            (*candidate, *server) = (None, None);
        }
        self.ask_level(Level::Nothing, Some(supervisors_program()))
    }

    /// Stops everything but the datastore, and returns to the previous program.
    pub(crate) fn stop_all_but_datastore(&mut self) -> Result<(), HostError> {
        if let Self::Stopped { candidate, .. } = self {
            *candidate = None;
        }
        self.ask_level(Level::Datastore, Some(supervisors_program()))
    }

    /// Starts the whole instance with the previous program.
    pub(crate) fn start_previous(&mut self) -> Result<(), HostError> {
        self.ask_level(Level::Whole, Some(supervisors_program()))
    }

    /// Makes the supervisor exec the program of `version`.
    pub(crate) fn replace_supervisor(&mut self, home: &Home, program: &Path, version: &str) -> Result<(), HostError> {
        let Self::Live { control } = self else { return Ok(()) };
        let supervisor = lock::holder(home).map(|holder| holder.process);
        // On success there is no answer, because the exec closes the connection.
        if let Ok(Answer::Error(reason)) = control.ask(&Request::Become { program: program.to_owned() }, BECOME_LIMIT) {
            return Err(HostError::Refused(reason));
        }
        let deadline = Instant::now() + BECOME_LIMIT;
        let mut last_connected = Instant::now();
        while Instant::now() < deadline {
            if ControlClient::connect(home).is_ok_and(|client| client.is_some()) {
                last_connected = Instant::now();
            } else if last_connected.elapsed() > EXITED_LIMIT
                || !lock::is_held(home).unwrap_or(true)
                || lock::holder(home).is_some_and(|holder| Some(holder.process) != supervisor)
            {
                return Err(HostError::SupervisorExited(version.to_owned()));
            }
            if control::status_of(home).is_some_and(|status| status.version == version)
                && let Ok(Some(client)) = ControlClient::connect(home)
            {
                *control = client;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(HostError::Refused(format!("the supervisor did not become {version}; see logs/supervisor.log")))
    }

    fn ask_level(&mut self, level: Level, program: Option<PathBuf>) -> Result<(), HostError> {
        self.ask(&Request::Run { level, program, limit_ms: None }, LEVEL_LIMIT)
    }

    /// Sends a request to a running instance; does nothing for a stopped one.
    fn ask(&mut self, request: &Request, limit: Duration) -> Result<(), HostError> {
        let Self::Live { control } = self else { return Ok(()) };
        match control.ask(request, limit) {
            Ok(Answer::Error(reason)) => Err(HostError::Refused(failure_message(&reason))),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(HostError::InstanceStopped),
            Err(error) => Err(HostError::NoAnswer(error)),
        }
    }
}
