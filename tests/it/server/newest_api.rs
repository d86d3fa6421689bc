//! What Airflow's REST API has from 3.4 on.

use crate::support::http::{Response, socket_request};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const SLOW: &str = "import time\nfrom airflow.sdk import DAG, task, task_group\n\
    with DAG('slow', schedule='@continuous', max_active_runs=1, start_date=__import__('datetime').datetime(2026, 1, 1),\n         \
    is_paused_upon_creation=False):\n    @task\n    def waits():\n        while not __import__('os').path.exists('GO'): time.sleep(0.05)\n    waits()\n";
const GROUPED: &str = "from airflow.sdk import DAG, task, task_group\n\
    with DAG('grouped'):\n    @task_group\n    def group():\n        @task\n        def one(): pass\n        one()\n    \
    @task\n    def other(x): pass\n    group() >> other.expand(x=[1, 2])\n";

fn send(test: &TestHome, method: &str, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    socket_request(&test.home, method, &format!("/api/v2{path}"), "Content-Type: application/json\r\n", &body)
}

fn get(test: &TestHome, path: &str) -> Value {
    let answer = send(test, "GET", path, &Value::Null);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

#[test]
fn a_draining_dag_starts_no_run_and_is_paused_after_its_last() {
    let test = TestHome::started();
    let go = test.folder().join("go");
    test.add_dag("slow", &SLOW.replace("GO", go.to_str().unwrap()));
    let running = || test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'slow' AND state = 'running'") == "1";
    wait_until("a run", SOON, running);
    let state = |state: &str| json!({"actions": [{"action": "update", "entities": [{"dag_id": "slow", "scheduling_state": state}]}]});
    let answer = send(&test, "PATCH", "/dags/bulk", &state("draining"));
    assert_eq!((answer.status, &answer.json()["update"]["success"]), (200, &json!(["slow"])), "{answer:?}");
    assert_eq!(get(&test, "/dags/slow")["scheduling_state"], "draining");
    assert_eq!(get(&test, "/dags/slow")["is_paused"], false);
    std::fs::write(&go, "").unwrap();
    wait_until("the DAG is paused", SOON, || get(&test, "/dags/slow")["scheduling_state"] == "paused");
    assert_eq!(test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'slow'"), "1");
    // Without unfinished runs, draining is pausing; two contradicting fields are refused.
    let patch = |body: Value| send(&test, "PATCH", "/dags/slow", &body);
    assert_eq!(patch(json!({"scheduling_state": "draining"})).json()["scheduling_state"], "paused");
    assert_eq!(patch(json!({"scheduling_state": "active", "is_paused": true})).status, 422);
    assert_eq!(patch(json!({})).status, 422);
    let delete = json!({"actions": [{"action": "delete", "entities": ["slow"]}]});
    let answer = send(&test, "PATCH", "/dags/bulk", &delete).json();
    assert!(answer["delete"]["errors"][0]["error"].as_str().unwrap().contains("not supported"), "{answer}");
    assert_eq!(get(&test, "/dags/slow")["is_paused"], true);
}

#[test]
fn instances_are_cleared_by_id_and_by_group() {
    let test = TestHome::started();
    test.add_dag("grouped", GROUPED);
    let run = test.run_dag("grouped");
    let run_id = run["dag_run_id"].as_str().unwrap();
    let path = format!("/dags/grouped/dagRuns/{run_id}/taskInstances");
    let instances = get(&test, &path)["task_instances"].as_array().unwrap().clone();
    let second = instances.iter().find(|one| one["task_id"] == "other" && one["map_index"] == 1).unwrap();
    assert_eq!((&second["region_index"], &second["in_loop"]), (&json!(1), &json!(false)));
    let by_region =
        get(&test, &format!("{path}/other?region_index=1&region_id={}", second["region_id"].as_str().unwrap()));
    assert_eq!(by_region["id"], second["id"]);
    let clear = |fields: Value| {
        let mut body = json!({"dry_run": true, "only_failed": false, "dag_run_id": run_id});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        send(&test, "POST", "/dags/grouped/clearTaskInstances", &body)
    };
    let names = |answer: &Response| -> Vec<String> {
        let all = answer.json()["task_instances"].as_array().unwrap().clone();
        all.iter().map(|one| format!("{}[{}]", one["task_id"].as_str().unwrap(), one["map_index"])).collect()
    };
    assert_eq!(names(&clear(json!({"task_instance_ids": [second["id"]]}))), ["other[1]"]);
    let whole = json!({"task_instance_ids": [second["id"]], "whole_expansion_ids": [second["id"]]});
    assert_eq!(names(&clear(whole)), ["other[0]", "other[1]"]);
    assert_eq!(names(&clear(json!({"task_group_id": "group"}))), ["group.one[-1]"]);
    assert_eq!(clear(json!({"task_instance_ids": []})).status, 422);
    assert_eq!(clear(json!({"task_instance_ids": ["00000000-0000-0000-0000-000000000001"]})).status, 404);
    assert_eq!(clear(json!({"task_group_id": "nothing"})).status, 404);
    assert_eq!(clear(json!({"task_group_id": "group", "task_ids": ["other"]})).status, 422);
}

#[test]
fn bundles_and_differences_of_versions_describe_the_workspace() {
    let test = TestHome::started();
    test.add_dag("grouped", GROUPED);
    test.run_dag("grouped");
    test.save("grouped.py", &GROUPED.replace("def one(): pass", "def first(): pass").replace("one()", "first()"));
    test.wait_dag("grouped", 2);
    let diff = get(&test, "/dags/grouped/dagVersions/diff?base_version_number=1&target_version_number=2");
    let paths: Vec<&str> = diff["changes"].as_array().unwrap().iter().filter_map(|one| one["path"].as_str()).collect();
    assert!(paths.contains(&"tasks.group.one") && paths.contains(&"tasks.group.first"), "{paths:?}");
    let path = "/dags/grouped/dagVersions/diff?base_version_number=1&target_version_number=9";
    assert_eq!(send(&test, "GET", path, &Value::Null).status, 404);
    test.save("broken.py", "from airflow.sdk import DAG\nimport nothing_of_that_name\n");
    let errors = || get(&test, "/dagBundles/workspace")["import_error_count"].clone();
    wait_until("the import error", SOON, || errors() == 1);
    let files = get(&test, "/dagBundles/workspace/files");
    assert!(files["total_entries"].as_i64().unwrap() >= 2, "{files}");
    assert_eq!(send(&test, "GET", "/dagBundles/other", &Value::Null).status, 404);
}
