//! Opens the datastore for an operation: the running one, or a private server while the operation runs.

use super::{AfterUpgrade, access, claims};
use crate::backup::restore::quarantine;
use crate::operation::{OperationContext, OperationError};
use leoflow_base::home::Home;
use leoflow_base::home::lock::{self, HomeLock, LockError, OperationLock};
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_postgres::Access;
use leoflow_postgres::cluster::private::PrivateServer;
use leoflow_postgres::cluster::{self, ClusterState, provision};
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

impl Datastore {
    /// Opens the datastore: that of the running instance, or after an interrupted operation was finished or undone, a
    /// private server. `command` names the holder of the home's lock in other processes' messages.
    pub async fn open(context: &OperationContext<'_>, command: &str) -> Result<Self, OperationError> {
        let home = context.home;
        if !home.exists() {
            return Err(OperationError::NotSetUp);
        }
        if is_served(home)? {
            return Self::open_served(home);
        }
        // The check precedes all writes, because the folder may not be a home of Leoflow. It would fail while an
        // interrupted operation has the files moved away; then the operation's record shows that the folder is a home,
        // and `open_held` checks after the repair.
        if !is_interrupted(home)? {
            check(home)?;
        }
        context.create_home()?;
        Self::open_held(home, context.take_home(command, None, AfterUpgrade::GoOn).await?).await
    }

    /// Takes the operation lock and opens the datastore. A scheduled operation waits for another one instead of
    /// failing; it fails when the instance has stopped since, because the user wants the home unused then.
    pub(crate) async fn open_locked(
        context: &OperationContext<'_>,
        command: &str,
        started_by: StartedBy,
    ) -> Result<(Self, OperationLock), OperationError> {
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
    fn open_served(home: &Home) -> Result<Self, OperationError> {
        check(home)?;
        Ok(Self { access: access(home)?, is_of_running_instance: true, home: home.clone(), server: None, lock: None })
    }

    /// Like [`Self::open`], for a caller that holds the home's lock; the datastore keeps it.
    pub(crate) async fn open_held(home: &Home, home_lock: HomeLock) -> Result<Self, OperationError> {
        check(home)?;
        let (access, server) = private_server(home).await?;
        let (server, lock) = (Some(server), Some(home_lock));
        Ok(Self { access, is_of_running_instance: false, home: home.clone(), server, lock })
    }

    /// The error of work in the datastore, which fails if the running instance ends.
    pub(crate) fn explain(&self, error: impl Into<OperationError>) -> OperationError {
        let how = match self.is_of_running_instance.then(|| settled_state(&self.home)) {
            Some(None | Some(InstanceState::Stopped)) => "stopped",
            Some(Some(InstanceState::Starting | InstanceState::Upgrading)) => "restarted",
            _ => return error.into(),
        };
        OperationError::InstanceEnded { how, source: Box::new(error.into()) }
    }

    /// Returns the access; if no instance runs, also the private server and the home's lock.
    pub fn into_parts(self) -> (Access, Option<(PrivateServer, HomeLock)>) {
        (self.access, self.server.zip(self.lock))
    }

    /// Connects as the application's role. Creates the role and the database if they are missing.
    pub async fn connect(&self) -> Result<Client, OperationError> {
        let client = provision::connect_in(&self.home, &self.access.endpoint, &self.access.credentials).await?;
        claims::require(&self.home, &client).await?;
        Ok(client)
    }
}

/// Starts a private server. The caller holds the home's lock.
pub(super) async fn private_server(home: &Home) -> Result<(Access, PrivateServer), OperationError> {
    let access = access(home)?;
    let server = PrivateServer::start(home, &access.installation, &access.endpoint, &access.credentials).await?;
    Ok((access, server))
}

/// True when the running instance has the datastore open.
fn is_served(home: &Home) -> Result<bool, OperationError> {
    Ok(lock::is_held(home).map_err(OperationError::Instance)? && control::status_of(home).is_some())
}

/// True when an interrupted operation may have moved the files away.
fn is_interrupted(home: &Home) -> Result<bool, OperationError> {
    let quarantined = quarantine::pending(home).map_err(OperationError::io("read", &home.quarantine_note()))?;
    Ok(home.journal().exists() || quarantined.is_some())
}

/// Fails unless the running instance has the datastore open.
fn check_served(home: &Home) -> Result<(), OperationError> {
    if is_served(home)? { Ok(()) } else { Err(OperationError::StoppedBeforeSchedule) }
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
pub fn check(home: &Home) -> Result<(), OperationError> {
    match cluster::state(home) {
        ClusterState::Ready => Ok(()),
        ClusterState::Absent => Err(OperationError::NotSetUp),
        ClusterState::OtherMajor(major) => Err(OperationError::OtherMajor(major)),
        ClusterState::NotACluster(reason) => Err(OperationError::IncompleteCluster(reason)),
    }
}
