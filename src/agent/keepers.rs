//! Keepers as the agent has to do with them: started, told to end, waited for.

use super::folder::TaskFolder;
use super::start;
use crate::sys::pidfd::PidFd;
use crate::sys::process::{ProcessId, Signal};
use std::time::Duration;

/// A keeper that was told to end its task has done so by then.
const FROZEN: Duration = Duration::from_secs(12);

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
