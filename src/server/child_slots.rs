//! How many children with users' code run at once.

use std::time::Duration;
use tokio::sync::Semaphore;

/// As many as the smallest laptops have cores.
const AT_ONCE: usize = 2;
/// One that takes longer makes room for the others.
const SLOW: Duration = Duration::from_secs(1);
/// So many slow ones go on beside them.
const SLOW_AT_ONCE: usize = 12;

pub struct ChildSlots {
    quick: Semaphore,
    slow: Semaphore,
}

impl ChildSlots {
    pub fn new() -> Self {
        Self { quick: Semaphore::new(AT_ONCE), slow: Semaphore::new(SLOW_AT_ONCE) }
    }

    /// Does it when there is a slot free, and gives that up when it takes long.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        // They are never closed.
        let slot = self.quick.acquire().await;
        let mut work = std::pin::pin!(work);
        if let Ok(done) = tokio::time::timeout(SLOW, work.as_mut()).await {
            return done;
        }
        tokio::select! {
            // It may be done before there is room beside the others.
            done = work.as_mut() => done,
            _slow = self.slow.acquire() => {
                drop(slot);
                work.await
            }
        }
    }
}
