//! Levels below the whole instance, and the trial of a candidate server.

use super::*;

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
    fake.feed(Event::Child(pid, ChildEvent::Alive));
    assert_eq!(fake.signals, [("server", Signal::Kill)], "killed without a grace period");
    fake.exit("server", Exit::Signal(9));
    assert!(matches!(fake.phase("server"), Phase::Failed { reason } if reason.contains("within 5 s")));
    assert_eq!((fake.model.overall(), fake.now - trial_start), (Overall::Failed, Duration::from_secs(5)));
    fake.feed(Event::Level(4));
    assert!(matches!(fake.phase("server"), Phase::Starting { .. }), "{:?}", fake.phase("server"));
}
