//! Login attempts, queued per source. Each source, such as a user of this machine, has its own queue, so that a source
//! that keeps sending wrong passwords delays only itself. Attempts over the user's own socket are not throttled.

use crate::http::caller::Caller;
use leoflow_base::auth::throttle::Throttle;
use leoflow_base::sys::blocking;
use leoflow_base::sys::net::ports;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The endpoints of a TCP connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub client: SocketAddr,
    /// The local endpoint.
    pub server: SocketAddr,
}

/// The source of a login attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Over `run/api.sock`.
    Own,
    Uid(u32),
    /// Another machine, when `host` allows it.
    Address(IpAddr),
    Unknown,
}

impl Source {
    /// Finds out who sent an attempt: by the uid that owns the client's end of the connection, or else by its address.
    pub async fn identify(caller: Caller, peer: Option<Peer>) -> Self {
        if caller == Caller::LocalAdmin {
            return Self::Own;
        }
        let Some(Peer { client, server }) = peer else { return Self::Unknown };
        let fallback = if client.ip().is_loopback() { Self::Unknown } else { Self::Address(client.ip()) };
        let uid = blocking::run(move || ports::uid_of_client(client, server)).await;
        uid.ok().flatten().map_or(fallback, Self::Uid)
    }
}

/// Queued attempts per source; further attempts are refused after `REFUSAL_DELAY`, and may be repeated.
const QUEUE_CAPACITY: usize = 16;
const REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// Longest wait in the queue.
const TURN_TIMEOUT: Duration = Duration::from_secs(20);

/// Most queues kept in memory.
const MAX_QUEUES: usize = 1024;

/// The attempts of one source.
struct LoginQueue {
    /// Limits how many attempts are queued.
    capacity: Arc<Semaphore>,
    /// Lets one attempt at a time be checked.
    turn: Arc<Semaphore>,
    throttle: Mutex<Throttle>,
}

pub struct Logins {
    queues: Mutex<HashMap<Source, Arc<LoginQueue>>>,
    /// One password at a time, since hashing uses memory and a core by design.
    hashing: Arc<Semaphore>,
}

/// Permission to check one password, while held.
pub struct Turn {
    queue: Option<Arc<LoginQueue>>,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Turn {
    pub fn failed(&self) {
        if let Some(queue) = &self.queue {
            lock_mutex(&queue.throttle).failed(Instant::now());
        }
    }

    pub fn succeeded(&self) {
        if let Some(queue) = &self.queue {
            lock_mutex(&queue.throttle).succeeded();
        }
    }
}

fn lock_mutex<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logins {
    pub fn new() -> Self {
        Self { queues: Mutex::default(), hashing: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until an attempt of this source may be checked; `None` when too many are queued, or after `TURN_TIMEOUT`.
    pub async fn turn(&self, source: Source) -> Option<Turn> {
        if source == Source::Own {
            let hashing = self.hashing.clone().acquire_owned().await.ok()?;
            return Some(Turn { queue: None, _permits: vec![hashing] });
        }
        let queue = {
            let mut queues = lock_mutex(&self.queues);
            if queues.len() >= MAX_QUEUES {
                // Drops empty queues.
                queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            }
            queues.entry(source).or_insert_with(LoginQueue::new).clone()
        };
        let Ok(capacity) = queue.capacity.clone().try_acquire_owned() else {
            // If refused at once, a client in a tight loop would always be first again.
            tokio::time::sleep(REFUSAL_DELAY).await;
            return None;
        };
        let turn = tokio::time::timeout(TURN_TIMEOUT, queue.turn.clone().acquire_owned()).await.ok()?.ok()?;
        let pause = lock_mutex(&queue.throttle).pause(Instant::now());
        tokio::time::sleep(pause).await;
        let hashing = self.hashing.clone().acquire_owned().await.ok()?;
        Some(Turn { queue: Some(queue), _permits: vec![capacity, turn, hashing] })
    }
}

impl LoginQueue {
    fn new() -> Arc<Self> {
        let (capacity, turn) = (Arc::new(Semaphore::new(QUEUE_CAPACITY)), Arc::new(Semaphore::new(1)));
        Arc::new(Self { capacity, turn, throttle: Mutex::default() })
    }
}
