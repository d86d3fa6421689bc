//! What the scheduler remembers of a run is never more than the datastore says.

use crate::support::{TestHome, states, wait_until};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Mapped tasks of which some fail, some are tried again, a branch, and a task that needs all of them.
const DAG: &str = r#"
from datetime import timedelta
from airflow.sdk import DAG, task
with DAG("d", max_active_tasks=8):
    @task
    def make():
        return list(range(24))

    @task(retries=1, retry_delay=timedelta(seconds=0))
    def each(number, ti=None):
        if number % 5 == 0 and ti.try_number == 1 or number == 7:
            raise ValueError(number)
        return [number] * (number % 3)

    @task.branch(trigger_rule="all_done")
    def choose():
        return "left"

    @task
    def left():
        pass

    @task
    def right():
        pass

    @task(trigger_rule="all_done")
    def length(some):
        return len(list(some))

    numbers = each.expand(number=make())
    numbers >> choose() >> [left(), right()]
    length(numbers)
"#;

type Found = BTreeMap<(String, i64), (String, i64)>;

/// Each instance's state and number of tries.
fn found(run: &serde_json::Value) -> Found {
    let one = |one: &serde_json::Value| {
        let text = |name: &str| one[name].as_str().unwrap_or("none").to_owned();
        let number = |name: &str| one[name].as_i64().unwrap();
        ((text("task_id"), number("map_index")), (text("state"), number("try_number")))
    };
    run["task_instances"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn a_run_that_is_read_again_at_any_moment_ends_as_one_that_is_not() {
    let test = TestHome::started();
    test.add_dag("d", DAG);
    let undisturbed = test.run_dag("d");
    assert_eq!(undisturbed["state"], json!("success"), "{:?}", states(&undisturbed));
    let run_id = test.trigger("d");
    let over = || test.sql(&format!("SELECT state FROM dag_run WHERE run_id = '{run_id}'")) != "running";
    let mut rounds = 0;
    while !over() || rounds == 0 {
        rounds += 1;
        // It is another run than was remembered; and every fifth time, nobody remembers anything.
        test.sql("UPDATE dag_run SET revision = gen_random_uuid()");
        if rounds % 5 == 0 {
            test.sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE usename = 'leoflow' AND pid <> pg_backend_pid()",
            );
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(rounds < 3000, "it does not end");
    }
    let disturbed = test.wait_run("d", &run_id);
    assert_eq!(disturbed["state"], undisturbed["state"]);
    assert_eq!(found(&disturbed), found(&undisturbed));
}

#[test]
fn a_task_that_is_cleared_while_others_run_is_not_waited_for() {
    let test = TestHome::started();
    test.add_dag(
        "d",
        "import os, time\nfrom airflow.sdk import DAG, task\nwith DAG('d'):\n    @task\n    def fails(ti=None):\n        \
         if ti.try_number == 1: raise ValueError('once')\n    @task\n    def waits():\n        \
         while not os.path.exists('go on'): time.sleep(0.02)\n    fails()\n    waits()\n",
    );
    let run_id = test.trigger("d");
    let state = |task_id: &str| test.sql(&format!("SELECT state FROM task_instance WHERE task_id = '{task_id}'"));
    let soon = Duration::from_secs(20);
    wait_until("one has failed and one runs", soon, || state("fails") == "failed" && state("waits") == "running");
    test.run(&["tasks", "clear", "d", &run_id, "fails", "--yes"]).expect(0);
    // Less than the minute after which every run is looked at anew.
    wait_until("it has run again", soon, || state("fails") == "success");
    std::fs::write(test.workspace().join("go on"), "").unwrap();
    assert_eq!(test.wait_run("d", &run_id)["state"], json!("success"));
}
