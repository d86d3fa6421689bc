//! A zygote (warm Python): a Python process of one environment that forks a process for each try or parse, so that the
//! interpreter starts only once. The forks are children of this process. It is single-threaded and runs no user code; see `package/leoflow/entry/warm/zygote.py`.

pub(super) mod retry;

use super::interpreter::{Interpreter, Job};
use leoflow_base::sys::net::listener;
use leoflow_base::sys::net::seqpacket::SeqPacket;
use leoflow_base::sys::process::reaper;
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::process::{self, ProcessId, Signal, exit};
use leoflow_base::sys::transient::is_transient;
use serde::Deserialize;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;

/// Limit of processor time for loading, in clock ticks of 10 ms. Airflow's own SDK takes two seconds, and ten if it is
/// not compiled yet; on a busy machine that is minutes of wall time.
const LOADING_TICKS: u64 = 120 * 100;
/// Time after which a zygote counts as hanging: without using processor time while it loads, or without an answer to a
/// fork request.
const HANG: Duration = Duration::from_secs(60);
/// Interval between checks of the processor time.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Time limit for one fork, which takes a few milliseconds. A late answer is not a failure: until it arrives, new
/// Pythons start instead. The late fork exits, because nothing lets it begin, see [`Forked`].
const FORK_LIMIT: Duration = Duration::from_secs(2);
/// Time limit for reading an answer that has already arrived.
const NO_WAIT: Duration = Duration::from_millis(1);
/// The mark of a zygote, in its environment, as long as any other: a fork overwrites it in memory with its own mark, so
/// that /proc shows the mark.
pub const NO_MARK: &str = "________________________";

pub struct Zygote {
    /// Libraries that it preloads. When they change, a new zygote must replace it.
    pub libraries: BTreeSet<String>,
    pub last_used: Instant,
    /// The folders of its module search path with their modification times; `None` until `ready` has returned.
    search_path: Option<Vec<(Option<SystemTime>, PathBuf)>>,
    socket: Rc<SeqPacket>,
    /// `None` where /proc is missing, and in tests.
    process: Option<ProcessId>,
    /// When the first message, which says that the zygote is ready or has failed, was received.
    loaded_at: watch::Receiver<Option<Instant>>,
    /// `None` before the message arrives, and after `ready` has returned it.
    first_message: Rc<RefCell<Option<io::Result<Ready>>>>,
    last_id: Cell<u64>,
    /// The id of a fork request whose answer is late, and when it was sent.
    late_fork: Cell<Option<(u64, Instant)>>,
}

/// The zygote's first message.
#[derive(Deserialize)]
struct Ready {
    /// The module search path of the zygote.
    path: Vec<PathBuf>,
    /// Libraries that the zygote could not preload, each with the reason.
    #[serde(default)]
    left_out: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Ready(Ready),
    Forked {
        id: u64,
        pid: i32,
    },
    Failed {
        /// The id of the request; `None` if the zygote cannot start.
        id: Option<u64>,
        error: String,
        errno: Option<i32>,
    },
}

/// Progress of loading, measured in processor time.
struct Progress {
    /// Clock ticks at the start, and at the last progress.
    begun: u64,
    last: u64,
    last_progress: Instant,
}

impl Progress {
    fn new(ticks: u64, now: Instant) -> Self {
        Self { begun: ticks, last: ticks, last_progress: now }
    }

    /// Returns the reason if loading has failed. `ticks` is the zygote's processor time so far, in clock ticks.
    fn problem(&mut self, ticks: u64, now: Instant) -> Option<String> {
        if ticks > self.last {
            (self.last, self.last_progress) = (ticks, now);
        }
        if ticks.saturating_sub(self.begun) > LOADING_TICKS {
            return Some(format!("it is not ready after {} s of processor time", LOADING_TICKS / 100));
        }
        let hangs = now.duration_since(self.last_progress) > HANG;
        hangs.then(|| format!("it hangs while loading: no processor time used for {} s", HANG.as_secs()))
    }
}

/// A process that a zygote has forked, a child of this process. It exits if this value is dropped before [`Self::begin`].
pub struct Forked {
    pub pid: i32,
    gate: OwnedFd,
}

impl Forked {
    /// Lets the process begin.
    pub fn begin(self) -> io::Result<()> {
        File::from(self.gate).write_all(b"1")
    }
}

impl Zygote {
    /// Starts a zygote, which can fork once `ready` returns. Besides our package it imports `libraries`. Its working
    /// directory is the home. Its output goes to our standard error. Must be called on the main thread: PDEATHSIG kills
    /// the zygote when the calling thread ends.
    pub fn start(interpreter: &Interpreter, libraries: BTreeSet<String>) -> io::Result<Self> {
        let (socket, theirs) = SeqPacket::pair()?;
        let errors = io::stderr();
        let options = json!({"folder": interpreter.home.root(), "preload": libraries});
        let spawn = interpreter.spawn(Job::Zygote, &options, Some(NO_MARK));
        let spawn = Spawn { passed: vec![theirs.as_fd()], ..spawn };
        let pid = spawn.start(errors.as_fd()).map_err(io::Error::other)?;
        Ok(Self::connected(socket, pid, libraries))
    }

    /// Forks a template: a zygote that runs the DAG file of a version and forks the tries of its tasks. `ready` returns
    /// the reason if the version gets none. See `package/leoflow/entry/warm/template.py`.
    pub async fn fork_template(&self, options: &Value) -> io::Result<Option<Self>> {
        let (socket, theirs) = SeqPacket::pair()?;
        let null = File::options().write(true).open("/dev/null")?;
        let errors = io::stderr();
        let request = json!({"job": "template", "mark": NO_MARK, "options": options});
        let Some(forked) = self.fork(&request, [null.as_fd(), errors.as_fd(), theirs.as_fd()]).await? else {
            return Ok(None);
        };
        let template = Self::connected(socket, forked.pid, self.libraries.clone());
        forked.begin()?;
        Ok(Some(template))
    }

    fn connected(socket: SeqPacket, pid: i32, libraries: BTreeSet<String>) -> Self {
        let (socket, first_message) = (Rc::new(socket), Rc::new(RefCell::new(None)));
        let (receiver, message) = (socket.clone(), first_message.clone());
        let (loaded, loaded_at) = watch::channel(None);
        tokio::task::spawn_local(async move {
            *message.borrow_mut() = Some(receive_ready(&receiver, pid).await);
            loaded.send_replace(Some(Instant::now()));
        });
        Self {
            libraries,
            last_used: Instant::now(),
            search_path: None,
            socket,
            process: ProcessId::of(pid),
            loaded_at,
            first_message,
            last_id: Cell::new(0),
            late_fork: Cell::new(None),
        }
    }

    /// Resident memory in bytes, also that which it shares with other processes.
    pub fn resident_bytes(&self) -> u64 {
        self.process.as_ref().and_then(|process| process::resident_bytes(process.pid)).unwrap_or_default()
    }

    /// When it becomes idle after this time without a fork; `None` while it loads, because it then has waiters.
    pub fn idle_at(&self, limit: Duration) -> Option<Instant> {
        self.loaded_at().map(|loaded_at| loaded_at.max(self.last_used) + limit)
    }

    /// Returns the libraries that the zygote could not preload, each with the reason; `None` while it loads, and if this
    /// was returned before.
    pub fn ready(&mut self) -> io::Result<Option<BTreeMap<String, String>>> {
        let Some(Ready { path, left_out }) = self.first_message.take().transpose()? else { return Ok(None) };
        self.search_path = Some(path.into_iter().map(|folder| (modified_at(&folder), folder)).collect());
        Ok(Some(left_out))
    }

    /// True once `ready` has returned the first message.
    pub fn is_ready(&self) -> bool {
        self.search_path.is_some()
    }

    /// True if packages were installed or removed since the zygote loaded.
    pub fn is_out_of_date(&self) -> bool {
        self.search_path.iter().flatten().any(|(modified, folder)| modified_at(folder) != *modified)
    }

    /// When the zygote became ready or failed; `None` while it loads.
    pub fn loaded_at(&self) -> Option<Instant> {
        *self.loaded_at.borrow()
    }

    /// The future completes when the zygote is ready or has failed; `None` if it no longer loads.
    pub fn loading(&self) -> Option<impl Future<Output = ()> + use<>> {
        let mut loaded_at = self.loaded_at.clone();
        let is_loading = loaded_at.borrow().is_none();
        is_loading.then_some(async move {
            // The sender is dropped after it has sent.
            let _ = loaded_at.wait_for(Option::is_some).await;
        })
    }

    /// Sends a fork request (a JSON object, to which this adds an `id`) with the descriptors for its standard output,
    /// standard error and descriptor 3. `None` if the caller must start a new Python although the zygote has not failed:
    /// an answer is late, or the system has reached its limit of processes.
    pub async fn fork(&self, request: &Value, descriptors: [BorrowedFd<'_>; 3]) -> io::Result<Option<Forked>> {
        if let Some((id, since)) = self.late_fork.get() {
            match self.answer_to(id, NO_WAIT).await? {
                // A new Python has started in place of the late fork.
                Some(_) => self.late_fork.set(None),
                None if since.elapsed() > HANG => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer for a minute"));
                }
                None => return Ok(None),
            }
        }
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let mut request = request.clone();
        request["id"] = id.into();
        let (their_gate, gate) = listener::pipe()?;
        let [output, errors, third] = descriptors;
        self.socket.send(request.to_string().as_bytes(), &[their_gate.as_fd(), output, errors, third]).await?;
        match self.answer_to(id, FORK_LIMIT).await? {
            Some(Ok(pid)) => Ok(Some(Forked { pid, gate })),
            Some(Err(error)) if is_transient(&error) => Ok(None),
            Some(Err(error)) => Err(error),
            None => {
                self.late_fork.set(Some((id, Instant::now())));
                Ok(None)
            }
        }
    }

    /// Waits for the answer to a request; skips answers to earlier requests. `None` after `limit`.
    async fn answer_to(&self, id: u64, limit: Duration) -> io::Result<Option<io::Result<i32>>> {
        let until = Instant::now() + limit;
        loop {
            match receive_answer(&self.socket, until.saturating_duration_since(Instant::now())).await? {
                None => return Ok(None),
                Some(Answer::Forked { id: answered, pid }) if answered == id => return Ok(Some(Ok(pid))),
                Some(Answer::Failed { id: answered, error, errno }) if answered == Some(id) => {
                    let error = errno.map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error);
                    return Ok(Some(Err(error)));
                }
                Some(Answer::Failed { id: None, error, .. }) => return Err(io::Error::other(error)),
                Some(Answer::Ready(_)) => return Err(io::Error::other("it repeated that it is ready")),
                Some(_) => {}
            }
        }
    }
}

fn modified_at(folder: &Path) -> Option<SystemTime> {
    folder.metadata().and_then(|meta| meta.modified()).ok()
}

/// Waits for the first message. Fails once the zygote makes no progress in loading.
async fn receive_ready(socket: &SeqPacket, pid: i32) -> io::Result<Ready> {
    let ticks = || process::processor_ticks(pid).unwrap_or_default();
    let mut progress = Progress::new(ticks(), Instant::now());
    loop {
        match receive_answer(socket, CHECK_INTERVAL).await? {
            Some(Answer::Ready(ready)) => return Ok(ready),
            Some(Answer::Failed { error, errno, .. }) => {
                // The reason may disappear: the caller may try again.
                let kind = if errno.is_some_and(|errno| is_transient(&io::Error::from_raw_os_error(errno))) {
                    io::ErrorKind::WouldBlock
                } else {
                    io::ErrorKind::Other
                };
                return Err(io::Error::new(kind, error));
            }
            Some(Answer::Forked { .. }) => {
                return Err(io::Error::other("its first message does not say that it is ready"));
            }
            None => {}
        }
        if let Some(problem) = progress.problem(ticks(), Instant::now()) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        }
    }
}

/// Receives an answer; `None` after `limit`.
async fn receive_answer(socket: &SeqPacket, limit: Duration) -> io::Result<Option<Answer>> {
    let mut buffer = vec![0; 64 * 1024];
    let Ok(received) = tokio::time::timeout(limit, socket.receive(&mut buffer)).await else { return Ok(None) };
    match received? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process ended")),
        length => serde_json::from_slice(&buffer[..length]).map(Some).map_err(io::Error::other),
    }
}

/// Kills the zygote. Processes that it forked go on.
impl Drop for Zygote {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        // Not by its pid alone: it may have been reaped long ago.
        process.signal(Signal::Kill);
        // A killed process stays a zombie until it is reaped.
        tokio::task::spawn_local(async move {
            exit::wait_gone(&process).await;
            reaper::ended_child(process.pid);
        });
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
        // A busy machine gives the zygote one tick a minute.
        for minute in 1..60 {
            assert_eq!(progress.problem(7 + minute, after(minute * 60)), None);
        }
        assert_eq!(progress.problem(66, after(59 * 60 + 30)), None);
        assert!(progress.problem(66, after(60 * 60 + 1)).is_some_and(|problem| problem.contains("hangs")));
        assert!(progress.problem(8 + LOADING_TICKS, after(60 * 60 + 2)).is_some());
    }

    #[tokio::test]
    async fn a_late_answer_is_skipped_and_is_no_failure() {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        let theirs = SeqPacket::from_end(theirs).unwrap();
        let local = tokio::task::LocalSet::new();
        let test = async move {
            let (socket, process) = (Rc::new(ours), None);
            let late_fork = Cell::new(Some((1, Instant::now())));
            let (loaded_at, first_message) = (watch::channel(None).1, Rc::default());
            let (last_id, last_used) = (Cell::new(1), Instant::now());
            let (libraries, search_path) = (BTreeSet::new(), None);
            let zygote = Zygote {
                libraries,
                last_used,
                search_path,
                socket,
                process,
                loaded_at,
                first_message,
                last_id,
                late_fork,
            };
            let (_reader, pipe) = listener::pipe().unwrap();
            let request = json!({"job": "task"});
            let fork =
                async || Ok::<_, io::Error>(zygote.fork(&request, [pipe.as_fd(); 3]).await?.map(|forked| forked.pid));
            assert_eq!(fork().await.unwrap(), None, "a late answer does not block the request");
            theirs.send(br#"{"id": 1, "pid": 11}"#, &[]).await.unwrap();
            theirs.send(br#"{"id": 2, "pid": 22}"#, &[]).await.unwrap();
            tokio::task::yield_now().await;
            assert_eq!(fork().await.unwrap(), Some(22));
            theirs.send(br#"{"id": 3, "error": "no process", "errno": 11}"#, &[]).await.unwrap();
            assert_eq!(fork().await.unwrap(), None, "a transient error is no failure");
            theirs.send(br#"{"id": 4, "error": "no", "errno": 1}"#, &[]).await.unwrap();
            assert!(fork().await.is_err());
            drop(theirs);
            assert!(fork().await.is_err());
        };
        local.run_until(test).await;
    }
}
