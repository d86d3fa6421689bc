use super::super::spec::{LastWords, Outlook};
use super::super::state::{LONGEST_BACKOFF, LOOP_LIMIT, START_TRIES};
use super::*;
use crate::sys::process::Signal;
use crate::sys::reaper::Exit;

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

/// Children that are numbers: the pid is the start's number, nothing runs.
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
        fake.tell(Event::Tick);
        fake
    }

    fn tell(&mut self, event: Event) {
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

    /// Otherwise the loop that waits for it would spin.
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
        self.tell(Event::Ready { pid });
    }

    fn exit(&mut self, name: &str, exit: Exit) {
        let pid = self.pid(name);
        self.tell(Event::Exited { pid, exit });
    }

    /// Lets time pass up to the next deadline and at least `least`.
    fn pass(&mut self, least: Duration) {
        self.now = self.model.next_deadline().unwrap_or(self.now).max(self.now + least);
        self.tell(Event::Tick);
    }

    fn up() -> Self {
        let mut fake = Self::new();
        fake.ready("db");
        fake.exit("migrate", Exit::Code(0));
        fake.ready("server");
        fake.ready("agent");
        assert_eq!(fake.model.overall(), Overall::Healthy);
        fake
    }

    /// Time passes in which all but `silent` show that they run.
    fn live(&mut self, seconds: u64, silent: &str) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            for name in ["db", "server", "agent"].into_iter().filter(|name| *name != silent) {
                if let Some(pid) = self.phase(name).pid() {
                    self.tell(Event::Alive { pid });
                }
            }
            self.tell(Event::Tick);
        }
    }

    fn keep_alive(&mut self) {
        for name in ["db", "server", "agent"] {
            if let Some(pid) = self.phase(name).pid() {
                self.tell(Event::Alive { pid });
            }
        }
    }
}

#[test]
fn each_starts_when_the_one_before_is_ready() {
    let mut fake = Fake::new();
    assert_eq!(fake.started, ["db"]);
    fake.tell(Event::Tick);
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
fn they_stop_in_reverse_each_waited_for() {
    let mut fake = Fake::up();
    fake.tell(Event::Stop);
    for name in ["agent", "server", "db"] {
        assert_eq!(fake.signals.pop(), Some((name, Signal::Terminate)));
        assert!(fake.signals.is_empty());
        fake.exit(name, Exit::Code(0));
    }
    assert_eq!(fake.model.overall(), Overall::Stopped);
}

#[test]
fn one_that_does_not_obey_is_killed_at_its_deadline() {
    let mut fake = Fake::up();
    fake.tell(Event::Stop);
    fake.pass(Duration::ZERO);
    assert_eq!(fake.signals, [("agent", Signal::Terminate), ("agent", Signal::Kill)]);
    fake.pass(Duration::ZERO);
    assert_eq!(fake.signals.last(), Some(&("agent", Signal::Kill)), "and killed again, and again");
}

#[test]
fn an_impatient_stop_kills_all_at_once() {
    let mut fake = Fake::up();
    fake.tell(Event::Stop);
    fake.tell(Event::StopNow);
    let killed: Vec<_> = fake.signals.iter().filter(|(_, s)| *s == Signal::Kill).map(|(n, _)| *n).collect();
    assert_eq!(killed, ["db", "server", "agent"]);
    for name in ["server", "db", "agent"] {
        fake.exit(name, Exit::Signal(9));
    }
    assert_eq!(fake.model.overall(), Overall::Stopped);
}

#[test]
fn a_crash_is_restarted_while_the_rest_goes_on() {
    let mut fake = Fake::up();
    let server = fake.pid("server");
    fake.exit("db", Exit::Signal(9));
    assert_eq!(fake.model.overall(), Overall::Degraded);
    fake.pass(Duration::ZERO);
    assert_eq!(fake.started.last(), Some(&"db"));
    fake.ready("db");
    assert_eq!(fake.model.overall(), Overall::Healthy);
    assert_eq!(fake.pid("server"), server);
    assert_eq!(fake.started.iter().filter(|name| **name == "migrate").count(), 1);
}

#[test]
fn two_that_crash_together_are_restarted_in_order_however_long_the_first_takes() {
    let mut fake = Fake::up();
    fake.exit("db", Exit::Signal(9));
    fake.exit("server", Exit::Signal(9));
    fake.live(1, "");
    for _ in 0..60 {
        fake.live(10, "");
        let pid = fake.pid("db");
        fake.tell(Event::Busy { pid, text: "recovering".into() });
    }
    assert!(matches!(fake.phase("db"), Phase::Starting { .. }), "{:?}", fake.phase("db"));
    assert!(matches!(fake.phase("server"), Phase::Backoff { .. }), "it could only fail meanwhile");
    fake.ready("db");
    fake.ready("server");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn one_that_is_not_what_belongs_here_is_stopped_gently_and_not_tried_again() {
    let mut fake = Fake::new();
    let pid = fake.pid("db");
    fake.tell(Event::Unfit { pid, reason: "of another instance".into() });
    assert_eq!(fake.signals, [("db", Signal::Terminate)]);
    fake.exit("db", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Stopped);
    assert_eq!((fake.model.start_failure, fake.started.len()), (Some(0), 1));
}

#[test]
fn a_restart_that_was_asked_for_is_no_trouble() {
    let mut fake = Fake::up();
    fake.tell(Event::Restart);
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

/// The pause before the next start of a child that has ended.
fn pause(fake: &Fake, name: &str) -> Duration {
    let Phase::Backoff { until } = *fake.phase(name) else { panic!("{:?}", fake.phase(name)) };
    until - fake.now
}

#[test]
fn a_crash_loop_goes_on_for_ever_with_growing_pauses_and_ends_without_help() {
    let mut fake = Fake::up();
    let mut pauses = Vec::new();
    for end in 1..=30 {
        fake.exit("server", Exit::Signal(9));
        pauses.push(pause(&fake, "server"));
        assert_eq!(fake.model.overall(), Overall::Degraded);
        assert_eq!(fake.model.looping().is_some(), end > LOOP_LIMIT, "{end}");
        fake.live(pauses[end as usize - 1].as_secs() + 1, "");
        assert!(matches!(fake.phase("server"), Phase::Starting { .. }), "{end}: {:?}", fake.phase("server"));
        fake.ready("server");
    }
    assert!(pauses.is_sorted() && pauses[0] < Duration::from_secs(1) && pauses[29] == LONGEST_BACKOFF, "{pauses:?}");
    assert_eq!(fake.model.overall(), Overall::Healthy);
    // A stable stretch, and the next end is the first.
    fake.live(61, "");
    fake.exit("server", Exit::Code(1));
    assert_eq!(pause(&fake, "server"), pauses[0]);
}

#[test]
fn a_crash_loop_of_a_first_start_is_given_up() {
    let mut fake = Fake::new();
    fake.ready("db");
    fake.exit("migrate", Exit::Code(0));
    for _ in 0..=LOOP_LIMIT {
        fake.ready("server");
        fake.exit("server", Exit::Code(1));
        fake.live(6, "");
    }
    assert_eq!(fake.model.start_failure, Some(2), "{:?}", fake.model);
    let Phase::Failed { reason } = fake.phase("server") else { panic!("{:?}", fake.phase("server")) };
    assert_eq!(reason, "ended with exit code 1, 6 times in a row");
}

#[test]
fn one_that_does_not_get_ready_any_more_is_tried_for_ever() {
    let mut fake = Fake::up();
    for end in 1..=20_u32 {
        fake.exit("agent", Exit::Code(1));
        let is_looping = end > START_TRIES;
        assert_eq!(fake.model.looping().is_some(), is_looping, "{end}");
        if is_looping {
            let trouble = fake.model.looping().and_then(|child| child.trouble(fake.now)).unwrap();
            assert!(trouble.contains("exit code 1") && trouble.contains("without ever getting ready"), "{trouble}");
        }
        let seconds = pause(&fake, "agent").as_secs() + 1;
        fake.live(seconds, "");
        fake.pid("agent");
    }
    fake.ready("agent");
    assert_eq!((fake.model.overall(), fake.model.looping().is_some()), (Overall::Healthy, false));
}

#[test]
fn ends_while_the_datastore_is_away_do_not_count() {
    let mut fake = Fake::up();
    for _ in 0..20 {
        fake.exit("db", Exit::Signal(9));
        fake.exit("agent", Exit::Code(1));
        fake.exit("server", Exit::Code(1));
        let seconds = pause(&fake, "db").as_secs() + 1;
        fake.live(seconds, "");
        assert_eq!(fake.started.last(), Some(&"db"), "nothing starts before what it stands on");
        fake.ready("db");
        // At once, whatever pause they had come to.
        fake.ready("server");
        fake.ready("agent");
        assert_eq!(fake.model.overall(), Overall::Healthy);
    }
}

#[test]
fn a_datastore_that_is_back_ends_the_pauses_of_the_others() {
    let mut fake = Fake::up();
    for _ in 0..9 {
        fake.exit("server", Exit::Code(1));
        let seconds = pause(&fake, "server").as_secs() + 1;
        fake.live(seconds, "");
    }
    fake.exit("server", Exit::Code(1));
    assert_eq!(pause(&fake, "server"), LONGEST_BACKOFF);
    fake.exit("db", Exit::Signal(9));
    fake.live(1, "");
    fake.ready("db");
    assert_eq!(fake.started.last(), Some(&"server"));
}

#[test]
fn a_migrator_that_is_killed_at_a_restart_is_tried_again_and_one_that_refuses_is_not() {
    let mut fake = Fake::up();
    let restart = |fake: &mut Fake| {
        fake.tell(Event::Restart);
        for name in ["agent", "server", "db"] {
            if fake.phase(name).pid().is_some() {
                fake.exit(name, Exit::Code(0));
            }
        }
        fake.ready("db");
    };
    restart(&mut fake);
    fake.exit("migrate", Exit::Signal(9));
    fake.live(1, "");
    fake.exit("migrate", Exit::Code(0));
    fake.ready("server");
    fake.ready("agent");
    assert_eq!(fake.model.overall(), Overall::Healthy);
    restart(&mut fake);
    fake.exit("migrate", Exit::Code(3));
    assert_eq!(fake.model.overall(), Overall::Failed);
}

#[test]
fn damaged_files_are_given_up() {
    let mut fake = Fake::up();
    let words = LastWords { text: "invalid page".to_owned(), outlook: Outlook::Lasts };
    for _ in 0..=START_TRIES {
        let pid = fake.pid("db");
        fake.tell(Event::Words { pid, words: words.clone() });
        fake.exit("db", Exit::Code(1));
        fake.live(1, "");
    }
    assert!(matches!(fake.phase("db"), Phase::Failed { reason } if reason.contains("invalid page")));
    assert_eq!(fake.model.overall(), Overall::Failed);
}

#[test]
fn a_server_elsewhere_that_does_not_answer_fails_a_first_start_and_no_later_one() {
    let away = |pid| Event::Unanswered { pid, reason: "no route to host".into() };
    let mut fake = Fake::new();
    let pid = fake.pid("db");
    fake.tell(away(pid));
    fake.exit("db", Exit::Code(0));
    assert_eq!((fake.model.overall(), fake.model.start_failure), (Overall::Stopped, Some(0)));
    let mut fake = Fake::up();
    for _ in 0..10 {
        fake.exit("db", Exit::Signal(9));
        let seconds = pause(&fake, "db").as_secs() + 1;
        fake.live(seconds, "");
        let pid = fake.pid("db");
        fake.tell(away(pid));
        fake.exit("db", Exit::Code(0));
        let seconds = pause(&fake, "db").as_secs() + 1;
        fake.live(seconds, "");
    }
    fake.ready("db");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn crashes_far_apart_are_no_loop() {
    let mut fake = Fake::up();
    for _ in 0..3 * LOOP_LIMIT {
        fake.exit("agent", Exit::Code(1));
        fake.pass(Duration::ZERO);
        fake.ready("agent");
        for _ in 0..8 {
            fake.now += Duration::from_secs(10);
            fake.keep_alive();
        }
    }
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn a_failed_migration_stops_the_start_and_is_not_tried_again() {
    let mut fake = Fake::new();
    fake.ready("db");
    let pid = fake.pid("migrate");
    fake.tell(Event::Failure { pid, json: "{}".into() });
    fake.exit("migrate", Exit::Code(3));
    assert_eq!(fake.signals, [("db", Signal::Terminate)]);
    fake.exit("db", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Stopped);
    assert_eq!(fake.model.start_failure, Some(1));
    assert_eq!(fake.model.children[1].failure.as_deref(), Some("{}"));
}

#[test]
fn one_that_never_gets_ready_is_ended_and_after_some_tries_given_up() {
    let mut fake = Fake::new();
    fake.ready("db");
    fake.exit("migrate", Exit::Code(0));
    for _ in 0..START_TRIES {
        fake.live(30, "server");
        assert!(matches!(fake.phase("server"), Phase::Stopping { .. }), "{:?}", fake.phase("server"));
        fake.exit("server", Exit::Signal(9));
        fake.live(1, "server");
    }
    let killed = fake.signals.iter().filter(|signal| **signal == ("server", Signal::Kill)).count();
    assert_eq!(killed, START_TRIES as usize);
    let Phase::Failed { reason } = fake.phase("server") else { panic!("{:?}", fake.phase("server")) };
    assert!(reason.contains("not ready within 30 s"), "{reason}");
}

#[test]
fn a_frozen_child_is_ended_and_started_again() {
    let mut fake = Fake::up();
    fake.live(20, "server");
    assert_eq!(fake.signals, [("server", Signal::Kill)]);
    fake.exit("server", Exit::Signal(9));
    fake.pass(Duration::ZERO);
    assert_eq!(fake.started.last(), Some(&"server"));
}

#[test]
fn one_that_falls_silent_again_and_again_is_tried_for_ever() {
    let mut fake = Fake::up();
    for _ in 0..10 {
        fake.live(21, "server");
        fake.exit("server", Exit::Signal(9));
        assert_eq!(fake.model.overall(), Overall::Degraded);
        let seconds = pause(&fake, "server").as_secs() + 1;
        fake.live(seconds, "");
        fake.ready("server");
    }
    fake.live(21, "server");
    fake.exit("server", Exit::Signal(9));
    let trouble = fake.model.looping().and_then(|child| child.trouble(fake.now)).unwrap();
    assert!(trouble.starts_with("silent for 20 s, 11 times in a row; it is started again in"), "{trouble}");
}

#[test]
fn our_own_pause_is_nobodys_silence() {
    let mut fake = Fake::up();
    let hour = Duration::from_secs(3600);
    fake.now += hour;
    fake.model.forgive(hour);
    fake.tell(Event::Tick);
    assert!(fake.signals.is_empty());
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn stopping_during_the_start_stops_what_was_started() {
    let mut fake = Fake::new();
    fake.ready("db");
    fake.tell(Event::Stop);
    assert_eq!(fake.signals, [("migrate", Signal::Terminate)]);
    fake.exit("migrate", Exit::Signal(15));
    fake.exit("db", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Stopped);
    assert_eq!(fake.model.start_failure, None);
    assert_eq!(fake.started, ["db", "migrate"]);
}

#[test]
fn a_level_stops_what_is_above_it_and_the_whole_brings_it_back() {
    let mut fake = Fake::up();
    fake.started.clear();
    fake.tell(Event::Level(2));
    assert_eq!(fake.signals, [("agent", Signal::Terminate)]);
    assert_eq!(fake.model.overall(), Overall::Switching);
    fake.exit("agent", Exit::Code(0));
    fake.exit("server", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Held);
    // Nothing is started again by time.
    fake.now += Duration::from_secs(2);
    fake.tell(Event::Tick);
    assert!(fake.started.is_empty());
    fake.tell(Event::Level(3));
    assert_eq!(fake.started, ["server"]);
    fake.ready("server");
    assert_eq!(fake.model.overall(), Overall::Held);
    fake.tell(Event::Level(4));
    fake.ready("agent");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn what_fails_at_a_level_is_told_and_another_level_goes_on() {
    let mut fake = Fake::up();
    fake.tell(Event::Level(2));
    fake.exit("agent", Exit::Code(0));
    fake.exit("server", Exit::Code(0));
    fake.tell(Event::Level(3));
    for _ in 0..START_TRIES {
        fake.exit("server", Exit::Code(1));
        fake.live(1, "");
    }
    assert_eq!(fake.model.overall(), Overall::Failed);
    fake.tell(Event::Level(2));
    assert_eq!(fake.model.overall(), Overall::Held);
    fake.tell(Event::Level(4));
    fake.ready("server");
    fake.ready("agent");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn the_lowest_level_stops_the_datastore_too_and_the_migrator_does_not_run_again() {
    let mut fake = Fake::up();
    fake.tell(Event::Level(0));
    for name in ["agent", "server", "db"] {
        fake.exit(name, Exit::Code(0));
    }
    assert_eq!(fake.model.overall(), Overall::Held);
    fake.started.clear();
    fake.tell(Event::Level(1));
    fake.ready("db");
    assert_eq!(fake.started, ["db"]);
    assert_eq!(fake.model.overall(), Overall::Held);
}

#[test]
fn a_stop_in_the_middle_of_a_level_stops_everything() {
    let mut fake = Fake::up();
    fake.tell(Event::Level(2));
    fake.tell(Event::Stop);
    for name in ["agent", "server", "db"] {
        fake.exit(name, Exit::Code(0));
    }
    assert_eq!(fake.model.overall(), Overall::Stopped);
}

#[test]
fn adopted_children_are_watched_like_its_own() {
    let plans = vec![plan("db", false), plan("migrate", true), plan("server", false)];
    let now = Instant::now();
    let mut model = Model::adopting(plans, &[Some(7), None, Some(9)], now);
    assert_eq!(model.overall(), Overall::Healthy);
    model.step(Event::Exited { pid: 9, exit: Exit::Signal(9) }, now);
    assert_eq!(model.overall(), Overall::Degraded);
}

#[test]
fn what_may_pass_is_tried_again_however_often_and_at_once_when_it_has() {
    let mut fake = Fake::up();
    let words = LastWords { text: "No space left on device".to_owned(), outlook: Outlook::Passes };
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let pid = fake.pid("db");
        fake.tell(Event::Words { pid, words: words.clone() });
        fake.exit("db", Exit::Code(1));
        let Phase::Backoff { until } = *fake.phase("db") else { panic!("{:?}", fake.phase("db")) };
        pauses.push(until - fake.now);
        assert_eq!((fake.model.overall(), fake.model.blocked().is_some()), (Overall::Degraded, true));
        fake.now = until;
        for name in ["server", "agent"] {
            let pid = fake.pid(name);
            fake.tell(Event::Alive { pid });
        }
        fake.tell(Event::Tick);
    }
    assert!(pauses.is_sorted() && pauses[0] >= Duration::from_secs(1) && pauses[9] == Duration::from_secs(60));
    let pid = fake.pid("db");
    fake.tell(Event::Words { pid, words });
    fake.exit("db", Exit::Code(1));
    let started = fake.started.len();
    fake.tell(Event::TryNow);
    assert_eq!(fake.started[started..], ["db"]);
    fake.ready("db");
    assert!(fake.model.blocked().is_none());
}

#[test]
fn a_first_start_does_not_wait_for_better_times() {
    let mut fake = Fake::new();
    for _ in 0..START_TRIES {
        let pid = fake.pid("db");
        let words = LastWords { text: "No space left on device".to_owned(), outlook: Outlook::Passes };
        fake.tell(Event::Words { pid, words });
        fake.exit("db", Exit::Code(1));
        fake.pass(Duration::ZERO);
    }
    assert!(
        matches!(fake.phase("db"), Phase::Failed { reason } if reason.contains("No space")),
        "{:?}",
        fake.phase("db")
    );
}

#[test]
fn what_is_on_trial_has_one_try_and_its_own_limit() {
    let mut fake = Fake::up();
    fake.tell(Event::Level(1));
    for name in ["agent", "server"] {
        fake.exit(name, Exit::Code(0));
    }
    fake.tell(Event::Level(3));
    fake.tell(Event::OnTrial { index: 2, limit: Duration::from_secs(5) });
    let begun = fake.now;
    fake.signals.clear();
    fake.now += Duration::from_secs(5);
    let pid = fake.pid("db");
    fake.tell(Event::Alive { pid });
    assert_eq!(fake.signals, [("server", Signal::Kill)], "nobody waits for it to leave");
    fake.exit("server", Exit::Signal(9));
    assert!(matches!(fake.phase("server"), Phase::Failed { reason } if reason.contains("within 5 s")));
    assert_eq!((fake.model.overall(), fake.now - begun), (Overall::Failed, Duration::from_secs(5)));
    fake.tell(Event::Level(4));
    assert!(matches!(fake.phase("server"), Phase::Starting { .. }), "{:?}", fake.phase("server"));
}
