//! Whether this process is on trial or serves the public, since when it runs, and whether its scheduler is alive.

use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::sys::clock;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::watch;

pub struct Phase {
    pub started_at: Timestamp,
    pub port: u16,
    /// True once this server serves the public listeners. A server on trial, as during an upgrade, serves only a
    /// private socket.
    pub is_public: watch::Sender<bool>,
    /// The socket of a server on trial.
    pub private_socket: Option<PathBuf>,
    /// When the scheduler was last active, or saw that another server leads.
    pub scheduler_beat: SchedulerBeat,
}

impl Phase {
    pub fn new(port: u16, private_socket: Option<PathBuf>) -> Self {
        Self {
            started_at: Timestamp::now(),
            port,
            is_public: watch::Sender::new(private_socket.is_none()),
            private_socket,
            scheduler_beat: SchedulerBeat::default(),
        }
    }

    /// Returns the socket at which processes started by this server can reach it now.
    pub fn own_socket(&self, home: &Home) -> PathBuf {
        match &self.private_socket {
            Some(private) if !*self.is_public.borrow() => private.clone(),
            _ => home.api_socket(),
        }
    }
}

/// Time of the scheduler's last heartbeat, in seconds since the Unix epoch; 0 before the first one.
#[derive(Default)]
pub struct SchedulerBeat(AtomicI64);

impl SchedulerBeat {
    /// Seconds without a heartbeat after which the scheduler counts as dead. An idle one wakes at least once a minute.
    const SILENCE_LIMIT: i64 = 90;

    pub fn beat(&self) {
        self.0.store(clock::unix_seconds(), Ordering::Relaxed);
    }

    pub fn last(&self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_second(self.0.load(Ordering::Relaxed)).ok().filter(|time| time.as_second() > 0)
    }

    pub fn is_alive(&self) -> bool {
        clock::unix_seconds() - self.0.load(Ordering::Relaxed) < Self::SILENCE_LIMIT
    }
}
