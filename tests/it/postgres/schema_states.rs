//! Databases whose schema or migration history is not that of this binary: newer, edited, incomplete or damaged.

use crate::support::{TestHome, newest};

const NEWER: &str = "database is at schema version 9999 but this binary only knows up to {newest};\n\
                     an older `leoflow` is being run against a newer database.\n\
                     Upgrade the binary, or run `leoflow uninstall --purge` to start over\n\
                     (this WIPES your data)";

fn migrated_home() -> TestHome {
    let test = TestHome::new();
    test.set_up();
    test
}

/// Asserts that each command that would start or migrate the datastore refuses, changes nothing and leaves nothing
/// running.
fn assert_refused(test: &TestHome, state: &str, expected: &str) {
    let history = |test: &TestHome| {
        let rows = "SELECT * FROM refinery_schema_history ORDER BY version; SELECT version, name, sha256 FROM leoflow_ledger ORDER BY version";
        test.run(&["lite", "psql", "--", "-X", "-A", "-t", "-c", rows]).stdout
    };
    let before = history(test);
    for arguments in [&["lite", "start"][..], &["lite"], &["migrate-db"], &["migrate-db", "--dry-run"]] {
        let done = test.run(arguments);
        assert_eq!(done.code, Some(3), "{state} {arguments:?}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains(expected), "{state} {arguments:?}: {}", done.stderr);
    }
    let status = test.run(&["migrate-db", "status", "--json"]).expect(0).json();
    assert_eq!(status["state"], state);
    assert_eq!(history(test), before);
    test.assert_nothing_runs();
}

#[test]
fn a_newer_database_is_refused_with_the_exact_message() {
    let test = migrated_home();
    test.sql("INSERT INTO leoflow_ledger (version, name, phase, sha256, binary_version, duration) VALUES (9999, 'x', 'data', 'x', '9', '1s')");
    assert_refused(&test, "newer", &NEWER.replace("{newest}", &newest().to_string()));
    test.sql("DELETE FROM leoflow_ledger WHERE version = 9999; INSERT INTO refinery_schema_history VALUES (9999, 'x', 'garbage', 'garbage')");
    assert_refused(&test, "newer", &NEWER.replace("{newest}", &newest().to_string()));
}

#[test]
fn edited_gap_and_damaged_schemas_are_distinguished() {
    for (state, sql, expected) in [
        (
            "edited",
            "UPDATE leoflow_ledger SET sha256 = 'x' WHERE version = 1",
            "V0001__variables_connections.sql was changed",
        ),
        (
            "edited",
            "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 2",
            "V0002__engine.sql was changed",
        ),
        (
            "gap",
            "DELETE FROM leoflow_ledger WHERE version = 1; DELETE FROM refinery_schema_history WHERE version = 1",
            "version 1 is missing",
        ),
        ("damaged", "UPDATE refinery_schema_history SET checksum = 'garbage'", "malformed"),
        ("damaged", "UPDATE refinery_schema_history SET applied_on = NULL", "malformed"),
        ("damaged", "DELETE FROM leoflow_ledger", "only one of"),
        ("damaged", "DROP TABLE leoflow_ledger", "only one of"),
        (
            "damaged",
            "DROP TABLE refinery_schema_history; CREATE TABLE refinery_schema_history (a int)",
            "cannot be read",
        ),
        ("damaged", "DROP TABLE refinery_schema_history, leoflow_ledger", "no record"),
    ] {
        let test = migrated_home();
        test.sql(sql);
        if sql.contains("DROP TABLE") {
            for arguments in [&["lite", "start"][..], &["migrate-db"]] {
                let done = test.run(arguments).expect(3);
                assert!(done.stderr.contains(expected), "{sql}: {}", done.stderr);
            }
            assert_eq!(test.run(&["migrate-db", "status", "--json"]).expect(0).json()["state"], state, "{sql}");
            test.assert_nothing_runs();
        } else {
            assert_refused(&test, state, expected);
        }
    }
}

#[test]
fn an_older_binary_rolls_back_unknown_migrations() {
    let test = migrated_home();
    let next = newest() + 1;
    test.sql(&format!(
        "CREATE TABLE future (a int);
         INSERT INTO refinery_schema_history VALUES ({next}, 'future', '2030-01-01T00:00:00Z', '1');
         INSERT INTO leoflow_ledger (version, name, phase, sha256, binary_version, duration, rollback_sql)
         VALUES ({next}, 'future', 'expand', 'x', '9.9.9', '1s', 'DROP TABLE future;')",
    ));
    test.run(&["lite", "start"]).expect(3);
    let done = test.run(&["migrate-db", "rollback", &next.to_string(), "--yes"]).expect(0);
    assert!(done.stdout.contains(&format!("rolled back: V{next:04}__future.sql")), "{}", done.stdout);
    test.start();
    assert_eq!(test.sql("SELECT to_regclass('future') IS NULL"), "t");
    let running = test.run(&["migrate-db", "rollback", &newest().to_string(), "--yes"]).expect(3);
    assert!(running.stderr.contains("leoflow lite stop"), "{}", running.stderr);
}

#[test]
fn an_impossible_or_failing_rollback_changes_nothing() {
    let test = migrated_home();
    test.sql("UPDATE leoflow_ledger SET rollback_sql = NULL WHERE version = 1");
    let done = test.run(&["migrate-db", "rollback", "--to", "0", "--yes"]).expect(3);
    assert!(done.stderr.contains("V0001__variables_connections"), "{}", done.stderr);
    assert_eq!(test.sql("SELECT to_regclass('dag_run') IS NOT NULL"), "t", "the rollback is checked before it begins");
    let newest = newest().to_string();
    test.sql(&format!(
        "UPDATE leoflow_ledger SET rollback_sql = 'DROP TABLE xcom; SELECT 1/0' WHERE version = {newest}"
    ));
    let done = test.run(&["migrate-db", "rollback", &newest, "--yes"]).expect(1);
    assert!(done.stderr.contains("division by zero"), "{}", done.stderr);
    assert_eq!(test.sql("SELECT to_regclass('xcom') IS NOT NULL"), "t");
    assert_eq!(test.run(&["migrate-db", "status", "--json"]).expect(0).json()["state"], "current");
}

#[test]
fn an_incomplete_migration_history_is_not_rolled_back() {
    let newest = newest().to_string();
    let delete_newest = format!("DELETE FROM leoflow_ledger WHERE version = {newest}");
    for (sql, version) in [
        ("INSERT INTO refinery_schema_history VALUES (9999, 'x', '2030-01-01T00:00:00Z', '1')", "9999"),
        (&delete_newest, &newest),
        (
            "DELETE FROM leoflow_ledger WHERE version = 1; DELETE FROM refinery_schema_history WHERE version = 1",
            &newest,
        ),
    ] {
        let test = migrated_home();
        test.sql(sql);
        test.run(&["migrate-db", "rollback", version, "--yes"]).expect(3);
        assert_eq!(test.sql("SELECT to_regclass('xcom') IS NOT NULL"), "t", "{sql}");
    }
}

#[test]
fn a_killed_migration_or_rollback_resumes_where_it_stopped() {
    let test = TestHome::new();
    test.first_setup();
    let killed = test.command(&["migrate-db"]).env("LEOFLOW_KILL_AT", "migrated.1").output().unwrap();
    assert!(!killed.status.success());
    let applied = test.run(&["migrate-db"]).expect(0).stdout;
    assert!(applied.starts_with("applied: V0002__engine.sql\n"), "{applied}");
    let killed = test
        .command(&["migrate-db", "rollback", "--to", "0", "--yes"])
        .env("LEOFLOW_KILL_AT", "rolled-back.2")
        .output()
        .unwrap();
    assert!(!killed.status.success());
    assert_eq!(test.run(&["migrate-db", "status", "--json"]).expect(0).json()["database_version"], 1);
    test.start();
}
