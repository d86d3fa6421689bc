//! Costs must grow linearly with the number of DAGs and runs.

use crate::support::{TestHome, wait_until};
use std::time::Duration;

/// Number of DAGs, each with one queued run.
const DAGS: i64 = 300;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn starting_many_runs_reads_a_bounded_number_of_rows_per_run() {
    let test = TestHome::started();
    let file = format!(
        "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n\
         for n in range({DAGS}):\n    with DAG(f'many_{{n}}'):\n        EmptyOperator(task_id='t')\n"
    );
    std::fs::write(test.workspace().join("many.py"), file).unwrap();
    let active = "SELECT count(*) FROM dag WHERE dag_id LIKE 'many%' AND is_active";
    wait_until("all DAGs exist", LIMIT, || test.sql(active) == DAGS.to_string());
    // Analyzes the table while no run is queued: PostgreSQL's plan for few queued runs must scale to many.
    let ended = "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, dag_version_id, end_date)
                 SELECT dag_id, 'old', 'manual', 'success', now(), current_version_id, now() FROM dag
                 WHERE dag_id LIKE 'many%'";
    test.sql(ended);
    test.sql("VACUUM ANALYZE dag_run");
    let statistics = |columns: &str| {
        let query = format!("SELECT {columns} FROM pg_stat_user_tables WHERE relname = 'dag_run'");
        test.sql(&query).parse::<i64>().unwrap()
    };
    let (rows_read, updates) = (|| statistics("seq_tup_read + idx_tup_fetch"), || statistics("n_tup_upd"));
    let (read_before, updates_before) = (rows_read(), updates());
    test.sql(
        "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, dag_version_id)
         SELECT dag_id, 'new', 'manual', 'queued', now(), current_version_id FROM dag WHERE dag_id LIKE 'many%';
         SELECT pg_notify('leoflow_engine', '{\"kind\": \"sweep\"}')",
    );
    // PostgreSQL reports all statistics of a connection together, about once a second. This wait reads no row of
    // dag_run, and the next one few.
    wait_until("an update of each run is reported", LIMIT, || updates() >= updates_before + DAGS);
    let done = "SELECT count(*) FROM dag_run WHERE run_id = 'new' AND state = 'success'";
    wait_until("all runs have succeeded", LIMIT, || test.sql(done) == DAGS.to_string());
    let read = rows_read() - read_before;
    assert!(read < DAGS * 100, "{read} rows of dag_run were read for {DAGS} runs");
}

/// Number of mapped task instances in each run of the DAG `crowd`.
const WAITING: i64 = 300;

#[test]
fn a_scheduler_step_reads_few_waiting_instances() {
    let test = TestHome::started();
    let go = test.folder().join("go");
    let text = format!(
        "import os, time\nfrom airflow.sdk import DAG, task\n\
         with DAG('crowd'):\n    @task(pool='narrow')\n    def work(n):\n        pass\n    \
         work.expand(n=list(range({WAITING})))\n\
         with DAG('holds'):\n    @task(pool='other')\n    def hold(n):\n        \
         while not os.path.exists({go:?}): time.sleep(0.02)\n    hold.expand(n=[1, 2])\n\
         with DAG('limited'):\n    @task(pool='other', max_active_tis_per_dagrun=1, priority_weight=9)\n    \
         def one_by_one(n):\n        time.sleep(3600)\n    one_by_one.expand(n=list(range(100)))\n    \
         @task(pool='other')\n    def beside():\n        pass\n    beside()\n"
    );
    std::fs::write(test.workspace().join("crowd.py"), text).unwrap();
    test.run(&["pools", "set", "narrow", "1"]).expect(0);
    test.run(&["pools", "set", "other", "2"]).expect(0);
    test.wait_dag("limited", 1);
    let count = |condition: &str| -> i64 {
        test.sql(&format!("SELECT count(*) FROM task_instance WHERE {condition}")).parse().unwrap()
    };
    // The scheduler finds an instance that it can queue behind many that it cannot.
    test.run(&["dags", "trigger", "holds"]).expect(0);
    wait_until("the pool is full", LIMIT, || count("dag_id = 'holds' AND state = 'running'") == 2);
    test.run(&["dags", "trigger", "limited"]).expect(0);
    wait_until("the limited DAG waits", LIMIT, || count("dag_id = 'limited' AND state = 'scheduled'") == 101);
    std::fs::write(&go, "").unwrap();
    wait_until("the task beside them has run", LIMIT, || count("task_id = 'beside' AND state = 'success'") == 1);
    // Three runs wait for one slot. A scheduler step reads the first waiting instance of each run, not all.
    for _ in 0..3 {
        test.run(&["dags", "trigger", "crowd"]).expect(0);
    }
    let finished = || count("dag_id = 'crowd' AND state = 'success'");
    // The expression keeps this poll from the index whose reads are counted.
    let waiting = "dag_id = 'crowd' AND state || '' = 'scheduled'";
    wait_until("the instances wait", LIMIT, || count(waiting) > 2 * WAITING && finished() > 0);
    let entries_read = || -> i64 {
        let query = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'task_instance_waiting'";
        test.sql(query).parse().unwrap()
    };
    let (entries_before, finished_before) = (entries_read(), finished());
    wait_until("twenty more have finished", LIMIT, || finished() >= finished_before + 20);
    let (entries, steps) = (entries_read() - entries_before, finished() - finished_before);
    assert!(entries < steps * WAITING, "{entries} entries of the index were read for {steps} finished tasks");
}
