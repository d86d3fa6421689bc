//! Room for connections: who has sent a whole request is served; of those who have not, the oldest makes room when
//! there is none.

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// One connection's place.
#[derive(Default)]
pub struct Slot {
    /// From the end of a request to the end of its answer.
    working: AtomicBool,
    close: Notify,
}

impl Slot {
    pub fn set_working(&self, working: bool) {
        self.working.store(working, Ordering::Relaxed);
    }

    /// Completes when another needs the room more.
    pub async fn closed(&self) {
        self.close.notified().await;
    }
}

/// All places of one listener.
pub struct Slots {
    most: usize,
    room: Arc<Semaphore>,
    taken: Mutex<VecDeque<std::sync::Weak<Slot>>>,
}

impl Slots {
    pub fn new(most: usize) -> Self {
        Self { most, room: Arc::new(Semaphore::new(most)), taken: Mutex::default() }
    }

    /// A place for the next connection.
    pub async fn next(&self) -> (Arc<Slot>, Option<OwnedSemaphorePermit>) {
        let permit = match self.room.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                self.close_one();
                self.room.clone().acquire_owned().await.ok()
            }
        };
        let slot = Arc::new(Slot::default());
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() > 2 * self.most {
            // Those that have left.
            taken.retain(|slot| slot.strong_count() > 0);
        }
        taken.push_back(Arc::downgrade(&slot));
        drop(taken);
        (slot, permit)
    }

    /// The oldest that has not sent a whole request.
    fn close_one(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|slot| slot.strong_count() > 0);
        let is_idle = |slot: &Arc<Slot>| !slot.working.load(Ordering::Relaxed);
        let at = taken.iter().position(|slot| slot.upgrade().is_some_and(|slot| is_idle(&slot)));
        if let Some(slot) = at.and_then(|at| taken.remove(at)).and_then(|slot| slot.upgrade()) {
            slot.close.notify_one();
        }
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
