//! Tests of the policy, on children without processes.

#[path = "policy_failure_tests.rs"]
mod failures;
#[path = "policy_level_tests.rs"]
mod levels;
#[path = "policy_start_tests.rs"]
mod start_and_stop;

use super::super::restart::{LONGEST_BACKOFF, LOOP_LIMIT, START_TRIES};
use super::super::spec::{ExitReason, Outlook};
use super::*;
use leoflow_base::sys::process::Signal;
use leoflow_base::sys::process::reaper::Exit;

fn plan(name: &'static str, one_shot: bool) -> Plan {
    Plan {
        name,
        one_shot,
        start_limit: Duration::from_secs(30),
        silence_limit: Duration::from_secs(20),
        stop: vec![(Signal::Terminate, Duration::from_secs(5)), (Signal::Kill, Duration::from_secs(5))],
    }
}

/// Simulates children without processes; pids are consecutive numbers.
struct Fake {
    model: Model,
    now: Instant,
    next_pid: i32,
    signals: Vec<(&'static str, Signal)>,
    started: Vec<&'static str>,
}

impl Fake {
    fn new() -> Self {
        let plans = vec![plan("db", false), plan("migrate", true), plan("server", false), plan("agent", false)];
        let mut fake =
            Self { model: Model::new(plans), now: Instant::now(), next_pid: 100, signals: vec![], started: vec![] };
        fake.feed(Event::Tick);
        fake
    }

    /// Passes an event to the policy and simulates the resulting actions.
    fn feed(&mut self, event: Event) {
        let mut todo = vec![event];
        while let Some(event) = todo.pop() {
            for action in self.model.step(event, self.now) {
                match action {
                    Action::Spawn(index) => {
                        self.next_pid += 1;
                        self.started.push(self.model.children[index].plan.name);
                        todo.push(Event::Spawned { index, pid: self.next_pid });
                    }
                    Action::Signal { pid, signal } => {
                        let child = self.model.children.iter().find(|c| c.phase.pid() == Some(pid)).unwrap();
                        self.signals.push((child.plan.name, signal));
                    }
                }
            }
        }
        self.assert_next_deadline_is_ahead();
    }

    /// A deadline in the past would make the supervisor's loop spin.
    fn assert_next_deadline_is_ahead(&self) {
        let deadline = self.model.next_deadline();
        assert!(deadline.is_none_or(|deadline| deadline > self.now), "{:?}", self.model);
    }

    fn pid(&self, name: &str) -> i32 {
        let child = self.model.children.iter().find(|c| c.plan.name == name).unwrap();
        child.phase.pid().unwrap_or_else(|| panic!("{name} is {:?}", child.phase))
    }

    fn phase(&self, name: &str) -> &Phase {
        &self.model.children.iter().find(|c| c.plan.name == name).unwrap().phase
    }

    fn ready(&mut self, name: &str) {
        let pid = self.pid(name);
        self.feed(Event::Child(pid, ChildEvent::Ready));
    }

    fn exit(&mut self, name: &str, exit: Exit) {
        let pid = self.pid(name);
        self.feed(Event::Child(pid, ChildEvent::Exited(exit)));
    }

    /// Advances the time to the next deadline, and by at least `minimum`.
    fn advance(&mut self, minimum: Duration) {
        self.now = self.model.next_deadline().unwrap_or(self.now).max(self.now + minimum);
        self.feed(Event::Tick);
    }

    /// All children run and the instance is healthy.
    fn all_up() -> Self {
        let mut fake = Self::new();
        fake.ready("db");
        fake.exit("migrate", Exit::Code(0));
        fake.ready("server");
        fake.ready("agent");
        assert_eq!(fake.model.overall(), Overall::Healthy);
        fake
    }

    /// Advances the time while all children but `silent` send signs of life.
    fn run_for(&mut self, seconds: u64, silent: &str) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            for name in ["db", "server", "agent"].into_iter().filter(|name| *name != silent) {
                if let Some(pid) = self.phase(name).pid() {
                    self.feed(Event::Child(pid, ChildEvent::Alive));
                }
            }
            self.feed(Event::Tick);
        }
    }

    fn keep_alive(&mut self) {
        for name in ["db", "server", "agent"] {
            if let Some(pid) = self.phase(name).pid() {
                self.feed(Event::Child(pid, ChildEvent::Alive));
            }
        }
    }
}

/// The pause before the next start of an exited child.
fn pause(fake: &Fake, name: &str) -> Duration {
    let Phase::Backoff { until } = *fake.phase(name) else { panic!("{:?}", fake.phase(name)) };
    until - fake.now
}
