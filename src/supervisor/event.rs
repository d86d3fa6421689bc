//! What the policy is told.

use super::spec::LastWords;
use crate::sys::reaper::Exit;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Spawned {
        index: usize,
        pid: i32,
    },
    /// `is_final` when trying again could not help.
    SpawnFailed {
        index: usize,
        reason: String,
        is_final: bool,
    },
    Ready {
        pid: i32,
    },
    /// It showed that it still runs.
    Alive {
        pid: i32,
    },
    /// The same, and whether what it stands for answers: why not, where it does not.
    Stands {
        pid: i32,
        away: Option<String>,
    },
    /// It runs, and cannot do its work for now; empty once it can again.
    Hindered {
        pid: i32,
        reason: String,
    },
    Detail {
        pid: i32,
        text: String,
    },
    /// It is on its way to being ready, and says what keeps it.
    Busy {
        pid: i32,
        text: String,
    },
    /// The child's own reason for its end.
    Failure {
        pid: i32,
        json: String,
    },
    /// It runs, but will never be what we need.
    Unfit {
        pid: i32,
        reason: String,
    },
    /// What it stands for, which is elsewhere, has not answered since its start.
    Unanswered {
        pid: i32,
        reason: String,
    },
    /// Why it ends, in its own words; told before its end.
    Words {
        pid: i32,
        words: LastWords,
    },
    Exited {
        pid: i32,
        exit: Exit,
    },
    /// What kept one from running may be gone.
    TryNow,
    /// A child has one try, and so long for it.
    OnTrial {
        index: usize,
        limit: Duration,
    },
    /// It runs, and not all that it keeps is what was written.
    Damaged {
        pid: i32,
        text: String,
    },
    /// Time has passed.
    Tick,
    Stop,
    StopNow,
    Restart,
    /// From now on only the first so many are to be up; the others are stopped, in the reverse order.
    Level(usize),
}
