//! Programs of another release than the instance's: that of another instance, and one that was copied over the home's
//! own.

use crate::support::changing_release::{started, variable, version};
use crate::support::releases::{FIRST, Migration, Release, SECOND, releases};
use crate::support::{TestHome, newest};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A release whose migration cannot be undone.
const LAST: Release = Release { version: "1.0.0", migration: Migration::Data, fault: None };

fn history(test: &TestHome) -> Vec<Value> {
    let text = fs::read(test.home.join("upgrade/history.json")).unwrap_or_else(|_| b"[]".to_vec());
    serde_json::from_slice(&text).unwrap()
}

/// Asserts that one upgrade is recorded, with a backup that exists.
#[track_caller]
fn assert_recorded(test: &TestHome, from: &str, to: &str) {
    let history = history(test);
    assert_eq!(history.len(), 1, "{history:?}");
    let change = &history[0];
    assert_eq!((&change["from"], &change["to"], &change["kind"]), (&json!(from), &json!(to), &json!("upgrade")));
    assert!(test.home.join(change["backup"].as_str().unwrap()).is_file(), "{change}");
    assert_in_use(test, to);
}

#[track_caller]
fn assert_in_use(test: &TestHome, version: &str) {
    let listed = test.run(&["versions", "--json"]).expect(0).json();
    let in_use = listed["versions"].as_array().unwrap().iter().find(|release| release["current"] == true);
    assert_eq!(in_use.unwrap_or_else(|| panic!("{listed}"))["version"], version, "{listed}");
}

#[test]
fn another_instances_program_runs_the_instances_own() {
    let all = releases(&[FIRST, LAST]);
    let mut test = started(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    test.program = all.program("1.0.0");
    for command in [&["lite", "restart"][..], &["lite", "stop"], &["lite", "start"], &["migrate-db"]] {
        let done = test.run(command).expect(0);
        let note = "Using this instance's Leoflow 0.1.0 (this program is 1.0.0); to upgrade the instance: ";
        assert!(done.stderr.contains(note), "{command:?}: {}", done.stderr);
    }
    assert_eq!((version(&test), test.status()["schema_version"].as_i64().unwrap()), ("0.1.0".to_owned(), newest()));
    assert!(history(&test).is_empty());
    assert_in_use(&test, "0.1.0");
    // Without a release host, the newer program is the release to upgrade to.
    test.run(&["upgrade", "--yes"]).expect(0);
    assert_eq!(version(&test), "1.0.0");
    assert_recorded(&test, "0.1.0", "1.0.0");
    test.program = all.program("0.1.0");
    let restarted = test.run(&["lite", "restart"]).expect(0);
    assert!(
        restarted.stderr.contains("Using this instance's Leoflow 1.0.0 (this program is 0.1.0)\n"),
        "{restarted:?}"
    );
    assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("1.0.0", Some("value")));
    test.run(&["rollback", "--to", "0.1.0", "--yes"]).expect(0);
    test.wait_healthy();
    assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.1.0", Some("value")));
}

/// Puts a program in place of `path`, which may be a link. Another process writes it, see `releases::write_program`.
fn copy_over(program: &Path, path: &Path) {
    let done = Command::new("cp").arg("--remove-destination").arg(program).arg(path).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_start_of_a_copied_program_is_an_upgrade_with_a_way_back() {
    let all = releases(&[FIRST, LAST]);
    let mut test = started(&all);
    test.program = test.home.join("bin/leoflow");
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    copy_over(&all.program("1.0.0"), &test.program);
    let running = test.run(&["lite", "start"]).expect(0);
    assert!(running.stderr.contains("this program is leoflow 1.0.0, but 0.1.0 is running"), "{}", running.stderr);
    // An upgrade that is refused does not stop the instance.
    test.sql("ALTER TABLE variable ADD summary text");
    let refused = test.run(&["lite", "restart"]).expect(3);
    assert!(refused.stderr.contains("variable column summary text"), "{}", refused.stderr);
    test.sql("ALTER TABLE variable DROP summary");
    let pid = test.pid("postgres");
    assert_eq!((version(&test).as_str(), test.state().as_str()), ("0.1.0", "healthy"));
    let restarted = test.run(&["lite", "restart"]).expect(0);
    assert!(restarted.stderr.contains("upgrading this home from 0.1.0 first"), "{}", restarted.stderr);
    assert_ne!(test.pid("postgres"), pid);
    assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("1.0.0", Some("value")));
    assert_recorded(&test, "0.1.0", "1.0.0");
    assert!(fs::read_link(&test.program).unwrap().ends_with("1.0.0/leoflow"));
    test.run(&["rollback", "--yes"]).expect(0);
    test.wait_healthy();
    assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.1.0", Some("value")));
    // A program at the path of another release is not taken for that release.
    test.run(&["upgrade", "1.0.0", "--yes"]).expect(0);
    copy_over(&all.program("1.0.0"), &test.home.join("versions/0.1.0/leoflow"));
    let refused = test.run(&["rollback", "--yes"]).expect(1);
    assert!(refused.stderr.contains("is leoflow 1.0.0, not 0.1.0"), "{}", refused.stderr);
    assert_eq!(version(&test), "1.0.0");
}

#[test]
fn setup_by_a_newer_program_is_a_recorded_upgrade() {
    let all = releases(&[FIRST, SECOND]);
    let mut test = started(&all);
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    test.run(&["lite", "stop"]).expect(0);
    test.program = all.program("0.2.0");
    let done = test.run(&["setup"]).expect(0);
    assert!(done.stderr.contains("upgrading this home from 0.1.0 first"), "{}", done.stderr);
    assert_recorded(&test, "0.1.0", "0.2.0");
    test.run(&["lite", "start"]).expect(0);
    assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.2.0", Some("value")));
    test.run(&["rollback", "--yes"]).expect(0);
    assert_eq!((version(&test).as_str(), variable(&test, "kept").as_deref()), ("0.1.0", Some("value")));
}

#[test]
fn a_failed_rehearsal_is_not_repeated_by_each_start() {
    let bad = Release { version: "0.2.0", migration: Migration::Fails, fault: None };
    let all = releases(&[FIRST, bad]);
    let mut test = started(&all);
    test.program = test.home.join("bin/leoflow");
    copy_over(&all.program("0.2.0"), &test.program);
    let failed = test.run(&["lite", "restart"]);
    assert!(failed.code == Some(1) && failed.stderr.contains("Rehearsing"), "{failed:?}");
    assert_eq!((version(&test).as_str(), test.state().as_str()), ("0.1.0", "healthy"));
    let refused = test.run(&["lite", "restart"]).expect(3);
    assert!(refused.stderr.contains("this home stays at leoflow 0.1.0"), "{}", refused.stderr);
    let kept = test.home.join("versions/0.1.0/leoflow");
    assert!(refused.stderr.contains(&format!("to go on with 0.1.0: {}", kept.display())), "{}", refused.stderr);
    assert!(refused.stderr.contains("to try again: leoflow upgrade 0.2.0"), "{}", refused.stderr);
    assert_eq!(test.state(), "healthy");
}
