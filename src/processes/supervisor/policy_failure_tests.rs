//! Children that exit, hang or cannot work.

use super::*;

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
        fake.feed(Event::Child(pid, ChildEvent::Busy("recovering".into())));
    }
    assert!(matches!(fake.phase("db"), Phase::Starting { .. }), "{:?}", fake.phase("db"));
    assert!(matches!(fake.phase("server"), Phase::Backoff { .. }), "waits for its dependency");
    fake.ready("db");
    fake.ready("server");
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn an_unfit_child_is_stopped_gently_and_not_retried() {
    let mut fake = Fake::new();
    let pid = fake.pid("db");
    fake.feed(Event::Child(pid, ChildEvent::Unfit("belongs to another instance".into())));
    assert_eq!(fake.signals, [("db", Signal::Terminate)]);
    fake.exit("db", Exit::Code(0));
    assert_eq!(fake.model.overall(), Overall::Stopped);
    assert_eq!((fake.model.start_failure, fake.started.len()), (Some(0), 1));
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
        // The dependents restart at once, regardless of their pauses.
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
        fake.feed(Event::Child(pid, ChildEvent::ExitReason(exit_reason.clone())));
        fake.exit("db", Exit::Code(1));
        fake.run_for(1, "");
    }
    assert!(matches!(fake.phase("db"), Phase::Failed { reason } if reason.contains("invalid page")));
    assert_eq!(fake.model.overall(), Overall::Failed);
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
    fake.model.extend_deadlines(hour);
    fake.feed(Event::Tick);
    assert!(fake.signals.is_empty());
    assert_eq!(fake.model.overall(), Overall::Healthy);
}

#[test]
fn a_transient_cause_is_retried_and_at_once_when_it_is_gone() {
    let mut fake = Fake::all_up();
    let exit_reason = ExitReason { text: "No space left on device".to_owned(), outlook: Outlook::Passes };
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let pid = fake.pid("db");
        fake.feed(Event::Child(pid, ChildEvent::ExitReason(exit_reason.clone())));
        fake.exit("db", Exit::Code(1));
        let Phase::Backoff { until } = *fake.phase("db") else { panic!("{:?}", fake.phase("db")) };
        pauses.push(until - fake.now);
        assert_eq!((fake.model.overall(), fake.model.blocked().is_some()), (Overall::Degraded, true));
        fake.now = until;
        for name in ["server", "agent"] {
            let pid = fake.pid(name);
            fake.feed(Event::Child(pid, ChildEvent::Alive));
        }
        fake.feed(Event::Tick);
    }
    assert!(pauses.is_sorted() && pauses[0] >= Duration::from_secs(1) && pauses[9] == Duration::from_secs(60));
    let pid = fake.pid("db");
    fake.feed(Event::Child(pid, ChildEvent::ExitReason(exit_reason)));
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
        fake.feed(Event::Child(pid, ChildEvent::ExitReason(exit_reason)));
        fake.exit("db", Exit::Code(1));
        fake.advance(Duration::ZERO);
    }
    assert!(
        matches!(fake.phase("db"), Phase::Failed { reason } if reason.contains("No space")),
        "{:?}",
        fake.phase("db")
    );
}
