//! The child's side of the process protocol: inherited listeners, readiness notifications, and the lifeline pipe that
//! closes when the supervisor is gone.

use crate::sys::env_vars;
use crate::sys::net::sd_notify::NotifySender;
use crate::sys::process::{ENDS_WITH, descriptors, memory};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// Name of the lifeline among the passed descriptors.
pub const LIFELINE: &str = "lifeline";
/// Notification key: the failure that ends the process, as JSON for the supervisor to show. An extension of sd_notify.
pub const FAILURE_KEY: &str = "X_LEOFLOW_FAILURE";
/// Notification key: the database's schema version, from the process that checked it.
pub const SCHEMA_KEY: &str = "X_LEOFLOW_SCHEMA";

/// Notification key: why this running process cannot do its work for now; empty once it can again.
pub const HINDERED_KEY: &str = "X_LEOFLOW_HINDERED";

/// Descriptors and the notification socket inherited from the supervisor.
pub struct Inheritance {
    pub listeners: Vec<(String, OwnedFd)>,
    lifeline: Option<OwnedFd>,
    notify: Notifier,
}

/// Why a process should exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// By TERM.
    Requested,
    SupervisorGone,
}

/// Sends sd_notify(3) messages to the parent; does nothing without `NOTIFY_SOCKET`.
#[derive(Clone)]
pub struct Notifier(Option<Arc<NotifySender>>);

impl Inheritance {
    /// Takes over the descriptors and the socket that `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID` and `NOTIFY_SOCKET`
    /// describe; no descriptors when `LISTEN_PID` names another process. Call it once, before opening any file.
    pub fn take() -> io::Result<Self> {
        let is_for_this_process = env_vars::text("LISTEN_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let count = env_vars::text("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
        let names = env_vars::text("LISTEN_FDNAMES").unwrap_or_default();
        let passed = if is_for_this_process { descriptors::take_passed(count, &names)? } else { Vec::new() };
        let (mut lifelines, listeners): (Vec<_>, Vec<_>) = passed.into_iter().partition(|(name, _)| name == LIFELINE);
        Ok(Self {
            listeners,
            lifeline: lifelines.pop().map(|(_, descriptor)| descriptor),
            notify: Notifier::from_environment(),
        })
    }

    pub fn notifier(&self) -> Notifier {
        self.notify.clone()
    }

    /// Removes and returns the listener with this name.
    pub fn listener(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.listeners.iter().position(|(listener_name, _)| listener_name == name)?;
        Some(self.listeners.swap_remove(index).1)
    }

    /// Completes when this process should exit. Ignores interrupts, which the supervisor handles. Must be called inside a
    /// runtime.
    pub fn until_shutdown(&mut self) -> io::Result<impl Future<Output = Shutdown> + use<>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // The supervisor has made the pipe non-blocking, which applies to all processes that share it.
        let lifeline = self.lifeline.take().map(pipe::Receiver::from_owned_fd).transpose()?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => Shutdown::Requested,
                () = lifeline_closed(lifeline) => Shutdown::SupervisorGone,
                () = async { while interrupt.recv().await.is_some() {} } => Shutdown::Requested,
            }
        })
    }
}

/// Completes when the other end of the lifeline is closed; never without a lifeline.
async fn lifeline_closed(lifeline: Option<pipe::Receiver>) {
    use tokio::io::AsyncReadExt;
    match lifeline {
        Some(mut reader) => {
            let mut buffer = [0; 64];
            while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
        }
        None => std::future::pending().await,
    }
}

impl Notifier {
    pub fn from_environment() -> Self {
        Self(env_vars::text("NOTIFY_SOCKET").and_then(|address| NotifySender::new(address).ok()).map(Arc::new))
    }

    /// A notifier that sends nothing.
    pub fn silent() -> Self {
        Self(None)
    }

    /// Reports why this process cannot do its work for now; `None` once it can again.
    pub fn hindered(&self, reason: Option<&str>) {
        // A newline would end the field.
        let reason = reason.unwrap_or_default().replace('\n', " ");
        self.send(&format!("{HINDERED_KEY}={reason}"));
    }

    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Sends a heartbeat: a process that stops sending them counts as frozen.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Reports the database's schema version.
    pub fn schema(&self, version: i64) {
        self.send(&format!("{SCHEMA_KEY}={version}"));
    }

    /// Reports why this process is about to exit, as one line of JSON.
    pub fn failure(&self, json: &str) {
        self.send(&format!("{FAILURE_KEY}={json}"));
    }

    fn send(&self, text: &str) {
        if let Some(sender) = &self.0 {
            // A failed send is ignored: the exit code still reports a failure.
            let _ = sender.send(text);
        }
    }
}

/// A child without a heartbeat for this long counts as frozen.
pub fn silence_limit() -> Duration {
    crate::sys::limit("LEOFLOW_SILENCE_LIMIT", Duration::from_secs(20))
}

/// How often a child sends a heartbeat.
pub fn watchdog_interval() -> Duration {
    silence_limit() / 4
}

/// Sends heartbeats for as long as the runtime makes progress.
pub async fn send_heartbeats(notifier: Notifier) {
    let mut interval = tokio::time::interval(watchdog_interval());
    for round in 0_u64.. {
        interval.tick().await;
        notifier.alive();
        // By now the startup is over, and so is the warm-up of Python; the memory that they used can be returned.
        if round == 3 {
            memory::release_memory();
        }
    }
}

/// Set in a service manager's unit file: the process has no terminal, and the service manager starts and stops it.
pub const SERVICE: &str = "LEOFLOW_SERVICE";

/// The value of [`SERVICE`] when launchd is the manager: it restarts a process after every exit code but 0.
pub const SERVICE_OF_LAUNCHD: &str = "launchd";

/// Where a release comes from, passed to a subprocess by environment: the address may contain a password, and every
/// user of the machine can read arguments.
pub const RELEASE_SOURCE: &str = "LEOFLOW_RELEASE_SOURCE";

/// The version of the program that has handed an upgrade over to this one.
pub const HANDED_OVER: &str = "LEOFLOW_HANDED_OVER";

/// Set for the restore that a rollback runs with the older release: the rollback decides which processes run
/// afterwards.
pub const RESTORE_OF_ROLLBACK: &str = "LEOFLOW_RESTORE_OF_ROLLBACK";

/// The environment for children: the user's own, because tasks run in it, without variables that configure Postgres or
/// the protocol.
pub fn environment() -> Vec<(OsString, OsString)> {
    let is_passed = |name: &str| {
        let is_protocol = [
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
            "LEOFLOW_HOME",
            "LEOFLOW_INSTANCE",
            RELEASE_SOURCE,
            HANDED_OVER,
            RESTORE_OF_ROLLBACK,
            SERVICE,
            ENDS_WITH,
        ]
        .contains(&name);
        !(is_protocol || name.starts_with("PG") || name.starts_with("LISTEN_"))
    };
    env_vars::all().into_iter().filter(|(name, _)| is_passed(&name.to_string_lossy())).collect()
}
