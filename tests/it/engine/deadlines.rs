//! Deadlines of runs, with Airflow's SDK: when a run has one, when its callback is called and what the UI shows of it.

use crate::support::http::socket_request;
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const DAG: &str = r#"
import logging
import os
import time
from datetime import datetime, timedelta, timezone
from airflow.sdk import DAG, BaseNotifier, Variable, task
from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference, SyncCallback

HERE = os.path.dirname(__file__)
log = logging.getLogger(__name__)

def write(name, *values):
    with open(os.path.join(HERE, name), "a") as file:
        print(*values, sep="|", file=file)

async def notify(context, where):
    log.warning("late: %s %s", context["dag_run"]["dag_run_id"], Variable.get("api_token"))
    passed = datetime.now(timezone.utc) - context["deadline"]["deadline_time"]
    write("calls", "notify", context["dag_run"]["dag_run_id"], context["dag_run"]["state"], where, passed.total_seconds() >= 0)

class Note(BaseNotifier):
    template_fields = ("message",)
    def __init__(self, message, **options):
        super().__init__(**options)
        self.message = message
    def notify(self, context):
        write("calls", "note", self.message)
    async def async_notify(self, context):
        write("calls", "async note", self.message)

def without_context(where):
    write("calls", "plain", where)

def breaks(**context):
    raise ValueError("on purpose")

def hangs(context):
    write("hangs", "begun")
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.05)
    write("hangs", "ended")

def wait():
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.05)

def alert(callback, reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=timedelta(0)):
    return DeadlineAlert(reference=reference, interval=interval, callback=callback)

HOUR = timedelta(hours=1)
MESSAGE = {"message": "{{ dag_run.dag_id }} {{ dag_run.run_type }}"}

with DAG("late", deadline=[
    alert(AsyncCallback(notify, kwargs={"where": "ops"})), alert(SyncCallback(Note, kwargs=MESSAGE)),
    alert(AsyncCallback(Note, kwargs=MESSAGE)), alert(SyncCallback(without_context, kwargs={"where": "ops"})),
    alert(SyncCallback(breaks)),
]):
    task(task_id="waits")(wait)()

@task
def ends(params=None):
    if params["fails"]:
        raise ValueError("on purpose")

with DAG("soon", params={"fails": False}, deadline=alert(SyncCallback(without_context, kwargs={"where": "soon"}), interval=HOUR)):
    ends()

with DAG("dated", schedule="@daily", start_date=datetime(2026, 1, 1), end_date=datetime(2026, 1, 9), catchup=False, deadline=[
    alert(SyncCallback(breaks), DeadlineReference.DAGRUN_LOGICAL_DATE, HOUR),
    alert(SyncCallback(breaks), DeadlineReference.FIXED_DATETIME(datetime(2199, 1, 1, tzinfo=timezone.utc)), -HOUR),
    alert(SyncCallback(breaks), DeadlineReference.AVERAGE_RUNTIME(max_runs=2, min_runs=1), HOUR),
]):
    task(task_id="waits")(wait)()

with DAG("hung", deadline=alert(SyncCallback(hangs))):
    task(task_id="ends")(wait)()
"#;

const LATE: &str = "SELECT string_agg(state, ',' ORDER BY alert) FROM deadline WHERE dag_id = 'late'";

#[test]
fn a_run_that_misses_a_deadline_calls_back_and_shows_it() {
    let test = started();
    test.run(&["variables", "set", "api_token", "s3cret-word"]).expect(0);
    test.run(&["dags", "trigger", "late", "--unpause", "--run-id", "one"]).expect(0);
    wait_until("all callbacks have ended", LIMIT, || test.sql(LATE) == "success,success,success,success,failed");
    let calls = fs::read_to_string(test.workspace().join("project/calls")).unwrap();
    let expected = "notify|one|running|ops|True\nnote|late manual\nasync note|late manual\nplain|ops\n";
    assert_eq!(calls, expected);

    let listed = get(&test, "/ui/dags/late/dagRuns/one/deadlines?order_by=callback_state");
    assert_eq!(listed["total_entries"], 5, "{listed}");
    let failed = &listed["deadlines"][0];
    assert_eq!((&failed["callback_state"], &failed["missed"]), (&json!("failed"), &json!(true)), "{failed}");
    assert!(failed["callback_path"].as_str().unwrap().ends_with(".breaks"), "{failed}");
    assert_eq!(get(&test, "/ui/dags/~/dagRuns/~/deadlines?missed=false")["total_entries"], 0);
    assert_eq!(
        get(&test, "/ui/dags/~/dagRuns/~/deadlines?missed=true&limit=2")["deadlines"].as_array().unwrap().len(),
        2
    );
    let log = |deadline: &Value| {
        let id = deadline["callback_id"].as_str().unwrap();
        get(&test, &format!("/ui/dags/late/dagRuns/one/callbacks/{id}/logs")).to_string()
    };
    assert!(log(failed).contains("ValueError: on purpose"), "{}", log(failed));
    let oldest = get(&test, "/ui/dags/late/dagRuns/one/deadlines?order_by=id");
    let first = log(&oldest["deadlines"][0]);
    assert!(first.contains("late: one ***") && !first.contains("s3cret"), "{first}");
    let alerts = get(&test, "/ui/dags/late/deadlineAlerts");
    assert_eq!(alerts["total_entries"], 5, "{alerts}");
    assert_eq!(alerts["deadline_alerts"][0]["id"], oldest["deadlines"][0]["alert_id"]);
    assert_eq!(alerts["deadline_alerts"][0]["reference_type"], "DagRunQueuedAtDeadline");
    let counted = get(&test, "/ui/calendar/late/deadlines?granularity=hourly");
    assert_eq!((&counted["deadlines"][0]["missed"], &counted["deadlines"][0]["count"]), (&json!(true), &json!(5)));
    assert_eq!(get(&test, "/ui/grid/runs/late")[0]["has_missed_deadline"], true);
    let failures = test.run(&["runs", "show", "late", "one", "--json"]).expect(0).json()["callback_failures"].clone();
    assert!(failures[0]["callback"].as_str().unwrap().ends_with(".breaks") && failures[1].is_null(), "{failures}");

    // A run that ends late keeps its deadlines; a cleared one is not late again.
    test.save("project/go", "");
    assert_eq!(test.wait_run("late", "one")["state"], "success");
    test.run(&["tasks", "clear", "late", "one", "waits", "--yes"]).expect(0);
    test.wait_run("late", "one");
    assert_eq!(test.sql(LATE), "success,success,success,success,failed");
    test.run(&["runs", "delete", "late", "one", "--yes"]).expect(0);
    assert_eq!(test.sql("SELECT count(*) FROM deadline"), "0");
}

#[test]
fn a_failed_run_keeps_its_deadlines_and_a_success_does_not() {
    let test = started();
    let trigger = |run_id: &str, conf: &str| {
        test.run(&["dags", "trigger", "soon", "--unpause", "--run-id", run_id, "--conf", conf]).expect(0);
        test.wait_run("soon", run_id);
    };
    let left = || test.sql("SELECT string_agg(run_id || ' ' || state, ', ' ORDER BY run_id) FROM deadline");
    trigger("good", "{}");
    trigger("bad", r#"{"fails": true}"#);
    trigger("marked", r#"{"fails": true}"#);
    assert_eq!(left(), "bad scheduled, marked scheduled");
    // A clear moves the deadlines that count from the queueing, also that of a running run.
    let is_moved = |run_id: &str, since: &str| {
        test.sql(&format!("SELECT due_at - interval '1 hour' > {since} FROM deadline WHERE run_id = '{run_id}'")) == "t"
    };
    let before = test.sql("SELECT quote_literal(now()) || '::timestamptz'");
    test.run(&["tasks", "clear", "soon", "bad", "ends", "--yes"]).expect(0);
    test.wait_run("soon", "bad");
    assert!(is_moved("bad", &before));
    let running = "UPDATE dag_run SET state = 'running', end_date = NULL WHERE run_id = 'bad'";
    let before = test.sql(&format!("{running}; SELECT quote_literal(now()) || '::timestamptz'"));
    test.run(&["tasks", "clear", "soon", "bad", "ends", "--yes"]).expect(0);
    test.wait_run("soon", "bad");
    assert!(is_moved("bad", &before));
    let mark = r#"{"state": "success"}"#;
    let header = "Content-Type: application/json\r\n";
    let marked = socket_request(&test.home, "PATCH", "/api/v2/dags/soon/dagRuns/marked", header, mark);
    assert_eq!(marked.status, 200, "{marked:?}");
    assert_eq!(left(), "bad scheduled");
    // A clean-up keeps a run whose alert has not been sent.
    test.sql("UPDATE dag_run SET end_date = now() - interval '90 days', run_after = run_after - interval '90 days'");
    trigger("newest", "{}");
    let yesterday = test.sql("SELECT (now() - interval '1 day')::date");
    let clean = ["db", "clean", "--before", &yesterday, "--tables", "dag_run", "--yes"];
    test.run(&clean).expect(0);
    let runs = || test.sql("SELECT string_agg(run_id, ' ' ORDER BY run_id) FROM dag_run");
    assert_eq!(runs(), "bad newest");
    test.sql("UPDATE deadline SET due_at = now()");
    test.plan_again();
    wait_until("the alert of the failed run", LIMIT, || left() == "bad success");
    assert_eq!(fs::read_to_string(test.workspace().join("project/calls")).unwrap(), "plain|soon\n");
    test.run(&clean).expect(0);
    assert_eq!(runs(), "newest");
}

#[test]
fn deadlines_count_from_dates_and_averages() {
    let test = started();
    let due = |run_id: &str| {
        test.sql(&format!(
            "SELECT string_agg(alert || ' ' || CASE alert WHEN 3 THEN round(extract(epoch FROM due_at - queued_at) / 60)::text
                ELSE to_char(due_at, 'YYYY-MM-DD HH24') END, ', ' ORDER BY alert)
             FROM deadline JOIN dag_run USING (dag_id, run_id) WHERE run_id LIKE '{run_id}%'"
        ))
    };
    let trigger = |run_id: &str, more: &[&str]| {
        test.run(&[&["dags", "trigger", "dated", "--unpause", "--run-id", run_id], more].concat()).expect(0);
    };
    trigger("first", &[]);
    assert_eq!(due("first"), "2 2198-12-31 23");
    let log = test.run(&["lite", "logs", "server", "--lines", "1000"]).expect(0).stdout;
    assert!(log.contains("1 run of dated got no deadline by its alert 1: a run that was triggered without"), "{log}");
    assert!(log.contains("1 run of dated got no deadline by its alert 3: too few runs"), "{log}");
    test.save("project/go", "");
    test.wait_run("dated", "first");
    test.sql("UPDATE dag_run SET start_date = end_date - interval '30 minutes'");
    fs::remove_file(test.workspace().join("project/go")).unwrap();
    trigger("second", &["--logical-date", "2190-01-01"]);
    assert_eq!(due("second"), "1 2190-01-01 01, 2 2198-12-31 23, 3 90");
    test.run(&["backfill", "create", "dated", "--from-date", "2026-01-02", "--to-date", "2026-01-03"]).expect(0);
    assert_eq!(due("backfill__2026-01-03"), "1 2026-01-03 01, 2 2198-12-31 23, 3 90");
}

const VARIABLE: &str = r#"
from airflow.sdk import DAG, DeadlineAlert, DeadlineReference, SyncCallback, task
from airflow.sdk.definitions.deadline import VariableInterval

ALERT = DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, VariableInterval("seconds"), SyncCallback("builtins.print"), name="own")
with DAG("variable", deadline=ALERT):
    task(task_id="ends")(lambda: None)()
"#;

#[test]
fn an_interval_may_be_that_of_a_variable() {
    let test = TestHome::new().with_newest_airflow();
    test.start();
    test.add_dag("variable", VARIABLE);
    test.run_dag("variable");
    let log = test.run(&["lite", "logs", "server", "--lines", "1000"]).expect(0).stdout;
    assert!(log.contains(r#"by its alert "own": the Variable seconds is not a whole number of seconds"#), "{log}");
    // The file is parsed again when a Variable that it reads changes.
    test.run(&["variables", "set", "seconds", "7200"]).expect(0);
    test.wait_dag("variable", 2);
    test.sql("UPDATE dag SET is_paused = true WHERE dag_id = 'variable'");
    test.run(&["dags", "trigger", "variable", "--run-id", "second"]).expect(0);
    let due = "SELECT due_at - queued_at FROM deadline JOIN dag_run USING (dag_id, run_id) WHERE run_id = 'second'";
    assert_eq!(test.sql(due), "02:00:00");
    let alert = get(&test, "/ui/dags/variable/deadlineAlerts")["deadline_alerts"][0].clone();
    assert_eq!((&alert["name"], &alert["interval"]), (&json!("own"), &Value::Null));
}

#[test]
fn a_killed_server_calls_unended_callbacks_again() {
    let test = started();
    test.run(&["dags", "trigger", "hung", "--unpause", "--run-id", "one"]).expect(0);
    let hangs = || fs::read_to_string(test.workspace().join("project/hangs")).unwrap_or_default();
    wait_until("the callback runs", LIMIT, || hangs() == "begun\n");
    assert_eq!(test.sql("SELECT state FROM deadline"), "running");
    test.kill_and_wait("server");
    wait_until("the callback runs again", LIMIT, || hangs() == "begun\nbegun\n");
    test.save("project/go", "");
    wait_until("it has ended", LIMIT, || test.sql("SELECT state FROM deadline") == "success");
    assert_eq!(hangs(), "begun\nbegun\nended\n");
}

#[test]
fn custom_deadline_references_are_refused() {
    let test = TestHome::new().with_newest_airflow();
    test.start();
    test.save("custom.py", CUSTOM);
    wait_until("the import error", LIMIT, || {
        let errors = get(&test, "/api/v2/importErrors")["import_errors"].to_string();
        errors.contains("the custom deadline reference Noon of DAG 'custom'") && errors.contains("custom.py:11")
    });
}

const CUSTOM: &str = r#"
from datetime import timedelta
from airflow.sdk import DAG, DeadlineAlert, SyncCallback, task
from airflow.sdk.definitions.deadline import BaseDeadlineReference

class Noon(BaseDeadlineReference):
    def _evaluate_with(self, *, session, dagrun):
        return dagrun.logical_date.replace(hour=12)

ALERT = DeadlineAlert(reference=Noon(), interval=timedelta(0), callback=SyncCallback("builtins.print"))
with DAG("custom", deadline=ALERT):
    task(task_id="ends")(lambda: None)()
"#;

fn started() -> TestHome {
    let test = TestHome::new().with_airflow();
    test.start();
    test.save("project/dag.py", DAG);
    test.wait_imported("hung");
    test
}

fn get(test: &TestHome, path: &str) -> Value {
    let answer = socket_request(&test.home, "GET", path, "", "");
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}
