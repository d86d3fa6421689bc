//! Migrations that run after an upgrade: data migrations in batches, `postdeploy`, and `contract` once its gates open.

use crate::support::releases::{FIRST, Migration, Release, releases};
use crate::support::{TestHome, newest, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

const PHASES: Release = Release { version: "1.0.0", migration: Migration::Phases, fault: None };
/// The data migration that moves tasks' rendered template fields.
const DATA_MIGRATION: &str = "13";

/// Creates a stopped instance with `rows` rows that the data migration has not moved yet.
fn home_with_rows(rows: usize) -> TestHome {
    let test = TestHome::new();
    test.set_up();
    test.sql(&format!(
        "INSERT INTO dag (dag_id, fileloc) VALUES ('d', 'd.py');
         INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after) VALUES ('d', 'r', 'manual', 'success', now());
         INSERT INTO task_instance (dag_id, run_id, task_id, state, rendered)
             SELECT 'd', 'r', 't' || n, 'success', json_build_object('n', n) FROM generate_series(1, {rows}) n;
         INSERT INTO rendered_task_instance_fields VALUES ('d', 'r', 't2', -1, '{{\"newer\": true}}');"
    ));
    test
}

/// Returns the only data migration, as `data-migrate list` prints it.
fn data_migration(test: &TestHome) -> Value {
    let all = test.run(&["data-migrate", "list", "--json"]).expect(0).json();
    let all = all["data_migrations"].as_array().unwrap().clone();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

/// Asserts that each value was moved exactly once and that a newer row was not overwritten.
fn assert_moved(test: &TestHome, rows: usize) {
    let moved = test.sql(
        "SELECT count(*), count(*) FILTER (WHERE f.rendered_fields->>'n' = substr(task_id, 2)), count(ti.rendered),
                count(*) FILTER (WHERE f.rendered_fields->>'newer' = 'true')
         FROM task_instance ti LEFT JOIN rendered_task_instance_fields f USING (dag_id, run_id, task_id, map_index)",
    );
    assert_eq!(moved, format!("{rows}|{}|0|1", rows - 1));
}

#[test]
fn a_killed_data_migration_moves_each_row_exactly_once() {
    let test = home_with_rows(1200);
    for kill_at in ["data-migration.batch", "data-migration.committed", "data-migration.batch"] {
        let killed = test.command(&["data-migrate", "run"]).env("LEOFLOW_KILL_AT", kill_at).output().unwrap();
        assert!(!killed.status.success(), "{kill_at}: {killed:?}");
        let progress = data_migration(&test);
        let moved = test.sql("SELECT count(*) FROM task_instance WHERE rendered IS NULL");
        assert_eq!(progress["rows"].to_string(), moved, "recorded and moved rows differ: {progress}");
    }
    test.run(&["data-migrate", "run"]).expect(0);
    let done = data_migration(&test);
    assert_eq!((done["status"].as_str(), done["rows"].as_i64()), (Some("verified"), Some(1200)));
    assert_moved(&test, 1200);
    let again = test.run(&["data-migrate", "run"]).expect(0).stdout;
    assert!(again.contains("verified, 1200 rows"), "{again}");
    test.assert_nothing_runs();
}

#[test]
fn data_migrations_are_paused_resumed_and_verified_by_command() {
    let test = home_with_rows(20);
    let dry = test.run(&["data-migrate", "run", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(dry["data_migrations"][0]["left"], 20);
    assert_eq!(data_migration(&test)["status"], "pending", "nothing was changed");
    test.run(&["data-migrate", "pause", DATA_MIGRATION]).expect(0);
    let refused = test.run(&["data-migrate", "run"]).expect(3);
    assert!(refused.stderr.contains("data-migrate resume 13"), "{}", refused.stderr);
    assert!(test.run(&["data-migrate", "list"]).expect(0).stdout.contains("paused"));
    let remaining = test.run(&["data-migrate", "verify", "V0013"]).expect(1).stdout;
    assert!(remaining.contains("20 rows left"), "{remaining}");
    test.run(&["data-migrate", "resume"]).expect(0);
    // A batch that changes the answer of an invariant is rolled back.
    test.sql(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.state := ''failed''; RETURN NEW; END';
         CREATE TRIGGER fail BEFORE UPDATE ON task_instance FOR EACH ROW EXECUTE FUNCTION fail();",
    );
    let failed = test.run(&["data-migrate", "run"]).expect(1).stderr;
    let altered = r#""task instances by state" answered {"success": 20} and now answers {"failed": 20}"#;
    assert!(failed.contains(altered), "{failed}");
    let unmoved = test.sql("SELECT count(rendered) FROM task_instance");
    assert_eq!((unmoved.as_str(), &data_migration(&test)["rows"]), ("20", &json!(0)));
    test.sql("DROP FUNCTION fail CASCADE");
    test.run(&["data-migrate", "resume"]).expect(0);
    test.run(&["data-migrate", "run", DATA_MIGRATION, "--no-rest"]).expect(0);
    assert_moved(&test, 20);
    // `verify` finds a row written since and reopens the migration.
    test.sql("UPDATE task_instance SET rendered = '{}' WHERE task_id = 't3'");
    test.run(&["data-migrate", "verify"]).expect(1);
    let reopened = data_migration(&test);
    assert_eq!((reopened["status"].as_str(), reopened["round"].as_i64()), (Some("pending"), Some(2)));
    test.run(&["data-migrate", "run"]).expect(0);
    test.run(&["data-migrate", "verify"]).expect(0);
    let unknown = test.run(&["data-migrate", "pause", "12"]).expect(2);
    assert!(unknown.stderr.contains("V0012") && unknown.stderr.contains("data-migrate list"), "{}", unknown.stderr);
    test.run(&["data-migrate", "status", "next"]).expect(2);
    test.assert_nothing_runs();
}

#[test]
fn locked_rows_are_skipped_and_a_failing_row_is_reported() {
    let test = home_with_rows(5);
    test.start();
    wait_until("the data migration is verified", LIMIT, || data_migration(&test)["status"] == "verified");
    assert_moved(&test, 5);
    // Two rows have a value again, and one of them is locked for a while.
    test.sql("UPDATE task_instance SET rendered = '{}' WHERE task_id IN ('t4', 't5'); DELETE FROM rendered_task_instance_fields");
    let row = test.hold_lock("SELECT FROM task_instance WHERE task_id = 't4' FOR UPDATE");
    test.run(&["data-migrate", "verify"]).expect(1);
    let remaining = "SELECT string_agg(task_id, ',') FROM task_instance WHERE rendered IS NOT NULL";
    wait_until("the other row has moved", LIMIT, || test.sql(remaining) == "t4");
    row.assert_held();
    drop(row);
    test.run(&["data-migrate", "run"]).expect(0);
    assert_eq!((test.sql(remaining).as_str(), &data_migration(&test)["status"]), ("", &json!("verified")));
    // A user's trigger that rejects every row.
    test.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON rendered_task_instance_fields FOR EACH ROW EXECUTE FUNCTION refuse();
         UPDATE task_instance SET rendered = '{}' WHERE task_id = 't1';
         DELETE FROM rendered_task_instance_fields WHERE task_id = 't1';",
    );
    test.run(&["data-migrate", "verify"]).expect(1);
    let failed = test.run(&["data-migrate", "run"]).expect(1);
    assert!(failed.stderr.contains("not this one") && failed.stderr.contains("resume 13"), "{}", failed.stderr);
    assert_eq!(data_migration(&test)["status"], "failed");
    let checked = test.run(&["doctor"]).stdout;
    assert!(checked.contains("not this one"), "{checked}");
    test.sql("DROP TRIGGER refuse ON rendered_task_instance_fields; DROP FUNCTION refuse");
    test.run(&["data-migrate", "resume"]).expect(0);
    wait_until("the server resumes the data migration", LIMIT, || data_migration(&test)["status"] == "verified");
    assert_eq!(test.sql("SELECT count(*) FROM task_instance WHERE rendered IS NOT NULL"), "0");
}

/// Returns the waiting migrations: (version minus this build's newest version, closed gates).
fn waiting_migrations(test: &TestHome) -> Vec<(i64, String)> {
    let status = test.run(&["migrate-db", "status", "--json"]).expect(0).json();
    let all = status["waiting"].as_array().unwrap();
    all.iter()
        .map(|migration| (migration["version"].as_i64().unwrap() - newest(), migration["gates_shut"].to_string()))
        .collect()
}

#[test]
fn phases_run_in_order_and_contract_waits_for_all_gates() {
    let all = releases(&[FIRST, PHASES]);
    let mut test = TestHome::with_program(all.program("0.1.0")).with_limit("LEOFLOW_LATER_MIGRATIONS_AFTER", "1");
    test.start();
    let variable = |n: usize| (format!("v{n}"), json!({"value": "x", "description": format!("about {n}")}));
    let variables = (0..30).map(variable).collect::<serde_json::Map<_, _>>();
    let file = test.folder().join("variables.json");
    fs::write(&file, serde_json::to_vec(&variables).unwrap()).unwrap();
    test.run(&["variables", "import", file.to_str().unwrap()]).expect(0);
    let from = all.dist();
    let from = from.to_str().unwrap();
    let plan = test.run(&["upgrade", "--from", from, "--dry-run", "--json"]).expect(0).json();
    let phases = |key: &str| -> Vec<String> {
        plan[key].as_array().unwrap().iter().map(|migration| migration["phase"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (phases("migrations"), phases("later")),
        (vec!["expand".into(), "data".into()], vec!["postdeploy".into(), "contract".into()])
    );
    let done = test.run(&["upgrade", "--from", from, "--yes", "--json"]).expect(0).json();
    assert_eq!(done["migrations_run"].as_array().map(Vec::len), Some(2), "{done}");
    // From here on the test runs the installed program.
    test.program = test.home.join("bin/leoflow");
    wait_until("data migrations finish while the server runs", LIMIT, || {
        let all = test.run(&["data-migrate", "list", "--json"]).expect(0).json();
        let all = all["data_migrations"].as_array().unwrap();
        all.len() == 2
            && all.iter().all(|migration| migration["status"] == "verified")
            && waiting_migrations(&test).len() == 1
    });
    assert_eq!(test.sql("SELECT count(*) FROM variable WHERE summary = description"), "30");
    assert_eq!(test.sql("SELECT count(*) FROM pg_indexes WHERE indexname = 'variable_summary'"), "1");
    let (offset, gates) = waiting_migrations(&test).remove(0);
    assert_eq!(offset, 4);
    assert!(
        gates.contains("0.1.0 is kept") && gates.contains("cleanup_after") && !gates.contains("verified"),
        "{gates}"
    );
    let stdout = test.run(&["migrate-db"]).expect(0).stdout;
    assert!(stdout.contains("waiting: V") && stdout.contains("0 migrations applied"), "{stdout}");
    // Waiting migrations block neither a backup nor its restore.
    let backup = test.backup("waiting.tar.zst");
    test.run(&["lite", "backups", "verify", backup.to_str().unwrap()]).expect(0);

    fs::remove_dir_all(test.home.join("versions/0.1.0")).unwrap();
    test.run(&["config", "set", "upgrade.cleanup_after", "1m"]).expect(0);
    assert!(waiting_migrations(&test)[0].1.contains("waiting until"), "{:?}", waiting_migrations(&test));
    test.sql(
        "UPDATE instance_fact SET value = convert_to('2026-01-01T00:00:00Z', 'UTF8') WHERE name LIKE 'contract-seen-%'",
    );
    test.sql("UPDATE variable SET description = 'another' WHERE key = 'v3'");
    assert_eq!(waiting_migrations(&test)[0].1.matches("1 row left").count(), 1, "{:?}", waiting_migrations(&test));
    test.run(&["migrate-db"]).expect(0);
    assert_eq!(test.sql("SELECT to_regclass('outdated') IS NOT NULL"), "t", "the contract migration was not applied");
    test.sql("UPDATE variable SET summary = description");
    assert_eq!(waiting_migrations(&test), [(4, json!([]).to_string())]);
    test.run(&["lite", "restart"]).expect(0);
    let is_applied = || test.sql("SELECT to_regclass('outdated') IS NULL") == "t";
    wait_until("the server applies the contract migration", LIMIT, is_applied);
    assert!(waiting_migrations(&test).is_empty());
    let backups = fs::read_dir(test.home.join("backups")).unwrap().flatten();
    assert!(backups.map(|entry| entry.file_name().into_string().unwrap()).any(|name| name.contains("migration")));
    test.wait_healthy();
    let backup = test.backup("whole.tar.zst");
    test.run(&["lite", "backups", "verify", backup.to_str().unwrap()]).expect(0);
}
