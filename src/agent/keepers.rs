//! Keepers as the agent has to do with them: started, told to end, waited for.

use super::folder::TaskFolder;
use super::start;
use crate::engine::keys::TryKey;
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, ProcessId, Signal};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;
use tracing::warn;

/// A keeper that was told to end its task has done so by then.
const FROZEN: Duration = Duration::from_secs(12);

/// So often in a row one that is stopped is told to go on.
const WAKINGS: u32 = 3;

/// Those that were found stopped, and how often in a row.
#[derive(Default)]
pub struct Stopped(HashMap<TryKey, u32>);

impl Stopped {
    /// One that somebody has stopped hears neither its task nor the time. It is told to go on; one that is stopped again
    /// and again is ended, and the try has failed.
    pub fn wake<'a>(&mut self, running: impl Iterator<Item = (&'a TryKey, &'a Path, &'a ProcessId)>) {
        let mut found = HashSet::new();
        for (key, folder, keeper) in running {
            if !keeper.is_alive() || !process::is_stopped(keeper.pid) {
                continue;
            }
            found.insert(key);
            let times = self.0.entry(key.clone()).or_default();
            *times += 1;
            let is_last = *times >= WAKINGS;
            let what = if is_last { "it is ended" } else { "it is told to go on" };
            warn!("{}: its keeper, pid {}, is stopped; {what}", folder.display(), keeper.pid);
            keeper.signal(if is_last { Signal::Kill } else { Signal::Continue });
        }
        self.0.retain(|key, _| found.contains(key));
    }
}

/// Starts one whose task has a Python of its own.
pub fn start_cold(folder: &TaskFolder) -> std::io::Result<ProcessId> {
    let pid = start::keeper(folder)?;
    // A child of ours has its pid until we wait for it.
    ProcessId::of(pid).ok_or_else(|| std::io::Error::other("it is not in /proc"))
}

/// A keeper ends its task within its own deadlines; one that is frozen is ended with it.
pub fn tell_to_end(keeper: &ProcessId) {
    keeper.signal(Signal::Terminate);
    keeper.signal(Signal::Continue);
    let keeper = keeper.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(FROZEN).await;
        keeper.signal(Signal::Kill);
    });
}

/// Completes when that process is gone.
pub async fn wait_for(keeper: &ProcessId) {
    match PidFd::open(keeper) {
        Ok(None) => return,
        Ok(Some(fd)) => {
            if fd.ended().await.is_ok() {
                return;
            }
        }
        // An old kernel, or no descriptor left: then it is asked for.
        Err(_) => {}
    }
    while keeper.is_alive() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
