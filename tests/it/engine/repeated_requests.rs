//! Requests of a task that are repeated because their answer was lost.

use crate::support::http::{Response, socket_request};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const DAGS: &str = r#"
import os, time
from airflow.sdk import DAG, task
with DAG("target"):
    @task
    def t(): pass
    t()
with DAG("caller"):
    @task
    def call():
        from leoflow.common import leoflow_server
        with open("token.new", "w") as file:
            file.write(leoflow_server._client.token)
        os.rename("token.new", "token")
        while not os.path.exists("go"): time.sleep(0.05)
    call()
"#;

/// A running task of the DAG `caller`.
struct Caller {
    test: TestHome,
    run_id: String,
    token: String,
}

impl Caller {
    fn start() -> Self {
        let test = TestHome::started();
        test.add_dag("caller", DAGS);
        let run_id = test.trigger("caller");
        let path = test.workspace().join("token");
        wait_until("the task runs", LIMIT, || path.exists());
        let token = std::fs::read_to_string(path).unwrap();
        Self { test, run_id, token }
    }

    /// Sends a request of the task with a key; an empty key is left out.
    fn post(&self, path: &str, key: &str, body: &Value) -> Response {
        let mut headers = format!("Authorization: Bearer {}\r\n", self.token);
        if !key.is_empty() {
            headers += &format!("Idempotency-Key: {key}\r\n");
        }
        socket_request(&self.test.home, "POST", path, &headers, &body.to_string())
    }

    fn trigger(&self, key: &str, body: &Value) -> u16 {
        self.post("/task/runs/trigger", key, body).status
    }

    /// The state of the only run of `target`, and the number of its task's try.
    fn target(&self) -> String {
        self.test.sql(
            "SELECT r.state, ti.try_number FROM dag_run r JOIN task_instance ti USING (dag_id, run_id)
             WHERE r.dag_id = 'target'",
        )
    }
}

fn trigger_body(run_id: &str, logical_date: Option<&str>, reset: bool) -> Value {
    json!({"dag_id": "target", "run_id": run_id, "conf": {}, "logical_date": logical_date, "run_after": null, "note": null,
           "reset": reset})
}

#[test]
fn a_repeated_trigger_changes_nothing() {
    let caller = Caller::start();
    let (create, reset) = (trigger_body("fixed", None, false), trigger_body("fixed", None, true));
    assert_eq!(caller.trigger("one", &create), 204);
    wait_until("the run has ended", LIMIT, || caller.target() == "success|1");
    caller.test.kill_and_wait("server");
    assert_eq!(caller.trigger("one", &create), 204, "the answer was lost when the server ended");
    assert_eq!((caller.trigger("two", &create), caller.trigger("", &create)), (409, 409), "other requests");
    assert_eq!(caller.trigger("one", &reset), 204);
    assert_eq!(caller.target(), "success|1", "the task does not reset the run that it has created");
    assert_eq!(caller.trigger("three", &reset), 204);
    wait_until("the run was reset", LIMIT, || caller.target() == "success|2");
    assert_eq!(caller.trigger("three", &reset), 204);
    assert_eq!(caller.target(), "success|2");
    assert_eq!(caller.trigger(&"x".repeat(101), &create), 400);
}

#[test]
fn a_reset_does_not_clear_another_run_of_the_same_date() {
    let caller = Caller::start();
    let date = Some("2026-01-01T00:00:00Z");
    assert_eq!(caller.trigger("", &trigger_body("first", date, false)), 204);
    wait_until("the run has ended", LIMIT, || caller.target() == "success|1");
    assert_eq!(caller.trigger("", &trigger_body("second", date, false)), 409);
    let refused = caller.post("/task/runs/trigger", "", &trigger_body("second", date, true));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(refused.status, 404, "as in Airflow, which clears the run with that id");
    assert!(detail.contains("'second' not found") && detail.contains("the run 'first'"), "{detail}");
    assert_eq!(caller.target(), "success|1");
}

#[test]
fn a_repeated_question_or_answer_changes_nothing() {
    let caller = Caller::start();
    let instance = json!({"dag_id": "caller", "run_id": caller.run_id, "task_id": "call", "map_index": -1});
    let ask = |key: &str| caller.post("/task/hitl/ask", key, &json!({"subject": "?", "options": ["a", "b"]})).status;
    let answer = |key: &str| {
        let mut body = instance.clone();
        body["chosen_options"] = json!(["a"]);
        caller.post("/local/triggers/hitl/answer", key, &body)
    };
    let received = || caller.post("/local/triggers/hitl/get", "", &instance).json()["response_received"] == true;
    assert_eq!(ask("ask"), 204);
    let first = answer("answer");
    assert_eq!((first.status, &first.json()["chosen_options"]), (200, &json!(["a"])));
    let repeated = answer("answer");
    assert_eq!((repeated.status, repeated.json()), (200, first.json()));
    assert_eq!((answer("other").status, answer("").status), (409, 409));
    assert_eq!((ask("ask"), received()), (204, true));
    assert_eq!((ask("again"), received()), (204, false));
}
