//! Decides which child process with users' code starts and which yields its slot. Pure: time, processor time and memory
//! are passed as values.
//!
//! There is one slot per processor, so that heavy imports do not slow each other down until all of them time out. Quick
//! parses must not wait for slow ones: while quick children arrive, slow ones leave one slot free. With two processors
//! that is half of the machine, so once no quick child has arrived for a while, slow children take every slot. When a
//! quick child arrives then, the youngest parse is aborted and restarted later. A new file counts as quick until its
//! parse turns out to be slow, and may be aborted too. Older parses are not aborted, so every parse completes
//! eventually. A child that sleeps uses no processor and gives up its slot after a while.

use std::time::Duration;

pub type Id = u64;

/// Processor time above which a child counts as slow.
const QUICK_CPU_TIME: Duration = Duration::from_secs(1);
/// Run time above which a child counts as slow. A quick one takes about a second on a busy machine.
const QUICK_RUN_TIME: Duration = Duration::from_secs(3);
/// How long a slot is kept free after a quick child.
const QUICK_GRACE: Duration = Duration::from_secs(10);
/// How long a slow child waits at most for quick ones when no slow one runs.
const MAX_SLOW_WAIT: Duration = Duration::from_secs(10);
/// A child that used less than `BUSY_CPU_TIME` for this long counts as asleep.
const IDLE_TIME: Duration = Duration::from_secs(15);
const BUSY_CPU_TIME: Duration = Duration::from_millis(50);
/// Maximum number of sleeping children without a slot.
const MAX_ASLEEP: usize = 4;
/// Minimum number of slots: one slow child must not block a machine with a single processor.
const MIN_SLOTS: usize = 2;
/// Free memory per child required before another starts. A parse with Airflow's own SDK uses 150 to 250 MiB.
const CHILD_BYTES: u64 = 256 * 1024 * 1024;

/// The pace of a child: expected before it starts, or measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A caller waits for the answer, or a callback must run only once, so the child is never aborted.
    Question,
    /// A parse that was quick last time, or the first of its file.
    Quick,
    Slow,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Start the child.
    Start(Id),
    /// Abort the child, which yields to a quick one.
    Abort(Id),
}

pub struct SlotPolicy {
    slots: usize,
    children: Vec<Child>,
    last_id: Id,
    /// When a quick child last waited or started.
    last_quick_at: Option<Duration>,
}

struct Child {
    id: Id,
    pace: Pace,
    state: State,
}

enum State {
    Waiting {
        since: Duration,
    },
    Running {
        since: Duration,
        used: Duration,
        /// When a measurement last showed that the child used the processor, and its processor time then.
        busy: (Duration, Duration),
    },
    /// Runs without a slot, because it uses no processor.
    Asleep,
    /// Is being aborted and will wait again.
    Aborting,
}

impl Child {
    fn is_slow(&self, now: Duration) -> bool {
        match self.state {
            State::Running { since, used, .. } => {
                self.pace == Pace::Slow || used >= QUICK_CPU_TIME || now.saturating_sub(since) >= QUICK_RUN_TIME
            }
            State::Asleep | State::Aborting => true,
            State::Waiting { .. } => self.pace == Pace::Slow,
        }
    }

    fn has_slot(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Aborting)
    }

    fn running_since(&self) -> Option<Duration> {
        match self.state {
            State::Running { since, .. } => Some(since),
            _ => None,
        }
    }

    fn waiting_since(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { since } => Some(since),
            _ => None,
        }
    }

    fn is_idle(&self, now: Duration) -> bool {
        matches!(self.state, State::Running { busy: (busy_at, _), .. } if now.saturating_sub(busy_at) >= IDLE_TIME)
    }
}

/// Times are durations since a fixed start.
impl SlotPolicy {
    pub fn new(processors: usize) -> Self {
        Self { slots: processors.max(MIN_SLOTS), children: Vec::new(), last_id: 0, last_quick_at: None }
    }

    /// Adds a child that waits for a slot.
    pub fn add(&mut self, pace: Pace, now: Duration) -> Id {
        self.last_id += 1;
        self.children.push(Child { id: self.last_id, pace, state: State::Waiting { since: now } });
        self.last_id
    }

    /// Records the processor time a child has used since it started.
    pub fn measure(&mut self, id: Id, now: Duration, cpu_time: Duration) {
        let child = self.children.iter_mut().find(|child| child.id == id);
        if let Some(State::Running { used, busy, .. }) = child.map(|child| &mut child.state) {
            *used = cpu_time;
            if cpu_time.saturating_sub(busy.1) >= BUSY_CPU_TIME {
                *busy = (now, cpu_time);
            }
        }
    }

    pub fn is_slow(&self, id: Id, now: Duration) -> bool {
        self.children.iter().any(|child| child.id == id && child.is_slow(now))
    }

    pub fn is_aborting(&self, id: Id) -> bool {
        self.children.iter().any(|child| child.id == id && matches!(child.state, State::Aborting))
    }

    /// Removes a child that has exited or was dropped.
    pub fn remove(&mut self, id: Id) {
        self.children.retain(|child| child.id != id);
    }

    /// Returns the next step; the caller repeats the call until it returns `None`. `free_bytes` returns the available
    /// memory, if the system reports it.
    pub fn next(&mut self, now: Duration, free_bytes: impl Fn() -> Option<u64>) -> Option<Step> {
        if !self.children.iter().any(|child| child.waiting_since().is_some()) {
            return None;
        }
        self.mark_sleeping(now);
        let is_quick = |child: &Child| child.waiting_since().is_some() && child.pace != Pace::Slow;
        let quick = self.children.iter().find(|child| is_quick(child)).map(|child| child.id);
        if quick.is_some() {
            self.last_quick_at = Some(now);
        }
        let taken = self.children.iter().filter(|child| child.has_slot()).count();
        if taken >= self.slots {
            return quick.and_then(|_| self.preempt(now));
        }
        let id = self.choose(quick, now)?;
        // Running children may not have allocated most of their memory yet.
        let needed = (taken as u64 + 1) * CHILD_BYTES;
        if taken > 0 && free_bytes().is_some_and(|bytes| bytes < needed) {
            return None;
        }
        let child = self.children.iter_mut().find(|child| child.id == id)?;
        child.state = State::Running { since: now, used: Duration::ZERO, busy: (now, Duration::ZERO) };
        Some(Step::Start(id))
    }

    /// Takes the slots of sleeping children; called while other children wait.
    fn mark_sleeping(&mut self, now: Duration) {
        let asleep = self.children.iter().filter(|child| matches!(child.state, State::Asleep)).count();
        let idle = self.children.iter_mut().filter(|child| child.is_idle(now));
        idle.take(MAX_ASLEEP.saturating_sub(asleep)).for_each(|child| child.state = State::Asleep);
    }

    fn slow_running(&self, now: Duration) -> usize {
        self.children.iter().filter(|child| child.running_since().is_some() && child.is_slow(now)).count()
    }

    /// Chooses the waiting child that gets a free slot.
    fn choose(&self, quick: Option<Id>, now: Duration) -> Option<Id> {
        let slow_running = self.slow_running(now);
        let waiting = self.children.iter().filter_map(|child| child.waiting_since().map(|since| (child, since)));
        let slow = waiting.filter(|(child, _)| child.pace == Pace::Slow).min_by_key(|(child, _)| child.id);
        let slow = slow.filter(|_| {
            let is_quiet = self.last_quick_at.is_none_or(|last| now.saturating_sub(last) >= QUICK_GRACE);
            is_quiet || slow_running + 1 < self.slots
        });
        match (quick, slow) {
            (Some(_), Some((slow, since))) if slow_running == 0 && now.saturating_sub(since) >= MAX_SLOW_WAIT => {
                Some(slow.id)
            }
            (Some(quick), _) => Some(quick),
            (None, slow) => slow.map(|(slow, _)| slow.id),
        }
    }

    /// Aborts the youngest parse if slow children hold every slot.
    fn preempt(&mut self, now: Duration) -> Option<Step> {
        if self.slow_running(now) < self.slots {
            return None;
        }
        let parses =
            self.children.iter_mut().filter(|child| child.running_since().is_some() && child.pace != Pace::Question);
        let youngest = parses.max_by_key(|child| child.running_since())?;
        youngest.state = State::Aborting;
        Some(Step::Abort(youngest.id))
    }
}

#[cfg(test)]
#[path = "slot_policy_tests.rs"]
mod tests;
