//! Backfills: all of the runs that were asked for, or a refusal that says how many there are.

use crate::support::{TestHome, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn scheduled(dag_id: &str, schedule: &str) -> String {
    format!(
        "from datetime import datetime, timezone\nfrom airflow.sdk import DAG, task\n\
         with DAG('{dag_id}', schedule='{schedule}', start_date=datetime(2020, 1, 1, tzinfo=timezone.utc), catchup=False, is_paused_upon_creation=False):\n    \
         @task\n    def t(): pass\n    t()\n"
    )
}

fn create(test: &TestHome, dag_id: &str, from: &str, to: &str) -> crate::support::Done {
    test.run(&["backfill", "create", "--dag-id", dag_id, "--from-date", from, "--to-date", to])
}

#[test]
fn what_is_too_much_is_refused_with_its_number_and_nothing_is_made() {
    let test = TestHome::started();
    test.add_dag("minutes", &scheduled("minutes", "* * * * *"));
    let refused = create(&test, "minutes", "2024-01-01", "2024-12-31T23:59").expect(1);
    assert!(refused.stderr.contains("There are ") && refused.stderr.contains("100000"), "{refused:?}");
    assert_eq!(
        test.sql("SELECT (SELECT count(*) FROM backfill) + (SELECT count(*) FROM dag_run WHERE run_type = 'backfill')"),
        "0"
    );
}

#[test]
fn a_backfill_says_what_it_made_and_a_large_one_is_cancelled_at_once() {
    let test = TestHome::started();
    test.add_dag("hours", &scheduled("hours", "0 6 * * *"));
    // A day is its midnight, so that the run of six o'clock is not of the last day, as with Airflow.
    let made = create(&test, "hours", "2024-01-01", "2024-01-05").expect(0);
    assert!(made.stderr.contains("4 runs to come"), "{made:?}");
    wait_until("all have run", SOON, || {
        test.sql("SELECT count(*) FROM dag_run WHERE run_type = 'backfill' AND state = 'success'") == "4"
    });
    let again = create(&test, "hours", "2024-01-01", "2024-01-05").expect(0);
    assert!(again.stderr.contains("no run was made; 4 of the dates have a run already"), "{again:?}");
    let none = create(&test, "hours", "2024-01-01", "2024-01-01T05:00").expect(1);
    assert!(none.stderr.contains("No runs to create"), "{none:?}");
    test.add_dag("minutes", &scheduled("minutes", "* * * * *"));
    let large = create(&test, "minutes", "2024-01-01", "2024-01-15").expect(0);
    let id = test.sql("SELECT max(id) FROM backfill");
    assert!(large.stderr.contains("20161 runs to come"), "{large:?}");
    test.run(&["backfill", "cancel", &id]).expect(0);
    assert_eq!(test.sql("SELECT count(*) FROM dag_run WHERE backfill_id IS NOT NULL AND state = 'queued'"), "0");
}
