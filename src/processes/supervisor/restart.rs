//! The restart policy: whether and when a child restarts after a crash, and what counts as a crash loop. Pure.

use std::time::{Duration, Instant};

/// Once a child has been ready for this long, earlier exits no longer count.
const STABLE: Duration = Duration::from_secs(60);
/// More consecutive exits than this are a crash loop.
pub(super) const LOOP_LIMIT: u32 = 5;
/// This many consecutive starts that never become ready are a crash loop too.
pub(super) const START_TRIES: u32 = 3;
/// First pause between attempts while a transient cause lasts.
const FIRST_TRANSIENT_PAUSE: Duration = Duration::from_secs(1);
/// The pause after the first exit.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
/// Up to this value each pause is four times the previous one; beyond it, twice.
fn quick_backoff() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_QUICK_BACKOFF", Duration::from_secs(5))
}
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How to handle a child in a crash loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Retry forever with growing pauses, because the instance has worked before.
    KeepTrying,
    /// Fail, because a caller waits for the result: of the first start, or of a step of an upgrade.
    GiveUp,
}

/// How to handle an exit for a cause that passes, such as a full disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Transient {
    /// Retried until the cause is gone.
    WaitedOut,
    /// Handled as any other exit: in the first start of an instance, which fails after `START_TRIES`.
    #[default]
    Counted,
}

/// Counts of exits in a row, without a time of `STABLE` between them.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    exits: u32,
    /// Starts that never became ready.
    failed_starts: u32,
    /// Exits for a transient cause.
    transient_exits: u32,
}

impl Failures {
    /// Counts an exit. `ready_since` is `None` if the child never became ready.
    pub(super) fn add_exit(&mut self, ready_since: Option<Instant>, now: Instant) {
        let was_stable = ready_since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE);
        self.exits = if was_stable { 1 } else { self.exits + 1 };
        self.failed_starts = if ready_since.is_some() { 0 } else { self.failed_starts + 1 };
    }

    /// Counts an exit for a transient cause, and returns the pause until the next start.
    pub(super) fn add_transient(&mut self) -> Duration {
        let pause = FIRST_TRANSIENT_PAUSE.saturating_mul(1 << self.transient_exits.min(6)).min(LONGEST_BACKOFF);
        self.transient_exits += 1;
        pause
    }

    pub(super) fn clear_transient(&mut self) {
        self.transient_exits = 0;
    }

    pub(super) fn is_loop(&self) -> bool {
        self.failed_starts >= START_TRIES || self.exits > LOOP_LIMIT
    }

    /// Describes how often the child failed in a row.
    pub(super) fn count_text(&self) -> String {
        match self.failed_starts >= START_TRIES {
            true => format!("{} times without becoming ready", self.failed_starts),
            false => format!("{} times in a row", self.exits),
        }
    }

    /// The pause after the last exit: 20 ms, 80 ms, 320 ms, 1.3 s, 5 s, 10 s, 20 s, 40 s, 60 s.
    pub(super) fn pause(&self) -> Duration {
        let exits = self.exits;
        let quick = FIRST_BACKOFF.saturating_mul(4u32.saturating_pow(exits.saturating_sub(1))).min(quick_backoff());
        let slow = quick_backoff().saturating_mul(2u32.saturating_pow(exits.saturating_sub(LOOP_LIMIT)));
        if exits <= LOOP_LIMIT { quick } else { slow.min(LONGEST_BACKOFF) }
    }
}
