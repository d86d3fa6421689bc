//! Scheduled backups: created, verified and pruned according to the settings, with failures reported.

use crate::support::http::Session;
use crate::support::{TestHome, wait_until};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Adds a `backup` section to the home's config.yaml.
fn add_backup_settings(test: &TestHome, backup: &str) {
    let file = test.home.join("config.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}backup: {backup}\n")).unwrap();
}

fn backups(test: &TestHome) -> Vec<Value> {
    let listed = test.run(&["lite", "backups", "--json"]).expect(0).json();
    listed["backups"].as_array().unwrap().clone()
}

fn scheduled_backups(test: &TestHome) -> Vec<PathBuf> {
    let paths = backups(test).into_iter().map(|backup| PathBuf::from(backup["path"].as_str().unwrap()));
    paths.filter(|path| path.to_string_lossy().contains("-scheduled")).collect()
}

#[test]
fn backups_are_made_verified_and_pruned_on_schedule() {
    let test = TestHome::new().with_limit("LEOFLOW_UPKEEP_LOOK", "1");
    test.set_up();
    add_backup_settings(&test, "{schedule: '* * * * * *', verify: '* * * * * *', keep: 2}");
    test.start();
    test.run(&["variables", "set", "kept", "here"]).expect(0);
    wait_until("the first backup", Duration::from_secs(60), || !scheduled_backups(&test).is_empty());
    let first = scheduled_backups(&test).pop().unwrap();
    wait_until("a verification", Duration::from_secs(60), || test.status()["backups"]["last_verified_at"].is_string());
    wait_until("the first backup is pruned", Duration::from_secs(60), || !first.exists());
    let all = scheduled_backups(&test);
    // The newest verified backup may be kept beside these two, and another may be in progress.
    assert!((2..=4).contains(&all.len()), "{all:?}");
    let status = test.status();
    assert!(status["backups"]["last_backup_at"].is_string() && status["backups"]["problems"] == serde_json::json!([]));
    assert_eq!(status["state"], "healthy");
    // A running instance rereads the settings.
    test.run(&["config", "set", "backup.schedule", "off"]).expect(0);
    test.run(&["config", "set", "backup.verify", "off"]).expect(0);
    wait_until("backups stop", Duration::from_secs(60), || {
        let before = backups(&test);
        std::thread::sleep(Duration::from_secs(3));
        backups(&test) == before
    });
    assert!(scheduled_backups(&test).iter().any(|path| path.exists()));
    let newest = scheduled_backups(&test).remove(0);
    let other = TestHome::new();
    other.restore(&newest, &[]).expect(0);
    other.start();
    assert_eq!(other.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "here");
}

#[test]
fn a_backup_failing_verification_is_reported_everywhere() {
    let test = TestHome::new();
    test.set_up();
    add_backup_settings(&test, "{schedule: 'off', verify: '* * * * * *'}");
    test.start();
    let path = test.run(&["lite", "backup", "--json"]).expect(0).json()["path"].as_str().unwrap().to_owned();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let problems = || test.status()["backups"]["problems"].as_array().unwrap().clone();
    wait_until("a failed verification", Duration::from_secs(60), || !problems().is_empty());
    assert!(problems()[0].as_str().unwrap().contains(&path), "{:?}", problems());
    let doctor = test.run(&["doctor", "--json"]).expect(1).json();
    let check = doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == "backups").unwrap().clone();
    assert_eq!((&check["verdict"], &check["remedy"]), (&"problem".into(), &"leoflow lite backups verify".into()));
    let shown = test.run(&["lite", "status"]).expect(0);
    assert!(shown.stderr.contains("the scheduled verification failed"), "{shown:?}");
    // The remedy reports the damage; a new verified backup resolves the problem.
    test.run(&["lite", "backups", "verify"]).expect(1);
    test.run(&["lite", "backup"]).expect(0);
    let listed = test.run(&["lite", "backups", "--json"]).expect(0).json();
    assert_eq!(test.status()["backups"]["last_backup_at"], listed["backups"][0]["created_at"], "{listed}");
    test.run(&["lite", "backups", "verify"]).expect(0);
    assert!(problems().is_empty());
}

#[test]
fn invalid_settings_are_reported_and_a_killed_backup_is_removed() {
    let test = TestHome::new().with_limit("LEOFLOW_UPKEEP_LOOK", "1");
    test.set_up();
    add_backup_settings(&test, "{schedule: 'off', verify: 'off'}");
    test.start();
    let mut killed = test.command(&["lite", "backup", "--scheduled"]);
    assert!(!killed.env("LEOFLOW_KILL_AT", "backup.written").output().unwrap().status.success());
    let partial_files = || {
        let names = fs::read_dir(test.home.join("backups")).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().contains(".tmp-")).count()
    };
    assert_eq!(partial_files(), 1);
    test.run(&["lite", "backup", "--scheduled"]).expect(0);
    assert_eq!((partial_files(), backups(&test).len()), (0, 1));
    let file = test.home.join("config.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("verify: 'off'", "verify: sometimes")).unwrap();
    let problems = || test.status()["backups"]["problems"].as_array().unwrap().clone();
    wait_until("a reported problem", Duration::from_secs(90), || !problems().is_empty());
    assert!(problems()[0].as_str().unwrap().contains("backup.verify"), "{:?}", problems());
    fs::write(&file, text).unwrap();
    wait_until("no reported problem", Duration::from_secs(90), || problems().is_empty());
    // A scheduled job waits for another operation.
    let mut holder = Command::new("flock");
    let mut holder = holder.arg(test.home.join("run/operation.lock")).args(["sleep", "1"]).spawn().unwrap();
    test.run(&["lite", "backup", "--scheduled"]).expect(0);
    assert!(holder.wait().unwrap().success());
    // A scheduled job that starts late does not open the datastore of a stopped instance.
    test.run(&["lite", "stop"]).expect(0);
    for job in [["lite", "backup", "--scheduled"].as_slice(), &["lite", "backups", "verify", "--scheduled"]] {
        assert!(test.run(job).expect(1).stderr.contains("Leoflow has stopped"), "{job:?}");
    }
    assert_eq!(backups(&test).len(), 2);
}

#[test]
fn prune_lists_what_it_removes_and_keeps_the_rest() {
    let test = TestHome::started();
    let folder = test.home.join("backups");
    for number in 1..=4 {
        let made = test.run(&["lite", "backup", "--json"]).expect(0).json()["path"].as_str().unwrap().to_owned();
        fs::rename(made, folder.join(format!("automatic-2026010{number}T000000Z-scheduled.tar.zst"))).unwrap();
    }
    let manual = test.run(&["lite", "backup", "--json"]).expect(0).json()["path"].as_str().unwrap().to_owned();
    let verified = folder.join("automatic-20260101T000000Z-scheduled.tar.zst");
    test.run(&["lite", "backups", "verify", verified.to_str().unwrap()]).expect(0);
    add_backup_settings(&test, "{keep: 2}");
    let before = test.snapshot("backups");
    let dry = test.run(&["lite", "backups", "prune", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(test.snapshot("backups"), before);
    // The dates in the names of the removed files, after `/automatic-`.
    let dates = |pruned: &Value| -> Vec<String> {
        let removed = pruned["removed"].as_array().unwrap().iter();
        removed
            .map(|backup| backup["path"].as_str().unwrap()[folder.to_str().unwrap().len() + 11..][..8].to_owned())
            .collect()
    };
    assert_eq!(dates(&dry), ["20260102", "20260103"], "the verified and the newest backups stay");
    assert_eq!(dry["removed"][0]["why"], "count");
    test.run(&["lite", "backups", "prune"]).expect(3);
    let done = test.run(&["lite", "backups", "prune", "--yes", "--json"]).expect(0).json();
    assert_eq!(dates(&done), dates(&dry));
    let remaining = backups(&test);
    assert_eq!(remaining.len(), 3);
    assert!(remaining.iter().any(|backup| backup["path"] == manual.as_str()));
    let bad = test.run(&["config", "set", "backup.schedule", "0 25 * * *"]).expect(2);
    assert!(bad.stderr.contains("backup.schedule: \"0 25 * * *\" is not a cron expression"), "{bad:?}");
}

#[test]
fn backups_that_cannot_be_written_are_reported_everywhere() {
    let test = TestHome::new();
    let first = test.set_up();
    add_backup_settings(&test, "{schedule: '* * * * * *', verify: 'off'}");
    let folder = test.home.join("backups");
    let _ = fs::remove_dir_all(&folder);
    // A file in place of the folder: not even root can write a backup into it.
    fs::write(&folder, "").unwrap();
    test.start();
    let has_failed = |problem: &Value| problem.as_str().unwrap().contains("scheduled backup failed");
    wait_until("the failed backup in the status", Duration::from_secs(60), || {
        test.status()["backups"]["problems"].as_array().unwrap().iter().any(has_failed)
    });
    let status = test.run(&["lite", "status"]).expect(1);
    assert!(status.stdout.contains("healthy") && status.stderr.contains("scheduled backup"), "{status:?}");
    let doctor = test.run(&["doctor"]).expect(1);
    assert!(doctor.stdout.contains("scheduled backup"), "{doctor:?}");
    let session = Session::login(test.port, first["admin_password"].as_str().unwrap());
    for page in ["/lite/", "/lite/backups"] {
        assert!(session.request("GET", page, "").body.contains("scheduled backup"), "{page}");
    }
    fs::remove_file(&folder).unwrap();
    test.run(&["lite", "backup"]).expect(0);
    test.run(&["lite", "status"]).expect(0);
}

#[test]
fn an_unwritable_upkeep_record_shows_in_the_status() {
    let test = TestHome::new();
    test.set_up();
    fs::create_dir_all(test.home.join("run/upkeep.json")).unwrap();
    test.run(&["lite", "start", "--port", &test.port.to_string()]);
    let reason = || test.status()["reason"].as_str().unwrap_or_default().to_owned();
    wait_until("the reason in the status", Duration::from_secs(60), || reason().contains("upkeep.json"));
    test.run(&["lite", "status"]).expect(1);
    fs::remove_dir(test.home.join("run/upkeep.json")).unwrap();
    test.wait_healthy();
}
