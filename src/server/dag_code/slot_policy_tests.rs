//! Tests which children get a slot, on machines of any size and with simulated time.

use super::*;
use std::collections::VecDeque;

const GIB: u64 = 1024 * 1024 * 1024;

fn saved(scan: u64, modified: i64) -> Recency {
    Recency { scan, modified: (modified, 0) }
}

/// A machine whose children use the given processor time.
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

    /// Adds children of the first scan, or questions; returns the resulting steps.
    fn add(&mut self, pace: Pace, count: usize) -> Vec<Step> {
        for _ in 0..count {
            self.policy.add(Priority { pace, recency: saved(1, 0) }, self.now);
        }
        self.steps()
    }

    /// Adds a file.
    fn save(&mut self, pace: Pace, recency: Recency) -> Vec<Step> {
        self.policy.add(Priority { pace, recency }, self.now);
        self.steps()
    }

    /// Ends the children that are started one after another, this many times; returns those that are started then.
    fn next_started(&mut self, mut running: Id, count: usize) -> Vec<Id> {
        let next = |_| {
            let steps = self.remove(running);
            let [Step::Start(id)] = steps[..] else { panic!("{steps:?}") };
            running = id;
            id
        };
        (0..count).map(next).collect()
    }

    fn steps(&mut self) -> Vec<Step> {
        std::iter::from_fn(|| self.policy.next(self.now, || Some(self.free_bytes))).collect()
    }

    /// Advances time, in which the `busy` children use a processor and the others sleep.
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

    fn remove(&mut self, id: Id) -> Vec<Step> {
        self.policy.remove(id);
        self.steps()
    }
}

#[test]
fn runs_at_most_one_child_per_processor() {
    for pace in [Pace::Question, Pace::Quick, Pace::Slow] {
        for processors in [2, 4, 16] {
            let mut machine = Machine::new(processors);
            assert_eq!(machine.add(pace, 25).len(), processors);
            assert_eq!(machine.remove(1), [Step::Start(processors as Id + 1)]);
        }
        // One slow child must not block a machine with one processor.
        assert_eq!(Machine::new(1).add(pace, 25).len(), 2);
    }
}

#[test]
fn low_memory_limits_children_but_one_always_runs() {
    let mut machine = Machine::new(8);
    machine.free_bytes = GIB;
    assert_eq!(machine.add(Pace::Slow, 25).len(), 4);
    machine.free_bytes = 0;
    assert_eq!(machine.remove(1), []);
    (2..=3).for_each(|id| drop(machine.remove(id)));
    assert_eq!(machine.remove(4), [Step::Start(5)]);
}

#[test]
fn quick_children_go_before_slow_ones() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Slow, 25);
    // Two run. One of them is aborted, and a slow one starts once no quick one has arrived for a while.
    machine.pass(seconds(5), &[1, 2]);
    assert_eq!(machine.add(Pace::Quick, 1), [Step::Abort(2)]);
    assert!(machine.policy.is_aborting(2));
    assert_eq!(machine.remove(2), [Step::Start(26)]);
    assert_eq!(machine.remove(26), []);
    assert_eq!(machine.add(Pace::Quick, 1), [Step::Start(27)], "its slot was kept free");
    assert_eq!(machine.remove(27), []);
    assert_eq!(machine.pass(QUICK_GRACE, &[1]), [Step::Start(3)]);
    assert_eq!(machine.remove(1), [Step::Start(4)]);
}

#[test]
fn a_new_slow_file_yields() {
    let mut machine = Machine::new(2);
    assert_eq!(machine.add(Pace::Quick, 4), [Step::Start(1), Step::Start(2)]);
    assert_eq!(machine.pass(Duration::from_millis(900), &[1, 2]), []);
    assert_eq!(machine.pass(Duration::from_millis(100), &[1, 2]), [Step::Abort(2)]);
    assert_eq!(machine.remove(2), [Step::Start(3)]);
    // A sleeping child becomes slow later.
    assert_eq!(machine.pass(seconds(2), &[]), []);
    assert_eq!(machine.pass(seconds(1), &[]), [Step::Abort(3)]);
    assert_eq!(machine.remove(3), [Step::Start(4)]);
}

#[test]
fn questions_are_never_aborted() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Question, 2);
    machine.pass(seconds(5), &[1, 2]);
    assert_eq!(machine.add(Pace::Quick, 1), []);
    machine.remove(2);
    machine.remove(3);
    machine.pass(QUICK_GRACE, &[1]);
    assert_eq!(machine.add(Pace::Slow, 1), [Step::Start(4)]);
    machine.pass(seconds(1), &[1]);
    assert_eq!(machine.add(Pace::Question, 1), [Step::Abort(4)]);
}

#[test]
fn slow_children_are_not_starved() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Quick, 2);
    assert_eq!(machine.add(Pace::Slow, 1), []);
    machine.add(Pace::Quick, 50);
    let has_begun = |machine: &Machine, id| {
        machine.policy.children.iter().any(|child| child.id == id && child.running_since().is_some())
    };
    // Each quick one takes a second, and another always waits.
    for quick in [1, 2].into_iter().chain(4..24) {
        machine.now += Duration::from_millis(500);
        machine.remove(quick);
    }
    assert!(has_begun(&machine, 3));
    assert!(!has_begun(&machine, 50));
}

#[test]
fn sleeping_children_free_their_slots() {
    let mut machine = Machine::new(2);
    assert_eq!(machine.add(Pace::Slow, 20).len(), 2);
    assert_eq!(machine.pass(IDLE_TIME - seconds(1), &[2]), []);
    assert_eq!(machine.pass(seconds(1), &[2]), [Step::Start(3)], "1 sleeps");
    assert_eq!(machine.pass(IDLE_TIME, &[2]), [Step::Start(4)]);
    assert_eq!(machine.pass(IDLE_TIME, &[2]), [Step::Start(5)]);
    assert_eq!(machine.pass(IDLE_TIME, &[2]), [Step::Start(6)]);
    assert_eq!(machine.pass(IDLE_TIME, &[2]), [], "and no more than four");
    assert_eq!(machine.remove(1), [Step::Start(7)]);
}

#[test]
fn a_file_saved_later_takes_the_extra_slot() {
    for pace in [Pace::Quick, Pace::Slow] {
        for batch in [Pace::Quick, Pace::Slow] {
            let mut machine = Machine::new(2);
            assert_eq!(machine.add(batch, 200).len(), 2);
            assert_eq!(machine.save(pace, saved(2, 0)), [Step::Start(201)]);
            // There is one extra slot, which is free again after the file.
            assert_eq!(machine.save(Pace::Slow, saved(3, 0)), []);
            assert_eq!(machine.remove(201), [Step::Start(202)]);
            assert_eq!(machine.remove(202), []);
        }
    }
}

#[test]
fn the_extra_slot_needs_memory() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Quick, 200);
    machine.free_bytes = 0;
    assert_eq!(machine.save(Pace::Quick, saved(2, 0)), []);
}

#[test]
fn files_found_together_start_in_the_order_of_their_times() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Quick, 2);
    for modified in [3, 1, 2] {
        machine.policy.add(Priority { pace: Pace::Quick, recency: saved(1, modified) }, machine.now);
    }
    assert_eq!(machine.remove(1), [Step::Start(3)]);
    // The fourth start is that of the child that has waited longest.
    assert_eq!(machine.remove(2), [Step::Start(4)]);
    assert_eq!(machine.remove(3), [Step::Start(5)]);
}

#[test]
fn a_later_scan_counts_more_than_the_modification_time() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Quick, 2);
    for recency in [saved(1, 9), saved(2, 5)] {
        machine.policy.add(Priority { pace: Pace::Quick, recency }, machine.now);
    }
    assert_eq!(machine.steps(), [Step::Start(4)]);
}

#[test]
fn a_file_saved_again_and_again_does_not_starve_the_others() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Quick, 10);
    // Two files are saved whenever an import ends.
    let (mut running, mut scan) = (VecDeque::from([1, 2]), 1);
    while !running.contains(&10) {
        scan += 1;
        assert!(scan < 100, "still running: {running:?}");
        for _ in 0..2 {
            machine.policy.add(Priority { pace: Pace::Quick, recency: saved(scan, 0) }, machine.now);
        }
        machine.policy.remove(running.pop_front().unwrap());
        let started = |step| if let Step::Start(id) = step { id } else { panic!("{step:?}") };
        running.extend(machine.steps().into_iter().map(started));
    }
}

#[test]
fn a_parse_is_not_aborted_for_files_saved_before_it() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Quick, 200);
    machine.save(Pace::Quick, saved(2, 0));
    assert_eq!(machine.remove(1), []);
    assert_eq!(machine.pass(seconds(5), &[2, 201]), [], "both are slow");
    assert_eq!(machine.save(Pace::Quick, saved(3, 0)), [Step::Start(202)]);
    assert_eq!(machine.save(Pace::Quick, saved(4, 0)), [], "202 may be quick");
    assert_eq!(machine.pass(seconds(5), &[2, 201, 202]), [Step::Abort(202)]);
    assert_eq!(machine.remove(202), [Step::Start(203)]);
}

#[test]
fn a_slow_file_saved_later_goes_before_quick_ones() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Quick, 200);
    machine.save(Pace::Quick, saved(2, 0));
    machine.save(Pace::Slow, saved(2, 0));
    machine.remove(1);
    assert_eq!(machine.remove(2), [Step::Start(202)]);
}

#[test]
fn questions_go_before_files() {
    let mut machine = Machine::new(2);
    machine.add(Pace::Quick, 200);
    assert_eq!(machine.add(Pace::Question, 3), [Step::Start(201)]);
    machine.remove(1);
    assert_eq!(machine.next_started(2, 2), [202, 203]);
}
