//! Much of something costs so many times what one costs, and no more.

use crate::support::{TestHome, wait_until};
use std::time::Duration;

/// DAGs of which each has a run that waits.
const DAGS: i64 = 300;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn many_dags_begin_a_run_each_without_reading_the_runs_of_all_for_each() {
    let test = TestHome::started();
    let file = format!(
        "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n\
         for n in range({DAGS}):\n    with DAG(f'many_{{n}}'):\n        EmptyOperator(task_id='t')\n"
    );
    std::fs::write(test.workspace().join("many.py"), file).unwrap();
    let active = "SELECT count(*) FROM dag WHERE dag_id LIKE 'many%' AND is_active";
    wait_until("all DAGs", LIMIT, || test.sql(active) == DAGS.to_string());
    // Statistics of a moment without a run that waits: a plan for one must do for many.
    let ended = "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, dag_version_id, end_date)
                 SELECT dag_id, 'old', 'manual', 'success', now(), current_version_id, now() FROM dag
                 WHERE dag_id LIKE 'many%'";
    test.sql(ended);
    test.sql("VACUUM ANALYZE dag_run");
    let read = || {
        let query = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'dag_run'";
        test.sql(query).parse::<i64>().unwrap()
    };
    let before = read();
    test.sql(
        "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, dag_version_id)
         SELECT dag_id, 'new', 'manual', 'queued', now(), current_version_id FROM dag WHERE dag_id LIKE 'many%';
         SELECT pg_notify('leoflow_engine', '{\"kind\": \"sweep\"}')",
    );
    let done = "SELECT count(*) FROM dag_run WHERE run_id = 'new' AND state = 'success'";
    wait_until("all runs", LIMIT, || test.sql(done) == DAGS.to_string());
    // What a connection has read is told when it is quiet.
    wait_until("what was read is told", LIMIT, || read() > before + DAGS);
    assert!(read() - before < DAGS * 100, "{} rows of dag_run were read for {DAGS} runs", read() - before);
}
