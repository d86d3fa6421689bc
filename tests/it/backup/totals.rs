//! Invariants: SQL queries whose answers a backup records and a restore compares.
//! Also the queries that `config set` refuses as invariants.

use crate::support::TestHome;
use crate::support::archive::{Unpacked, replace_in_dump};
use crate::support::own_datastore;
use leoflow::backup::invariants;
use leoflow::config::Invariant;
use leoflow::postgres::{Access, Credentials, Endpoint, install};
use serde_json::json;
use std::fs;

/// Rows for the built-in invariants.
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
    test.run(&["config", "set", "backup.invariants.notes", "SELECT count(note) FROM dag_run"]).expect(0);
    let honest = Unpacked::open(&test.backup("honest.tar.zst"));
    let names: Vec<&str> =
        honest.manifest["invariants"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "DAG runs by state",
            "task instances by state",
            "time of all tries",
            "XComs",
            "variables",
            "connections",
            "notes"
        ]
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
            "UPDATE public.dag_run SET note = 'x'",
            "notes",
            "answered 0 and now answers 1 (SELECT count(note) FROM dag_run)",
        ),
    ] {
        let output = verify_with(&test, &honest, statement, 1);
        assert!(output.contains(&format!("the invariant {name:?} answered")) && output.contains(answers), "{output}");
    }
    let altered = test.folder().join("altered.tar.zst");
    let refused = test.restore(&altered, &["--force", "--yes"]).expect(3);
    assert!(refused.stderr.contains("notes") && refused.stderr.contains("unchanged"), "{}", refused.stderr);
    assert_eq!((test.sql("SELECT count(note) FROM dag_run").as_str(), test.state().as_str()), ("0", "healthy"));
    // A backup of an older release has no invariants, so that verification only counts rows.
    let mut older = honest.clone();
    older.manifest.as_object_mut().unwrap().remove("invariants");
    verify_with(&test, &older, "UPDATE public.xcom SET value = '2'", 0);
    // Queries of a hostile manifest change nothing and are reported as not compared.
    let mut hostile = honest.clone();
    let queries =
        ["DELETE FROM xcom", "SELECT 1; DROP TABLE xcom", "SELECT $1", "SELECT 1) AS a(answer); DROP TABLE xcom --"];
    hostile.manifest["invariants"] =
        queries.iter().map(|query| json!({"name": "x", "query": query, "answer": "1"})).collect();
    let output = verify_with(&test, &hostile, "SELECT 1", 0);
    assert_eq!(output.matches("it was not compared").count(), queries.len(), "{output}");
    assert!(test.restore_leftovers().is_empty());
}

/// Queries that are refused as invariants, each with a part of the reason.
const REFUSED: &[(&str, &str)] = &[
    ("DELETE FROM xcom", "not a single SELECT"),
    ("WITH gone AS (DELETE FROM xcom RETURNING 1) SELECT count(*) FROM gone", "may only read"),
    ("SELECT nextval('public.backfill_id_seq')", "nextval"),
    ("SELECT 1; DROP TABLE xcom", "not a single SELECT"),
    ("SELECT count(*) INTO other FROM xcom", "may only read"),
    ("SELECT count(*) FROM generate_series(1, 1000000000000)", "did not answer within"),
    ("SELECT dag_id, run_id FROM dag_run", "2 columns"),
    ("SELECT n FROM (VALUES (1), (2)) AS rows(n)", "more than one row"),
    ("SELECT run_id FROM dag_run WHERE false", "no row"),
    ("SELECT count(*) FROM treasure", "\"treasure\" does not exist"),
    ("SELECT count(*) FROM only_here", "only_here, which no backup contains"),
    ("SELECT count(*) FROM pg_class", "pg_class, which no backup contains"),
    ("SELECT mine()", "mine, which no backup contains"),
    ("SELECT count(*) FROM dag_run WHERE run_after < now()", "now, whose result changes"),
    ("SELECT count(*) FROM dag_run WHERE run_after < CURRENT_DATE", "the date, the time or the role"),
    ("SELECT random()", "random, whose result changes"),
    ("SELECT pg_sleep(1)", "pg_sleep"),
    ("SELECT max(ctid::text) FROM dag_run", "system column"),
    ("SELECT count(*) FROM dag_run TABLESAMPLE BERNOULLI (50)", "samples rows"),
    ("SELECT string_agg(run_id, ',') FROM dag_run", "ORDER BY"),
    ("SELECT sum(extract(epoch FROM run_after)::float8) FROM dag_run", "floating-point"),
    ("SELECT repeat('x', 5000)", "longer than 4096"),
    ("SELECT count(*) FROM dag_run WHERE run_id = $1", "parameter"),
    ("hello", "syntax error"),
];

/// Queries that are accepted as invariants.
const ACCEPTED: &[&str] = &[
    "SELECT count(*) FROM dag_run;",
    "SELECT string_agg(run_id, ',' ORDER BY run_id) FROM dag_run -- all",
    "WITH r AS (SELECT state FROM dag_run) SELECT count(DISTINCT state) FROM r",
    "SELECT sum(paid) FROM orders",
    "SELECT jsonb_object_agg(state, runs) FROM (SELECT state, count(*) AS runs FROM dag_run GROUP BY 1) AS s",
    "SELECT max(run_after) FROM dag_run",
];

#[test]
fn a_bad_invariant_is_refused_when_it_is_set() {
    let test = TestHome::started();
    test.sql(
        "CREATE TABLE orders (id bigint, paid numeric); INSERT INTO orders VALUES (1, 2.50);
         CREATE VIEW only_here AS SELECT 1 AS n; CREATE FUNCTION mine() RETURNS bigint IMMUTABLE RETURN 1;",
    );
    let home = leoflow::home::resolve(Some(&test.home)).unwrap();
    let access = Access {
        endpoint: Endpoint::for_home(&home),
        credentials: Credentials::require(&home).unwrap(),
        installation: install::installed(&home).unwrap(),
    };
    own_datastore::run(async || {
        let check = async |query: &str| {
            let invariant = Invariant { name: "x".to_owned(), query: query.to_owned() };
            invariants::check(&access, &access.application(), &invariant).await.unwrap()
        };
        for (query, reason) in REFUSED.iter().filter(|(query, _)| !query.contains("generate_series")) {
            let refused = check(query).await.expect_err(query);
            assert!(refused.contains(reason), "{query}: {refused}");
        }
        for query in ACCEPTED {
            check(query).await.unwrap_or_else(|reason| panic!("{query}: {reason}"));
        }
    });
    let config = fs::read_to_string(test.home.join("config.yaml")).unwrap();
    // Slow, so it is tried with a short time limit below instead of above.
    let (endless, reason) = REFUSED[5];
    let set = |key: &str, query: &str| {
        test.command(&["config", "set", key, query]).env("LEOFLOW_INVARIANT_LIMIT", "1").output().unwrap()
    };
    let mapping = json!({"good": "SELECT 1", "slow": endless}).to_string();
    for (key, value) in [("backup.invariants.slow", endless), ("backup.invariants", &mapping)] {
        let refused = set(key, value);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(2) && stderr.contains("slow") && stderr.contains(reason), "{stderr}");
    }
    assert_eq!(set("backup.invariants.a.b", "SELECT 1").status.code(), Some(2));
    assert_eq!(fs::read_to_string(test.home.join("config.yaml")).unwrap(), config);
    let done = test.run(&["config", "set", "backup.invariants.paid orders", "SELECT sum(paid) FROM orders"]).expect(0);
    assert!(done.stdout.contains("its answer is now 2.50"), "{}", done.stdout);
    // An invariant that became invalid later does not fail the backup.
    test.sql("DROP TABLE orders");
    let output = test.folder().join("b.tar.zst");
    let backup = test.run(&["lite", "backup", "--output", output.to_str().unwrap()]).expect(0);
    assert!(
        backup.stderr.contains("paid orders") && backup.stderr.contains("orders\" does not exist"),
        "{}",
        backup.stderr
    );
    test.run(&["config", "unset", "backup.invariants.paid orders"]).expect(0);
    assert_eq!(fs::read_to_string(test.home.join("config.yaml")).unwrap(), config);
}
