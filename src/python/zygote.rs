//! A warm Python of this process's own, which forks for each try or parse: what it costs to start an interpreter is paid
//! once. It is single-threaded and has nothing of the user's; see `package/leoflow/entry/zygote.py`.

use super::interpreter::{Interpreter, Job, TASK_MARK, environment};
use crate::sys::process::Signal;
use crate::sys::seqpacket::SeqPacket;
use crate::sys::spawn::Spawn;
use crate::sys::{pidfd::PidFd, reaper};
use serde::Deserialize;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// For loading it. Airflow's own SDK takes two seconds, and ten where nothing of it is compiled yet.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// For one fork: a few milliseconds. Who is late has forked all the same; then the try is whose link was first, and a
/// child finds that nobody listens.
const FORK_LIMIT: Duration = Duration::from_secs(2);
/// As long as the mark of any try or child, so that it can be written in its place.
const NO_MARK: &str = "________________________";

pub struct Zygote {
    socket: Rc<SeqPacket>,
    pid: i32,
    readiness: Rc<Readiness>,
}

/// What it says first: where it finds modules.
#[derive(Default)]
struct Readiness {
    said: RefCell<Option<io::Result<Vec<PathBuf>>>>,
    /// When that was.
    spoken_at: Cell<Option<Instant>>,
    /// Told once it has said it.
    told: Notify,
}

impl Readiness {
    async fn listen(&self, socket: &SeqPacket) {
        let said = match answer(socket, READY_LIMIT).await {
            Ok(Answer::Ready { path }) => Ok(path),
            Ok(_) => Err(io::Error::other("it says something else than that it is ready")),
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
        /// Where it finds modules.
        path: Vec<PathBuf>,
    },
    Forked {
        pid: i32,
    },
    Failed {
        error: String,
    },
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
        tokio::task::spawn_local(async move { saying.listen(&listened).await });
        Ok(Self { socket, pid, readiness })
    }

    /// Where it finds modules, once it can fork; `None` when it cannot yet after `limit`.
    pub async fn ready(&self, limit: Duration) -> io::Result<Option<Vec<PathBuf>>> {
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

    /// Starts what is asked for, as JSON, which gets the descriptors; returns the pid of the keeper, or of the child.
    pub async fn fork(&self, request: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<i32> {
        self.socket.send(request.as_bytes(), descriptors).await?;
        match answer(&self.socket, FORK_LIMIT).await? {
            Answer::Forked { pid } => Ok(pid),
            Answer::Failed { error } => Err(io::Error::other(error)),
            Answer::Ready { .. } => Err(io::Error::other("it says again that it is ready")),
        }
    }
}

async fn answer(socket: &SeqPacket, limit: Duration) -> io::Result<Answer> {
    let mut buffer = vec![0; 64 * 1024];
    let received = tokio::time::timeout(limit, socket.receive(&mut buffer)).await;
    let length = received.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))??;
    if length == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended"));
    }
    serde_json::from_slice(&buffer[..length]).map_err(io::Error::other)
}

/// What it has forked goes on.
impl Drop for Zygote {
    fn drop(&mut self) {
        let pid = self.pid;
        crate::sys::process::signal_process(pid, Signal::Kill);
        // A killed process is one to wait for until it is waited for.
        if let Ok(ended) = PidFd::of_pid(pid) {
            tokio::task::spawn_local(async move {
                let _ = ended.ended().await;
                reaper::ended_child(pid);
            });
        }
    }
}
