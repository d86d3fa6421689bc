//! Starts, stops and restarts of the whole instance.

use super::*;

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

#[test]
fn an_unreachable_external_server_fails_only_the_first_start() {
    let away = |pid| Event::Child(pid, ChildEvent::Unanswered("no route to host".into()));
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
fn a_failed_migration_stops_the_start_and_is_not_retried() {
    let mut fake = Fake::new();
    fake.ready("db");
    let pid = fake.pid("migrate");
    fake.feed(Event::Child(pid, ChildEvent::Failure("{}".into())));
    fake.exit("migrate", Exit::Code(3));
    assert_eq!(fake.signals, [("db", Signal::Terminate)]);
    fake.exit("db", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Stopped);
    assert_eq!(fake.model.start_failure, Some(1));
    assert_eq!(fake.model.children[1].report.failure.as_deref(), Some("{}"));
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
fn adopted_children_are_supervised() {
    let plans = vec![plan("db", false), plan("migrate", true), plan("server", false)];
    let now = Instant::now();
    let mut model = Model::adopting(plans, &[Some(7), None, Some(9)], now);
    assert_eq!(model.overall(), Overall::Healthy);
    model.step(Event::Child(9, ChildEvent::Exited(Exit::Signal(9))), now);
    assert_eq!(model.overall(), Overall::Degraded);
}
