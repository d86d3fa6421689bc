//! Backfills create all of the requested runs, or are refused with the reason and create none.

use crate::support::http::socket_request;
use crate::support::{TestHome, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn dag_with_schedule(dag_id: &str, schedule: &str) -> String {
    format!(
        "from datetime import datetime, timezone\nfrom airflow.sdk import DAG, task\n\
         with DAG('{dag_id}', schedule='{schedule}', start_date=datetime(2020, 1, 1, tzinfo=timezone.utc), catchup=False, is_paused_upon_creation=False):\n    \
         @task\n    def t(): pass\n    t()\n"
    )
}

fn create(test: &TestHome, dag_id: &str, from: &str, to: &str) -> crate::support::CommandOutput {
    test.run(&["backfill", "create", "--dag-id", dag_id, "--from-date", from, "--to-date", to])
}

#[test]
fn too_large_a_backfill_is_refused_and_creates_nothing() {
    let test = TestHome::started();
    test.add_dag("minutes", &dag_with_schedule("minutes", "* * * * *"));
    let refused = create(&test, "minutes", "2024-01-01", "2024-12-31T23:59").expect(1);
    assert!(refused.stderr.contains("The range has ") && refused.stderr.contains("100000"), "{refused:?}");
    assert_eq!(
        test.sql("SELECT (SELECT count(*) FROM backfill) + (SELECT count(*) FROM dag_run WHERE run_type = 'backfill')"),
        "0"
    );
}

#[test]
fn a_concurrent_backfill_of_a_dag_is_refused_at_once() {
    let test = TestHome::started();
    test.add_dag("minutes", &dag_with_schedule("minutes", "* * * * *"));
    // Stands for a request that creates a backfill of the same DAG for a long time.
    let creating = test.hold_lock("SELECT pg_advisory_xact_lock(hashtextextended('backfill minutes', 0))");
    let refused = create(&test, "minutes", "2024-01-01", "2024-01-02").expect(1);
    assert!(refused.stderr.contains("Another backfill for dag minutes is being created"), "{refused:?}");
    creating.assert_held();
    drop(creating);
    assert_eq!(test.sql("SELECT count(*) FROM backfill"), "0");
}

#[test]
fn a_backfill_counts_its_runs_and_a_large_one_is_cancellable() {
    let test = TestHome::started();
    test.add_dag("mornings", &dag_with_schedule("mornings", "0 6 * * *"));
    // As in Airflow, a date means its midnight, so the run at six o'clock of the last day is not included.
    let created = create(&test, "mornings", "2024-01-01", "2024-01-05").expect(0);
    assert!(created.stderr.contains("4 runs created"), "{created:?}");
    wait_until("all runs have succeeded", SOON, || {
        test.sql("SELECT count(*) FROM dag_run WHERE run_type = 'backfill' AND state = 'success'") == "4"
    });
    let again = create(&test, "mornings", "2024-01-01", "2024-01-05").expect(0);
    assert!(again.stderr.contains("no runs were created; 4 dates already have a run"), "{again:?}");
    let none = create(&test, "mornings", "2024-01-01", "2024-01-01T05:00").expect(1);
    assert!(none.stderr.contains("No runs to create"), "{none:?}");
    test.add_dag("minutes", &dag_with_schedule("minutes", "* * * * *"));
    let large = create(&test, "minutes", "2024-01-01", "2024-01-15").expect(0);
    let id = test.sql("SELECT max(id) FROM backfill");
    assert!(large.stderr.contains("20161 runs created"), "{large:?}");
    test.run(&["backfill", "cancel", &id]).expect(0);
    assert_eq!(test.sql("SELECT count(*) FROM dag_run WHERE backfill_id IS NOT NULL AND state = 'queued'"), "0");
}

/// A cleared run of a cancelled backfill starts, and says which run it waits for: apache/airflow#72337 and #69658.
#[test]
fn a_cleared_run_of_a_cancelled_backfill_starts_and_names_the_run_that_it_waits_for() {
    let test = TestHome::started();
    let chained = dag_with_schedule("chained", "@daily").replace("@task\n", "@task(depends_on_past=True)\n");
    test.add_dag("chained", &chained);
    test.run(&["dags", "pause", "chained"]).expect(0);
    let dates = ["--from-date", "2024-01-01", "--to-date", "2024-01-02", "--reprocess-behavior", "failed"];
    test.run(&[&["backfill", "create", "--dag-id", "chained"], &dates[..]].concat()).expect(0);
    test.run(&["backfill", "cancel", &test.sql("SELECT max(id) FROM backfill")]).expect(0);
    test.run(&["dags", "unpause", "chained"]).expect(0);
    let (first, second) = ("backfill__2024-01-01T00:00:00+00:00", "backfill__2024-01-02T00:00:00+00:00");
    let state = |run: &str| test.sql(&format!("SELECT state FROM dag_run WHERE run_id = '{run}'"));
    assert_eq!((state(first).as_str(), state(second).as_str()), ("failed", "failed"));
    test.run(&["runs", "clear", "chained", second, "--yes"]).expect(0);
    wait_until("the cleared run has started", SOON, || state(second) == "running");
    let shown = test.run(&["runs", "show", "chained", second]).expect(0);
    let reason = format!("Waiting for success in the previous run {first} (depends_on_past)");
    assert!(shown.stderr.contains(&reason) || shown.stdout.contains(&reason), "{shown:?}");
    let path = format!("/api/v2/dags/chained/dagRuns/{}/taskInstances/t/dependencies", second.replace('+', "%2B"));
    let answer = socket_request(&test.home, "GET", &path, "", "").json();
    assert_eq!(answer["dependencies"][0]["name"], "Previous Dagrun State", "{answer}");
    test.run(&["runs", "clear", "chained", first, "--yes"]).expect(0);
    wait_until("both runs have succeeded", SOON, || {
        (state(first), state(second)) == ("success".into(), "success".into())
    });
}
