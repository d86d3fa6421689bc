//! Who gets a slot, on machines of any size, in no time.

use super::*;

const GIB: u64 = 1024 * 1024 * 1024;

/// A machine whose children use as much of a processor as they are said to.
struct Machine {
    policy: SlotPolicy,
    now: Duration,
    free_bytes: u64,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Machine {
    fn new(processors: usize) -> Self {
        Self { policy: SlotPolicy::new(processors), now: seconds(1000), free_bytes: 64 * GIB }
    }

    /// So many arrive; what that leads to.
    fn arrive(&mut self, pace: Pace, count: usize) -> Vec<Step> {
        for _ in 0..count {
            self.policy.arrive(pace, self.now);
        }
        self.steps()
    }

    fn steps(&mut self) -> Vec<Step> {
        std::iter::from_fn(|| self.policy.next(self.now, || Some(self.free_bytes))).collect()
    }

    /// Time passes, in which each of these uses a processor all the time and the others sleep.
    fn pass(&mut self, time: Duration, busy: &[Id]) -> Vec<Step> {
        self.now += time;
        for id in busy {
            let child = self.policy.children.iter().find(|child| child.id == *id).unwrap();
            if let State::Running { used, .. } = child.state {
                self.policy.measure(*id, self.now, used + time);
            }
        }
        self.steps()
    }

    fn leave(&mut self, id: Id) -> Vec<Step> {
        self.policy.leave(id);
        self.steps()
    }
}

#[test]
fn no_more_run_than_there_are_processors() {
    for pace in [Pace::Question, Pace::Quick, Pace::Slow] {
        for processors in [2, 4, 16] {
            let mut machine = Machine::new(processors);
            assert_eq!(machine.arrive(pace, 25).len(), processors);
            assert_eq!(machine.leave(1), [Step::Begin(processors as Id + 1)]);
        }
        // A slow one alone must not hold up a machine with one processor.
        assert_eq!(Machine::new(1).arrive(pace, 25).len(), 2);
    }
}

#[test]
fn fewer_run_where_memory_is_short_but_always_one() {
    let mut machine = Machine::new(8);
    machine.free_bytes = GIB;
    assert_eq!(machine.arrive(Pace::Slow, 25).len(), 4);
    machine.free_bytes = 0;
    assert_eq!(machine.leave(1), []);
    (2..=3).for_each(|id| drop(machine.leave(id)));
    assert_eq!(machine.leave(4), [Step::Begin(5)]);
}

#[test]
fn a_quick_one_is_before_slow_ones() {
    let mut machine = Machine::new(2);
    machine.arrive(Pace::Slow, 25);
    // Both run; one of them gives way, and begins again once no quick one has come for a while.
    machine.pass(seconds(5), &[1, 2]);
    assert_eq!(machine.arrive(Pace::Quick, 1), [Step::End(2)]);
    assert!(machine.policy.is_ending(2));
    assert_eq!(machine.leave(2), [Step::Begin(26)]);
    assert_eq!(machine.leave(26), []);
    assert_eq!(machine.arrive(Pace::Quick, 1), [Step::Begin(27)], "the slot is kept for it");
    assert_eq!(machine.leave(27), []);
    assert_eq!(machine.pass(QUIET, &[1]), [Step::Begin(3)]);
    assert_eq!(machine.leave(1), [Step::Begin(4)]);
}

#[test]
fn a_new_file_that_turns_out_slow_gives_way() {
    let mut machine = Machine::new(2);
    assert_eq!(machine.arrive(Pace::Quick, 4), [Step::Begin(1), Step::Begin(2)]);
    assert_eq!(machine.pass(Duration::from_millis(900), &[1, 2]), []);
    assert_eq!(machine.pass(Duration::from_millis(100), &[1, 2]), [Step::End(2)]);
    assert_eq!(machine.leave(2), [Step::Begin(3)]);
    // One that sleeps is slow after some more time.
    assert_eq!(machine.pass(seconds(2), &[]), []);
    assert_eq!(machine.pass(seconds(1), &[]), [Step::End(3)]);
    assert_eq!(machine.leave(3), [Step::Begin(4)]);
}

#[test]
fn questions_are_never_ended() {
    let mut machine = Machine::new(2);
    machine.arrive(Pace::Question, 2);
    machine.pass(seconds(5), &[1, 2]);
    assert_eq!(machine.arrive(Pace::Quick, 1), []);
    machine.leave(2);
    machine.leave(3);
    machine.pass(QUIET, &[1]);
    assert_eq!(machine.arrive(Pace::Slow, 1), [Step::Begin(4)]);
    machine.pass(seconds(1), &[1]);
    assert_eq!(machine.arrive(Pace::Question, 1), [Step::End(4)]);
}

#[test]
fn slow_ones_do_not_wait_for_ever() {
    let mut machine = Machine::new(2);
    machine.arrive(Pace::Quick, 2);
    assert_eq!(machine.arrive(Pace::Slow, 1), []);
    machine.arrive(Pace::Quick, 50);
    let has_begun =
        |machine: &Machine, id| machine.policy.children.iter().any(|child| child.id == id && child.began().is_some());
    // Each quick one takes a second, and there is always another.
    for quick in [1, 2].into_iter().chain(4..24) {
        machine.now += Duration::from_millis(500);
        machine.leave(quick);
    }
    assert!(has_begun(&machine, 3));
    assert!(!has_begun(&machine, 50));
}

#[test]
fn those_that_sleep_leave_their_slots() {
    let mut machine = Machine::new(2);
    assert_eq!(machine.arrive(Pace::Slow, 20).len(), 2);
    assert_eq!(machine.pass(IDLE - seconds(1), &[2]), []);
    assert_eq!(machine.pass(seconds(1), &[2]), [Step::Begin(3)], "1 sleeps");
    assert_eq!(machine.pass(IDLE, &[2]), [Step::Begin(4)]);
    assert_eq!(machine.pass(IDLE, &[2]), [Step::Begin(5)]);
    assert_eq!(machine.pass(IDLE, &[2]), [Step::Begin(6)]);
    assert_eq!(machine.pass(IDLE, &[2]), [], "and no more than four");
    assert_eq!(machine.leave(1), [Step::Begin(7)]);
}
