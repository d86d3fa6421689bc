//! The events that the policy processes.

use super::spec::ExitReason;
use leoflow_base::sys::process::reaper::Exit;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Spawned {
        index: usize,
        pid: i32,
    },
    /// `is_final` when a retry cannot help.
    SpawnFailed {
        index: usize,
        reason: String,
        is_final: bool,
    },
    Ready {
        pid: i32,
    },
    /// The child sent a sign of life.
    Alive {
        pid: i32,
    },
    /// The relay to an external server is alive; `away` is why the external server does not answer, `None` if it does.
    RemoteStatus {
        pid: i32,
        away: Option<String>,
    },
    /// The child runs but cannot work for now; `reason` is empty once it works again.
    Impaired {
        pid: i32,
        reason: String,
    },
    /// The child's status text.
    Detail {
        pid: i32,
        text: String,
    },
    /// The child is not ready yet and reports why.
    Busy {
        pid: i32,
        text: String,
    },
    /// The error that the child reports before it exits.
    Failure {
        pid: i32,
        json: String,
    },
    /// The child runs, but does not belong to this instance.
    Unfit {
        pid: i32,
        reason: String,
    },
    /// The external server behind the relay has not answered since the relay's start.
    Unanswered {
        pid: i32,
        reason: String,
    },
    /// The reason for the child's exit, from its log; precedes `Exited`.
    ExitReason {
        pid: i32,
        exit_reason: ExitReason,
    },
    Exited {
        pid: i32,
        exit: Exit,
    },
    /// A transient cause such as a full disk may be gone: children that wait for it start now.
    TryNow,
    /// The next start of the child is its only try, and must become ready within `limit`.
    OnTrial {
        index: usize,
        limit: Duration,
    },
    /// The child runs, but its data is damaged.
    Damaged {
        pid: i32,
        text: String,
    },
    /// Only time has passed.
    Tick,
    Stop,
    /// Stops all children at once, without waiting for a clean shutdown.
    StopNow,
    Restart,
    /// Keeps only the first N children up; stops the others in reverse order.
    Level(usize),
}
