//! Slots for connections. A connection that has sent a whole request keeps its slot until the response is sent, unless
//! its client stops reading. When no slot is free, the oldest of the other connections are closed.

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use leoflow_base::sys::mutex::lock;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The slot of one connection.
#[derive(Default)]
pub struct Slot {
    /// Set from the head of a request to the end of its response.
    requested: AtomicBool,
    /// Set from the end of a request to the end of its response.
    working: AtomicBool,
    /// Since when part of a response is unsent because the client does not read.
    unsent: Mutex<Option<Instant>>,
    close: Notify,
}

/// The progress of a connection's current request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No whole request has arrived since the last response.
    Receiving,
    /// From the end of a request to the end of its response.
    Working,
}

impl Slot {
    /// Records that the head of a request has arrived.
    pub fn set_requested(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }

    /// True while a request is received or answered.
    pub fn has_request(&self) -> bool {
        self.requested.load(Ordering::Relaxed) || self.unsent().is_some()
    }

    pub fn set_progress(&self, progress: Progress) {
        self.working.store(progress == Progress::Working, Ordering::Relaxed);
    }

    /// True when the server neither processes a request nor sends a response.
    pub fn is_idle(&self) -> bool {
        !self.working.load(Ordering::Relaxed) && self.unsent().is_none()
    }

    /// True when the client has not read its response for longer than `limit`.
    pub fn is_stalled(&self, limit: Duration) -> bool {
        self.unsent().is_some_and(|since| since.elapsed() > limit)
    }

    fn unsent(&self) -> Option<Instant> {
        *lock(&self.unsent)
    }

    /// Records whether the last write is still pending.
    fn set_write_pending(&self, is_pending: bool) {
        let mut unsent = lock(&self.unsent);
        *unsent = is_pending.then(|| unsent.unwrap_or_else(Instant::now));
    }

    /// Asks the connection to close and free its slot.
    pub fn ask_to_close(&self) {
        self.close.notify_one();
    }

    /// Completes when the slot is needed for another connection.
    pub async fn close_requested(&self) {
        self.close.notified().await;
    }
}

/// All slots of one listener.
pub struct Slots {
    /// Number of slots.
    max: usize,
    /// How long a client may leave its response unread while other clients wait.
    send_limit: Duration,
    permits: Arc<Semaphore>,
    /// The slots in use, oldest first; those of closed connections are removed later.
    taken: Mutex<VecDeque<std::sync::Weak<Slot>>>,
    /// True after a connection was refused because no slot became free: the next ones are refused without waiting.
    is_full: AtomicBool,
    /// True while a connection waits for a slot.
    is_contended: Arc<AtomicBool>,
}

/// How long one round of waiting for a free slot takes. After `ROUNDS` of them idle connections are closed. Meanwhile
/// pending input is read: a complete but unread request in the socket must not count as missing.
const ROUND_DURATION: Duration = Duration::from_millis(10);
const ROUNDS: u32 = 3;
/// A round that takes longer means that the whole process was paused and read nothing, so it does not count.
const PROCESS_PAUSE: Duration = Duration::from_millis(200);
/// Attempts to free a slot before the next connection is refused.
const MAX_ATTEMPTS: u32 = 50;

impl Slots {
    pub fn new(max: usize, send_limit: Duration) -> Self {
        Self {
            max,
            send_limit,
            permits: Arc::new(Semaphore::new(max)),
            taken: Mutex::default(),
            is_full: AtomicBool::new(false),
            is_contended: Arc::default(),
        }
    }

    /// Waits for a slot for the next connection; `None` when all slots have been busy for too long.
    pub async fn next(&self) -> Option<(Arc<Slot>, OwnedSemaphorePermit)> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if self.is_full.load(Ordering::Relaxed) => {
                // Some connections may be idle by now.
                self.close_idle();
                return None;
            }
            Err(_) => {
                self.is_contended.store(true, Ordering::Relaxed);
                let permit = self.wait_for_permit().await;
                self.is_contended.store(false, Ordering::Relaxed);
                self.is_full.store(permit.is_none(), Ordering::Relaxed);
                permit?
            }
        };
        self.is_full.store(false, Ordering::Relaxed);
        let slot = Arc::new(Slot::default());
        let mut taken = lock(&self.taken);
        if taken.len() > 2 * self.max {
            // Drops closed connections.
            taken.retain(|slot| slot.strong_count() > 0);
        }
        taken.push_back(Arc::downgrade(&slot));
        Some((slot, permit))
    }

    /// Returns the flag that is true while a connection waits for a slot: then each response closes its connection.
    pub fn contention_flag(&self) -> Arc<AtomicBool> {
        self.is_contended.clone()
    }

    async fn wait_for_permit(&self) -> Option<OwnedSemaphorePermit> {
        for _ in 0..MAX_ATTEMPTS {
            let mut rounds = 0;
            while rounds < ROUNDS {
                let round_started = Instant::now();
                if let Ok(permit) = tokio::time::timeout(ROUND_DURATION, self.permits.clone().acquire_owned()).await {
                    return permit.ok();
                }
                rounds = if round_started.elapsed() < PROCESS_PAUSE { rounds + 1 } else { 0 };
            }
            self.close_idle();
        }
        None
    }

    /// Asks connections to close, for up to a quarter of the slots: the oldest that have no whole request or whose
    /// client does not read. Each connection checks its state again before it closes, because a request may have
    /// arrived meanwhile.
    fn close_idle(&self) {
        let mut taken = lock(&self.taken);
        let mut remaining = self.max.div_ceil(4);
        taken.retain(|slot| match slot.upgrade() {
            Some(slot) if remaining > 0 && (slot.is_idle() || slot.is_stalled(self.send_limit)) => {
                slot.ask_to_close();
                remaining -= 1;
                true
            }
            Some(_) => true,
            None => false,
        });
    }
}

/// A connection's stream; records in the slot since when a write is pending.
pub struct TrackedStream<S> {
    pub stream: S,
    pub slot: Arc<Slot>,
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.slot.set_write_pending(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.slot.set_write_pending(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A request body; records its end.
pub struct TrackedRequestBody {
    pub body: Incoming,
    pub slot: Arc<Slot>,
}

impl Body for TrackedRequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.slot.set_progress(Progress::Working);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body; its end or drop marks the slot idle.
pub struct TrackedResponseBody<B> {
    pub body: B,
    pub slot: Arc<Slot>,
}

impl<B> Drop for TrackedResponseBody<B> {
    fn drop(&mut self) {
        self.slot.set_progress(Progress::Receiving);
        self.slot.requested.store(false, Ordering::Relaxed);
    }
}

impl<B: Body + Unpin> Body for TrackedResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_is_evicted() {
        let slots = Slots::new(1, Duration::ZERO);
        let (slot, permit) = slots.next().await.unwrap();
        slot.set_progress(Progress::Working);
        slot.set_write_pending(true);
        slot.set_write_pending(true);
        let stalled = tokio::spawn(async move {
            slot.close_requested().await;
            assert!(slot.is_stalled(Duration::ZERO));
            drop(permit);
        });
        assert!(slots.next().await.is_some());
        stalled.await.unwrap();
    }

    #[test]
    fn a_client_that_reads_again_is_not_stalled() {
        let slot = Slot::default();
        slot.set_write_pending(true);
        assert!(!slot.is_idle() && slot.has_request());
        slot.set_write_pending(false);
        assert!(slot.is_idle() && !slot.is_stalled(Duration::ZERO));
    }
}
