//! `airflow_2`: files for Airflow 2 run as they are, with the small package and with Airflow's SDK.

use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const DAG: &str = r#"
from datetime import datetime
from airflow import DAG
from airflow.models import BaseOperator
from airflow.operators import bash_operator
from airflow.operators.dummy_operator import DummyOperator
from airflow.operators.python_operator import PythonOperator
from airflow.utils.dates import days_ago
from airflow.utils.decorators import apply_defaults
from airflow.utils.helpers import chain
from airflow.utils.trigger_rule import TriggerRule
import triggers_of_airflow_2

class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=triggers_of_airflow_2.Now(), method_name="after")
    def after(self, context, event=None):
        return event

class Dates(BaseOperator):
    template_fields = ("text",)
    @apply_defaults
    def __init__(self, text, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.text = text
    def execute(self, context):
        dates = context["execution_date"], context["ti"].execution_date, context["dag_run"].execution_date
        return [self.text, *(str(date)[:10] for date in dates)]

def dates(execution_date, yesterday_ds, **context):
    return [str(execution_date)[:10], yesterday_ds, context["tomorrow_ds_nodash"], context["next_ds"]]


defaults = {"owner": "x", "start_date": datetime(2026, 1, 1), "provide_context": True, "trigger_rule": "dummy"}
with DAG("old", schedule_interval="0 6 * * *", default_args=defaults, concurrency=3, default_view="graph", orientation="LR",
         catchup=False) as dag:
    first = DummyOperator(task_id="first")
    called = PythonOperator(task_id="called", python_callable=dates, provide_context=True)
    shell = bash_operator.BashOperator(task_id="shell", bash_command="echo {{ execution_date | ds }} {{ next_ds_nodash }}",
                                       xcom_push=True, trigger_rule=TriggerRule.NONE_FAILED_OR_SKIPPED, task_concurrency=1)
    chain(first, called, shell, Dates(task_id="own", text="{{ tomorrow_ds }}"))
with DAG("old_default", "What it is for", start_date=days_ago(1), catchup=False):
    PythonOperator(task_id="called", python_callable=dates)
    bash_operator.BashOperator.partial(task_id="mapped", task_concurrency=1).expand(bash_command=["true", "true"])
    Waits(task_id="waits")
"#;

const TRIGGER: &str = r#"
from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow.utils.dates import days_ago

class Now(BaseTrigger):
    def serialize(self):
        return "triggers_of_airflow_2.Now", {}
    async def run(self):
        yield TriggerEvent(days_ago(0).hour)
"#;

fn runs_a_file_for_airflow_2(test: &TestHome) {
    test.wait_imported("old");
    let dag = |dag_id: &str| -> Value { test.run(&["dags", "show", dag_id, "--json"]).expect(0).json() };
    assert_eq!([&dag("old")["schedule"], &dag("old_default")["schedule"]], ["0 6 * * *", "1 day, 0:00:00"]);
    let arguments = ["dags", "trigger", "old", "--run-id", "r", "--logical-date", "2026-01-31T06:00:00Z", "--unpause"];
    test.run(&arguments).expect(0);
    let run = test.wait_run("old", "r");
    assert_eq!(
        run["state"],
        "success",
        "{run} {}",
        ["called", "shell", "own"].map(|task_id| test.task_log("old", task_id)).concat()
    );
    let value = |task_id: &str| -> Value { test.run(&["xcom", "get", "old", "r", task_id, "--json"]).expect(0).json() };
    assert_eq!(value("called"), json!(["2026-01-31", "2026-01-30", "20260201", "2026-01-31"]));
    assert_eq!(value("shell"), "2026-01-31 20260131");
    assert_eq!(value("own"), json!(["2026-02-01", "2026-01-31", "2026-01-31", "2026-01-31"]));
    // A run without a logical date has the time at which it may start.
    test.run(&["dags", "trigger", "old_default", "--run-id", "r", "--unpause"]).expect(0);
    let run = test.wait_run("old_default", "r");
    assert_eq!(run["state"], "success", "{run} {}", test.task_log("old_default", "called"));
    // The logical date of a scheduled run is the start of its interval, as in Airflow 2.
    let interval = "SELECT logical_date = data_interval_start AND data_interval_end > data_interval_start FROM dag_run \
                    WHERE dag_id = 'old' AND run_type = 'scheduled' LIMIT 1";
    wait_until("a scheduled run", Duration::from_secs(60), || test.sql(interval) == "t");
}

#[test]
fn the_small_package_translates_airflow_2() {
    let test = TestHome::new().with_packages();
    test.save("old/leoflow.yaml", "airflow_2: true\n");
    test.save("old/triggers_of_airflow_2.py", TRIGGER);
    test.save("old/dag.py", DAG);
    test.start();
    runs_a_file_for_airflow_2(&test);
}

#[test]
fn the_sdk_translates_airflow_2() {
    let test = TestHome::new().with_airflow();
    let text = std::fs::read_to_string(test.workspace().join("leoflow.yaml")).unwrap();
    test.save("old/leoflow.yaml", &format!("{text}airflow_2: true\n"));
    test.save("old/triggers_of_airflow_2.py", TRIGGER);
    test.save("old/dag.py", DAG);
    test.start();
    runs_a_file_for_airflow_2(&test);
}
