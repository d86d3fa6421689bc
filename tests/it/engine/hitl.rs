//! Human-in-the-loop tasks and the answers to them.

use crate::support::http::socket_request;
use crate::support::{TestHome, task, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

const DAG: &str = r#"
import datetime
from airflow.sdk import DAG, Param, task
from airflow.providers.standard.operators.hitl import HITLBranchOperator, HITLEntryOperator, HITLOperator

with DAG("asks"):
    asked = HITLOperator.partial(task_id="ask", subject="Which of {{ ti.map_index }}?", options=["a", "b"], multiple=True).expand(
        body=["x", "y"])
    entry = HITLEntryOperator(task_id="entry", subject="Say", params={"amount": Param(1, type="integer"), "why": "so"})
    usual = HITLOperator(task_id="usual", subject="?", options=["a", "b"], defaults="b", params={"n": Param(3)},
                         response_timeout=datetime.timedelta(seconds=1))
    late = HITLOperator(task_id="late", subject="?", options=["a"], response_timeout=datetime.timedelta(seconds=1))
    branch = HITLBranchOperator(task_id="branch", subject="Where to?", options=["left", "right"])

    @task
    def left(): pass
    @task
    def right(): pass

    [asked, entry] >> branch >> [left(), right()]
"#;

fn state(test: &TestHome, name: &str) -> String {
    test.sql(&format!("SELECT state FROM task_instance WHERE task_id = '{name}' ORDER BY map_index LIMIT 1"))
}

fn returned(test: &TestHome, task_id: &str) -> Value {
    let query = format!(
        "SELECT value FROM xcom WHERE task_id = '{task_id}' AND key = 'return_value' ORDER BY map_index LIMIT 1"
    );
    serde_json::from_str(&test.sql(&query)).unwrap()
}

#[test]
fn hitl_tasks_wait_for_answers_and_continue() {
    let test = TestHome::new().with_airflow();
    test.start();
    test.add_dag("asks", DAG);
    let run_id = test.trigger("asks");
    let waiting = || test.sql("SELECT count(*) FROM task_instance WHERE state = 'awaiting_input'");
    wait_until("three tasks wait", LIMIT, || waiting() == "3" && state(&test, "late") == "failed");
    // After the response timeout the task continues with its default option.
    wait_until("the response timeout has passed", LIMIT, || state(&test, "usual") == "success");
    assert_eq!(test.sql("SELECT count(*) FROM task_try WHERE state = 'running'"), "0", "no process waits");
    let usual = returned(&test, "usual");
    assert_eq!((&usual["chosen_options"], &usual["params_input"]), (&json!(["b"]), &json!({"n": 3})), "{usual}");
    assert!(test.task_log("asks", "late").contains("HITLTimeoutError"));

    let listed = test.run(&["hitl", "list", "--output", "json"]).expect(0).json();
    let mut subjects: Vec<&str> =
        listed["hitl_details"].as_array().unwrap().iter().filter_map(|row| row["subject"].as_str()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["Say", "Which of 0?", "Which of 1?"]);
    let answer = |arguments: &[&str]| test.run(&[&["hitl", "respond", "asks", "latest"], arguments].concat());
    assert!(answer(&["ask[0]", "c"]).expect(1).stderr.contains("Invalid options [\"c\"]"));
    answer(&["ask[7]", "a"]).expect(1);
    answer(&["left", "a"]).expect(1);
    answer(&["ask[0]", "a", "b"]).expect(0);
    assert!(answer(&["ask[0]", "a"]).expect(1).stderr.contains("already been updated"));
    // The server stores an answer while no agent runs.
    crate::support::processes::signal(test.pid("agent"), "KILL");
    answer(&["ask[1]", "a"]).expect(0);
    test.wait_healthy();
    answer(&["entry", "OK", "--param", "amount=7", "--param", "why=late"]).expect(0);
    wait_until("the branch task asks", LIMIT, || state(&test, "branch") == "awaiting_input");
    assert_eq!(returned(&test, "ask")["chosen_options"], json!(["a", "b"]));
    let entry = returned(&test, "entry");
    assert_eq!(entry["params_input"], json!({"amount": 7, "why": "late"}));

    // Answers over Airflow's API; a cleared task asks again.
    let path = format!("/api/v2/dags/asks/dagRuns/{run_id}/taskInstances/branch/-1/hitlDetails");
    let request = |method: &str, path: &str, body: &str| {
        socket_request(&test.home, method, path, "Content-Type: application/json\r\n", body)
    };
    for (text, found) in [("Say%7Cwhere", 2), ("~", 6), ("of 1", 1), ("none", 0)] {
        let list = format!("/api/v2/dags/asks/dagRuns/~/hitlDetails?subject_search={}", text.replace(' ', "%20"));
        assert_eq!(request("GET", &list, "").json()["total_entries"], found, "{text}");
    }
    let patch = |option: &str| request("PATCH", &path, &json!({"chosen_options": [option]}).to_string());
    assert_eq!(patch("up").status, 400);
    assert_eq!(request("PATCH", &path, "{\"chosen_options\": []}").status, 422);
    assert_eq!(request("PATCH", &path.replace("branch", "none"), "{\"chosen_options\": [\"left\"]}").status, 404);
    let answered = patch("left");
    assert_eq!((answered.status, &answered.json()["chosen_options"]), (200, &json!(["left"])));
    assert_eq!(patch("left").status, 409);
    let run = test.wait_run("asks", &run_id);
    assert_eq!((&task(&run, "left")["state"], &task(&run, "right")["state"]), (&json!("success"), &json!("skipped")));
    test.run(&["tasks", "clear", "asks", "latest", "branch", "--downstream", "--yes"]).expect(0);
    wait_until("the branch task asks again", LIMIT, || state(&test, "branch") == "awaiting_input");
    let detail = request("GET", &path, "").json();
    assert_eq!((&detail["response_received"], &detail["task_instance"]["task_id"]), (&json!(false), &json!("branch")));
    assert_eq!(patch("right").status, 200);
    wait_until("the other branch runs", LIMIT, || state(&test, "right") == "success");
    assert_eq!(state(&test, "left"), "skipped");
}

#[test]
fn tasks_test_prompts_for_hitl_answers() {
    let test = TestHome::new().with_airflow();
    test.start();
    let file = test.save("asks/dag.py", DAG);
    let arguments = ["tasks", "test", "asks", "entry", "--file", file.to_str().unwrap()];
    let done = test.run_with_input(&arguments, "OK\n7\n\n").expect(0);
    assert!(done.stderr.contains("amount [1]:"), "{}", done.stderr);
    let no_input = test.run_with_input(&arguments, "").expect(1);
    assert!(no_input.stderr.contains("standard input has ended"), "{}", no_input.stderr);
}
