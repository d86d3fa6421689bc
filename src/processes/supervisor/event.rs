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
    /// An event of the child with this pid.
    Child(i32, ChildEvent),
    /// A transient cause such as a full disk may be gone: children that wait for it start now.
    TryNow,
    /// The next start of the child is its only try, and must become ready within `limit`.
    OnTrial {
        index: usize,
        limit: Duration,
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEvent {
    Ready,
    /// A sign of life.
    Alive,
    /// The relay to an external server is alive; why the external server does not answer, `None` if it does.
    RemoteStatus(Option<String>),
    /// The child runs but cannot work for now, for this reason, which is empty once it works again.
    Impaired(String),
    /// The child's status text.
    Detail(String),
    /// The child is not ready yet and reports why.
    Busy(String),
    /// The error that the child reports before it exits, as JSON.
    Failure(String),
    /// The child runs, but does not belong to this instance.
    Unfit(String),
    /// The external server behind the relay has not answered since the relay's start.
    Unanswered(String),
    /// The reason for the child's exit, from its log; precedes `Exited`.
    ExitReason(ExitReason),
    Exited(Exit),
    /// The child runs, but its data is damaged.
    Damaged(String),
}
