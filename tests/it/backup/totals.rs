//! Invariants: SQL queries whose answers a backup records and a restore compares.

use crate::support::TestHome;
use crate::support::archive::{Unpacked, replace_in_dump};
use serde_json::json;

/// Rows for the invariants.
const ROWS: &str = "
    INSERT INTO dag (dag_id, fileloc) VALUES ('d', 'd.py');
    INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after) VALUES ('d', 'r', 'manual', 'success', now());
    INSERT INTO task_instance (dag_id, run_id, task_id, state) VALUES ('d', 'r', 't', 'success');
    INSERT INTO task_try (dag_id, run_id, task_id, map_index, try_number, state, start_date, end_date)
        VALUES ('d', 'r', 't', -1, 1, 'success', '2026-01-01 00:00Z', '2026-01-01 00:01Z');
    INSERT INTO xcom (dag_id, run_id, task_id, map_index, key, value) VALUES ('d', 'r', 't', -1, 'k', '1');";

/// Verifies a copy of the backup whose dump also runs `statement`. Expects the exit code `code`; returns the output.
fn verify_with(test: &TestHome, honest: &Unpacked, statement: &str, code: i32) -> String {
    let file = test.folder().join("altered.tar.zst");
    let mut altered = honest.clone();
    let mut dump = altered.dump();
    // Runs before the last statement of the dump, when all rows exist.
    replace_in_dump(&mut dump, "ALTER TABLE ONLY public.xcom\n", |sql| format!("{statement}; {sql}"));
    altered.set_dump(&dump);
    altered.save(&file);
    let verified = test.run(&["lite", "backups", "verify", file.to_str().unwrap()]).expect(code);
    format!("{}{}", verified.stdout, verified.stderr)
}

#[test]
fn an_invariant_detects_a_row_altered_in_the_dump() {
    let test = TestHome::started();
    test.sql(ROWS);
    test.run(&["variables", "set", "v", "1"]).expect(0);
    let honest = Unpacked::open(&test.backup("honest.tar.zst"));
    let names: Vec<&str> =
        honest.manifest["invariants"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["DAG runs by state", "task instances by state", "time of all tries", "XComs", "variables", "connections"]
    );
    assert_eq!(honest.manifest["invariants"][2]["answer"], "00:01:00");
    for (statement, name, answers) in [
        ("UPDATE public.xcom SET value = '2'", "XComs", ""),
        (
            "UPDATE public.dag_run SET state = 'failed'",
            "DAG runs by state",
            "{\"success\": 1} and now answers {\"failed\": 1}",
        ),
        (
            "UPDATE public.task_try SET end_date = '2026-01-01 00:02Z'",
            "time of all tries",
            "answered 00:01:00 and now answers 00:02:00 (SELECT sum(end_date - start_date) FROM task_try)",
        ),
    ] {
        let output = verify_with(&test, &honest, statement, 1);
        assert!(output.contains(&format!("the invariant {name:?} answered")) && output.contains(answers), "{output}");
    }
    let altered = test.folder().join("altered.tar.zst");
    let refused = test.restore(&altered, &["--force", "--yes"]).expect(3);
    assert!(refused.stderr.contains("time of all tries") && refused.stderr.contains("unchanged"), "{}", refused.stderr);
    let time = test.sql("SELECT sum(end_date - start_date) FROM task_try");
    assert_eq!((time.as_str(), test.state().as_str()), ("00:01:00", "healthy"));
    // A backup of an older release has no invariants, so that verification only counts rows.
    let mut older = honest.clone();
    older.manifest.as_object_mut().unwrap().remove("invariants");
    verify_with(&test, &older, "UPDATE public.xcom SET value = '2'", 0);
    // Queries of a hostile manifest, or of a user's own in an older one, are not run and are reported as not compared.
    let mut hostile = honest.clone();
    let queries =
        ["DELETE FROM xcom", "SELECT 1; DROP TABLE xcom", "SELECT $1", "SELECT 1) AS a(answer); DROP TABLE xcom --"];
    hostile.manifest["invariants"] =
        queries.iter().map(|query| json!({"name": "x", "query": query, "answer": "1"})).collect();
    let output = verify_with(&test, &hostile, "SELECT 1", 0);
    assert_eq!(output.matches("it was not compared").count(), queries.len(), "{output}");
    assert!(test.restore_leftovers().is_empty());
}
