//! Deferred tasks of the small package: no process and no slot until the trigger fires.

use crate::support::{TestHome, task, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const TRIGGERS: &str = r#"
import asyncio
from airflow.sdk import Variable
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

class Counts(BaseTrigger):
    def __init__(self, to):
        super().__init__()
        self.to = to
    def serialize(self):
        return "project_triggers.Counts", {"to": self.to}
    async def run(self):
        self.log.info("counting to %s for %s", self.to, self.task_instance.task_id)
        for number in range(self.to):
            await asyncio.sleep(0.01)
        yield TriggerEvent({"counted": (self.to, Variable.get("greeting"))})

class Fails(Counts):
    def serialize(self):
        return "project_triggers.Fails", {"to": self.to}
    async def run(self):
        raise ValueError("as expected")
        yield

class Ends(Counts):
    def serialize(self):
        return "project_triggers.Ends", {"to": self.to}
    async def run(self):
        yield TaskSuccessEvent(xcoms={"said": self.to})
"#;

const DAG: &str = r#"
import datetime
from airflow.exceptions import TaskDeferred
from airflow.providers.standard.triggers.file import FileTrigger
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator
from airflow.triggers.base import StartTriggerArgs
from project_triggers import Counts, Ends, Fails

class Pokes(BaseSensorOperator):
    def execute(self, context):
        self.defer(trigger=FileTrigger("/nowhere/at/all"), method_name="poke", timeout=0.2)
    def poke(self, context, event=None):
        return True

class Waits(BaseOperator):
    def __init__(self, make, timeout=None, **more):
        super().__init__(**more)
        self.make, self.timeout = make, timeout
    def execute(self, context):
        self.defer(trigger=self.make(), method_name="after", kwargs={"given": datetime.date(2026, 1, 2)}, timeout=self.timeout)
    def after(self, context, given, event=None):
        return [given.isoformat(), type(event).__name__, str(event), context["ti"].try_number]

class Starts(BaseOperator):
    start_from_trigger = True
    start_trigger_args = StartTriggerArgs("project_triggers.Counts", "go_on", {"to": 2})
    def execute(self, context):
        raise RuntimeError("the task begins with its trigger")
    def go_on(self, context, event=None):
        return event["counted"][0]

with DAG("defers"):
    Starts(task_id="starts")
    Waits(task_id="counts", make=lambda: Counts(3))
    Waits(task_id="fails", make=lambda: Fails(1), retries=1, retry_delay=0.1)
    Waits(task_id="ends", make=lambda: Ends(5))
    Waits(task_id="soon", make=lambda: TimeDeltaTrigger(datetime.timedelta(seconds=0.2)))
    Waits(task_id="late", make=lambda: FileTrigger("/nowhere/at/all"), timeout=datetime.timedelta(seconds=0.5))
    Pokes(task_id="soft", soft_fail=True)
    Pokes(task_id="hard", retries=3, retry_delay=0.1)
    Waits(task_id="file", make=lambda: FileTrigger("SIGN", poke_interval=0.1))
"#;

fn state(test: &TestHome, task_id: &str) -> String {
    test.sql(&format!("SELECT state FROM task_instance WHERE task_id = '{task_id}'"))
}

#[test]
fn tasks_of_the_small_package_defer() {
    let test = TestHome::started();
    test.run(&["variables", "set", "greeting", "hello"]).expect(0);
    test.save("project_triggers.py", TRIGGERS);
    let sign = test.workspace().join("sign");
    test.add_dag("defers", &DAG.replace("SIGN", sign.to_str().unwrap()));
    let run_id = test.trigger("defers");
    wait_until("all but one task have finished", LIMIT, || {
        test.sql("SELECT count(*) FROM task_instance WHERE state IN ('success', 'failed', 'skipped')") == "8"
    });
    wait_until("the last task is deferred", LIMIT, || state(&test, "file") == "deferred");
    assert_eq!(test.sql("SELECT count(*) FROM task_try WHERE state = 'running'"), "0", "no process waits");
    for name in ["agent", "server"] {
        test.kill_and_wait(name);
    }
    assert_eq!(state(&test, "file"), "deferred");
    std::fs::write(&sign, "").unwrap();
    let run = test.wait_run("defers", &run_id);
    let value = |task_id: &str, key: &str| -> Value {
        let query = format!("SELECT value FROM xcom WHERE task_id = '{task_id}' AND key = '{key}'");
        serde_json::from_str(&test.sql(&query)).unwrap()
    };
    let counted = json!(["2026-01-02", "dict", "{'counted': (3, 'hello')}", 1]);
    assert_eq!(value("counts", "return_value"), counted);
    assert_eq!(value("soon", "return_value")[3], 1);
    assert_eq!(value("starts", "return_value"), 2);
    assert_eq!(value("file", "return_value")[2], "True");
    assert_eq!((value("ends", "said"), state(&test, "ends")), (json!(5), "success".to_owned()));
    assert_eq!((state(&test, "fails"), &task(&run, "fails")["try_number"]), ("failed".to_owned(), &json!(2)));
    // A deferred sensor times out like any sensor.
    assert_eq!((state(&test, "soft"), state(&test, "hard")), ("skipped".to_owned(), "failed".to_owned()));
    assert_eq!(test.sql("SELECT count(*) FROM task_try WHERE task_id = 'hard'"), "1");
    assert!(test.sql("SELECT outcome FROM task_try WHERE task_id = 'late'").starts_with("TaskDeferralTimeout: "));
    assert!(test.task_log("defers", "counts").contains("Counts: counting to 3 for counts"));
    let failed = test.task_log("defers", "fails");
    assert!(
        failed.contains("ValueError: as expected") && failed.contains("TaskDeferralError: Trigger failure"),
        "{failed}"
    );
    // `tasks test` defers too.
    let tested = test.run(&["tasks", "test", "defers", "soon"]).expect(0);
    assert!(
        tested.stderr.contains("deferred: airflow.providers.standard.triggers.temporal.DateTimeTrigger"),
        "{}",
        tested.stderr
    );
}

#[test]
fn a_deferred_task_keeps_its_slot_with_include_deferred() {
    let test = TestHome::started();
    test.run(&["pools", "set", "single", "1", "one at a time", "--include-deferred"]).expect(0);
    let go = test.folder().join("go");
    let holds = r#"
from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import DAG, BaseOperator

class Holds(BaseOperator):
    def execute(self, context):
        self.defer(trigger=FileTrigger(filepath="GO", poke_interval=0.1), method_name="after")
    def after(self, context, event=None):
        return "done"

with DAG("holds"):
    for name in ("left", "right"):
        Holds(task_id=name, pool="single")
"#;
    test.add_dag("holds", &holds.replace("GO", go.to_str().unwrap()));
    let run_id = test.trigger("holds");
    wait_until("a task is deferred", LIMIT, || {
        test.sql("SELECT count(*) FROM task_instance WHERE state = 'deferred'") != "0"
    });
    // Only the transaction that defers the first task could queue the second, so this check does not race.
    assert_eq!(test.sql("SELECT string_agg(state, ' ' ORDER BY state) FROM task_instance"), "deferred scheduled");
    let slots = || {
        let shown = test.run(&["pools", "get", "single", "--json"]).expect(0).json();
        ["occupied_slots", "deferred_slots", "open_slots"].map(|name| shown["pools"][0][name].as_i64().unwrap())
    };
    assert_eq!(slots(), [1, 1, 0]);
    // Without the option a deferred task frees its slot.
    test.run(&["pools", "set", "single", "1", "one at a time"]).expect(0);
    wait_until("both tasks are deferred", LIMIT, || {
        test.sql("SELECT count(*) FROM task_instance WHERE state = 'deferred'") == "2"
    });
    assert_eq!(slots(), [0, 2, 1]);
    std::fs::write(&go, "").unwrap();
    assert_eq!(test.wait_run("holds", &run_id)["state"], "success");
}
