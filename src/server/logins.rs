//! Attempts to log in, in turn. Each source, a user of this machine, waits in a line of its own: whoever keeps
//! sending wrong passwords holds up their own line. The user's own socket never waits.

use super::caller::Caller;
use crate::auth::throttle::Throttle;
use crate::sys::{blocking, ports};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The other end of a connection, where that is TCP.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub client: SocketAddr,
    /// This end.
    pub server: SocketAddr,
}

/// Whose attempt it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Over `run/api.sock`.
    Own,
    Uid(u32),
    /// Of another machine, where `host` lets it in.
    Address(IpAddr),
    Unknown,
}

impl Source {
    pub async fn of(caller: Caller, peer: Option<Peer>) -> Self {
        if caller == Caller::LocalAdmin {
            return Self::Own;
        }
        let Some(Peer { client, server }) = peer else { return Self::Unknown };
        let otherwise = if client.ip().is_loopback() { Self::Unknown } else { Self::Address(client.ip()) };
        let asked = blocking::run(move || ports::uid_of_client(client, server)).await;
        asked.ok().flatten().map_or(otherwise, Self::Uid)
    }
}

/// Attempts of one source that wait; more are held a moment and sent away, and may come again.
const ROOM: usize = 16;
const SENT_AWAY_AFTER: Duration = Duration::from_secs(1);
/// The longest that one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lines that are remembered.
const MOST_LINES: usize = 1024;

struct Line {
    room: Arc<Semaphore>,
    turn: Arc<Semaphore>,
    throttle: Mutex<Throttle>,
}

pub struct Logins {
    lines: Mutex<HashMap<Source, Arc<Line>>>,
    /// One password at a time: hashing takes memory and a core by design.
    hashing: Arc<Semaphore>,
}

/// The right to have one password looked at, for as long as it is held.
pub struct Turn {
    line: Option<Arc<Line>>,
    _held: Vec<OwnedSemaphorePermit>,
}

impl Turn {
    pub fn failed(&self) {
        if let Some(line) = &self.line {
            locked(&line.throttle).failed(Instant::now());
        }
    }

    pub fn succeeded(&self) {
        if let Some(line) = &self.line {
            locked(&line.throttle).succeeded();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logins {
    pub fn new() -> Self {
        Self { lines: Mutex::default(), hashing: Arc::new(Semaphore::new(1)) }
    }

    /// Waits for it; `None` when too many of the same source wait already.
    pub async fn turn(&self, source: Source) -> Option<Turn> {
        if source == Source::Own {
            let hashing = self.hashing.clone().acquire_owned().await.ok()?;
            return Some(Turn { line: None, _held: vec![hashing] });
        }
        let line = {
            let mut lines = locked(&self.lines);
            if lines.len() >= MOST_LINES {
                // Those that nobody stands in.
                lines.retain(|_, line| Arc::strong_count(line) > 1);
            }
            lines.entry(source).or_insert_with(Line::new).clone()
        };
        let Ok(room) = line.room.clone().try_acquire_owned() else {
            // At once, whoever hammers would always be the first to be there again.
            tokio::time::sleep(SENT_AWAY_AFTER).await;
            return None;
        };
        let turn = tokio::time::timeout(PATIENCE, line.turn.clone().acquire_owned()).await.ok()?.ok()?;
        let pause = locked(&line.throttle).pause(Instant::now());
        tokio::time::sleep(pause).await;
        let hashing = self.hashing.clone().acquire_owned().await.ok()?;
        Some(Turn { line: Some(line), _held: vec![room, turn, hashing] })
    }
}

impl Line {
    fn new() -> Arc<Self> {
        let (room, turn) = (Arc::new(Semaphore::new(ROOM)), Arc::new(Semaphore::new(1)));
        Arc::new(Self { room, turn, throttle: Mutex::default() })
    }
}
