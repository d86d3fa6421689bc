//! Decides which child process with users' code starts and which yields its slot. Pure: time, processor time and memory
//! are passed as values.
//!
//! There is one slot per processor, so that heavy imports do not slow each other down until all of them time out. Quick
//! parses must not wait for slow ones: while quick children arrive, slow ones leave one slot free. With two processors
//! that is half of the machine, so once no quick child has arrived for a while, slow children take every slot. When a
//! quick child arrives then, the youngest parse is aborted and restarted later. A new file counts as quick until its
//! parse turns out to be slow, and may be aborted too. Older parses are not aborted, so every parse completes
//! eventually. A child that sleeps uses no processor and gives up its slot after a while.
//!
//! The file saved last goes first, and a parse is not aborted for a file saved before it. A file saved after those of
//! all running parses need not wait until one of them ends: there is one extra slot for it. A folder of hundreds of
//! files therefore never delays the file that its user saves next. Some slots go to the child that has waited longest,
//! so that files which a program saves again and again do not starve the others.

use std::cmp::Reverse;
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
/// One in this many slots goes to the child that has waited longest.
const FAIR_SHARE: u32 = 4;
/// Number of starts since then after which the extra slot stays free.
const MAX_UNFAIR: u32 = 2 * FAIR_SHARE;
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

/// When a file was saved; later is greater. The scan that noticed the change counts first, since a file may be copied or
/// unpacked with an old modification time, or one in the future. That time orders the files of one scan, such as those
/// found at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recency {
    /// Number of the scan.
    pub scan: u64,
    /// Modification time in seconds and nanoseconds.
    pub modified: (i64, i64),
}

/// What decides when a child gets a slot.
#[derive(Debug, Clone, Copy)]
pub struct Priority {
    pub pace: Pace,
    pub recency: Recency,
}

impl Priority {
    pub fn question() -> Self {
        Self { pace: Pace::Question, recency: Recency::default() }
    }

    /// Questions before files, and files of later scans before others.
    fn urgency(&self) -> (bool, u64) {
        (self.pace == Pace::Question, self.recency.scan)
    }
}

/// An order of the waiting children; questions are first in both.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Newest,
    LongestWaiting,
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
    /// Number of children started since the last one that had waited longest.
    unfair_starts: u32,
    /// When a quick child last waited or started.
    last_quick_at: Option<Duration>,
}

struct Child {
    id: Id,
    priority: Priority,
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
                self.priority.pace == Pace::Slow
                    || used >= QUICK_CPU_TIME
                    || now.saturating_sub(since) >= QUICK_RUN_TIME
            }
            State::Asleep | State::Aborting => true,
            State::Waiting { .. } => self.priority.pace == Pace::Slow,
        }
    }

    /// The first child in an order has the greatest rank. Questions, and files of equal recency, keep their order.
    fn rank(&self, order: Order) -> (bool, Option<Recency>, Reverse<Id>) {
        let Priority { pace, recency } = self.priority;
        (pace == Pace::Question, (order == Order::Newest).then_some(recency), Reverse(self.id))
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
        Self {
            slots: processors.max(MIN_SLOTS),
            children: Vec::new(),
            last_id: 0,
            unfair_starts: 0,
            last_quick_at: None,
        }
    }

    /// Adds a child that waits for a slot.
    pub fn add(&mut self, priority: Priority, now: Duration) -> Id {
        self.last_id += 1;
        self.children.push(Child { id: self.last_id, priority, state: State::Waiting { since: now } });
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
        let (newest, newest_priority) = self.first(Order::Newest, |_| true)?;
        self.mark_sleeping(now);
        let quick = self.first(Order::Newest, |pace| pace != Pace::Slow);
        if quick.is_some() {
            self.last_quick_at = Some(now);
        }
        let taken = self.children.iter().filter(|child| child.has_slot()).count();
        let id = if taken < self.slots {
            self.choose(now)?
        } else if taken == self.slots && self.unfair_starts < MAX_UNFAIR && self.is_newer_than_running(newest_priority)
        {
            newest
        } else {
            let (_, quick_priority) = quick?;
            return self.preempt(quick_priority, taken, now);
        };
        // Running children may not have allocated most of their memory yet.
        let needed = (taken as u64 + 1) * CHILD_BYTES;
        if taken > 0 && free_bytes().is_some_and(|bytes| bytes < needed) {
            return None;
        }
        let child = self.children.iter_mut().find(|child| child.id == id)?;
        child.state = State::Running { since: now, used: Duration::ZERO, busy: (now, Duration::ZERO) };
        let has_waited_longest = taken < self.slots && self.order() == Order::LongestWaiting;
        self.unfair_starts = if has_waited_longest { 0 } else { self.unfair_starts + 1 };
        Some(Step::Start(id))
    }

    /// Returns the first waiting child in this order whose pace is accepted.
    fn first(&self, order: Order, accepts: impl Fn(Pace) -> bool) -> Option<(Id, Priority)> {
        let waiting = self.children.iter().filter(|child| child.waiting_since().is_some());
        let first = waiting.filter(|child| accepts(child.priority.pace)).max_by_key(|child| child.rank(order))?;
        Some((first.id, first.priority))
    }

    fn is_newer_than_running(&self, priority: Priority) -> bool {
        let mut running = self.children.iter().filter(|child| child.has_slot());
        running.all(|child| child.priority.urgency() < priority.urgency())
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

    /// The order in which the next free slot is given.
    fn order(&self) -> Order {
        if self.unfair_starts + 1 < FAIR_SHARE { Order::Newest } else { Order::LongestWaiting }
    }

    /// Chooses the waiting child that gets a free slot.
    fn choose(&self, now: Duration) -> Option<Id> {
        let order = self.order();
        let slow_running = self.slow_running(now);
        let is_quiet = self.last_quick_at.is_none_or(|last| now.saturating_sub(last) >= QUICK_GRACE);
        let quick = self.first(order, |pace| pace != Pace::Slow);
        let slow = self.first(order, |pace| pace == Pace::Slow).filter(|_| is_quiet || slow_running + 1 < self.slots);
        match (quick, slow) {
            (Some((_, quick)), Some((id, slow)))
                if slow_running == 0 && (slow.urgency() > quick.urgency() || self.is_slow_overdue(now)) =>
            {
                Some(id)
            }
            (Some((id, _)), _) | (None, Some((id, _))) => Some(id),
            (None, None) => None,
        }
    }

    fn is_slow_overdue(&self, now: Duration) -> bool {
        let mut slow = self.children.iter().filter(|child| child.priority.pace == Pace::Slow);
        slow.any(|child| child.waiting_since().is_some_and(|since| now.saturating_sub(since) >= MAX_SLOW_WAIT))
    }

    /// Aborts the youngest parse if slow children hold all `taken` slots, unless its file was saved after the waiting one.
    fn preempt(&mut self, waiting: Priority, taken: usize, now: Duration) -> Option<Step> {
        if self.slow_running(now) < taken {
            return None;
        }
        let is_parse = |child: &&mut Child| child.running_since().is_some() && child.priority.pace != Pace::Question;
        let youngest = self.children.iter_mut().filter(is_parse).max_by_key(|child| child.running_since())?;
        if youngest.priority.urgency() > waiting.urgency() {
            return None;
        }
        youngest.state = State::Aborting;
        Some(Step::Abort(youngest.id))
    }
}

#[cfg(test)]
#[path = "slot_policy_tests.rs"]
mod tests;
