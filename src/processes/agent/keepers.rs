//! The agent's side of keepers: starts them, asks them to stop, waits for them.

use super::folder::TaskFolder;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::pidfd::PidFd;
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::process::{self, ProcessId, Signal};
use leoflow_engine::model::keys::TryKey;
use leoflow_python::environment;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tracing::warn;

/// Deadline for a keeper to end its task after a request; then it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(12);

/// A keeper that is found stopped in this many checks in a row is killed instead of continued.
const MAX_CONTINUES: u32 = 3;

/// Stopped keepers (process state T), each with the number of checks in a row that found it stopped.
#[derive(Default)]
pub struct StoppedKeepers(HashMap<TryKey, u32>);

impl StoppedKeepers {
    /// Continues stopped keepers (SIGCONT): while stopped, a keeper neither reads output nor enforces deadlines. Kills
    /// a keeper that is stopped again and again; its try fails.
    pub fn continue_all<'a>(&mut self, running: impl Iterator<Item = (&'a TryKey, &'a Path, &'a ProcessId)>) {
        let mut still_stopped = HashSet::new();
        for (key, folder, keeper) in running {
            if !keeper.is_alive() || !process::is_stopped(keeper.pid) {
                continue;
            }
            still_stopped.insert(key);
            let times = self.0.entry(key.clone()).or_default();
            *times += 1;
            let is_last = *times >= MAX_CONTINUES;
            let action = if is_last { "killing it" } else { "continuing it" };
            warn!("{}: its keeper (pid {}) is stopped; {action}", folder.display(), keeper.pid);
            keeper.signal(if is_last { Signal::Kill } else { Signal::Continue });
        }
        self.0.retain(|key, _| still_stopped.contains(key));
    }
}

/// Starts a keeper, which starts a new Python for its task, for a prepared folder. The keeper leads its own process
/// group and outlives the agent.
pub fn start_cold(folder: &TaskFolder) -> io::Result<ProcessId> {
    let output = File::create(folder.path().join("keeper.log"))?;
    let spawn = Spawn {
        argv0: Some("leoflow".into()),
        arguments: vec!["keep-task".into(), folder.path().into()],
        environment: environment(),
        ..Spawn::new(env_vars::running_program())
    };
    let pid = spawn.start(output.as_fd()).map_err(io::Error::other)?;
    // The pid of our child is not reused before we reap it.
    ProcessId::of(pid).ok_or_else(|| io::Error::other("the keeper is not in /proc"))
}

/// Asks a keeper to end its task. A keeper that has not exited after `STOP_DEADLINE` is killed, and its task with it.
pub fn request_stop(keeper: &ProcessId) {
    keeper.signal(Signal::Terminate);
    keeper.signal(Signal::Continue);
    let keeper = keeper.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(STOP_DEADLINE).await;
        keeper.signal(Signal::Kill);
    });
}

/// Completes when the process is gone.
pub async fn wait_for(keeper: &ProcessId) {
    match PidFd::open(keeper) {
        Ok(None) => return,
        Ok(Some(fd)) => {
            if fd.ended().await.is_ok() {
                return;
            }
        }
        // The kernel lacks pidfd_open(2), or no descriptor is left: poll instead.
        Err(_) => {}
    }
    while keeper.is_alive() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
