//! What a change of release stands on: an instance that runs, whose supervisor holds parts of it down for us, or
//! one that is stopped, with a Postgres of our own for the moment.

use super::program::{ProgramError, TrialServer, trial_limit};
use super::smoke::{KnownFaults, ServerEndpoint, Smoke};
use crate::home::Home;
use crate::home::lock::HomeLock;
use crate::postgres::private::{PrivateError, PrivateServer};
use crate::postgres::{Access, install};
use crate::protocol::control::{self, Answer, ControlClient, Level, Request};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The program that a supervisor runs itself, as its children see it.
const SUPERVISORS_OWN: &str = "/proc/self/exe";
/// For all deadlines of what is stopped, one after another, or a recovery.
const LEVEL_LIMIT: Duration = Duration::from_secs(330);
/// For another program to take the supervisor's place.
const BECOME_LIMIT: Duration = Duration::from_secs(20);
const GONE: Duration = Duration::from_secs(3);

pub enum Host {
    Live {
        control: ControlClient,
    },
    /// In this order: the server is stopped before the home is let go.
    Stopped {
        server: Option<PrivateServer>,
        trial: Option<TrialServer>,
        _lock: Option<HomeLock>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("the supervisor does not answer: {0}")]
    Silent(io::Error),
    /// In its own words, or JSON of the child that failed.
    #[error("{0}")]
    Refused(String),
    #[error("the instance was stopped meanwhile")]
    Gone,
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// A child that failed has left JSON.
fn own_words(reason: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(reason).ok();
    let message = json.as_ref().and_then(|json| json["message"].as_str());
    message.unwrap_or(reason).to_owned()
}

impl Host {
    /// `None` when no instance runs.
    pub fn live(home: &Home) -> io::Result<Option<Self>> {
        Ok(ControlClient::connect(home)?.map(|control| Self::Live { control }))
    }

    /// `lock` is `None` when the caller has the home.
    pub fn stopped(server: PrivateServer, lock: Option<HomeLock>) -> Self {
        Self::Stopped { server: Some(server), trial: None, _lock: lock }
    }

    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// Server and agent leave; tasks go on, and requests wait.
    pub fn let_go(&mut self) -> Result<(), HostError> {
        self.ask_level(Level::Datastore, None)
    }

    /// Starts the datastore anew, with the newest PostgreSQL that is installed.
    pub async fn restart_datastore(&mut self, home: &Home, access: &mut Access) -> Result<(), HostError> {
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

    /// Starts the program's server on trial, and says where it is asked.
    pub async fn begin_trial(
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
                // An older supervisor has limits of its own.
                self.ask(&request, trial_limit())?;
                Ok(home.trial_socket())
            }
            Self::Stopped { trial, .. } => {
                let mut started = TrialServer::start(program, home, smoke.config.port, None)?;
                let endpoint = ServerEndpoint::Private(started.socket.clone());
                let ask = Smoke {
                    endpoint,
                    version: smoke.version.clone(),
                    known: KnownFaults::default(),
                    releases: None,
                    config_file: None,
                    ..*smoke
                };
                started.wait_ready(async || ask.answers().await).await?;
                let socket = started.socket.clone();
                *trial = Some(started);
                Ok(socket)
            }
        }
    }

    /// The server on trial gets the listeners, and the agent starts.
    pub fn open(&mut self, program: &Path) -> Result<(), HostError> {
        if let Self::Stopped { trial, .. } = self {
            *trial = None;
        }
        self.ask_level(Level::Whole, Some(program.to_owned()))
    }

    /// Nothing runs any more, the datastore neither.
    pub fn all_down(&mut self) -> Result<(), HostError> {
        if let Self::Stopped { trial, server, .. } = self {
            (*trial, *server) = (None, None);
        }
        self.ask_level(Level::Nothing, Some(PathBuf::from(SUPERVISORS_OWN)))
    }

    /// What was there before an upgrade runs again: first nothing but the datastore.
    pub fn back_down(&mut self) -> Result<(), HostError> {
        if let Self::Stopped { trial, .. } = self {
            *trial = None;
        }
        self.ask_level(Level::Datastore, Some(PathBuf::from(SUPERVISORS_OWN)))
    }

    /// Then all of it.
    pub fn back_up(&mut self) -> Result<(), HostError> {
        self.ask_level(Level::Whole, Some(PathBuf::from(SUPERVISORS_OWN)))
    }

    /// The supervisor becomes the program of `version`.
    pub fn take_over(&mut self, home: &Home, program: &Path, version: &str) -> Result<(), HostError> {
        let Self::Live { control } = self else { return Ok(()) };
        // It goes without an answer when it has come so far.
        if let Ok(Answer::Error(reason)) = control.ask(&Request::Become { program: program.to_owned() }, BECOME_LIMIT) {
            return Err(HostError::Refused(reason));
        }
        let deadline = Instant::now() + BECOME_LIMIT;
        let mut seen = Instant::now();
        // With nobody there for this long nobody will come: one that starts anew waits for us.
        while Instant::now() < deadline && seen.elapsed() < GONE {
            if ControlClient::connect(home).is_ok_and(|client| client.is_some()) {
                seen = Instant::now();
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

    fn ask(&mut self, request: &Request, limit: Duration) -> Result<(), HostError> {
        let Self::Live { control } = self else { return Ok(()) };
        match control.ask(request, limit) {
            Ok(Answer::Error(reason)) => Err(HostError::Refused(own_words(&reason))),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(HostError::Gone),
            Err(error) => Err(HostError::Silent(error)),
        }
    }
}
