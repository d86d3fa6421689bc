//! Concurrent commands on one home.

use crate::support::rounds::sample_rounds;
use crate::support::{CommandOutput, TestHome, newest};
use std::process::Stdio;

#[test]
fn ten_concurrent_first_starts_give_one_instance() {
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
    let done: Vec<CommandOutput> = children.into_iter().map(|child| child.wait_with_output().unwrap().into()).collect();
    let started: Vec<&CommandOutput> = done.iter().filter(|done| done.stdout.contains("password")).collect();
    assert_eq!(started.len(), 1, "{done:?}");
    for other in done.iter().filter(|done| !done.stdout.contains("password")) {
        let already_runs = other.code == Some(0) && other.stdout.contains("already running");
        let refused =
            other.code == Some(1) && (other.stderr.contains("already running") || other.stderr.contains("in use by"));
        assert!(already_runs || refused, "{other:?}");
    }
    assert_eq!(test.state(), "healthy");
    assert_eq!(test.sql("SELECT count(*) FROM leoflow_ledger"), newest().to_string());
}

#[test]
fn concurrent_migrators_apply_each_migration_once() {
    let test = TestHome::new();
    test.first_setup();
    let children: Vec<_> = (0..3)
        .map(|_| test.command(&["migrate-db"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let done: CommandOutput = child.wait_with_output().unwrap().into();
        let refused = done.code == Some(1) && done.stderr.contains("in use by `leoflow migrate-db`");
        assert!(done.code == Some(0) || refused, "{done:?}");
    }
    assert_eq!(test.run(&["migrate-db", "status", "--json"]).expect(0).json()["state"], "current");
}

#[test]
fn concurrent_start_and_stop_end_in_one_state() {
    let test = TestHome::started();
    for _ in sample_rounds(0..5, 3) {
        let stop = test.command(&["lite", "stop"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = test.command(&["lite", "start"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stop: CommandOutput = stop.wait_with_output().unwrap().into();
        let start: CommandOutput = start.wait_with_output().unwrap().into();
        assert_eq!(stop.code, Some(0), "{stop:?}");
        assert!([Some(0), Some(1)].contains(&start.code), "{start:?}");
        assert!(["healthy", "stopped"].contains(&test.state().as_str()), "{}", test.status());
        test.start();
    }
}

#[test]
fn a_locked_home_names_the_command_that_holds_it() {
    let test = TestHome::new();
    test.set_up();
    let mut psql =
        test.command(&["lite", "psql", "--", "-X", "-c", "SELECT pg_sleep(60)"]).stdout(Stdio::null()).spawn().unwrap();
    crate::support::wait_until("psql holds the home's lock", std::time::Duration::from_secs(20), || {
        test.status()["reason"].as_str().is_some_and(|reason| reason.contains("`leoflow lite psql`"))
    });
    for arguments in [&["lite"][..], &["lite", "stop"]] {
        let refused = test.run(arguments).expect(1);
        assert!(refused.stderr.contains("in use by `leoflow lite psql`"), "{}", refused.stderr);
    }
    crate::support::processes::signal(psql.id() as i32, "KILL");
    psql.wait().unwrap();
    test.start();
    assert_stopped_backup_reports_the_stop(&test);
}

fn assert_stopped_backup_reports_the_stop(test: &TestHome) {
    let lock = "BEGIN; LOCK TABLE variable IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)";
    // Counts locks held and awaited.
    let wait_for_locks = |count: u32| {
        let locks = format!("SELECT count(*) >= {count} FROM pg_locks WHERE relation = 'variable'::regclass");
        crate::support::wait_until("the locks", std::time::Duration::from_secs(20), || test.sql(&locks) == "t");
    };
    let mut psql = test.command(&["lite", "psql", "--", "-X", "-c", lock]).stdout(Stdio::null()).spawn().unwrap();
    wait_for_locks(1);
    let backup = test.command(&["lite", "backup"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_locks(2);
    let stopped = test.run(&["lite", "stop", "--yes"]).expect(0);
    assert!(stopped.stderr.contains("`leoflow lite backup`, pid"), "{stopped:?}");
    let backup: CommandOutput = backup.wait_with_output().unwrap().into();
    assert_eq!(backup.code, Some(1), "{backup:?}");
    assert!(backup.stderr.contains("Leoflow was stopped meanwhile"), "{backup:?}");
    psql.wait().unwrap();
}

/// Starts all commands at once and waits for them.
fn run_concurrently(test: &TestHome, commands: &[&[&str]]) -> Vec<CommandOutput> {
    let spawn =
        |arguments: &&[&str]| test.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = commands.iter().map(spawn).collect();
    children.into_iter().map(|child| child.wait_with_output().unwrap().into()).collect()
}

#[test]
fn the_second_of_two_operations_is_refused_and_names_the_first() {
    let test = TestHome::started();
    test.run(&["variables", "set", "a", "b"]).expect(0);
    let backup = test.backup("b.tar.zst");
    let input = backup.to_str().unwrap();
    let restore = ["lite", "restore", "--input", input, "--force", "--yes"];
    let second_backup = test.folder().join("c.tar.zst");
    for _ in sample_rounds(0..3, 2) {
        let done = run_concurrently(
            &test,
            &[&restore, &["lite", "backup", "--output", second_backup.to_str().unwrap()], &restore],
        );
        assert!(done.iter().any(|done| done.code == Some(0)), "{done:?}");
        for done in done.iter().filter(|done| done.code != Some(0)) {
            let is_refused =
                done.stderr.contains("in use by `leoflow lite") || done.stderr.contains("was started in the meantime");
            assert!(done.code == Some(1) && is_refused, "{done:?}");
        }
        assert_eq!(test.state(), "healthy");
        assert_eq!(test.run(&["variables", "get", "a"]).expect(0).stdout.trim(), "b");
    }
}

#[test]
fn concurrent_start_and_purge_leave_all_or_nothing() {
    for _ in sample_rounds(0..4, 2) {
        let test = TestHome::new();
        test.first_setup();
        // If the purge finishes first, `lite start` sets up a new home, whose port only `--port` can choose.
        let port = test.port.to_string();
        let done = run_concurrently(&test, &[&["uninstall", "--purge", "--yes"], &["lite", "start", "--port", &port]]);
        assert!(done.iter().any(|done| done.code == Some(0)), "{done:?}");
        if test.home.exists() {
            test.start();
            assert_eq!(test.state(), "healthy", "{done:?}");
        } else {
            test.assert_nothing_runs();
        }
    }
}
