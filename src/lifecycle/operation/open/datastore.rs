//! Opens the datastore for an operation: the running one, or a private server while the operation runs.

use super::{AfterUpgrade, OpenError, access, claims};
use crate::backup::restore::quarantine;
use crate::operation::OperationContext;
use leoflow_base::home::Home;
use leoflow_base::home::lock::{self, HomeLock, LockError, OperationLock};
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_postgres::Access;
use leoflow_postgres::cluster::private::PrivateServer;
use leoflow_postgres::cluster::provision;
use leoflow_postgres::cluster::{self, ClusterState};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// How long a scheduled operation waits for another one, such as a backup that the user has just started.
const SCHEDULED_WAIT: Duration = Duration::from_secs(60);
const HELD_PAUSE: Duration = Duration::from_millis(200);

/// Who has started an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartedBy {
    User,
    /// The running instance, because the operation is due.
    Schedule,
}

/// An open datastore; a private server stops when this is dropped.
pub struct Datastore {
    pub access: Access,
    /// True for the datastore of the running instance. Otherwise the datastore holds the home's lock.
    pub is_of_running_instance: bool,
    home: Home,
    // Fields are dropped in order, so the server stops before the home's lock is released.
    server: Option<PrivateServer>,
    lock: Option<HomeLock>,
}

/// The state in which an operation finds the datastore.
enum DatastoreState {
    /// The home does not exist.
    NotSetUp,
    /// The running instance has it open.
    Served,
    /// No instance runs, and the files are as the last operation left them.
    Stopped,
    /// No instance runs, and an interrupted operation may have moved the files away.
    Interrupted,
}

impl DatastoreState {
    /// Determines the state. Changes nothing.
    fn find(home: &Home) -> Result<Self, OpenError> {
        if !home.exists() {
            return Ok(Self::NotSetUp);
        }
        if lock::is_held(home).map_err(OpenError::Instance)? && control::status_of(home).is_some() {
            return Ok(Self::Served);
        }
        let quarantined = quarantine::pending(home).map_err(|source| OpenError::Io {
            doing: "read",
            path: home.quarantine_note(),
            source,
        })?;
        match home.journal().exists() || quarantined.is_some() {
            true => Ok(Self::Interrupted),
            false => Ok(Self::Stopped),
        }
    }
}

impl Datastore {
    /// Opens the datastore: determines its state, finishes or undoes an interrupted operation, then uses the running
    /// server or starts a private one. `command` names the holder of the home's lock in other processes' messages.
    pub async fn open(context: &OperationContext<'_>, command: &str) -> Result<Self, OpenError> {
        let home = context.home;
        match DatastoreState::find(home)? {
            DatastoreState::NotSetUp => return Err(OpenError::NotSetUp),
            DatastoreState::Served => return Self::open_served(home),
            // The check precedes all writes, because the folder may not be a home of Leoflow.
            DatastoreState::Stopped => check(home)?,
            // Not checked before the repair: the check would fail while the interrupted operation has the files moved
            // away, and the operation's record shows that the folder is a home. `open_held` checks after the repair.
            DatastoreState::Interrupted => {}
        }
        context.create_home()?;
        Self::open_held(home, context.take_home(command, None, AfterUpgrade::GoOn).await?).await
    }

    /// Takes the operation lock and opens the datastore. A scheduled operation waits for another one instead of
    /// failing; it fails when the instance has stopped since, because the user wants the home unused then.
    pub async fn open_locked(
        context: &OperationContext<'_>,
        command: &str,
        started_by: StartedBy,
    ) -> Result<(Self, OperationLock), OpenError> {
        let home = context.home;
        if started_by == StartedBy::User {
            let operation_lock = OperationLock::take(home, command)?;
            return Ok((Self::open(context, command).await?, operation_lock));
        }
        let deadline = Instant::now() + SCHEDULED_WAIT;
        loop {
            // Before the lock, whose file must not be created in a home that is being removed.
            check_served(home)?;
            match OperationLock::take(home, command) {
                Err(LockError::Held { .. }) if Instant::now() < deadline => tokio::time::sleep(HELD_PAUSE).await,
                operation_lock => {
                    let operation_lock = operation_lock?;
                    check_served(home)?;
                    return Ok((Self::open_served(home)?, operation_lock));
                }
            }
        }
    }

    /// Opens the datastore of the running instance.
    fn open_served(home: &Home) -> Result<Self, OpenError> {
        check(home)?;
        Ok(Self { access: access(home)?, is_of_running_instance: true, home: home.clone(), server: None, lock: None })
    }

    /// Like [`Self::open`], for a caller that holds the home's lock; the datastore keeps it.
    pub async fn open_held(home: &Home, home_lock: HomeLock) -> Result<Self, OpenError> {
        check(home)?;
        let access = access(home)?;
        let server = PrivateServer::start(home, &access.installation, &access.endpoint, &access.credentials).await?;
        let (server, lock) = (Some(server), Some(home_lock));
        Ok(Self { access, is_of_running_instance: false, home: home.clone(), server, lock })
    }

    /// How the running instance, whose datastore this is, has ended meanwhile; the datastore ended with it.
    pub fn end_of_instance(&self) -> Option<EndOfInstance> {
        if !self.is_of_running_instance {
            return None;
        }
        match settled_state(&self.home) {
            None | Some(InstanceState::Stopped) => Some(EndOfInstance::Stopped),
            Some(InstanceState::Starting | InstanceState::Upgrading) => Some(EndOfInstance::Restarted),
            Some(_) => None,
        }
    }

    /// Returns the access; if no instance runs, also the private server and the home's lock.
    pub fn into_parts(self) -> (Access, Option<(PrivateServer, HomeLock)>) {
        (self.access, self.server.zip(self.lock))
    }

    /// Connects as the application's role. Creates the role and the database if they are missing.
    pub async fn connect(&self) -> Result<Client, OpenError> {
        let client = provision::connect_in(&self.home, &self.access.endpoint, &self.access.credentials).await?;
        claims::require(&self.home, &client).await?;
        Ok(client)
    }
}

/// Fails unless the running instance has the datastore open.
fn check_served(home: &Home) -> Result<(), OpenError> {
    match DatastoreState::find(home)? {
        DatastoreState::Served => Ok(()),
        _ => Err(OpenError::InstanceStopped),
    }
}

/// How an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOfInstance {
    Stopped,
    Restarted,
}

impl std::fmt::Display for EndOfInstance {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Stopped => "stopped",
            Self::Restarted => "restarted",
        })
    }
}

/// The state of the instance; `None` if none runs. Waits up to 5 s while processes start or stop.
fn settled_state(home: &Home) -> Option<InstanceState> {
    let state = || control::status_of(home).map(|status| status.state);
    for _ in 0..SETTLING_TRIES {
        match state() {
            Some(InstanceState::Degraded) => std::thread::sleep(SETTLING_PAUSE),
            settled => return settled,
        }
    }
    state()
}

const SETTLING_TRIES: u32 = 50;
const SETTLING_PAUSE: Duration = Duration::from_millis(100);

/// Fails unless there is a datastore that this release may open.
pub fn check(home: &Home) -> Result<(), OpenError> {
    match cluster::state(home) {
        ClusterState::Ready => Ok(()),
        ClusterState::Absent => Err(OpenError::NotSetUp),
        ClusterState::OtherMajor(major) => Err(OpenError::OtherMajor(major)),
        ClusterState::NotACluster(reason) => Err(OpenError::IncompleteCluster(reason)),
    }
}
