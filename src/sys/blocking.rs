//! Work that blocks, off the event loop, also while the system refuses new threads.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};

/// Between attempts to get a thread.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs `work` on a thread of the runtime. Where the runtime has no thread and the system refuses one (EAGAIN: a limit
/// of processes), `tokio::task::spawn_blocking` panics; this waits for a thread instead.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let work = Arc::new(Mutex::new(Some(work)));
    loop {
        let taken = work.clone();
        // What could not be started stays in the runtime's queue: whichever copy runs first takes the work.
        let started = catch_unwind(AssertUnwindSafe(|| {
            tokio::task::spawn_blocking(move || {
                let work = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
                work.map(|work| work())
            })
        }));
        let Ok(handle) = started else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if let Some(done) = handle.await? {
            return Ok(done);
        }
    }
}

/// Begins `work` as [`run`] does, and goes on meanwhile. A panic of `work` is one of who waits for it.
pub fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(async {
        match run(work).await {
            Ok(done) => done,
            Err(error) => resume_unwind(error.into_panic()),
        }
    })
}

/// A thread of its own for `work`. Where the system refuses one, this waits for it; `std::thread::spawn` panics then. It
/// blocks meanwhile, so only threads that may block call it.
pub fn thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread_by(work, |work| Builder::new().spawn(work))
}

type Work<T> = Box<dyn FnOnce() -> T + Send>;

fn thread_by<T: 'static, H>(work: impl FnOnce() -> T + Send + 'static, spawn: impl Fn(Work<T>) -> io::Result<H>) -> H {
    // A refused spawn drops its closure: the work outlives it here.
    let work = Arc::new(Mutex::new(Some(work)));
    loop {
        let taken = work.clone();
        let started = spawn(Box::new(move || {
            let work = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            work.expect("one thread starts, and takes the work once")()
        }));
        match started {
            Ok(handle) => return handle,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_refused_thread_is_asked_for_again() {
        let (refusals, (sender, done)) = (Cell::new(2_u32), std::sync::mpsc::channel());
        let thread = thread_by(
            move || sender.send(7).unwrap(),
            |work| match refusals.replace(refusals.get().saturating_sub(1)) {
                0 => Builder::new().spawn(work),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            },
        );
        assert_eq!(done.recv().unwrap(), 7);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn blocking_work_gives_its_result() {
        assert_eq!(run(|| 7).await.unwrap(), 7);
    }
}
