//! A child's side: the listeners it was given, the word that it is ready, and the lifeline that
//! tells it that its supervisor is gone.

use crate::sys::notify::NotifySender;
use crate::sys::{env_vars, memory, spawn};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// Name of the lifeline among the passed descriptors.
pub const LIFELINE: &str = "lifeline";
/// A failure that ends the process, as JSON, for the supervisor to show. Ours, beside sd_notify's.
pub const FAILURE_KEY: &str = "X_LEOFLOW_FAILURE";
/// The schema version that the database has, as the process that checked it saw it.
pub const SCHEMA_KEY: &str = "X_LEOFLOW_SCHEMA";

/// Why this process cannot do its work for now, though it runs; empty once it can again.
pub const HINDERED_KEY: &str = "X_LEOFLOW_HINDERED";

/// What the supervisor gave this process.
pub struct Inheritance {
    pub listeners: Vec<(String, OwnedFd)>,
    lifeline: Option<OwnedFd>,
    notify: Notifier,
}

/// Speaks sd_notify(3) to whoever started us; silent when nobody asked for it.
#[derive(Clone)]
pub struct Notifier(Option<Arc<NotifySender>>);

impl Inheritance {
    /// Takes what `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID` and `NOTIFY_SOCKET` describe.
    /// Nothing is taken when `LISTEN_PID` names another process. Call it once, first thing.
    pub fn take() -> io::Result<Self> {
        let ours = env_vars::text("LISTEN_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let count = env_vars::text("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
        let names = env_vars::text("LISTEN_FDNAMES").unwrap_or_default();
        let passed = if ours { spawn::take_passed(count, &names)? } else { Vec::new() };
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

    /// Removes and returns the listener of that name.
    pub fn listener(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.listeners.iter().position(|(found, _)| found == name)?;
        Some(self.listeners.swap_remove(at).1)
    }

    /// Completes when this process should end: TERM, or the supervisor is gone. Interrupts are
    /// ignored, they are the supervisor's to handle. Must be called inside a runtime.
    pub fn until_told_to_leave(&mut self) -> io::Result<impl Future<Output = ()> + use<>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let lifeline = self.lifeline.take().map(lifeline_reader).transpose()?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                () = closed(lifeline) => {}
                () = async { while interrupt.recv().await.is_some() {} } => {}
            }
        })
    }
}

fn lifeline_reader(descriptor: OwnedFd) -> io::Result<pipe::Receiver> {
    // Made non-blocking by the supervisor, for all its children at once.
    pipe::Receiver::from_owned_fd(descriptor)
}

/// Completes when the other end of the lifeline is closed; never without a lifeline.
async fn closed(lifeline: Option<pipe::Receiver>) {
    use tokio::io::AsyncReadExt;
    match lifeline {
        Some(mut reader) => {
            let mut nothing = [0; 64];
            while matches!(reader.read(&mut nothing).await, Ok(1..)) {}
        }
        None => std::future::pending().await,
    }
}

impl Notifier {
    pub fn from_environment() -> Self {
        Self(env_vars::text("NOTIFY_SOCKET").and_then(|address| NotifySender::new(address).ok()).map(Arc::new))
    }

    /// One that sends nothing.
    #[cfg(test)]
    pub fn silent() -> Self {
        Self(None)
    }

    /// Why this process cannot do its work for now; `None` once it can again.
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

    /// "I still run": a process that stops saying so is taken for frozen.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    pub fn schema(&self, version: i64) {
        self.send(&format!("{SCHEMA_KEY}={version}"));
    }

    /// The reason why this process is about to end, as one line of JSON.
    pub fn failure(&self, json: &str) {
        self.send(&format!("{FAILURE_KEY}={json}"));
    }

    fn send(&self, text: &str) {
        if let Some(sender) = &self.0 {
            // Nobody listening is not this process's problem; its exit code tells the rest.
            let _ = sender.send(text);
        }
    }
}

/// A child that says nothing for this long is frozen.
pub fn silence_limit() -> Duration {
    crate::sys::limit("LEOFLOW_SILENCE_LIMIT", Duration::from_secs(20))
}

/// How often a child says that it still runs.
pub fn watchdog_interval() -> Duration {
    silence_limit() / 4
}

/// Says so for as long as the runtime turns.
pub async fn keep_saying_alive(notifier: Notifier) {
    let mut interval = tokio::time::interval(watchdog_interval());
    for round in 0_u64.. {
        interval.tick().await;
        notifier.alive();
        // What a start needs is done, and the warm Python that was made ready for it has gone.
        if round == 3 {
            memory::rest();
        }
    }
}

/// Set by a service manager's file: what runs has no terminal, and is stopped and started by it.
pub const SERVICE: &str = "LEOFLOW_SERVICE";

/// Where a release comes from, for a process that a command hands that on to: an address may hold a password, and every user of
/// the machine can read arguments.
pub const RELEASE_SOURCE: &str = "LEOFLOW_RELEASE_SOURCE";

/// Set for the restore that a rollback has the older release do: it belongs to the rollback, which decides what runs
/// afterwards.
pub const RESTORE_OF_ROLLBACK: &str = "LEOFLOW_RESTORE_OF_ROLLBACK";

/// The user's own, because tasks run in it, less what would steer Postgres or the protocol.
pub fn environment() -> Vec<(OsString, OsString)> {
    let kept = |name: &str| {
        let steers = [
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
            "LEOFLOW_HOME",
            "LEOFLOW_INSTANCE",
            RELEASE_SOURCE,
            RESTORE_OF_ROLLBACK,
            SERVICE,
        ]
        .contains(&name);
        !(steers || name.starts_with("PG") || name.starts_with("LISTEN_"))
    };
    env_vars::all().into_iter().filter(|(name, _)| kept(&name.to_string_lossy())).collect()
}
