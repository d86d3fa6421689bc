//! Room for connections: those that have sent a whole request are served; of the others the oldest make room when there
//! is none.

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// One connection's place.
#[derive(Default)]
pub struct Slot {
    /// From the head of a request to the end of its answer.
    requested: AtomicBool,
    /// From the end of a request to the end of its answer.
    working: AtomicBool,
    /// Since when part of an answer is not sent, because the client does not read.
    unsent: Mutex<Option<Instant>>,
    close: Notify,
}

impl Slot {
    /// Notes that the head of a request has arrived.
    pub fn set_requested(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }

    /// True while a request is received or answered.
    pub fn has_request(&self) -> bool {
        self.requested.load(Ordering::Relaxed) || self.unsent().is_some()
    }

    pub fn set_working(&self, working: bool) {
        self.working.store(working, Ordering::Relaxed);
    }

    /// Neither at work nor sending.
    pub fn is_idle(&self) -> bool {
        !self.working.load(Ordering::Relaxed) && self.unsent().is_none()
    }

    /// True where the client has not read its answer for longer than `limit`.
    pub fn is_stalled(&self, limit: Duration) -> bool {
        self.unsent().is_some_and(|since| since.elapsed() > limit)
    }

    fn unsent(&self) -> Option<Instant> {
        *self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether the last write was taken in part or whole.
    fn note_write(&self, is_pending: bool) {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        *unsent = is_pending.then(|| unsent.unwrap_or_else(Instant::now));
    }

    /// Asks the connection to make room for another.
    pub fn ask_to_close(&self) {
        self.close.notify_one();
    }

    /// Completes when another needs the room more.
    pub async fn closed(&self) {
        self.close.notified().await;
    }
}

/// All places of one listener.
pub struct Slots {
    most: usize,
    /// How long a client may leave its answer unread while others wait.
    send_limit: Duration,
    room: Arc<Semaphore>,
    taken: Mutex<VecDeque<std::sync::Weak<Slot>>>,
    /// True once a connection has waited in vain: the next ones are refused at once, until a place is free.
    is_full: AtomicBool,
    /// Whether a connection waits for a place.
    is_wanted: Arc<AtomicBool>,
}

/// Between an accept that finds no room and the judgement on who makes room. Meanwhile what has arrived is read: a request
/// that is whole but unread in its socket must not count as missing.
const ROUND: Duration = Duration::from_millis(10);
const ROUNDS: u32 = 3;
/// A round that takes longer has been a pause of the whole process; then nothing was read in it.
const PAUSED: Duration = Duration::from_millis(200);
/// How many judgements without room: then the next connection is refused.
const JUDGEMENTS: u32 = 50;

impl Slots {
    pub fn new(most: usize, send_limit: Duration) -> Self {
        Self {
            most,
            send_limit,
            room: Arc::new(Semaphore::new(most)),
            taken: Mutex::default(),
            is_full: AtomicBool::new(false),
            is_wanted: Arc::default(),
        }
    }

    /// A place for the next connection; `None` where all have been at work for too long.
    pub async fn next(&self) -> Option<(Arc<Slot>, OwnedSemaphorePermit)> {
        let permit = match self.room.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if self.is_full.load(Ordering::Relaxed) => {
                // Some may be idle by now.
                self.close_idle();
                return None;
            }
            Err(_) => {
                self.is_wanted.store(true, Ordering::Relaxed);
                let found = self.wait_for_room().await;
                self.is_wanted.store(false, Ordering::Relaxed);
                self.is_full.store(found.is_none(), Ordering::Relaxed);
                found?
            }
        };
        self.is_full.store(false, Ordering::Relaxed);
        let slot = Arc::new(Slot::default());
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() > 2 * self.most {
            // Those that have left.
            taken.retain(|slot| slot.strong_count() > 0);
        }
        taken.push_back(Arc::downgrade(&slot));
        Some((slot, permit))
    }

    /// True while a connection waits for a place: then an answer ends its connection.
    pub fn wanted(&self) -> Arc<AtomicBool> {
        self.is_wanted.clone()
    }

    async fn wait_for_room(&self) -> Option<OwnedSemaphorePermit> {
        for _ in 0..JUDGEMENTS {
            let mut rounds = 0;
            while rounds < ROUNDS {
                let begun = Instant::now();
                if let Ok(permit) = tokio::time::timeout(ROUND, self.room.clone().acquire_owned()).await {
                    return permit.ok();
                }
                rounds = if begun.elapsed() < PAUSED { rounds + 1 } else { 0 };
            }
            self.close_idle();
        }
        None
    }

    /// Closes a quarter of all: the oldest that have not sent a whole request, or do not read their answer. Each looks again
    /// at itself before it closes, because a request may have come meanwhile.
    fn close_idle(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.most.div_ceil(4);
        taken.retain(|slot| match slot.upgrade() {
            Some(slot) if left > 0 && (slot.is_idle() || slot.is_stalled(self.send_limit)) => {
                slot.ask_to_close();
                left -= 1;
                true
            }
            Some(_) => true,
            None => false,
        });
    }
}

/// A connection's stream, which notes whether the client takes what is sent.
pub struct Sending<S> {
    pub stream: S,
    pub slot: Arc<Slot>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Sending<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sending<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.slot.note_write(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.slot.note_write(written.is_pending());
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

/// A request's body, which notes its end.
pub struct Watched {
    pub body: Incoming,
    pub slot: Arc<Slot>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.slot.set_working(true);
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

/// An answer's body; its end, or its being dropped, ends the work.
pub struct Answer<B> {
    pub body: B,
    pub slot: Arc<Slot>,
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.slot.set_working(false);
        self.slot.requested.store(false, Ordering::Relaxed);
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
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
    async fn a_client_that_does_not_read_makes_room() {
        let slots = Slots::new(1, Duration::ZERO);
        let (slot, permit) = slots.next().await.unwrap();
        slot.set_working(true);
        slot.note_write(true);
        slot.note_write(true);
        let stalled = tokio::spawn(async move {
            slot.closed().await;
            assert!(slot.is_stalled(Duration::ZERO));
            drop(permit);
        });
        assert!(slots.next().await.is_some());
        stalled.await.unwrap();
    }

    #[test]
    fn a_client_that_reads_again_is_not_stalled() {
        let slot = Slot::default();
        slot.note_write(true);
        assert!(!slot.is_idle() && slot.has_request());
        slot.note_write(false);
        assert!(slot.is_idle() && !slot.is_stalled(Duration::ZERO));
    }
}
