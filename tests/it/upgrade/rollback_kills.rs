//! A rollback by backup that is killed at any of its checkpoints, or those of its restore, leaves either release with
//! its own data, and the same command finishes the rollback.

use crate::support::releases::{FIRST, Migration, Release, releases};
use crate::support::rounds::sample_rounds;
use crate::support::{TestHome, newest, processes};
use serde_json::Value;
use std::fs;

const SECOND: Release = Release { version: "1.0.0", migration: Migration::Data, fault: None };

fn checkpoints(test: &TestHome) -> Vec<String> {
    let log = test.folder().join("checkpoints");
    let done = test.command(&["rollback", "--yes"]).env("LEOFLOW_CHECKPOINT_LOG", &log).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let text = fs::read_to_string(&log).unwrap();
    let is_ours = |name: &&str| ["rollback.", "restore."].iter().any(|prefix| name.starts_with(prefix));
    let mut names: Vec<String> = text.lines().filter(is_ours).map(str::to_owned).collect();
    names.dedup();
    names
}

fn linked_version(test: &TestHome) -> String {
    let link = fs::read_link(test.home.join("bin/leoflow")).unwrap();
    link.iter().nth(2).unwrap().to_str().unwrap().to_owned()
}

/// Returns `from>to` of each release change.
fn history(test: &TestHome) -> Vec<String> {
    let text = fs::read_to_string(test.home.join("upgrade/history.json")).unwrap();
    let changes: Value = serde_json::from_str(&text).unwrap();
    let describe = |change: &Value| format!("{}>{}", change["from"].as_str().unwrap(), change["to"].as_str().unwrap());
    changes.as_array().unwrap().iter().map(describe).collect()
}

/// Asserts that the running release is the one that `bin/` links to and has its own data; returns its version.
#[track_caller]
fn assert_whole(test: &TestHome, after: &str) -> String {
    if test.state() != "healthy" {
        // Lite may already be restarting.
        test.run(&["lite", "start", "--port", &test.port.to_string()]);
    }
    test.wait_healthy();
    let version = test.status()["version"].as_str().unwrap().to_owned();
    assert_eq!(linked_version(test), version, "after {after}");
    let (schema, is_new) = if version == "1.0.0" { (newest() + 1, "1") } else { (newest(), "0") };
    assert_eq!(test.sql("SELECT max(version) FROM leoflow_ledger"), schema.to_string(), "after {after}");
    assert_eq!(test.sql("SELECT count(*) FROM variable WHERE key = 'new'"), is_new, "after {after}");
    assert_eq!(test.sql("SELECT count(*) FROM variable WHERE key = 'kept'"), "1", "after {after}");
    assert!(!test.home.join("run/journal.json").exists(), "after {after}");
    version
}

#[test]
fn a_killed_rollback_by_backup_leaves_old_or_new() {
    let all = releases(&[FIRST, SECOND]);
    let mut test = TestHome::with_program(all.program("0.1.0"));
    test.start();
    test.program = test.home.join("bin/leoflow");
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    let dist = all.dist();
    let upgrade = |test: &TestHome| {
        test.run(&["upgrade", "1.0.0", "--from", dist.to_str().unwrap(), "--yes"]).expect(0);
        test.run(&["variables", "set", "new", "value"]).expect(0);
    };
    upgrade(&test);
    let names = checkpoints(&test);
    for expected in ["rollback.begun", "rollback.restored", "rollback.linked", "rollback.recorded", "restore.database"]
    {
        assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
    }
    for name in sample_rounds(&names, 2) {
        if assert_whole(&test, "the previous round") == "0.1.0" {
            upgrade(&test);
        }
        let before = history(&test);
        test.command(&["rollback", "--yes"]).env("LEOFLOW_KILL_AT", name).output().unwrap();
        // The same command finishes the rollback, unless the killed one was complete.
        let is_interrupted = test.home.join("upgrade/rollback.json").exists();
        if is_interrupted || linked_version(&test) == "1.0.0" {
            test.run(&["rollback", "--yes"]).expect(0);
        }
        assert_eq!(assert_whole(&test, name), "0.1.0", "after {name}");
        assert!(!test.home.join("upgrade/rollback.json").exists(), "after {name}");
        let mut expected = before;
        expected.push("1.0.0>0.1.0".to_owned());
        assert_eq!(history(&test), expected, "after {name}");
    }
    // Kills all processes, as when a machine stops; the next start finishes or undoes the rollback.
    for name in sample_rounds(&["rollback.begun", "rollback.restoring", "rollback.restored", "rollback.linked"], 1) {
        if assert_whole(&test, "the previous round") == "0.1.0" {
            upgrade(&test);
        }
        test.command(&["rollback", "--yes"]).env("LEOFLOW_KILL_AT", name).output().unwrap();
        processes::kill_all(test.folder());
        let version = assert_whole(&test, name);
        let expected = if *name == "rollback.begun" { &["1.0.0"][..] } else { &["0.1.0", "1.0.0"] };
        assert!(expected.contains(&version.as_str()), "{version} after {name}");
        assert!(!test.home.join("upgrade/rollback.json").exists(), "after {name}");
    }
}
