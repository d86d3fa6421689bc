//! The scheduler's in-memory state of a run never differs from the datastore.

use crate::support::{TestHome, states, wait_until};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Mapped tasks of which some fail and some are retried, a branch, and a task that depends on all of them.
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

type InstanceStates = BTreeMap<(String, i64), (String, i64)>;

/// State and number of tries of each task instance.
fn instance_states(run: &serde_json::Value) -> InstanceStates {
    let instance = |instance: &serde_json::Value| {
        let text = |name: &str| instance[name].as_str().unwrap_or("none").to_owned();
        let number = |name: &str| instance[name].as_i64().unwrap();
        ((text("task_id"), number("map_index")), (text("state"), number("try_number")))
    };
    run["task_instances"].as_array().unwrap().iter().map(instance).collect()
}

#[test]
fn reloading_a_run_at_any_moment_does_not_change_its_outcome() {
    let test = TestHome::started();
    test.add_dag("d", DAG);
    let undisturbed = test.run_dag("d");
    assert_eq!(undisturbed["state"], json!("success"), "{:?}", states(&undisturbed));
    let run_id = test.trigger("d");
    let has_ended = || test.sql(&format!("SELECT state FROM dag_run WHERE run_id = '{run_id}'")) != "running";
    let mut rounds = 0;
    while !has_ended() || rounds == 0 {
        rounds += 1;
        // A new revision makes the scheduler reload the run; closed connections make it reload all runs.
        test.sql("UPDATE dag_run SET revision = gen_random_uuid()");
        if rounds % 5 == 0 {
            test.sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE usename = 'leoflow' AND pid <> pg_backend_pid()",
            );
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(rounds < 3000, "the run does not end");
    }
    let disturbed = test.wait_run("d", &run_id);
    assert_eq!(disturbed["state"], undisturbed["state"]);
    assert_eq!(instance_states(&disturbed), instance_states(&undisturbed));
}

#[test]
fn a_task_cleared_while_others_run_restarts_at_once() {
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
    wait_until("one task has failed and one runs", soon, || state("fails") == "failed" && state("waits") == "running");
    test.run(&["tasks", "clear", "d", &run_id, "fails", "--yes"]).expect(0);
    // Sooner than the next poll of the scheduler, which polls once a minute.
    wait_until("the task has run again", soon, || state("fails") == "success");
    std::fs::write(test.workspace().join("go on"), "").unwrap();
    assert_eq!(test.wait_run("d", &run_id)["state"], json!("success"));
}
