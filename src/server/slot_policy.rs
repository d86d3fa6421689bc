//! Which child with a user's code begins, and which gives way. Pure: time, processor time and memory come as values.
//!
//! There are as many slots as processors, so that heavy imports do not slow each other down until all of them time out.
//! A parse that is quick must not wait for slow ones, so slow ones have all slots but one while quick ones come. With
//! two processors that is half of the machine; so once no quick one has come for a while slow ones take every slot, and
//! the youngest of them gives way when a quick one comes: it is ended and begins again later. Nobody knows that a
//! new file is slow before it runs; it gives way too. The others of the slow go on, so all of them end sometime.
//! One that sleeps uses no processor and leaves its slot to others after a while.

use std::time::Duration;

pub type Id = u64;

/// One that has used more processor time is slow.
const QUICK_PROCESSOR: Duration = Duration::from_secs(1);
/// One that has run for longer is slow, whatever it does. A quick one on a busy machine takes about a second.
const QUICK_TIME: Duration = Duration::from_secs(3);
/// So long after a quick one a slot stays free for the next.
const QUIET: Duration = Duration::from_secs(10);
/// Slow ones wait no longer than this for quick ones, when none of them runs.
const PATIENCE: Duration = Duration::from_secs(10);
/// One that has used less than `BUSY` of a processor for so long sleeps.
const IDLE: Duration = Duration::from_secs(15);
const BUSY: Duration = Duration::from_millis(50);
/// Of those that sleep beside the slots.
const MOST_ASLEEP: usize = 4;
/// Also of a single processor, which a slow one must not have for itself.
const FEWEST_SLOTS: usize = 2;
/// What has to be free for each child before another begins. A parse with Airflow's own SDK has 150 to 250 MiB.
const CHILD_BYTES: u64 = 256 * 1024 * 1024;

/// What is known of a child before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Somebody waits for its answer, and what it does is done once: it is never ended for another.
    Question,
    /// A parse that was quick the last time, or that is the first of its file.
    Quick,
    Slow,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Begin(Id),
    /// It gives way to a quick one.
    End(Id),
}

pub struct SlotPolicy {
    slots: usize,
    children: Vec<Child>,
    last_id: Id,
    /// When a quick one last waited or began.
    quick_at: Option<Duration>,
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
        /// When it was last found to have used a processor, and what it had used then.
        busy: (Duration, Duration),
    },
    /// Runs without a slot.
    Asleep,
    Ending,
}

impl Child {
    fn is_slow(&self, now: Duration) -> bool {
        match self.state {
            State::Running { since, used, .. } => {
                self.pace == Pace::Slow || used >= QUICK_PROCESSOR || now.saturating_sub(since) >= QUICK_TIME
            }
            State::Asleep | State::Ending => true,
            State::Waiting { .. } => self.pace == Pace::Slow,
        }
    }

    fn has_slot(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Ending)
    }

    fn began(&self) -> Option<Duration> {
        match self.state {
            State::Running { since, .. } => Some(since),
            _ => None,
        }
    }

    fn waits_since(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { since } => Some(since),
            _ => None,
        }
    }

    fn is_idle(&self, now: Duration) -> bool {
        matches!(self.state, State::Running { busy: (at, _), .. } if now.saturating_sub(at) >= IDLE)
    }
}

/// Times are since any one moment.
impl SlotPolicy {
    pub fn new(processors: usize) -> Self {
        Self { slots: processors.max(FEWEST_SLOTS), children: Vec::new(), last_id: 0, quick_at: None }
    }

    pub fn arrive(&mut self, pace: Pace, now: Duration) -> Id {
        self.last_id += 1;
        self.children.push(Child { id: self.last_id, pace, state: State::Waiting { since: now } });
        self.last_id
    }

    /// Notes the processor time that a child has used since it began.
    pub fn measure(&mut self, id: Id, now: Duration, processor: Duration) {
        let child = self.children.iter_mut().find(|child| child.id == id);
        if let Some(State::Running { used, busy, .. }) = child.map(|child| &mut child.state) {
            *used = processor;
            if processor.saturating_sub(busy.1) >= BUSY {
                *busy = (now, processor);
            }
        }
    }

    pub fn is_slow(&self, id: Id, now: Duration) -> bool {
        self.children.iter().any(|child| child.id == id && child.is_slow(now))
    }

    pub fn is_ending(&self, id: Id) -> bool {
        self.children.iter().any(|child| child.id == id && matches!(child.state, State::Ending))
    }

    /// It has ended, or nobody wants it any more.
    pub fn leave(&mut self, id: Id) {
        self.children.retain(|child| child.id != id);
    }

    /// The next step, if there is one now; to be asked again after it. `free_bytes` is the memory that is left, where the
    /// system says.
    pub fn next(&mut self, now: Duration, free_bytes: impl Fn() -> Option<u64>) -> Option<Step> {
        if !self.children.iter().any(|child| child.waits_since().is_some()) {
            return None;
        }
        self.let_sleep(now);
        let is_quick = |child: &Child| child.waits_since().is_some() && child.pace != Pace::Slow;
        let quick = self.children.iter().find(|child| is_quick(child)).map(|child| child.id);
        if quick.is_some() {
            self.quick_at = Some(now);
        }
        let taken = self.children.iter().filter(|child| child.has_slot()).count();
        if taken >= self.slots {
            return quick.and_then(|_| self.give_way(now));
        }
        let id = self.choose(quick, now)?;
        // Those that run may have taken next to nothing of what they will need.
        let needed = (taken as u64 + 1) * CHILD_BYTES;
        if taken > 0 && free_bytes().is_some_and(|bytes| bytes < needed) {
            return None;
        }
        let child = self.children.iter_mut().find(|child| child.id == id)?;
        child.state = State::Running { since: now, used: Duration::ZERO, busy: (now, Duration::ZERO) };
        Some(Step::Begin(id))
    }

    /// Those that sleep leave their slots, while there is anything that may have them.
    fn let_sleep(&mut self, now: Duration) {
        let asleep = self.children.iter().filter(|child| matches!(child.state, State::Asleep)).count();
        let idle = self.children.iter_mut().filter(|child| child.is_idle(now));
        idle.take(MOST_ASLEEP.saturating_sub(asleep)).for_each(|child| child.state = State::Asleep);
    }

    fn slow_running(&self, now: Duration) -> usize {
        self.children.iter().filter(|child| child.began().is_some() && child.is_slow(now)).count()
    }

    /// Which of those that wait begins; there is a slot.
    fn choose(&self, quick: Option<Id>, now: Duration) -> Option<Id> {
        let slow_running = self.slow_running(now);
        let waiting = self.children.iter().filter_map(|child| child.waits_since().map(|since| (child, since)));
        let slow = waiting.filter(|(child, _)| child.pace == Pace::Slow).min_by_key(|(child, _)| child.id);
        let slow = slow.filter(|_| {
            let is_quiet = self.quick_at.is_none_or(|at| now.saturating_sub(at) >= QUIET);
            is_quiet || slow_running + 1 < self.slots
        });
        match (quick, slow) {
            (Some(_), Some((slow, since))) if slow_running == 0 && now.saturating_sub(since) >= PATIENCE => {
                Some(slow.id)
            }
            (Some(quick), _) => Some(quick),
            (None, slow) => slow.map(|(slow, _)| slow.id),
        }
    }

    /// Ends the youngest parse where slow ones have every slot.
    fn give_way(&mut self, now: Duration) -> Option<Step> {
        if self.slow_running(now) < self.slots {
            return None;
        }
        let parses = self.children.iter_mut().filter(|child| child.began().is_some() && child.pace != Pace::Question);
        let youngest = parses.max_by_key(|child| child.began())?;
        youngest.state = State::Ending;
        Some(Step::End(youngest.id))
    }
}

#[cfg(test)]
#[path = "slot_policy_tests.rs"]
mod tests;
