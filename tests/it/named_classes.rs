//! Classes that a project names by settings of Airflow: its XCom backend, its logging configuration.

use crate::support::processes::{called, signal};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// The processes that run triggers.
fn hosts(test: &TestHome) -> Vec<i32> {
    called(test.folder(), "triggers")
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

def in_force():
    import logging
    from airflow.sdk.execution_time.xcom import XCom
    return [XCom.__name__, logging.getLogger("noisy").level]

class Says(BaseTrigger):
    def __init__(self, path=""):
        super().__init__()
        self.path = path
    def serialize(self):
        return "own.Says", {"path": self.path}
    async def run(self):
        import asyncio, os
        while self.path and not os.path.exists(self.path):
            await asyncio.sleep(0.2)
        yield TriggerEvent(in_force())
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
        self.defer(trigger=own.Says(self.path), method_name="after")
    def after(self, context, event=None):
        return event

def tell(context):
    with open(os.path.join(os.path.dirname(__file__), "told.json"), "w") as file:
        json.dump([*own.in_force(), context["dag_run"].dag_id], file)

with DAG("uses", on_success_callback=tell):
    @task
    def gives():
        return own.in_force()
    @task
    def reads(given):
        return given[0]
    given = gives()
    [reads(given), given >> Waits(task_id="waits")]
with DAG("waits_long"):
    Waits(task_id="waits", path="never there")
"#;

#[test]
fn classes_that_settings_name_are_used_or_are_import_errors() {
    let test = TestHome::new().with_airflow();
    test.start();
    let settings = |backend: &str| {
        format!("AIRFLOW__CORE__XCOM_BACKEND=own.{backend}\nAIRFLOW__LOGGING__LOGGING_CONFIG_CLASS=own.LOGGING\n")
    };
    test.save("named/own.py", OWN_CLASSES);
    test.save("named/.env", &settings("Marks"));
    test.save("named/dag.py", USES_OWN);
    let there = "SELECT count(*) FROM dag WHERE dag_id = 'uses'";
    wait_until("the DAG is there", LIMIT, || test.dags()["import_errors"] != json!([]) || test.sql(there) == "1");
    assert_eq!(test.dags()["import_errors"], json!([]));
    assert_eq!(test.run_dag("uses")["state"], "success", "{}", test.sql("SELECT task_id, outcome FROM task_try"));
    let xcom = |task_id: &str| -> Value {
        let query = format!("SELECT value FROM xcom WHERE task_id = '{task_id}' AND key = 'return_value'");
        serde_json::from_str(&test.sql(&query)).unwrap()
    };
    let in_force = json!(["Marks", 40]);
    assert_eq!([xcom("gives"), xcom("waits")], [json!(["marked", in_force]), json!(["marked", in_force])]);
    assert_eq!(xcom("reads"), json!(["marked", "Marks"]));
    let told = test.workspace().join("named/told.json");
    wait_until("the callback has been", LIMIT, || std::fs::read_to_string(&told).is_ok_and(|text| text.ends_with(']')));
    let told: Value = serde_json::from_str(&std::fs::read_to_string(&told).unwrap()).unwrap();
    assert_eq!(told, json!(["Marks", 40, "uses"]));

    test.run(&["dags", "trigger", "waits_long", "--unpause"]).expect(0);
    // The process of the triggers before may still be there.
    let deferred = "SELECT count(*) FROM task_instance WHERE dag_id = 'waits_long' AND state = 'deferred'";
    wait_until("it waits", LIMIT, || test.sql(deferred) == "1" && !hosts(&test).is_empty());
    let words = "[core] xcom_backend (AIRFLOW__CORE__XCOM_BACKEND) is 'own.Nothing', which cannot be imported";
    test.save("named/.env", &settings("Nothing"));
    wait_until("an import error", LIMIT, || test.sql("SELECT stack_trace FROM import_error").contains(words));
    for pid in hosts(&test) {
        signal(pid, "KILL");
    }
    wait_until("doctor says why the process ends", LIMIT, || {
        let checks = test.run(&["doctor", "--json"]).json();
        let mut of = checks["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "processes");
        of.any(|check| check["detail"].as_str().unwrap().contains(words))
    });
    let outcome = "SELECT coalesce(outcome, '') FROM task_try WHERE dag_id = 'waits_long' AND state = 'failed'";
    wait_until("the reason of the task says it too", LIMIT, || test.sql(outcome).contains(words));
}
