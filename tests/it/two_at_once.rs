//! Two terminals, ten terminals.

use crate::support::rounds::a_few;
use crate::support::{Done, TestHome, newest};
use std::process::Stdio;

#[test]
fn ten_first_starts_at_once_are_one_instance_and_nine_clear_refusals() {
    let test = TestHome::new();
    let port = test.port.to_string();
    let children: Vec<_> = (0..10)
        .map(|_| {
            test.command(&["lite", "start", "--port", &port])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let done: Vec<Done> = children.into_iter().map(|child| child.wait_with_output().unwrap().into()).collect();
    let started: Vec<&Done> = done.iter().filter(|done| done.stdout.contains("password")).collect();
    assert_eq!(started.len(), 1, "{done:?}");
    for other in done.iter().filter(|done| !done.stdout.contains("password")) {
        let late = other.code == Some(0) && other.stdout.contains("already running");
        let refused =
            other.code == Some(1) && (other.stderr.contains("already running") || other.stderr.contains("taken by"));
        assert!(late || refused, "{other:?}");
    }
    assert_eq!(test.state(), "healthy");
    assert_eq!(test.sql("SELECT count(*) FROM leoflow_ledger"), newest().to_string());
}

#[test]
fn two_migrators_at_once_apply_each_migration_once() {
    let test = TestHome::new();
    test.set_up();
    let children: Vec<_> = (0..3)
        .map(|_| test.command(&["migrate-db"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let done: Done = child.wait_with_output().unwrap().into();
        let waited_out = done.code == Some(1) && done.stderr.contains("in use by `leoflow migrate-db`");
        assert!(done.code == Some(0) || waited_out, "{done:?}");
    }
    assert_eq!(test.run(&["migrate-db", "status", "--json"]).expect(0).json()["state"], "current");
}

#[test]
fn start_and_stop_at_once_end_in_one_of_the_two() {
    let test = TestHome::started();
    for _ in a_few(0..5, 3) {
        let stop = test.command(&["lite", "stop"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = test.command(&["lite", "start"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stop: Done = stop.wait_with_output().unwrap().into();
        let start: Done = start.wait_with_output().unwrap().into();
        assert_eq!(stop.code, Some(0), "{stop:?}");
        assert!([Some(0), Some(1)].contains(&start.code), "{start:?}");
        assert!(["healthy", "stopped"].contains(&test.state().as_str()), "{}", test.status());
        test.start();
    }
}

#[test]
fn a_command_that_needs_the_home_for_itself_says_who_has_it() {
    let test = TestHome::new();
    test.set_up();
    let mut psql =
        test.command(&["lite", "psql", "--", "-X", "-c", "SELECT pg_sleep(60)"]).stdout(Stdio::null()).spawn().unwrap();
    crate::support::wait_until("psql has the home", std::time::Duration::from_secs(20), || {
        test.status()["reason"].as_str().is_some_and(|reason| reason.contains("`leoflow lite psql`"))
    });
    let refused = test.run(&["lite"]).expect(1);
    assert!(refused.stderr.contains("leoflow lite psql"), "{}", refused.stderr);
    crate::support::processes::signal(psql.id() as i32, "KILL");
    psql.wait().unwrap();
    test.start();
}

/// Starts each command at the same moment and waits for all.
fn at_once(test: &TestHome, commands: &[&[&str]]) -> Vec<Done> {
    let spawn =
        |arguments: &&[&str]| test.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = commands.iter().map(spawn).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap().into()).collect()
}

#[test]
fn two_operations_at_once_are_one_operation_and_a_refusal_that_names_it() {
    let test = TestHome::started();
    test.run(&["variables", "set", "a", "b"]).expect(0);
    let backup = test.backup("b.tar.zst");
    let input = backup.to_str().unwrap();
    let restore = ["lite", "restore", "--input", input, "--force", "--yes"];
    let other = test.folder().join("c.tar.zst");
    for _ in a_few(0..3, 2) {
        let done = at_once(&test, &[&restore, &["lite", "backup", "--output", other.to_str().unwrap()], &restore]);
        assert!(done.iter().any(|done| done.code == Some(0)), "{done:?}");
        for done in done.iter().filter(|done| done.code != Some(0)) {
            let named = done.stderr.contains("in use by `leoflow lite") || done.stderr.contains("was started again");
            assert!(done.code == Some(1) && named, "{done:?}");
        }
        assert_eq!(test.state(), "healthy");
        assert_eq!(test.run(&["variables", "get", "a"]).expect(0).stdout.trim(), "b");
    }
}

#[test]
fn start_and_purge_at_once_are_a_whole_instance_or_none() {
    for _ in a_few(0..4, 2) {
        let test = TestHome::new();
        test.set_up();
        // After a purge that was faster it begins anew, with no configuration to name the port.
        let port = test.port.to_string();
        let done = at_once(&test, &[&["uninstall", "--purge", "--yes"], &["lite", "start", "--port", &port]]);
        assert!(done.iter().any(|done| done.code == Some(0)), "{done:?}");
        if test.home.exists() {
            test.start();
            assert_eq!(test.state(), "healthy", "{done:?}");
        } else {
            test.assert_nothing_runs();
        }
    }
}
