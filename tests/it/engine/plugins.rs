//! Plugins of the small package, and what operators show beside their tasks.

use crate::support::http::{Api, Session};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn running() -> (TestHome, Api) {
    let test = TestHome::new().with_packages();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let api = Api(Session::login(test.port, &password));
    (test, api)
}

const PLUGIN: &str = r#"
import os
from airflow.listeners import hookimpl
from airflow.models import BaseOperator
from airflow.plugins_manager import AirflowPlugin

class Shout(BaseOperator):
    template_fields = ("text",)
    def __init__(self, text, **others):
        super().__init__(**others)
        self.text = text
    def execute(self, context):
        if self.text == "FAIL":
            raise ValueError("as asked")
        return self.text

def shout(text):
    return text.upper()

class Listener:
    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        print("heard of", task_instance.task_id, previous_state)

    @hookimpl
    def on_dag_run_running(self, dag_run, msg):
        self.note(dag_run, msg)

    @hookimpl
    def on_dag_run_success(self, dag_run, msg):
        self.note(dag_run, msg)

    @hookimpl
    def on_dag_run_failed(self, dag_run, msg):
        self.note(dag_run, msg)

    def note(self, dag_run, msg):
        from airflow.sdk import Variable
        assert Variable.get("greeting") == "hello"
        with open(os.path.join(os.path.dirname(__file__), "../listened"), "a") as file:
            print(dag_run.dag.dag_id, dag_run.run_id, dag_run.state, dag_run.end_date is not None, msg, sep="; ", file=file)

class Mine(AirflowPlugin):
    name = "mine"
    operators = [Shout]
    macros = [shout]
    listeners = [Listener()]
"#;

const DAG: &str = r#"
from airflow.sdk import DAG
from mine import Shout
with DAG("plugged"):
    Shout(task_id="one", text="{{ macros.mine.shout(params.word) }}", params={"word": "word"})
"#;

#[test]
fn plugins_bring_operators_macros_and_listeners() {
    let (test, api) = running();
    test.save("project/plugins/mine.py", PLUGIN);
    test.save("project/dag.py", DAG);
    test.wait_dag("plugged", 1);
    test.run(&["variables", "set", "greeting", "hello"]).expect(0);
    let listened = || std::fs::read_to_string(test.workspace().join("project/listened")).unwrap_or_default();
    let expect = |what: &str, lines: &[&str]| {
        let lines: String = lines.iter().map(|line| format!("plugged; {line}\n")).collect();
        wait_until(what, LIMIT, || listened() == lines);
    };
    test.run(&["dags", "trigger", "plugged", "--run-id", "a", "--wait"]).expect(0);
    let started_and_ended = ["a; running; False; started", "a; success; True; success"];
    expect("the listeners were called for the run", &started_and_ended);
    assert_eq!(test.sql("SELECT value FROM xcom WHERE key = 'return_value'"), "\"WORD\"");
    let log = test.task_log("plugged", "one");
    assert!(log.contains("heard of one running"), "{log}");
    // A user's mark.
    api.expect("PATCH", "dags/plugged/dagRuns/a", json!({"state": "failed"}), 200);
    let by_hand = "a; failed; True; Dag Run's state was manually set to `failed`.";
    expect("the listeners were called for the mark", &[&started_and_ended[..], &[by_hand]].concat());
    // A cleared run starts again.
    api.expect(
        "POST",
        "dags/plugged/clearTaskInstances",
        json!({"dag_run_id": "a", "dry_run": false, "only_failed": false}),
        200,
    );
    let all = [&started_and_ended[..], &[by_hand], &started_and_ended[..]].concat();
    expect("the listeners were called for the second start", &all);
}

#[test]
fn a_plugin_that_is_added_later_listens_too() {
    let (test, _) = running();
    test.run(&["variables", "set", "greeting", "hello"]).expect(0);
    test.save("project/dag.py", "from airflow.sdk import DAG\nwith DAG('later'):\n    pass\n");
    test.wait_dag("later", 1);
    test.save("project/plugins/mine.py", PLUGIN);
    test.wait_dag("later", 2);
    test.run(&["dags", "trigger", "later", "--wait"]).expect(0);
    let listened = || std::fs::read_to_string(test.workspace().join("project/listened")).unwrap_or_default();
    wait_until("the listeners were called", LIMIT, || listened().lines().count() == 2);
    // Without the plugin, no process is started for a run.
    std::fs::remove_dir_all(test.workspace().join("project/plugins")).unwrap();
    let listens = "SELECT structure ? 'run_listeners' FROM dag d JOIN dag_version v ON v.id = d.current_version_id
        WHERE d.dag_id = 'later'";
    wait_until("nothing listens", LIMIT, || test.sql(listens) == "f");
}

const LINKED: &str = r#"
import datetime
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, BaseOperator, BaseOperatorLink

class Job(BaseOperatorLink):
    name = "Job"
    def get_link(self, operator, *, ti_key):
        return f"https://jobs/{operator.job}?run={ti_key.run_id}&index={ti_key.map_index}"

class Broken(BaseOperatorLink):
    name = "Broken"
    xcom_key = "own_key"
    def get_link(self, operator, *, ti_key):
        raise KeyError("no link")

class Runs(BaseOperator):
    operator_extra_links = (Job(), Broken())
    def __init__(self, job, **others):
        super().__init__(**others)
        self.job = job
    def execute(self, context):
        raise ValueError("a failed job has a link, too")

with DAG("other"):
    pass
with DAG("linked", schedule="0 9-17 * * 1-5", start_date=datetime.datetime(2030, 1, 1),
         default_args={"owner": "me", "retry_delay": datetime.timedelta(minutes=2)}):
    TriggerDagRunOperator(task_id="triggers", trigger_dag_id="other", trigger_run_id="made")
    TriggerDagRunOperator.partial(task_id="each", trigger_dag_id="other").expand(trigger_run_id=["made-0", "made-1"])
    Runs.partial(task_id="runs").expand(job=["x", "y"])
"#;

#[test]
fn links_of_operators_are_shown() {
    let (test, api) = running();
    test.save("dag.py", LINKED);
    test.wait_dag("linked", 1);
    test.run(&["dags", "trigger", "linked", "--unpause", "--run-id", "first", "--wait"]).expect(1);
    let instances = "dags/linked/dagRuns/first/taskInstances";
    let links = |task: &str| api.get(&format!("{instances}/{task}/links"));
    let base = format!("http://127.0.0.1:{}", test.port);
    assert_eq!(
        links("triggers"),
        json!({"extra_links": {"Triggered DAG": format!("{base}/dags/other/runs/made")}, "total_entries": 1})
    );
    let each = api.get(&format!("{instances}/each/links?map_index=1"));
    assert_eq!(each["extra_links"]["Triggered DAG"], format!("{base}/dags/other/runs/made-1"));
    let job = |url: Value| json!({"extra_links": {"Broken": null, "Job": url}, "total_entries": 2});
    // Links are pushed by the task's process after its outcome is known.
    let mapped = || api.get(&format!("{instances}/runs/links?map_index=1"));
    wait_until("the link is pushed", LIMIT, || mapped() == job(json!("https://jobs/y?run=first&index=1")));
    let log = test.task_log("linked", "triggers");
    assert!(!log.contains("Failed to push"), "{log}");
    api.expect("GET", &format!("{instances}/triggers/links?try_number=7"), Value::Null, 404);
    api.expect("GET", &format!("{instances}/triggers/links?try_number=1"), Value::Null, 200);
}

#[test]
fn details_of_dags_and_runs_are_those_of_airflow() {
    let (test, api) = running();
    test.save("dag.py", LINKED);
    test.wait_dag("linked", 1);
    let dag = api.get("dags/linked/details");
    assert_eq!(
        dag["timetable_description"],
        "At 0 minutes past the hour, between 09:00 and 17:59, Monday through Friday"
    );
    assert_eq!(dag["default_args"], json!({"owner": "me", "retry_delay": "PT2M"}));
    assert_eq!(api.get("dags/other/details")["default_args"], json!({}));
    let waiting = api.expect("POST", "dags/linked/dagRuns", json!({"dag_run_id": "first", "logical_date": null}), 200);
    assert_eq!(waiting["last_scheduling_decision"], Value::Null, "a run of a paused DAG waits");
    test.run(&["dags", "unpause", "linked"]).expect(0);
    let run = || api.get("dags/linked/dagRuns/first");
    wait_until("the run has ended", LIMIT, || run()["state"] == "failed");
    assert_eq!(run()["last_scheduling_decision"], run()["end_date"]);
}
