//! Opens the datastore for a command: the running one, or a private server while the command runs.

use super::{AfterUpgrade, Recovery, access, claims};
use crate::error::Error;
use leoflow_base::home::Home;
use leoflow_base::home::lock::{self, HomeLock, LockError, OperationLock};
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_lifecycle::backup::restore::quarantine;
use leoflow_postgres::Access;
use leoflow_postgres::cluster::private::PrivateServer;
use leoflow_postgres::cluster::provision;
use leoflow_postgres::cluster::{self, ClusterState};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// How long a scheduled command waits for another operation, such as a backup that the user has just started.
const SCHEDULED_WAIT: Duration = Duration::from_secs(60);
const HELD_PAUSE: Duration = Duration::from_millis(200);

/// Fails unless the running instance has the datastore open.
fn check_served(home: &Home) -> Result<(), Error> {
    match DatastoreState::find(home)? {
        DatastoreState::Served => Ok(()),
        _ => Err(Error::failed("Leoflow has stopped; the scheduled job runs again after the next start")),
    }
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

/// The state in which a command finds the datastore.
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
    fn find(home: &Home) -> Result<Self, Error> {
        if !home.exists() {
            return Ok(Self::NotSetUp);
        }
        if lock::is_held(home).map_err(Error::failed)? && control::status_of(home).is_some() {
            return Ok(Self::Served);
        }
        let quarantined =
            quarantine::pending(home).map_err(|error| Error::io("read", &home.quarantine_note(), &error))?;
        match home.journal().exists() || quarantined.is_some() {
            true => Ok(Self::Interrupted),
            false => Ok(Self::Stopped),
        }
    }
}

/// Takes the home's lock and finishes or undoes an interrupted operation. No instance may be running.
async fn lock_and_repair(recovery: &Recovery<'_>, command: &str) -> Result<HomeLock, Error> {
    let home = recovery.home;
    home.create().map_err(|error| Error::io("create", home.root(), &error))?;
    recovery.take_home(command, None, AfterUpgrade::GoOn).await
}

impl Datastore {
    /// Opens the datastore: determines its state, finishes or undoes an interrupted operation, then uses the running
    /// server or starts a private one. `command` names the holder of the home's lock in other processes' messages.
    pub async fn open(recovery: &Recovery<'_>, command: &str) -> Result<Self, Error> {
        let home = recovery.home;
        match DatastoreState::find(home)? {
            DatastoreState::NotSetUp => Err(not_set_up()),
            DatastoreState::Served => Self::open_served(home),
            DatastoreState::Stopped => {
                // The check precedes all writes, because the folder may not be a home of Leoflow.
                check(home)?;
                Self::open_held(home, lock_and_repair(recovery, command).await?).await
            }
            // Not checked before the repair: the check would fail while the interrupted operation has the files moved
            // away, and the operation's record shows that the folder is a home. `open_held` checks after the repair.
            DatastoreState::Interrupted => Self::open_held(home, lock_and_repair(recovery, command).await?).await,
        }
    }

    /// Takes the operation lock and opens the datastore. A `scheduled` command, which the running instance has started,
    /// waits for another operation instead of failing; it fails when the instance has stopped since, because the user
    /// wants the home unused then.
    pub(crate) async fn open_for_operation(
        recovery: &Recovery<'_>,
        command: &str,
        scheduled: bool,
    ) -> Result<(Self, OperationLock), Error> {
        let home = recovery.home;
        if !scheduled {
            let operation_lock = OperationLock::take(home, command)?;
            return Ok((Self::open(recovery, command).await?, operation_lock));
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
    fn open_served(home: &Home) -> Result<Self, Error> {
        check(home)?;
        Ok(Self { access: access(home)?, is_of_running_instance: true, home: home.clone(), server: None, lock: None })
    }

    /// Like [`Self::open`], for a caller that holds the home's lock; the datastore keeps it.
    pub(crate) async fn open_held(home: &Home, home_lock: HomeLock) -> Result<Self, Error> {
        check(home)?;
        let access = access(home)?;
        let server = PrivateServer::start(home, &access.installation, &access.endpoint, &access.credentials).await?;
        Ok(Self {
            access,
            is_of_running_instance: false,
            home: home.clone(),
            server: Some(server),
            lock: Some(home_lock),
        })
    }

    /// Replaces an error that the running instance's stop or restart has caused, because its datastore stops with it.
    pub fn explain(&self, error: Error) -> Error {
        if !self.is_of_running_instance {
            return error;
        }
        let event = match settled_state(&self.home) {
            None | Some(InstanceState::Stopped) => "stopped",
            Some(InstanceState::Starting | InstanceState::Upgrading) => "restarted",
            Some(_) => return error,
        };
        Error::failed(format!("Leoflow was {event} meanwhile, and with it the datastore that this command used"))
            .cause(error.in_one_line())
            .hint("rerun the same command")
    }

    /// Returns the access; if no instance runs, also the private server and the home's lock.
    pub fn into_parts(self) -> (Access, Option<(PrivateServer, HomeLock)>) {
        (self.access, self.server.zip(self.lock))
    }

    /// Connects as the application's role. Creates the role and the database if they are missing.
    pub async fn connect(&self) -> Result<Client, Error> {
        let client = provision::connect_in(&self.home, &self.access.endpoint, &self.access.credentials).await?;
        claims::require(&self.home, &client).await?;
        Ok(client)
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
pub fn check(home: &Home) -> Result<(), Error> {
    match cluster::state(home) {
        ClusterState::Ready => Ok(()),
        ClusterState::Absent => Err(not_set_up()),
        ClusterState::OtherMajor(major) => Err(Error::refused(format!("the datastore belongs to PostgreSQL {major}"))
            .hint("run the leoflow release that created it")),
        ClusterState::NotACluster(reason) => Err(Error::incomplete_cluster(format!("managed-postgres/data: {reason}"))),
    }
}

/// The error of every command that needs a home.
pub(crate) fn not_set_up() -> Error {
    Error::failed("Leoflow is not set up in this home").hint("leoflow setup")
}
