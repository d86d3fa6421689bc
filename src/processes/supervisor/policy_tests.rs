use super::super::spec::{ExitReason, Outlook};
use super::super::state::{LONGEST_BACKOFF, LOOP_LIMIT, START_TRIES};
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
        stop_now_at: 1,
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
        self.feed(Event::Ready { pid });
    }

    fn exit(&mut self, name: &str, exit: Exit) {
        let pid = self.pid(name);
        self.feed(Event::Exited { pid, exit });
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
                    self.feed(Event::Alive { pid });
                }
            }
            self.feed(Event::Tick);
        }
    }

    fn keep_alive(&mut self) {
        for name in ["db", "server", "agent"] {
            if let Some(pid) = self.phase(name).pid() {
                self.feed(Event::Alive { pid });
            }
        }
    }
}

#[test]
fn each_child_starts_when_the_previous_one_is_ready() {
    let mut fake = Fake::new();
    assert_eq!(fake.started, ["db"]);
    fake.feed(Event::Tick);
    assert_eq!(fake.started, ["db"]);
    fake.ready("db");
    assert_eq!(fake.started, ["db", "migrate"]);
    fake.exit("migrate", Exit::Code(0));
    fake.ready("server");
    assert_eq!(fake.started, ["db", "migrate", "server", "agent"]);
    assert_eq!(fake.model.overall(), Overall::Starting);
    fake.ready("agent");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn children_stop_one_by_one_in_reverse_order() {
    let mut fake = Fake::all_up();
    fake.feed(Event::Stop);
    for name in ["agent", "server", "db"] {
        assert_eq!(fake.signals.pop(), Some((name, Signal::Terminate)));
        assert!(fake.signals.is_empty());
        fake.exit(name, Exit::Code(0));
    }
    assert_eq!(fake.model.overall(), Overall::Stopped);
}

#[test]
fn a_child_that_ignores_the_stop_is_killed_at_its_deadline() {
    let mut fake = Fake::all_up();
    fake.feed(Event::Stop);
    fake.advance(Duration::ZERO);
    assert_eq!(fake.signals, [("agent", Signal::Terminate), ("agent", Signal::Kill)]);
    fake.advance(Duration::ZERO);
    assert_eq!(fake.signals.last(), Some(&("agent", Signal::Kill)), "and killed again, and again");
}

#[test]
fn an_immediate_stop_kills_all_at_once() {
    let mut fake = Fake::all_up();
    fake.feed(Event::Stop);
    fake.feed(Event::StopNow);
    let killed: Vec<_> = fake.signals.iter().filter(|(_, s)| *s == Signal::Kill).map(|(n, _)| *n).collect();
    assert_eq!(killed, ["db", "server", "agent"]);
    for name in ["server", "db", "agent"] {
        fake.exit(name, Exit::Signal(9));
    }
    assert_eq!(fake.model.overall(), Overall::Stopped);
}

#[test]
fn a_crashed_child_is_restarted_while_the_others_run() {
    let mut fake = Fake::all_up();
    let server = fake.pid("server");
    fake.exit("db", Exit::Signal(9));
    assert_eq!(fake.model.overall(), Overall::Degraded);
    fake.advance(Duration::ZERO);
    assert_eq!(fake.started.last(), Some(&"db"));
    fake.ready("db");
    assert_eq!(fake.model.overall(), Overall::Healthy);
    assert_eq!(fake.pid("server"), server);
    assert_eq!(fake.started.iter().filter(|name| **name == "migrate").count(), 1);
}

#[test]
fn children_that_crash_together_are_restarted_in_order() {
    let mut fake = Fake::all_up();
    fake.exit("db", Exit::Signal(9));
    fake.exit("server", Exit::Signal(9));
    fake.run_for(1, "");
    for _ in 0..60 {
        fake.run_for(10, "");
        let pid = fake.pid("db");
        fake.feed(Event::Busy { pid, text: "recovering".into() });
    }
    assert!(matches!(fake.phase("db"), Phase::Starting { .. }), "{:?}", fake.phase("db"));
    assert!(matches!(fake.phase("server"), Phase::Backoff { .. }), "it could only fail meanwhile");
    fake.ready("db");
    fake.ready("server");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn an_unfit_child_is_stopped_gently_and_not_retried() {
    let mut fake = Fake::new();
    let pid = fake.pid("db");
    fake.feed(Event::Unfit { pid, reason: "belongs to another instance".into() });
    assert_eq!(fake.signals, [("db", Signal::Terminate)]);
    fake.exit("db", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Stopped);
    assert_eq!((fake.model.start_failure, fake.started.len()), (Some(0), 1));
}

#[test]
fn a_requested_restart_is_not_degraded() {
    let mut fake = Fake::all_up();
    fake.feed(Event::Restart);
    for name in ["agent", "server", "db"] {
        assert_eq!(fake.model.overall(), Overall::Starting);
        fake.exit(name, Exit::Code(0));
    }
    fake.ready("db");
    fake.exit("migrate", Exit::Code(0));
    fake.ready("server");
    assert_eq!(fake.model.overall(), Overall::Starting);
    fake.ready("agent");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

/// The pause before the next start of an exited child.
fn pause(fake: &Fake, name: &str) -> Duration {
    let Phase::Backoff { until } = *fake.phase(name) else { panic!("{:?}", fake.phase(name)) };
    until - fake.now
}

#[test]
fn a_crash_loop_is_retried_forever_with_growing_pauses() {
    let mut fake = Fake::all_up();
    let mut pauses = Vec::new();
    for exit_count in 1..=30 {
        fake.exit("server", Exit::Signal(9));
        pauses.push(pause(&fake, "server"));
        assert_eq!(fake.model.overall(), Overall::Degraded);
        assert_eq!(fake.model.looping().is_some(), exit_count > LOOP_LIMIT, "{exit_count}");
        fake.run_for(pauses[exit_count as usize - 1].as_secs() + 1, "");
        assert!(matches!(fake.phase("server"), Phase::Starting { .. }), "{exit_count}: {:?}", fake.phase("server"));
        fake.ready("server");
    }
    assert!(pauses.is_sorted() && pauses[0] < Duration::from_secs(1) && pauses[29] == LONGEST_BACKOFF, "{pauses:?}");
    assert_eq!(fake.model.overall(), Overall::Healthy);
    // After a stable time the next exit counts as the first.
    fake.run_for(61, "");
    fake.exit("server", Exit::Code(1));
    assert_eq!(pause(&fake, "server"), pauses[0]);
}

#[test]
fn a_crash_loop_at_the_first_start_fails() {
    let mut fake = Fake::new();
    fake.ready("db");
    fake.exit("migrate", Exit::Code(0));
    for _ in 0..=LOOP_LIMIT {
        fake.ready("server");
        fake.exit("server", Exit::Code(1));
        fake.run_for(6, "");
    }
    assert_eq!(fake.model.start_failure, Some(2), "{:?}", fake.model);
    let Phase::Failed { reason } = fake.phase("server") else { panic!("{:?}", fake.phase("server")) };
    assert_eq!(reason, "exited with exit code 1, 6 times in a row");
}

#[test]
fn a_child_that_no_longer_becomes_ready_is_retried_forever() {
    let mut fake = Fake::all_up();
    for exit_count in 1..=20_u32 {
        fake.exit("agent", Exit::Code(1));
        let is_looping = exit_count > START_TRIES;
        assert_eq!(fake.model.looping().is_some(), is_looping, "{exit_count}");
        if is_looping {
            let trouble = fake.model.looping().and_then(|child| child.trouble(fake.now)).unwrap();
            assert!(trouble.contains("exit code 1") && trouble.contains("without becoming ready"), "{trouble}");
        }
        let seconds = pause(&fake, "agent").as_secs() + 1;
        fake.run_for(seconds, "");
        fake.pid("agent");
    }
    fake.ready("agent");
    assert_eq!((fake.model.overall(), fake.model.looping().is_some()), (Overall::Healthy, false));
}

#[test]
fn exits_while_the_datastore_is_down_do_not_count() {
    let mut fake = Fake::all_up();
    for _ in 0..20 {
        fake.exit("db", Exit::Signal(9));
        fake.exit("agent", Exit::Code(1));
        fake.exit("server", Exit::Code(1));
        let seconds = pause(&fake, "db").as_secs() + 1;
        fake.run_for(seconds, "");
        assert_eq!(fake.started.last(), Some(&"db"), "nothing starts before its dependency");
        fake.ready("db");
        // Restarted at once, regardless of their pauses.
        fake.ready("server");
        fake.ready("agent");
        assert_eq!(fake.model.overall(), Overall::Healthy);
    }
}

#[test]
fn a_recovered_datastore_ends_the_pauses_of_the_others() {
    let mut fake = Fake::all_up();
    for _ in 0..9 {
        fake.exit("server", Exit::Code(1));
        let seconds = pause(&fake, "server").as_secs() + 1;
        fake.run_for(seconds, "");
    }
    fake.exit("server", Exit::Code(1));
    assert_eq!(pause(&fake, "server"), LONGEST_BACKOFF);
    fake.exit("db", Exit::Signal(9));
    fake.run_for(1, "");
    fake.ready("db");
    assert_eq!(fake.started.last(), Some(&"server"));
}

#[test]
fn a_killed_migrator_is_retried_and_a_failed_one_is_not() {
    let mut fake = Fake::all_up();
    let restart = |fake: &mut Fake| {
        fake.feed(Event::Restart);
        for name in ["agent", "server", "db"] {
            if fake.phase(name).pid().is_some() {
                fake.exit(name, Exit::Code(0));
            }
        }
        fake.ready("db");
    };
    restart(&mut fake);
    fake.exit("migrate", Exit::Signal(9));
    fake.run_for(1, "");
    fake.exit("migrate", Exit::Code(0));
    fake.ready("server");
    fake.ready("agent");
    assert_eq!(fake.model.overall(), Overall::Healthy);
    restart(&mut fake);
    fake.exit("migrate", Exit::Code(3));
    assert_eq!(fake.model.overall(), Overall::Failed);
}

#[test]
fn damaged_files_make_the_child_fail() {
    let mut fake = Fake::all_up();
    let exit_reason = ExitReason { text: "invalid page".to_owned(), outlook: Outlook::Lasts };
    for _ in 0..=START_TRIES {
        let pid = fake.pid("db");
        fake.feed(Event::ExitReason { pid, exit_reason: exit_reason.clone() });
        fake.exit("db", Exit::Code(1));
        fake.run_for(1, "");
    }
    assert!(matches!(fake.phase("db"), Phase::Failed { reason } if reason.contains("invalid page")));
    assert_eq!(fake.model.overall(), Overall::Failed);
}

#[test]
fn an_unreachable_external_server_fails_only_the_first_start() {
    let away = |pid| Event::Unanswered { pid, reason: "no route to host".into() };
    let mut fake = Fake::new();
    let pid = fake.pid("db");
    fake.feed(away(pid));
    fake.exit("db", Exit::Code(0));
    assert_eq!((fake.model.overall(), fake.model.start_failure), (Overall::Stopped, Some(0)));
    let mut fake = Fake::all_up();
    for _ in 0..10 {
        fake.exit("db", Exit::Signal(9));
        let seconds = pause(&fake, "db").as_secs() + 1;
        fake.run_for(seconds, "");
        let pid = fake.pid("db");
        fake.feed(away(pid));
        fake.exit("db", Exit::Code(0));
        let seconds = pause(&fake, "db").as_secs() + 1;
        fake.run_for(seconds, "");
    }
    fake.ready("db");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn crashes_far_apart_are_not_a_loop() {
    let mut fake = Fake::all_up();
    for _ in 0..3 * LOOP_LIMIT {
        fake.exit("agent", Exit::Code(1));
        fake.advance(Duration::ZERO);
        fake.ready("agent");
        for _ in 0..8 {
            fake.now += Duration::from_secs(10);
            fake.keep_alive();
        }
    }
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn a_failed_migration_stops_the_start_and_is_not_retried() {
    let mut fake = Fake::new();
    fake.ready("db");
    let pid = fake.pid("migrate");
    fake.feed(Event::Failure { pid, json: "{}".into() });
    fake.exit("migrate", Exit::Code(3));
    assert_eq!(fake.signals, [("db", Signal::Terminate)]);
    fake.exit("db", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Stopped);
    assert_eq!(fake.model.start_failure, Some(1));
    assert_eq!(fake.model.children[1].failure.as_deref(), Some("{}"));
}

#[test]
fn a_child_that_never_becomes_ready_fails_after_some_tries() {
    let mut fake = Fake::new();
    fake.ready("db");
    fake.exit("migrate", Exit::Code(0));
    for _ in 0..START_TRIES {
        fake.run_for(30, "server");
        assert!(matches!(fake.phase("server"), Phase::Stopping { .. }), "{:?}", fake.phase("server"));
        fake.exit("server", Exit::Signal(9));
        fake.run_for(1, "server");
    }
    let killed = fake.signals.iter().filter(|signal| **signal == ("server", Signal::Kill)).count();
    assert_eq!(killed, START_TRIES as usize);
    let Phase::Failed { reason } = fake.phase("server") else { panic!("{:?}", fake.phase("server")) };
    assert!(reason.contains("not ready within 30 s"), "{reason}");
}

#[test]
fn a_frozen_child_is_killed_and_restarted() {
    let mut fake = Fake::all_up();
    fake.run_for(20, "server");
    assert_eq!(fake.signals, [("server", Signal::Kill)]);
    fake.exit("server", Exit::Signal(9));
    fake.advance(Duration::ZERO);
    assert_eq!(fake.started.last(), Some(&"server"));
}

#[test]
fn a_repeatedly_silent_child_is_retried_forever() {
    let mut fake = Fake::all_up();
    for _ in 0..10 {
        fake.run_for(21, "server");
        fake.exit("server", Exit::Signal(9));
        assert_eq!(fake.model.overall(), Overall::Degraded);
        let seconds = pause(&fake, "server").as_secs() + 1;
        fake.run_for(seconds, "");
        fake.ready("server");
    }
    fake.run_for(21, "server");
    fake.exit("server", Exit::Signal(9));
    let trouble = fake.model.looping().and_then(|child| child.trouble(fake.now)).unwrap();
    assert!(trouble.starts_with("silent for 20 s, 11 times in a row; restart in"), "{trouble}");
}

#[test]
fn a_pause_of_the_supervisor_is_not_silence_of_children() {
    let mut fake = Fake::all_up();
    let hour = Duration::from_secs(3600);
    fake.now += hour;
    fake.model.forgive(hour);
    fake.feed(Event::Tick);
    assert!(fake.signals.is_empty());
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn stopping_during_the_start_stops_what_was_started() {
    let mut fake = Fake::new();
    fake.ready("db");
    fake.feed(Event::Stop);
    assert_eq!(fake.signals, [("migrate", Signal::Terminate)]);
    fake.exit("migrate", Exit::Signal(15));
    fake.exit("db", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Stopped);
    assert_eq!(fake.model.start_failure, None);
    assert_eq!(fake.started, ["db", "migrate"]);
}

#[test]
fn a_level_stops_the_children_above_it_and_whole_restarts_them() {
    let mut fake = Fake::all_up();
    fake.started.clear();
    fake.feed(Event::Level(2));
    assert_eq!(fake.signals, [("agent", Signal::Terminate)]);
    assert_eq!(fake.model.overall(), Overall::Switching);
    fake.exit("agent", Exit::Code(0));
    fake.exit("server", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Held);
    // Passing time restarts nothing.
    fake.now += Duration::from_secs(2);
    fake.feed(Event::Tick);
    assert!(fake.started.is_empty());
    fake.feed(Event::Level(3));
    assert_eq!(fake.started, ["server"]);
    fake.ready("server");
    assert_eq!(fake.model.overall(), Overall::Held);
    fake.feed(Event::Level(4));
    fake.ready("agent");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn after_a_failure_at_a_level_another_level_works() {
    let mut fake = Fake::all_up();
    fake.feed(Event::Level(2));
    fake.exit("agent", Exit::Code(0));
    fake.exit("server", Exit::Code(0));
    fake.feed(Event::Level(3));
    for _ in 0..START_TRIES {
        fake.exit("server", Exit::Code(1));
        fake.run_for(1, "");
    }
    assert_eq!(fake.model.overall(), Overall::Failed);
    fake.feed(Event::Level(2));
    assert_eq!(fake.model.overall(), Overall::Held);
    fake.feed(Event::Level(4));
    fake.ready("server");
    fake.ready("agent");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn level_zero_stops_the_datastore_and_keeps_the_migrator_done() {
    let mut fake = Fake::all_up();
    fake.feed(Event::Level(0));
    for name in ["agent", "server", "db"] {
        fake.exit(name, Exit::Code(0));
    }
    assert_eq!(fake.model.overall(), Overall::Held);
    fake.started.clear();
    fake.feed(Event::Level(1));
    fake.ready("db");
    assert_eq!(fake.started, ["db"]);
    assert_eq!(fake.model.overall(), Overall::Held);
}

#[test]
fn a_stop_in_the_middle_of_a_level_stops_everything() {
    let mut fake = Fake::all_up();
    fake.feed(Event::Level(2));
    fake.feed(Event::Stop);
    for name in ["agent", "server", "db"] {
        fake.exit(name, Exit::Code(0));
    }
    assert_eq!(fake.model.overall(), Overall::Stopped);
}

#[test]
fn adopted_children_are_supervised() {
    let plans = vec![plan("db", false), plan("migrate", true), plan("server", false)];
    let now = Instant::now();
    let mut model = Model::adopting(plans, &[Some(7), None, Some(9)], now);
    assert_eq!(model.overall(), Overall::Healthy);
    model.step(Event::Exited { pid: 9, exit: Exit::Signal(9) }, now);
    assert_eq!(model.overall(), Overall::Degraded);
}

#[test]
fn a_transient_cause_is_retried_and_at_once_when_it_is_gone() {
    let mut fake = Fake::all_up();
    let exit_reason = ExitReason { text: "No space left on device".to_owned(), outlook: Outlook::Passes };
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let pid = fake.pid("db");
        fake.feed(Event::ExitReason { pid, exit_reason: exit_reason.clone() });
        fake.exit("db", Exit::Code(1));
        let Phase::Backoff { until } = *fake.phase("db") else { panic!("{:?}", fake.phase("db")) };
        pauses.push(until - fake.now);
        assert_eq!((fake.model.overall(), fake.model.blocked().is_some()), (Overall::Degraded, true));
        fake.now = until;
        for name in ["server", "agent"] {
            let pid = fake.pid(name);
            fake.feed(Event::Alive { pid });
        }
        fake.feed(Event::Tick);
    }
    assert!(pauses.is_sorted() && pauses[0] >= Duration::from_secs(1) && pauses[9] == Duration::from_secs(60));
    let pid = fake.pid("db");
    fake.feed(Event::ExitReason { pid, exit_reason });
    fake.exit("db", Exit::Code(1));
    let started = fake.started.len();
    fake.feed(Event::TryNow);
    assert_eq!(fake.started[started..], ["db"]);
    fake.ready("db");
    assert!(fake.model.blocked().is_none());
}

#[test]
fn a_first_start_does_not_wait_out_a_transient_cause() {
    let mut fake = Fake::new();
    for _ in 0..START_TRIES {
        let pid = fake.pid("db");
        let exit_reason = ExitReason { text: "No space left on device".to_owned(), outlook: Outlook::Passes };
        fake.feed(Event::ExitReason { pid, exit_reason });
        fake.exit("db", Exit::Code(1));
        fake.advance(Duration::ZERO);
    }
    assert!(
        matches!(fake.phase("db"), Phase::Failed { reason } if reason.contains("No space")),
        "{:?}",
        fake.phase("db")
    );
}

#[test]
fn a_child_on_trial_has_one_try_and_its_own_limit() {
    let mut fake = Fake::all_up();
    fake.feed(Event::Level(1));
    for name in ["agent", "server"] {
        fake.exit(name, Exit::Code(0));
    }
    fake.feed(Event::Level(3));
    fake.feed(Event::OnTrial { index: 2, limit: Duration::from_secs(5) });
    let trial_start = fake.now;
    fake.signals.clear();
    fake.now += Duration::from_secs(5);
    let pid = fake.pid("db");
    fake.feed(Event::Alive { pid });
    assert_eq!(fake.signals, [("server", Signal::Kill)], "killed without a grace period");
    fake.exit("server", Exit::Signal(9));
    assert!(matches!(fake.phase("server"), Phase::Failed { reason } if reason.contains("within 5 s")));
    assert_eq!((fake.model.overall(), fake.now - trial_start), (Overall::Failed, Duration::from_secs(5)));
    fake.feed(Event::Level(4));
    assert!(matches!(fake.phase("server"), Phase::Starting { .. }), "{:?}", fake.phase("server"));
}
