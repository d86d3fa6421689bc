//! An upgrade or rollback killed after any step, alone or with all other processes, leaves the old or the new release
//! complete.

use crate::support::releases::{FIRST, SECOND, releases};
use crate::support::rounds::sample_rounds_and_ends;
use crate::support::{TestHome, newest, processes, wait_until};
use std::fs;
use std::time::Duration;

/// Runs an upgrade or a rollback and returns the checkpoints it passes.
fn checkpoints(test: &TestHome, arguments: &[&str]) -> Vec<String> {
    let log = test.folder().join("checkpoints");
    let _ = fs::remove_file(&log);
    let done = test.command(arguments).env("LEOFLOW_CHECKPOINT_LOG", &log).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let text = fs::read_to_string(&log).unwrap();
    let mut names: Vec<String> = text.lines().filter(|name| is_upgrade_checkpoint(name)).map(str::to_owned).collect();
    names.dedup();
    names
}

fn is_upgrade_checkpoint(name: &str) -> bool {
    ["upgrade.", "migrated.", "rolled-back."].iter().any(|prefix| name.starts_with(prefix))
}

/// Asserts that the running release has its own schema and data, and that nothing of the other remains; returns its
/// version.
#[track_caller]
fn assert_whole(test: &TestHome, after: &str) -> String {
    test.wait_healthy();
    let status = test.status();
    let version = status["version"].as_str().unwrap().to_owned();
    let schema = if version == "0.2.0" { newest() + 1 } else { newest() };
    assert_eq!(status["schema_version"], schema, "after {after}: {status}");
    assert_eq!(test.sql("SELECT max(version) FROM leoflow_ledger"), schema.to_string(), "after {after}");
    let kept = test.run(&["variables", "get", "kept", "--json"]).expect(0).json();
    assert_eq!(kept["value"], "value", "after {after}");
    let link = fs::read_link(test.home.join("bin/leoflow")).unwrap();
    assert!(link.to_str().unwrap().contains(&version), "after {after}: {link:?} and {version}");
    assert!(!test.home.join("run/journal.json").exists(), "after {after}");
    let databases = test.sql(
        "SELECT coalesce(string_agg(datname, ' '), '') FROM pg_database
         WHERE datname LIKE 'leoflow\\_side%' OR datname LIKE 'leoflow\\_failed%'",
    );
    assert_eq!(databases, "", "after {after}");
    version
}

/// Kills the upgrade's or rollback's process at each checkpoint; the running instance recovers.
#[test]
fn a_killed_upgrade_or_rollback_leaves_old_or_new() {
    let all = releases(&[FIRST, SECOND]);
    let test = TestHome::with_program(all.program("0.1.0"));
    test.start();
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    let dist = all.dist();
    let upgrade = ["upgrade", "--from", dist.to_str().unwrap(), "--yes"];
    let rollback = ["rollback", "--yes"];
    let names = checkpoints(&test, &upgrade);
    assert!(names.len() >= 13, "{names:?}");
    let rollback_names = checkpoints(&test, &rollback);
    // Number of rounds that left the old and the new release.
    let mut seen = [0, 0];
    let forwards = sample_rounds_and_ends(&names, 1).into_iter().map(|name| (&upgrade[..], name));
    let backwards = sample_rounds_and_ends(&rollback_names, 1).into_iter().map(|name| (&rollback[..], name));
    for (arguments, name) in forwards.chain(backwards) {
        let expected = if arguments == upgrade { "0.1.0" } else { "0.2.0" };
        if assert_whole(&test, "the previous round") != expected {
            let opposite = if expected == "0.1.0" { &rollback[..] } else { &upgrade[..] };
            test.run(opposite).expect(0);
        }
        let killed = test.command(arguments).env("LEOFLOW_KILL_AT", name).output().unwrap();
        // The checkpoints `migrated.*` are in the migrator, a child of the command.
        let is_child_killed = name.starts_with("migrated.");
        assert!(is_child_killed || !killed.status.success(), "{name}: {killed:?}");
        // The supervisor recovers without user action, from any step.
        wait_until(&format!("the recovery after {name}"), Duration::from_secs(20), || {
            !test.home.join("run/journal.json").exists() && test.state() == "healthy"
        });
        let version = assert_whole(&test, name);
        seen[usize::from(version == "0.2.0")] += 1;
    }
    assert!(seen[0] > 1 && seen[1] > 1, "{seen:?}");
    test.run(&["smoke"]).expect(0);
}

/// Kills all processes at each checkpoint; the next start recovers.
#[test]
fn a_machine_stopped_at_any_step_starts_with_old_or_new() {
    let all = releases(&[FIRST, SECOND]);
    let mut test = TestHome::with_program(all.program("0.1.0"));
    test.start();
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    let dist = all.dist();
    let upgrade = ["upgrade", "--from", dist.to_str().unwrap(), "--yes"];
    let names = checkpoints(&test, &upgrade);
    test.run(&["rollback", "--yes"]).expect(0);
    // Number of rounds that left the old and the new release.
    let mut seen = [0, 0];
    for name in sample_rounds_and_ends(&names, 1) {
        if assert_whole(&test, "the previous round") != "0.1.0" {
            test.run(&["rollback", "--yes"]).expect(0);
        }
        let supervisor = test.pid("supervisor");
        test.command(&upgrade).env("LEOFLOW_KILL_AT", name).output().unwrap();
        processes::signal(supervisor, "KILL");
        processes::kill_all(test.folder());
        test.program = test.home.join("bin/leoflow");
        let started = test.run(&["lite", "start", "--port", &test.port.to_string()]);
        assert_eq!(started.code, Some(0), "{name}: {started:?}");
        test.program = all.program("0.1.0");
        let version = assert_whole(&test, name);
        seen[usize::from(version == "0.2.0")] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn a_discarded_purge_lets_an_interrupted_upgrade_end() {
    let all = releases(&[FIRST, SECOND]);
    let mut test = TestHome::with_program(all.program("0.1.0"));
    test.start();
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    let (dist, supervisor) = (all.dist(), test.pid("supervisor"));
    let upgrade = ["upgrade", "--from", dist.to_str().unwrap(), "--yes"];
    assert!(!test.command(&upgrade).env("LEOFLOW_KILL_AT", "upgrade.let-go").output().unwrap().status.success());
    processes::signal(supervisor, "KILL");
    processes::kill_all(test.folder());
    let journal = || fs::read_to_string(test.home.join("run/journal.json")).unwrap();
    assert!(journal().contains("\"operation\": \"upgrade\""), "{}", journal());
    let purge =
        test.command(&["uninstall", "--purge", "--yes"]).env("LEOFLOW_KILL_AT", "purge.begun").output().unwrap();
    assert!(!purge.status.success() && journal().contains("\"operation\": \"purge\""), "{purge:?}");
    test.program = test.home.join("bin/leoflow");
    let started = test.run(&["lite", "start", "--port", &test.port.to_string()]).expect(0);
    assert!(started.stderr.contains("discarded an interrupted purge"), "{started:?}");
    assert_eq!(assert_whole(&test, "a discarded purge"), "0.1.0");
}
