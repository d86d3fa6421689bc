//! Runs blocking work off the event loop, even while the system refuses new threads.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinHandle};

/// Pause between attempts to start a thread.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Runs `work` on a thread of the runtime. When the runtime has no thread and the system refuses one (EAGAIN, a process
/// limit), `tokio::task::spawn_blocking` panics; this function waits instead.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let answer = Arc::new(Mutex::new(None));
    let shared_answer = answer.clone();
    // Boxed, so that the compiler generates the runtime's task once and not for each kind of work.
    run_boxed(Box::new(move || {
        let done = work();
        *shared_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    }))
    .await?;
    let done = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(done.expect("the work has ended without a panic"))
}

async fn run_boxed(work: Work<()>) -> Result<(), JoinError> {
    let work = Arc::new(Mutex::new(Some(work)));
    loop {
        let shared_work = work.clone();
        // The closure of a failed attempt stays in the runtime's queue, so the first closure that runs takes the work.
        let started = catch_unwind(AssertUnwindSafe(|| {
            tokio::task::spawn_blocking(move || {
                let work = shared_work.lock().unwrap_or_else(PoisonError::into_inner).take();
                work.map(|work| work())
            })
        }));
        let Ok(handle) = started else {
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        };
        if handle.await?.is_some() {
            return Ok(());
        }
    }
}

/// Starts `work` like [`run`] without waiting for it. A panic of `work` is passed on to the waiting task.
pub fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(async {
        match run(work).await {
            Ok(done) => done,
            Err(error) => resume_unwind(error.into_panic()),
        }
    })
}

/// Starts a thread for `work`. When the system refuses one, `std::thread::spawn` panics; this function blocks until it
/// gets one, so only threads that may block may call it.
pub fn thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread_by(work, |work| Builder::new().spawn(work))
}

/// Runs `work` in a thread of its own; `None` if it takes longer than `limit`. A thread that blocks on a hanging mount
/// cannot be interrupted, only abandoned.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, done) = mpsc::channel();
    thread(move || {
        // The receiver may have given up.
        let _ = sender.send(work());
    });
    done.recv_timeout(limit).ok()
}

type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// Starts `work` with `spawn`, which is retried until it succeeds.
fn thread_by<T: 'static, H>(work: impl FnOnce() -> T + Send + 'static, spawn: impl Fn(Work<T>) -> io::Result<H>) -> H {
    // A refused spawn drops its closure, so the work is not moved into the closure.
    let work = Arc::new(Mutex::new(Some(work)));
    loop {
        let shared_work = work.clone();
        let started = spawn(Box::new(move || {
            let work = shared_work.lock().unwrap_or_else(PoisonError::into_inner).take();
            work.expect("only one thread starts and takes the work")()
        }));
        match started {
            Ok(handle) => return handle,
            Err(_) => thread::sleep(RETRY_PAUSE),
        }
    }
}

/// Calls `check` until it returns a value or the time limit is reached, with pauses that double up to `longest`.
pub fn poll<T>(limit: Duration, longest: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    loop {
        match check() {
            None if Instant::now() < deadline => thread::sleep(pause),
            outcome => return outcome,
        }
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_refused_thread_is_retried() {
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
    async fn blocking_work_returns_its_result() {
        assert_eq!(run(|| 7).await.unwrap(), 7);
    }
}
