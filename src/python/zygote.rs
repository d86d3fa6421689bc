//! A warm Python of this process's own, which forks for each try or parse: what it costs to start an interpreter is paid
//! once. It is single-threaded and has nothing of the user's; see `package/leoflow/entry/zygote.py`.

use super::interpreter::{Interpreter, Job, TASK_MARK, environment};
use crate::sys::process::{self, Signal};
use crate::sys::seqpacket::SeqPacket;
use crate::sys::spawn::Spawn;
use crate::sys::transient::is_transient;
use crate::sys::{pidfd::PidFd, reaper};
use serde::Deserialize;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Of processor time for loading it, in clock ticks of 10 ms. Airflow's own SDK takes two seconds, and ten where nothing of
/// it is compiled yet; on a busy machine that is minutes of wall time.
const LOADING_TICKS: u64 = 120 * 100;
/// How long it may use no processor time while it loads, and how long a fork may take: then it hangs.
const HANG: Duration = Duration::from_secs(60);
/// Between looks at the processor time.
const GLANCE: Duration = Duration::from_secs(2);
/// How long one fork is waited for, which takes a few milliseconds. A late answer is no failure: the next starts are cold
/// until it has come. It has forked all the same; then the try is whose link was first, and a child finds that nobody
/// listens.
const FORK_LIMIT: Duration = Duration::from_secs(2);
/// For an answer that has arrived.
const AT_ONCE: Duration = Duration::from_millis(1);
/// As long as the mark of any try or child, so that it can be written in its place.
const NO_MARK: &str = "________________________";

pub struct Zygote {
    socket: Rc<SeqPacket>,
    pid: i32,
    readiness: Rc<Readiness>,
    last_id: Cell<u64>,
    /// The fork that has not been answered yet, and since when.
    late: Cell<Option<(u64, Instant)>>,
}

/// What it says first.
pub struct Ready {
    /// Where it finds modules.
    pub path: Vec<PathBuf>,
    /// The libraries that it could not keep, with the reason of each.
    pub left_out: BTreeMap<String, String>,
}

#[derive(Default)]
struct Readiness {
    said: RefCell<Option<io::Result<Ready>>>,
    /// When that was.
    spoken_at: Cell<Option<Instant>>,
    /// Told once it has said it.
    told: Notify,
}

impl Readiness {
    async fn listen(&self, socket: &SeqPacket, pid: i32) {
        let said = match first_answer(socket, pid).await {
            Ok(Answer::Ready { path, left_out }) => Ok(Ready { path, left_out }),
            Ok(Answer::Failed { error, .. }) => Err(io::Error::other(error)),
            Ok(Answer::Forked { .. }) => Err(io::Error::other("it says something else than that it is ready")),
            Err(error) => Err(error),
        };
        *self.said.borrow_mut() = Some(said);
        self.spoken_at.set(Some(Instant::now()));
        self.told.notify_waiters();
    }

    async fn wait(&self) {
        let told = self.told.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if self.spoken_at.get().is_none() {
            told.await;
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Ready {
        path: Vec<PathBuf>,
        #[serde(default)]
        left_out: BTreeMap<String, String>,
    },
    Forked {
        id: u64,
        pid: i32,
    },
    Failed {
        /// Of the request; none when it cannot begin.
        id: Option<u64>,
        error: String,
        errno: Option<i32>,
    },
}

/// How far it has come with loading, by the processor time that it has used.
struct Progress {
    begun: u64,
    last: u64,
    at: Instant,
}

impl Progress {
    fn new(ticks: u64, now: Instant) -> Self {
        Self { begun: ticks, last: ticks, at: now }
    }

    /// Why it is not waited for any longer, if that is so.
    fn problem(&mut self, ticks: u64, now: Instant) -> Option<String> {
        if ticks > self.last {
            (self.last, self.at) = (ticks, now);
        }
        if ticks.saturating_sub(self.begun) > LOADING_TICKS {
            return Some(format!("it is not ready after {} s of processor time", LOADING_TICKS / 100));
        }
        let hangs = now.duration_since(self.at) > HANG;
        hangs.then(|| format!("it hangs while it loads: no processor time used for {} s", HANG.as_secs()))
    }
}

impl Zygote {
    /// Starts it; it is ready once `ready` says so. Beside our package it loads `libraries`; `folder` is where it works.
    /// What it says of itself goes where our own errors go. Must be called from the main thread: it ends with that.
    pub fn start(interpreter: &Interpreter, libraries: &BTreeSet<String>, folder: &Path) -> io::Result<Self> {
        let (socket, theirs) = SeqPacket::pair()?;
        let program = File::open("/proc/self/exe")?;
        let errors = io::stderr();
        let mut environment = environment();
        environment.push((TASK_MARK.into(), NO_MARK.into()));
        let options = json!({"folder": folder, "preload": libraries});
        let spawn = Spawn {
            program: interpreter.program.clone(),
            called: None,
            arguments: interpreter.arguments(Job::Zygote, &options),
            environment,
            output: errors.as_fd(),
            errors: None,
            folder: None,
            passed: vec![theirs.as_fd(), program.as_fd()],
            single_user: None,
            parent_death: Some(Signal::Kill),
            own_session: false,
        };
        let pid = spawn.start().map_err(io::Error::other)?;
        let (socket, readiness) = (Rc::new(socket), Rc::new(Readiness::default()));
        let (listened, saying) = (socket.clone(), readiness.clone());
        tokio::task::spawn_local(async move { saying.listen(&listened, pid).await });
        Ok(Self { socket, pid, readiness, last_id: Cell::new(0), late: Cell::new(None) })
    }

    /// What it says once it can fork; `None` when it cannot yet after `limit`.
    pub async fn ready(&self, limit: Duration) -> io::Result<Option<Ready>> {
        // Too late is told by what was said, or was not.
        let _ = tokio::time::timeout(limit, self.readiness.wait()).await;
        self.readiness.said.take().transpose()
    }

    /// Since when it can fork, or it is known that it never will.
    pub fn spoken_at(&self) -> Option<Instant> {
        self.readiness.spoken_at.get()
    }

    /// Completes once it can fork, or never will; `None` when that is so already.
    pub fn begins(&self) -> Option<impl Future<Output = ()> + use<>> {
        let readiness = self.readiness.clone();
        let has_begun = readiness.spoken_at.get().is_some();
        (!has_begun).then_some(async move { readiness.wait().await })
    }

    /// Starts what is asked for, an object that is to have an `id`, and gives it the descriptors; returns the pid of the
    /// keeper, or of the child. `None` when this one is to be started cold, though nothing is wrong with the zygote: it is
    /// late, or the system has no process to give.
    pub async fn fork(&self, request: &Value, descriptors: &[BorrowedFd<'_>]) -> io::Result<Option<i32>> {
        if let Some((id, since)) = self.late.get() {
            match self.answer_to(id, AT_ONCE).await? {
                // Somebody else has begun in its place.
                Some(_) => self.late.set(None),
                None if since.elapsed() > HANG => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it has not answered for a minute"));
                }
                None => return Ok(None),
            }
        }
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let mut request = request.clone();
        request["id"] = id.into();
        self.socket.send(request.to_string().as_bytes(), descriptors).await?;
        match self.answer_to(id, FORK_LIMIT).await? {
            Some(Ok(pid)) => Ok(Some(pid)),
            Some(Err(error)) if is_transient(&error) => Ok(None),
            Some(Err(error)) => Err(error),
            None => {
                self.late.set(Some((id, Instant::now())));
                Ok(None)
            }
        }
    }

    /// The answer to that request, if it comes in time. What an earlier one has come to does not matter any more.
    async fn answer_to(&self, id: u64, limit: Duration) -> io::Result<Option<io::Result<i32>>> {
        let until = Instant::now() + limit;
        loop {
            match answer(&self.socket, until.saturating_duration_since(Instant::now())).await? {
                None => return Ok(None),
                Some(Answer::Forked { id: of, pid }) if of == id => return Ok(Some(Ok(pid))),
                Some(Answer::Failed { id: of, error, errno }) if of == Some(id) => {
                    let error = errno.map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error);
                    return Ok(Some(Err(error)));
                }
                Some(Answer::Failed { id: None, error, .. }) => return Err(io::Error::other(error)),
                Some(Answer::Ready { .. }) => return Err(io::Error::other("it says again that it is ready")),
                Some(_) => {}
            }
        }
    }
}

async fn first_answer(socket: &SeqPacket, pid: i32) -> io::Result<Answer> {
    let ticks = || process::processor_ticks(pid).unwrap_or_default();
    let mut progress = Progress::new(ticks(), Instant::now());
    loop {
        if let Some(answer) = answer(socket, GLANCE).await? {
            return Ok(answer);
        }
        if let Some(problem) = progress.problem(ticks(), Instant::now()) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        }
    }
}

/// `None` when none comes in time.
async fn answer(socket: &SeqPacket, limit: Duration) -> io::Result<Option<Answer>> {
    let mut buffer = vec![0; 64 * 1024];
    let Ok(received) = tokio::time::timeout(limit, socket.receive(&mut buffer)).await else { return Ok(None) };
    match received? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended")),
        length => serde_json::from_slice(&buffer[..length]).map(Some).map_err(io::Error::other),
    }
}

/// What it has forked goes on.
impl Drop for Zygote {
    fn drop(&mut self) {
        let pid = self.pid;
        process::signal_process(pid, Signal::Kill);
        // A killed process is one to wait for until it is waited for.
        if let Ok(ended) = PidFd::of_pid(pid) {
            tokio::task::spawn_local(async move {
                let _ = ended.ended().await;
                reaper::ended_child(pid);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loading_may_take_long_while_it_makes_progress() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut progress = Progress::new(7, begun);
        // A busy machine gives it one tick a minute.
        for minute in 1..60 {
            assert_eq!(progress.problem(7 + minute, after(minute * 60)), None);
        }
        assert_eq!(progress.problem(66, after(59 * 60 + 30)), None);
        assert!(progress.problem(66, after(60 * 60 + 1)).is_some_and(|problem| problem.contains("hangs")));
        assert!(progress.problem(8 + LOADING_TICKS, after(60 * 60 + 2)).is_some());
    }

    #[tokio::test]
    async fn a_late_answer_is_no_failure_and_is_told_from_others() {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        let theirs = SeqPacket::from_end(theirs).unwrap();
        let local = tokio::task::LocalSet::new();
        let test = async move {
            // The kernel gives no such pid.
            let (socket, pid) = (Rc::new(ours), i32::MAX);
            let late = Cell::new(Some((1, Instant::now())));
            let zygote = Zygote { socket, pid, readiness: Rc::default(), last_id: Cell::new(1), late };
            let request = json!({"folder": "f"});
            assert_eq!(zygote.fork(&request, &[]).await.unwrap(), None, "nobody waits for it");
            theirs.send(br#"{"id": 1, "pid": 11}"#, &[]).await.unwrap();
            theirs.send(br#"{"id": 2, "pid": 22}"#, &[]).await.unwrap();
            tokio::task::yield_now().await;
            assert_eq!(zygote.fork(&request, &[]).await.unwrap(), Some(22));
            theirs.send(br#"{"id": 3, "error": "no process", "errno": 11}"#, &[]).await.unwrap();
            assert_eq!(zygote.fork(&request, &[]).await.unwrap(), None, "what passes is no failure");
            theirs.send(br#"{"id": 4, "error": "no", "errno": 1}"#, &[]).await.unwrap();
            assert!(zygote.fork(&request, &[]).await.is_err());
            drop(theirs);
            assert!(zygote.fork(&request, &[]).await.is_err());
        };
        local.run_until(test).await;
    }
}
