//! `leoflow db clean` removes old history, and nothing that a DAG still needs.

use crate::support::{CommandOutput, TestHome, wait_until};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A home with `runs` scheduled runs of the DAG `old`, an hour apart, the last one at 2025-03-01; each with two tasks, an
/// XCom and a log.
fn home_with_history(runs: u32) -> TestHome {
    history_of(TestHome::new(), runs)
}

fn history_of(test: TestHome, runs: u32) -> TestHome {
    test.start();
    test.add_dag("old", "from airflow.sdk import DAG, task\nwith DAG('old'):\n    @task\n    def t(): pass\n    t()\n");
    test.sql(&format!(
        "INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, run_after, queued_at, start_date, end_date,
                              dag_version_id)
         SELECT 'old', 'r' || i, 'scheduled', 'success', d, d, d, d, d + interval '1 minute', current_version_id
         FROM dag, generate_series(1, {runs}) i,
              LATERAL (SELECT '2025-03-01'::timestamptz - ({runs} - i) * interval '1 hour') dates (d) WHERE dag_id = 'old';
         INSERT INTO task_instance (dag_id, run_id, task_id, state, try_number, start_date, end_date)
         SELECT dag_id, run_id, task_id, 'success', 1, start_date, end_date
         FROM dag_run, unnest(ARRAY['a', 'b']) tasks (task_id);
         INSERT INTO xcom (dag_id, run_id, task_id, map_index, key, value)
         SELECT dag_id, run_id, 'a', -1, 'return_value', '1' FROM dag_run"
    ));
    for run in 1..=runs {
        let log = log_folder(&test, &format!("r{run}")).join("a/-1/1.log");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::write(log, "text").unwrap();
    }
    test
}

fn log_folder(test: &TestHome, run_id: &str) -> PathBuf {
    test.home.join("task-logs/old").join(run_id)
}

fn clean(test: &TestHome, more: &[&str]) -> CommandOutput {
    test.run(&[&["db", "clean", "--yes", "--json"], more].concat())
}

fn runs(test: &TestHome) -> String {
    test.sql("SELECT string_agg(run_id, ' ' ORDER BY run_after) FROM dag_run WHERE dag_id = 'old'")
}

#[test]
fn old_runs_go_and_what_is_needed_stays() {
    let test = home_with_history(12);
    test.sql(
        "UPDATE dag_run SET state = 'running', end_date = NULL WHERE run_id = 'r3';
         UPDATE dag_run SET run_type = 'asset_triggered', logical_date = NULL WHERE run_id = 'r5';
         INSERT INTO dag_callback (dag_id, run_id, state, reason) VALUES ('old', 'r7', 'success', 'success');
         INSERT INTO backfill (dag_id, from_date, to_date, reprocess_behavior, max_active_runs)
         VALUES ('old', now(), now(), 'none', 1);
         UPDATE dag_run SET run_type = 'backfill', backfill_id = (SELECT max(id) FROM backfill) WHERE run_id = 'r9'",
    );
    let refused = |arguments: &[&str], reason: &str| {
        let output = clean(&test, arguments).expect(1);
        assert!(output.stderr.contains(reason), "{output:?}");
    };
    refused(&["--before", "2999-01-01"], "in the future");
    refused(&["--before", "2025-04-01", "--dag", "none"], "no DAG none");
    refused(&[], "no limit is set");
    assert!(clean(&test, &["--before", "soon"]).expect(2).stderr.contains("is not a date"));
    clean(&test, &["--before", "2025-04-01", "--tables", "slots"]).expect(2);
    assert_eq!(clean(&test, &["--before", "2024-01-01"]).expect(0).json()["removed"]["rows"], json!({}));

    // r2 is what `depends_on_past` of the running r3 refers to; r5 and r9 are the newest of their types, r12 of all.
    let planned = clean(&test, &["--before", "2025-04-01", "--dry-run"]).expect(0).json();
    assert_eq!(planned["removed"]["rows"], json!({"dag_run": 6, "task_instance": 12, "xcom": 6}));
    let xcoms = clean(&test, &["--before", "2025-04-01", "--tables", "xcom"]).expect(0).json();
    assert_eq!(xcoms["removed"]["rows"], json!({"xcom": 6}));
    assert_eq!(test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'old'"), "12");
    let removed = clean(&test, &["--before", "2025-04-01", "--exclude-dag-ids", "hello"]).expect(0).json();
    assert_eq!(removed["removed"]["rows"]["dag_run"], 6);
    assert_eq!(runs(&test), "r2 r3 r5 r7 r9 r12");
    assert!(!log_folder(&test, "r1").exists() && log_folder(&test, "r2").exists());
    assert_eq!(test.sql("SELECT count(*) FROM task_instance WHERE dag_id = 'old'"), "12");
    assert!(clean(&test, &["--before", "2025-04-01"]).expect(0).json()["removed"]["rows"]["dag_run"].is_null());
}

#[test]
fn versions_and_events_that_something_refers_to_stay() {
    let test = home_with_history(2);
    // A long run of an unchanged file: the version is old, the run that has it is not. Another version has no run, and
    // the newest is that of the DAG. Of the events, one triggered a run that stays, one is the newest of its asset, and
    // for one the DAG `waiting` still waits.
    test.sql(
        "INSERT INTO dag_version (dag_id, version_number, source_hash, structure, source, created_at)
         SELECT 'old', 1 - n, 'hash' || n, '{}', '', '2025-01-01' FROM generate_series(1, 2) n;
         UPDATE dag_run SET dag_version_id = (SELECT id FROM dag_version WHERE source_hash = 'hash1') WHERE run_id = 'r2';
         INSERT INTO asset (name, uri) VALUES ('a', 'a'), ('b', 'b');
         INSERT INTO asset_event (asset_id, happened_at, source_task_id)
         SELECT id, date::timestamptz, name || ' ' || date
         FROM asset, unnest(ARRAY['2025-01-01', '2025-01-02', '2025-01-03']) date;
         INSERT INTO dag_run_asset_event (dag_id, run_id, event_id)
         SELECT 'old', 'r2', id FROM asset_event WHERE source_task_id = 'a 2025-01-02';
         INSERT INTO dag (dag_id, fileloc) VALUES ('waiting', '/none');
         INSERT INTO dag_asset (dag_id, role, kind, name, uri) VALUES ('waiting', 'schedule', 'asset', 'b', 'b');
         INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after) VALUES
             ('waiting', 'w', 'asset_triggered', 'success', '2025-01-01 12:00Z');
         INSERT INTO event_log (event, created_at, dag_id) VALUES ('x', '2025-01-01', 'old'), ('x', now(), 'old')",
    );
    let planned = clean(&test, &["--before", "2025-02-01", "--dry-run"]).expect(0).json();
    let rows = json!({"asset_event": 2, "dag_version": 1, "log": 1});
    assert_eq!(planned["removed"]["rows"], rows);
    assert_eq!(clean(&test, &["--before", "2025-02-01"]).expect(0).json()["removed"]["rows"], rows);
    let events = test.sql("SELECT string_agg(source_task_id, ', ' ORDER BY source_task_id) FROM asset_event");
    assert_eq!(events, "a 2025-01-02, a 2025-01-03, b 2025-01-02, b 2025-01-03");
    assert_eq!(test.sql("SELECT count(*) FROM dag_version WHERE source_hash = 'hash1'"), "1");
}

#[test]
fn settings_limit_history_and_a_project_overrides_them() {
    let test = home_with_history(10);
    test.run(&["config", "set", "history.keep_runs", "8"]).expect(0);
    let planned = || clean(&test, &["--dry-run"]).expect(0).json()["removed"]["rows"]["dag_run"].clone();
    assert_eq!(planned(), 2);
    test.run(&["config", "set", "history.keep_days", "30000"]).expect(0);
    assert!(planned().is_null(), "a run is kept if one of the two keeps it");
    let settings = test.workspace().join("leoflow.yaml");
    fs::write(&settings, "history: {keep_runs: 3}\n").unwrap();
    assert_eq!(planned(), 7);
    fs::write(&settings, "dag_id: other\nhistory: {keep_runs: 3}\n").unwrap();
    assert!(planned().is_null());
    assert!(test.run(&["config", "set", "history.keep_days", "0"]).expect(2).stderr.contains("at least 1"));
    fs::write(&settings, "history: {keep_runs: 4}\n").unwrap();
    clean(&test, &[]).expect(0);
    assert_eq!(runs(&test), "r7 r8 r9 r10");
}

#[test]
fn an_archive_holds_what_was_removed() {
    let test = home_with_history(5);
    let removed = clean(&test, &["--before", "2025-04-01", "--archive"]).expect(0).json();
    assert_eq!((&removed["removed"]["rows"]["dag_run"], runs(&test).as_str()), (&json!(4), "r5"));
    let archive = PathBuf::from(removed["archive"].as_str().unwrap());
    assert!(archive.file_name().unwrap().to_str().unwrap().starts_with("history-"));
    test.run(&["lite", "backups", "prune", "--yes"]).expect(0);
    let other = TestHome::new();
    other.restore(&archive, &[]).expect(0);
    other.start();
    assert_eq!(runs(&other), "r1 r2 r3 r4 r5");
    // A run comes back for reading, with its version, XComs and logs.
    let restore = |run: &str| test.run(&["history", "restore", "old", "--run", run, "--json"]);
    let restored = restore("r3").expect(0).json();
    assert_eq!((&restored["task_instances"], &restored["logs"]), (&json!(2), &json!(1)), "{restored}");
    assert_eq!(
        (runs(&test).as_str(), fs::read_to_string(log_folder(&test, "r3").join("a/-1/1.log")).unwrap().as_str()),
        ("r3 r5", "text")
    );
    let row = "SELECT (r.*, x.value, v.version_number) FROM dag_run r JOIN xcom x USING (dag_id, run_id)
               JOIN dag_version v ON v.id = r.dag_version_id WHERE run_id = 'r3'";
    assert_eq!(test.sql(row), other.sql(row));
    assert!(restore("r3").expect(1).stderr.contains("exists"));
    assert!(restore("r99").expect(1).stderr.contains("no archive of removed history has the run r99 of old"));
    clean(&test, &["--before", "2025-04-01"]).expect(0);
    // Without a good archive nothing is removed.
    fs::remove_dir_all(test.home.join("backups")).unwrap();
    fs::write(test.home.join("backups"), "").unwrap();
    test.sql("UPDATE dag_run SET run_type = 'manual', logical_date = NULL WHERE run_id = 'r5'");
    let manual = test.trigger("old");
    test.wait_run("old", &manual);
    let refused = clean(&test, &["--before", "2025-04-01", "--archive"]).expect(1);
    assert!(refused.stderr.contains("nothing was removed, because the archive was not created"), "{refused:?}");
    assert!(runs(&test).starts_with("r5 "));
}

#[test]
fn a_killed_clean_up_leaves_whole_runs() {
    for checkpoint in ["logs.moved", "logs.deletion-committed", "history.batch", "history.archived"] {
        let test = TestHome::new().with_limit("LEOFLOW_KILL_AT", checkpoint);
        let test = history_of(test, 30);
        let arguments: &[&str] = if checkpoint == "history.archived" { &["--archive"] } else { &[] };
        clean(&test, &[&["--before", "2025-04-01"], arguments].concat()).expect(1);
        test.wait_healthy();
        let left = runs(&test);
        let is_left = |number: &u32| left.split(' ').any(|run| run == format!("r{number}"));
        assert!(is_left(&30) && left.split(' ').count() >= 22, "{checkpoint}: {left}");
        assert_eq!(is_left(&1), ["logs.moved", "history.archived"].contains(&checkpoint), "{checkpoint}: {left}");
        // The logs of a run go and stay with it; the next server moves those back whose runs were not removed.
        let agree = || (1..=30).all(|run| log_folder(&test, &format!("r{run}")).exists() == is_left(&run));
        wait_until("the logs agree with the runs", Duration::from_secs(30), agree);
        assert_eq!(test.sql("SELECT count(*) FROM task_instance"), (2 * left.split(' ').count()).to_string());
    }
}
