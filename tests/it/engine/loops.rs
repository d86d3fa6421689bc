//! Loops of Airflow 3.4: clears, marks and addresses of instances in iterations, and kills between two of them.

use crate::support::http::socket_request;
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

const DAG: &str = r#"
from airflow.sdk import DAG, LoopDecision, Variable, task, task_group

with DAG("looped"):
    @task_group
    def body():
        @task
        def step(*, loop, ti):
            print("iteration", loop.index, "of try", ti.try_number)
            return loop.index
        step()

    def enough(*, loop):
        return LoopDecision(stop=loop.index + 1 >= int(Variable.get("iterations")), reason=f"after {loop.result}")

    @task
    def after(ti=None):
        return list(ti.xcom_pull(task_ids="body.step"))

    body.loop(max_iterations=5, until=enough) >> after()
"#;

const INSTANCES: &str = "/api/v2/dags/looped/dagRuns/r/taskInstances";
const JSON: &str = "Content-Type: application/json\r\n";

struct Looped(TestHome);

impl Looped {
    /// Runs the loop with this number of iterations.
    fn ran(iterations: &str) -> Self {
        let test = TestHome::new().with_newest_airflow();
        test.start();
        test.run(&["variables", "set", "iterations", iterations]).expect(0);
        test.add_dag("looped", DAG);
        let looped = Self(test);
        looped.0.run(&["dags", "trigger", "looped", "--run-id", "r"]).expect(0);
        looped.wait_success();
        looped
    }

    fn wait_success(&self) {
        assert_eq!(self.0.wait_run("looped", "r")["state"], "success");
    }

    /// The instances with their tries, as `leoflow runs show` names them.
    fn shown(&self) -> Vec<String> {
        let run = self.0.run(&["runs", "show", "looped", "r", "--json"]).expect(0).json();
        let name = |instance: &Value| {
            let iteration = instance["iteration"].as_i64().map(|iteration| format!("@{iteration}")).unwrap_or_default();
            let state = instance["state"].as_str().unwrap_or("none");
            format!("{}{iteration} {state} {}", instance["task_id"].as_str().unwrap(), instance["try_number"])
        };
        run["task_instances"].as_array().unwrap().iter().map(name).collect()
    }

    fn returned(&self) -> String {
        self.0.sql("SELECT value FROM xcom WHERE task_id = 'after' AND key = 'return_value'")
    }

    fn get(&self, path: &str) -> Value {
        let answer = socket_request(&self.0.home, "GET", path, "", "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    fn instance(&self, task_id: &str, iteration: i64) -> Value {
        let list = self.get(&format!("{INSTANCES}?loop_id=body&iteration={iteration}"));
        let instances = list["task_instances"].as_array().unwrap();
        instances.iter().find(|instance| instance["task_id"] == task_id).unwrap().clone()
    }

    /// Requests a change below the run. Returns the HTTP status.
    fn mark(&self, path: &str, body: &Value) -> u16 {
        let path = format!("/api/v2/dags/looped/dagRuns/r/{path}");
        socket_request(&self.0.home, "PATCH", &path, JSON, &body.to_string()).status
    }

    /// Clears an instance: with what is downstream and the later iterations of the loop, or alone.
    fn clear(&self, instance: &Value, later: bool) {
        let body = json!({"dry_run": false, "dag_run_id": "r", "task_instance_ids": [instance["id"]], "only_failed": false,
                          "include_downstream": later, "include_later_loop_iterations": later});
        let path = "/api/v2/dags/looped/clearTaskInstances";
        let answer = socket_request(&self.0.home, "POST", path, JSON, &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn clearing_a_gate_repeats_later_iterations() {
    let looped = Looped::ran("4");
    assert_eq!(looped.returned(), "[0, 1, 2, 3]");
    // The loop now stops earlier: iterations 2 and 3 are gone, and nothing reads their values.
    looped.0.run(&["variables", "set", "iterations", "2"]).expect(0);
    looped.clear(&looped.instance("body.step", 0), true);
    looped.wait_success();
    assert_eq!(looped.returned(), "[0, 1]");
    let shown = looped.shown();
    let live: Vec<&String> = shown.iter().filter(|name| !name.contains("removed")).collect();
    assert_eq!(
        live,
        [
            "body.step@0 success 2",
            "body.step@1 success 2",
            "body.enough@0 success 2",
            "body.enough@1 success 2",
            "after success 2"
        ]
    );
    let removed = looped.instance("body.step", 3);
    let marked = json!({"new_state": "failed", "region_id": removed["region_id"], "region_index": 3});
    assert_eq!(looped.mark("taskInstances/body.step", &marked), 409, "a removed iteration has no place in the run");
    // It goes on further again, with the next tries of the removed instances.
    looped.0.run(&["variables", "set", "iterations", "3"]).expect(0);
    looped.clear(&looped.instance("body.enough", 1), true);
    looped.wait_success();
    assert_eq!(looped.returned(), "[0, 1, 2]");
    assert!(looped.shown().contains(&"body.step@2 success 2".to_owned()), "{:?}", looped.shown());
    // Without the later iterations, the gate decides nothing.
    looped.0.run(&["variables", "set", "iterations", "1"]).expect(0);
    looped.clear(&looped.instance("body.enough", 1), false);
    looped.wait_success();
    let gates = looped.shown().into_iter().filter(|name| name.contains("enough") && !name.contains("removed"));
    assert_eq!(
        gates.collect::<Vec<_>>(),
        ["body.enough@0 success 2", "body.enough@1 success 4", "body.enough@2 success 2"]
    );
    let log = looped.0.run(&["tasks", "logs", "looped", "r", "body.step@1"]).expect(0).stdout;
    assert!(log.contains("iteration 1 of try 2"), "{log}");
}

#[test]
fn the_api_names_instances_by_region() {
    let looped = Looped::ran("2");
    let instance = looped.instance("body.step", 1);
    assert_eq!(instance["in_loop"], true);
    assert_eq!(instance["loop_iteration"], json!({"loop_id": "body", "iteration": 1}));
    assert_eq!((&instance["map_index"], &instance["region_index"]), (&json!(-1), &json!(1)));
    let region = format!("region_id={}&region_index=1", instance["region_id"].as_str().unwrap());
    assert_eq!(looped.get(&format!("{INSTANCES}/body.step?{region}"))["id"], instance["id"]);
    assert_eq!(looped.get(&format!("{INSTANCES}/body.step/xcomEntries/return_value?{region}"))["value"], 1);
    assert_eq!(looped.get(&format!("{INSTANCES}/body.step/tries?{region}"))["total_entries"], 1);
    let log = looped.get(&format!("{INSTANCES}/body.step/logs/1?{region}")).to_string();
    assert!(log.contains("iteration 1 of try 1"), "{log}");
    let without = socket_request(&looped.0.home, "GET", &format!("{INSTANCES}/body.step"), "", "");
    assert_eq!(without.status, 404, "a task in a loop has no instance outside of it");
    let summary = looped.get("/ui/grid/loop/looped/r/body");
    assert_eq!((&summary["status"], &summary["iterations_ran"]), (&json!("stopped_early"), &json!(2)), "{summary}");
    assert_eq!(summary["iterations"][1]["decision_reason"], "after 1");
    let history = looped.get("/ui/grid/loop-history/looped/body");
    assert_eq!(history["runs"][0]["loop_region_id"], instance["region_id"]);
    let cells = socket_request(&looped.0.home, "GET", "/ui/grid/ti_summaries/looped?run_ids=r", "", "").json();
    let cell = |id: &str| {
        cells["task_instances"].as_array().unwrap().iter().find(|cell| cell["task_id"] == id).unwrap().clone()
    };
    assert_eq!(cell("body")["loop_iterations_count"], 2);
    assert_eq!(cell("body.step")["latest_region_index"], 1);
    // A gate that a user marks stops its loop.
    assert_eq!(looped.mark(&format!("taskInstances/body.enough?{region}"), &json!({"new_state": "failed"})), 200);
    assert_eq!(looped.instance("body.enough", 1)["state"], "failed");
    assert_eq!(looped.instance("body.enough", 0)["state"], "success");
    // The UI names the region in the body, and the map index in the path.
    let in_body = json!({"new_state": "skipped", "region_id": instance["region_id"], "region_index": 1});
    assert_eq!(looped.mark("taskInstances/body.step/-1", &in_body), 200);
    assert_eq!(looped.mark("taskInstances/body.step/2", &in_body), 400);
    assert_eq!(looped.mark("taskGroupInstances/body", &in_body), 400);
    assert_eq!(looped.instance("body.step", 1)["state"], "skipped");
    assert_eq!(looped.instance("body.step", 0)["state"], "success");
}

#[test]
fn a_killed_server_loses_and_repeats_no_iteration() {
    let test = TestHome::new().with_newest_airflow();
    test.start();
    test.run(&["variables", "set", "iterations", "5"]).expect(0);
    test.add_dag("looped", DAG);
    test.run(&["dags", "trigger", "looped", "--run-id", "r"]).expect(0);
    for (iteration, name) in ["server", "agent", "server"].into_iter().enumerate() {
        let reached = format!("SELECT count(*) > {iteration} FROM task_instance WHERE task_id = 'body.step'");
        wait_until("an iteration", SOON, || test.sql(&reached) == "t");
        test.kill_and_wait(name);
    }
    assert_eq!(test.wait_run("looped", "r")["state"], "success");
    assert_eq!(test.sql("SELECT value FROM xcom WHERE task_id = 'after' AND key = 'return_value'"), "[0, 1, 2, 3, 4]");
    assert_eq!(test.sql("SELECT count(*) FROM task_instance WHERE task_id LIKE 'body.%'"), "10");
}
