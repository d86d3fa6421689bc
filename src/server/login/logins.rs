//! Login attempts, queued per source. Each source, such as a user of this machine, has its own queue, so that a source
//! that keeps sending wrong passwords delays only itself. Attempts over the user's own socket are not throttled.

use crate::http::caller::{Caller, Peer};
use leoflow_base::auth::throttle::{Origin, Slowdown, Throttle};
use leoflow_base::sys::mutex::lock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The source of a login attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Over `run/api.sock`.
    Own,
    Uid(u32),
    /// Another machine, if the setting `host` allows it; or this machine at another address than loopback, if the uid
    /// is unknown.
    Address(IpAddr),
    /// All further addresses when `MAX_QUEUES` sources are remembered.
    OtherAddresses,
    Unknown,
}

impl Source {
    fn origin(self) -> Origin {
        match self {
            Self::Address(_) | Self::OtherAddresses => Origin::Network,
            Self::Own | Self::Uid(_) | Self::Unknown => Origin::ThisMachine,
        }
    }

    /// Finds out who sent an attempt: by the uid that owns the client's end of the connection, or else by its address.
    pub async fn identify(caller: Caller, peer: Option<&Peer>) -> Self {
        if caller == Caller::LocalAdmin {
            return Self::Own;
        }
        let Some(peer) = peer else { return Self::Unknown };
        let ip = peer.client.ip();
        let fallback = if ip.is_loopback() { Self::Unknown } else { Self::Address(ip) };
        peer.uid().await.map_or(fallback, Self::Uid)
    }
}

/// Queued attempts per source; further attempts are refused after `REFUSAL_DELAY`, and may be repeated.
const QUEUE_CAPACITY: usize = 16;
const REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// Delay after which a client whose attempt was refused may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Longest wait in the queue.
const TURN_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum number of queues kept in memory; further addresses share one.
const MAX_QUEUES: usize = 4096;

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
    /// The hash that the recorded failures did not match; empty before the first attempt.
    password_hash: Mutex<String>,
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
            lock(&queue.throttle).failed(Instant::now());
        }
    }

    pub fn succeeded(&self) {
        if let Some(queue) = &self.queue {
            lock(&queue.throttle).succeeded();
        }
    }
}

impl Logins {
    pub fn new() -> Self {
        Self { queues: Mutex::default(), password_hash: Mutex::default(), hashing: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until an attempt of this source may be checked. `Err` says when to try again: too many attempts are
    /// queued, this one has waited for `TURN_TIMEOUT`, or the source has sent too many wrong passwords for the present
    /// `password_hash`.
    pub async fn turn(&self, source: Source, password_hash: &str) -> Result<Turn, Duration> {
        self.forget_failures_with_other(password_hash);
        if source == Source::Own {
            let hashing = self.hashing.clone().acquire_owned().await.map_err(|_| RETRY_AFTER)?;
            return Ok(Turn { queue: None, _permits: vec![hashing] });
        }
        let queue = self.queue_of(source);
        let Ok(capacity) = queue.capacity.clone().try_acquire_owned() else {
            // After an immediate refusal, a client in a tight loop would always be first again.
            tokio::time::sleep(REFUSAL_DELAY).await;
            return Err(RETRY_AFTER);
        };
        let turn = tokio::time::timeout(TURN_TIMEOUT, queue.turn.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| RETRY_AFTER)?.map_err(|_| RETRY_AFTER)?;
        let slowdown = lock(&queue.throttle).slowdown(Instant::now(), source.origin());
        match slowdown {
            Slowdown::Delay(pause) => tokio::time::sleep(pause).await,
            Slowdown::Refuse(pause) => return Err(pause),
        }
        let hashing = self.hashing.clone().acquire_owned().await.map_err(|_| RETRY_AFTER)?;
        Ok(Turn { queue: Some(queue), _permits: vec![capacity, turn, hashing] })
    }

    /// Forgets the failures of all sources once the password has changed, so that the new one is accepted at once.
    fn forget_failures_with_other(&self, password_hash: &str) {
        let mut recorded = lock(&self.password_hash);
        if *recorded != password_hash {
            password_hash.clone_into(&mut recorded);
            lock(&self.queues).values().for_each(|queue| lock(&queue.throttle).succeeded());
        }
    }

    fn queue_of(&self, source: Source) -> Arc<LoginQueue> {
        let mut queues = lock(&self.queues);
        if queues.len() >= MAX_QUEUES && !queues.contains_key(&source) {
            let now = Instant::now();
            // A source with recent failures is remembered, however many others there are.
            queues.retain(|_, queue| Arc::strong_count(queue) > 1 || !lock(&queue.throttle).is_forgotten(now));
        }
        let is_full = queues.len() >= MAX_QUEUES && !queues.contains_key(&source);
        let source = match source {
            Source::Address(_) if is_full => Source::OtherAddresses,
            source => source,
        };
        queues.entry(source).or_insert_with(LoginQueue::new).clone()
    }
}

impl LoginQueue {
    fn new() -> Arc<Self> {
        let (capacity, turn) = (Arc::new(Semaphore::new(QUEUE_CAPACITY)), Arc::new(Semaphore::new(1)));
        Arc::new(Self { capacity, turn, throttle: Mutex::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attempts_over_the_own_socket_are_never_delayed() {
        let logins = Logins::new();
        for _ in 0..8 {
            logins.turn(Source::Own, "").await.unwrap().failed();
            lock(&logins.queue_of(Source::Unknown).throttle).failed(Instant::now());
        }
        let is_immediate =
            async |source: Source| tokio::time::timeout(Duration::ZERO, logins.turn(source, "")).await.is_ok();
        assert_eq!((is_immediate(Source::Unknown).await, is_immediate(Source::Own).await), (false, true));
    }

    #[tokio::test]
    async fn a_password_reset_ends_the_slowdown_of_every_source() {
        let logins = Logins::new();
        let sources = [1, 2].map(|number: u32| Source::Address(IpAddr::from(number.to_be_bytes())));
        for source in sources {
            drop(logins.turn(source, "old").await.unwrap());
            (0..20).for_each(|_| lock(&logins.queue_of(source).throttle).failed(Instant::now()));
            assert!(logins.turn(source, "old").await.is_err(), "slowed down");
        }
        for source in sources {
            assert!(logins.turn(source, "new").await.is_ok());
        }
    }

    #[test]
    fn many_addresses_do_not_make_the_server_forget_one() {
        let logins = Logins::new();
        let address = |number: u32| Source::Address(IpAddr::from(number.to_be_bytes()));
        lock(&logins.queue_of(address(0)).throttle).failed(Instant::now());
        for number in 1..2 * MAX_QUEUES as u32 {
            lock(&logins.queue_of(address(number)).throttle).failed(Instant::now());
        }
        assert!(!lock(&logins.queue_of(address(0)).throttle).is_forgotten(Instant::now()));
        let others = logins.queue_of(address(u32::MAX));
        assert!(Arc::ptr_eq(&others, &logins.queue_of(Source::OtherAddresses)));
        assert!(!Arc::ptr_eq(&others, &logins.queue_of(Source::Uid(1))));
    }
}
