//! Costs must grow linearly with the number of DAGs and runs.

use crate::support::{TestHome, wait_until};
use std::time::Duration;

/// Number of DAGs, each with one queued run.
const DAGS: i64 = 300;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn starting_many_runs_reads_each_run_a_bounded_number_of_times() {
    let test = TestHome::started();
    let file = format!(
        "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n\
         for n in range({DAGS}):\n    with DAG(f'many_{{n}}'):\n        EmptyOperator(task_id='t')\n"
    );
    std::fs::write(test.workspace().join("many.py"), file).unwrap();
    let active = "SELECT count(*) FROM dag WHERE dag_id LIKE 'many%' AND is_active";
    wait_until("all DAGs exist", LIMIT, || test.sql(active) == DAGS.to_string());
    // Analyzes the table without queued runs: a plan chosen for few rows must scale to many.
    let ended = "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, dag_version_id, end_date)
                 SELECT dag_id, 'old', 'manual', 'success', now(), current_version_id, now() FROM dag
                 WHERE dag_id LIKE 'many%'";
    test.sql(ended);
    test.sql("VACUUM ANALYZE dag_run");
    let rows_read = || {
        let query = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'dag_run'";
        test.sql(query).parse::<i64>().unwrap()
    };
    let before = rows_read();
    test.sql(
        "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, dag_version_id)
         SELECT dag_id, 'new', 'manual', 'queued', now(), current_version_id FROM dag WHERE dag_id LIKE 'many%';
         SELECT pg_notify('leoflow_engine', '{\"kind\": \"sweep\"}')",
    );
    let done = "SELECT count(*) FROM dag_run WHERE run_id = 'new' AND state = 'success'";
    wait_until("all runs have succeeded", LIMIT, || test.sql(done) == DAGS.to_string());
    // PostgreSQL reports a connection's statistics when the connection is idle.
    wait_until("the statistics are reported", LIMIT, || rows_read() > before + DAGS);
    assert!(rows_read() - before < DAGS * 100, "{} rows of dag_run were read for {DAGS} runs", rows_read() - before);
}
