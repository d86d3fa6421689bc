//! Classes that a project names in Airflow settings: XCom backend, logging configuration.

use crate::support::processes::{signal, with_argument};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// Returns the pids of the processes that run triggers.
fn trigger_hosts(test: &TestHome) -> Vec<i32> {
    with_argument(test.folder(), "triggers")
}

const OWN_CLASSES: &str = r#"
from airflow.sdk.bases.xcom import BaseXCom
from airflow.triggers.base import BaseTrigger, TriggerEvent

LOGGING = {"version": 1, "disable_existing_loggers": False, "handlers": {"task": {"class": "logging.NullHandler"}},
           "loggers": {"airflow.task": {"handlers": ["task"]}, "noisy": {"level": "ERROR"}}}

class Marks(BaseXCom):
    @staticmethod
    def serialize_value(value, **more):
        return BaseXCom.serialize_value(["marked", value])

    @staticmethod
    def deserialize_value(result):
        return BaseXCom.deserialize_value(result)[1]

def in_effect():
    import logging
    from airflow.sdk.execution_time.xcom import XCom
    return [XCom.__name__, logging.getLogger("noisy").level]

class FileExists(BaseTrigger):
    def __init__(self, path=""):
        super().__init__()
        self.path = path
    def serialize(self):
        return "own.FileExists", {"path": self.path}
    async def run(self):
        import asyncio, os
        while self.path and not os.path.exists(self.path):
            await asyncio.sleep(0.2)
        yield TriggerEvent(in_effect())
"#;
const USES_OWN: &str = r#"
import json, os
from airflow.sdk import DAG, BaseOperator, task
import own

class Waits(BaseOperator):
    def __init__(self, path="", **more):
        super().__init__(**more)
        self.path = path
    def execute(self, context):
        self.defer(trigger=own.FileExists(self.path), method_name="after")
    def after(self, context, event=None):
        return event

def write_callback_json(context):
    with open(os.path.join(os.path.dirname(__file__), "callback.json"), "w") as file:
        json.dump([*own.in_effect(), context["dag_run"].dag_id], file)

with DAG("uses", on_success_callback=write_callback_json):
    @task
    def gives():
        return own.in_effect()
    @task
    def reads(given):
        return given[0]
    given = gives()
    [reads(given), given >> Waits(task_id="waits")]
with DAG("waits_long"):
    Waits(task_id="waits", path="never there")
"#;

#[test]
fn classes_named_in_settings_are_used_or_reported() {
    let test = TestHome::new().with_airflow();
    test.start();
    let settings = |backend: &str| {
        format!("AIRFLOW__CORE__XCOM_BACKEND=own.{backend}\nAIRFLOW__LOGGING__LOGGING_CONFIG_CLASS=own.LOGGING\n")
    };
    test.save("named/own.py", OWN_CLASSES);
    test.save("named/.env", &settings("Marks"));
    test.save("named/dag.py", USES_OWN);
    test.wait_imported("uses");
    assert_eq!(test.run_dag("uses")["state"], "success", "{}", test.sql("SELECT task_id, outcome FROM task_try"));
    let xcom = |task_id: &str| -> Value {
        let query = format!("SELECT value FROM xcom WHERE task_id = '{task_id}' AND key = 'return_value'");
        serde_json::from_str(&test.sql(&query)).unwrap()
    };
    let in_effect = json!(["Marks", 40]);
    assert_eq!([xcom("gives"), xcom("waits")], [json!(["marked", in_effect]), json!(["marked", in_effect])]);
    assert_eq!(xcom("reads"), json!(["marked", "Marks"]));
    let callback_output = test.workspace().join("named/callback.json");
    wait_until("the callback has run", LIMIT, || {
        std::fs::read_to_string(&callback_output).is_ok_and(|text| text.ends_with(']'))
    });
    let callback_output: Value = serde_json::from_str(&std::fs::read_to_string(&callback_output).unwrap()).unwrap();
    assert_eq!(callback_output, json!(["Marks", 40, "uses"]));

    test.run(&["dags", "trigger", "waits_long", "--unpause"]).expect(0);
    // The trigger host of the earlier DAG may still be running.
    let deferred = "SELECT count(*) FROM task_instance WHERE dag_id = 'waits_long' AND state = 'deferred'";
    wait_until("the task is deferred", LIMIT, || test.sql(deferred) == "1" && !trigger_hosts(&test).is_empty());
    let message = "[core] xcom_backend (AIRFLOW__CORE__XCOM_BACKEND) is 'own.Nothing', which cannot be imported";
    test.save("named/.env", &settings("Nothing"));
    wait_until("an import error", LIMIT, || test.sql("SELECT stack_trace FROM import_error").contains(message));
    for pid in trigger_hosts(&test) {
        signal(pid, "KILL");
    }
    let outcome = "SELECT coalesce(outcome, '') FROM task_try WHERE dag_id = 'waits_long' AND state = 'failed'";
    wait_until("the task's outcome names the reason", LIMIT, || test.sql(outcome).contains(message));
    wait_until("doctor reports why the trigger process exits", LIMIT, || {
        let checks = test.run(&["doctor", "--json"]).json();
        let mut process_checks =
            checks["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "processes");
        process_checks.any(|check| check["detail"].as_str().unwrap().contains(message))
    });
}
