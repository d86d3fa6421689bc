//! Task state and asset state: values that tasks store by key for later tries and for assets. Tested with Leoflow's
//! small package and with Airflow's SDK.

use crate::support::{TestHome, task};
use serde_json::{Value, json};

const DAG: &str = r#"
import datetime
from airflow.sdk import DAG, Asset, task
from airflow.sdk.execution_time.context import NEVER_EXPIRE

lake = Asset("lake")

with DAG("states"):
    @task(retries=1, retry_delay=0.1)
    def tries(task_state_store=None, ti=None):
        job = task_state_store.get("job")
        if job is None:
            task_state_store.set("job", {"id": 7, "of": [1.5, "é"]}, retention=NEVER_EXPIRE)
            task_state_store.set("gone", 1, retention=datetime.timedelta(microseconds=1))
            task_state_store.set("dropped", 1)
            task_state_store.delete("dropped")
            raise ValueError("the job goes on")
        return [ti.try_number, job, task_state_store.get("gone", "no more"), task_state_store.get("dropped")]

    @task.bash
    def other(task_state_store=None):
        return f"echo {task_state_store.get('job', 'nothing')}"

    @task(outlets=[lake])
    def writes(asset_state_store=None, task_state_store=None):
        asset_state_store.set("watermark", "2026-01-02")
        asset_state_store[lake].set("rows", 3)
        task_state_store.set("a", 1)
        task_state_store.clear()
        try:
            task_state_store.set("a", None)
        except ValueError as error:
            return str(error)

    @task(inlets=[lake])
    def reads(asset_state_store=None):
        found = [asset_state_store.get("watermark"), asset_state_store[lake].get("rows"), asset_state_store.get("none", 0)]
        asset_state_store.delete("rows")
        return found

    tries() >> other()
    writes() >> reads()
"#;

fn assert_states_persist(test: &TestHome) {
    let folder = test.workspace().join("states");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("dag.py"), DAG).unwrap();
    test.start();
    test.wait_imported("states");
    for round in ["first", "second"] {
        test.run(&["dags", "trigger", "states", "--run-id", round, "--unpause"]).expect(0);
        let run = test.wait_run("states", round);
        assert_eq!(run["state"], "success", "{run}");
        assert_eq!(task(&run, "tries")["try_number"], 2);
        let xcom = |task_id: &str| -> Value {
            let query = format!("SELECT value FROM xcom WHERE task_id = '{task_id}' AND run_id = '{round}'");
            serde_json::from_str(&test.sql(&query)).unwrap()
        };
        assert_eq!(xcom("tries"), json!([2, {"id": 7, "of": [1.5, "é"]}, "no more", null]));
        // Task state is separate for each task and each run.
        assert_eq!(xcom("other"), "nothing");
        assert_eq!(xcom("writes"), "Cannot set value as None");
        assert_eq!(xcom("reads"), json!(["2026-01-02", 3, 0]));
    }
    assert_eq!(
        test.sql("SELECT run_id, key, expires_at IS NULL FROM task_state ORDER BY 1"),
        "first|job|t\nsecond|job|t"
    );
    assert_eq!(
        test.sql("SELECT key, value, run_id, task_id FROM asset_state"),
        "watermark|\"2026-01-02\"|second|writes"
    );
    // Deleting a run deletes its task state.
    test.run(&["runs", "delete", "states", "first", "--yes"]).expect(0);
    assert_eq!(test.sql("SELECT run_id FROM task_state"), "second");
}

#[test]
fn task_and_asset_state_persist_across_tries() {
    assert_states_persist(&TestHome::new());
}

#[test]
fn task_and_asset_state_persist_with_airflows_own_sdk() {
    assert_states_persist(&TestHome::new().with_airflow());
}
