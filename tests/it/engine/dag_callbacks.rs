//! Callbacks of DAGs: what they can read, and how their failures and their output are shown. Tested with Leoflow's small
//! package and with Airflow's SDK.

use crate::support::http::{Api, Session};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const DAG: &str = r#"
import logging
import os
import time
from airflow.sdk import DAG, Asset, BaseNotifier, Variable, task

def write(name, *values):
    with open(os.path.join(os.path.dirname(__file__), name), "a") as file:
        print(*values, sep="|", file=file)

class Note(BaseNotifier):
    template_fields = ("message",)
    def __init__(self, message):
        super().__init__()
        self.message = message
    def notify(self, context):
        write("notes", self.message)

note = Note(message="{{ run_id }}|{{ ti.task_id }}|{{ reason }}|{{ ti.xcom_pull(task_ids='fine') }}")

def reads(context):
    is_manual = context["run_id"] == "bad"
    previous = is_manual and context["prev_start_date_success"] is not None
    Variable.set("seen", "by a callback")
    write("reads", context["run_id"].split("__")[0], context["ti"].xcom_pull(task_ids="fine"), previous,
          len(context["triggering_asset_events"]), Variable.get("seen"))
    print("a callback printed", Variable.get("api_token"))
    logging.getLogger("alerts").info("a callback logged")

def writes(context):
    context["ti"].xcom_push("key", "value")

orders = Asset("orders")

with DAG("alerts", schedule=[orders], on_success_callback=note, on_failure_callback=[writes, note, reads]):
    @task
    def fine():
        return "value of fine"
    @task
    def breaks(run_id):
        if run_id != "good":
            raise ValueError("on purpose")
    fine() >> breaks()

with DAG("producer"):
    @task(outlets=[orders])
    def makes():
        pass
    makes()

def names_instance(context):
    write("late", context["ti"].task_id, context["reason"])

with DAG("late", on_failure_callback=names_instance):
    @task
    def quick():
        pass
    @task
    def slow():
        while True:
            time.sleep(1)
    @task
    def never():
        pass
    quick()
    slow() >> never()
"#;

fn assert_callbacks_read_and_report(test: &TestHome) {
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let api = Api(Session::login(test.port, &password));
    test.save("project/dag.py", DAG);
    test.wait_imported("late");
    test.run(&["variables", "set", "api_token", "s3cret-word"]).expect(0);
    let written = |name: &str| fs::read_to_string(test.workspace().join("project").join(name)).unwrap_or_default();
    let expect = |name: &str, lines: &str| wait_until(lines, LIMIT, || written(name) == lines);

    let trigger = ["dags", "trigger", "alerts", "--unpause", "--run-id"];
    for (run_id, date) in [("good", "2024-01-01"), ("bad", "2024-01-02")] {
        test.run(&[&trigger[..], &[run_id, "--logical-date", date]].concat()).expect(0);
        test.wait_run("alerts", run_id);
    }
    let notes = "good|breaks|success|value of fine\nbad|breaks|task_failure|value of fine\n";
    expect("notes", notes);
    let manual = "bad|value of fine|True|0|by a callback\n";
    expect("reads", manual);

    let show = ["runs", "show", "alerts", "bad"];
    let failures = || test.run(&[&show[..], &["--json"]].concat()).expect(0).json()["callback_failures"].clone();
    wait_until("the failure is recorded", LIMIT, || failures() != json!([]));
    assert_eq!((&failures()[0]["callback"], &failures()[1]), (&json!("writes"), &Value::Null), "{}", failures());
    let error = failures()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("Only a task can do this"), "{error}");
    assert_eq!(test.sql("SELECT count(*) FROM xcom WHERE key = 'key'"), "0");
    let shown = test.run(&show).expect(0);
    assert!(shown.stderr.contains("the callback writes failed: "), "{}", shown.stderr);
    let logs = api.get("eventLogs?dag_id=alerts&run_id=bad&event=callback_failed");
    assert_eq!(logs["total_entries"], 1, "{logs}");
    assert!(logs["event_logs"][0]["extra"].as_str().unwrap().contains("leoflow lite logs server"), "{logs}");
    let page = api.0.request("GET", "/lite/", "").body;
    assert!(page.contains("Callbacks or e-mails failed in the last 24 hours, the last one of alerts."), "{page}");
    let log = test.run(&["lite", "logs", "server", "--lines", "1000"]).expect(0).stdout;
    assert!(log.contains("a callback printed ***") && log.contains("a callback logged"), "{log}");
    assert!(log.contains("the callback of alerts for bad: Traceback"), "{log}");
    // Failures before a run was cleared are no longer those of the run.
    test.sql("UPDATE dag_run SET queued_at = now() WHERE run_id = 'bad'");
    assert_eq!(failures(), json!([]));

    test.run(&["dags", "trigger", "producer", "--unpause", "--wait"]).expect(0);
    expect("reads", &format!("{manual}asset_triggered|value of fine|False|1|by a callback\n"));

    test.run(&["dags", "trigger", "late", "--unpause", "--run-id", "late"]).expect(0);
    let states = "SELECT count(*) FROM task_instance
        WHERE dag_id = 'late' AND (task_id, state) IN (('quick', 'success'), ('slow', 'running'))";
    wait_until("only the slow task runs", LIMIT, || test.sql(states) == "2");
    test.sql("UPDATE dag_run SET deadline_at = now() WHERE dag_id = 'late'");
    test.plan_again();
    expect("late", "slow|timed_out\n");
}

#[test]
fn callbacks_of_dags_read_their_run_and_failures_are_seen() {
    assert_callbacks_read_and_report(&TestHome::new().with_packages());
}

#[test]
fn callbacks_of_dags_with_airflows_own_sdk() {
    assert_callbacks_read_and_report(&TestHome::new().with_airflow());
}

const KILLED_DAG: &str = r#"
import os
from datetime import timedelta
from airflow.sdk import DAG, BaseOperator, task

def write(name, context):
    ti = context["ti"]
    micros = round((ti.end_date - ti.start_date).total_seconds() * 1e6)
    values = [name, ti.task_id, ti.map_index, ti.try_number, context["task"].own, micros, context["exception"]]
    with open(os.path.join(os.path.dirname(__file__), "calls"), "a") as file:
        print(*values, sep="|", file=file)

def failed(context):
    write("failed", context)

def retried(context):
    write("retried", context)

class Dies(BaseOperator):
    def __init__(self, own=None, **options):
        super().__init__(**options)
        self.own = own
    def execute(self, context=None):
        os.kill(os.getpid(), 9)

def dies(context):
    os.kill(os.getpid(), 9)

with DAG("killed"):
    Dies(task_id="dies", retries=1, retry_delay=timedelta(0), email="ops@example.com",
         on_failure_callback=failed, on_retry_callback=retried)
    Dies.partial(task_id="mapped", on_failure_callback=failed).expand_kwargs([{"own": "a"}, {"email": "m@example.com"}])
    @task(on_failure_callback=dies)
    def breaks():
        raise ValueError("on purpose")
    breaks()
    Dies(task_id="quiet", email="nobody@example.com", email_on_failure=False)

with DAG("silent"):
    Dies(task_id="quiet", email="nobody@example.com", email_on_failure=False, email_on_retry=False)
    Dies.partial(task_id="mapped").expand(own=["a", "b"])
"#;

const MAIL: &str = r#"
import os

def send(to, subject, body, **options):
    with open(os.path.join(os.path.dirname(__file__), "mails"), "a") as file:
        print(",".join([to] if isinstance(to, str) else to), "dies" in subject, "killed by SIGKILL" in body, file=file)
    if os.path.exists(os.path.join(os.path.dirname(__file__), "refuse")):
        raise RuntimeError("the mail server refused it")
"#;

fn assert_killed_tries_call_back(test: &TestHome) {
    test.start();
    test.save("project/mail.py", MAIL);
    test.save("project/.env", "AIRFLOW__EMAIL__EMAIL_BACKEND=mail.send\n");
    test.save("project/dag.py", KILLED_DAG);
    test.wait_imported("silent");
    let calls_back = "SELECT dag_id FROM dag_version WHERE structure ? 'task_failure_callbacks'";
    assert_eq!(test.sql(calls_back), "killed");
    let written = |name: &str| fs::read_to_string(test.workspace().join("project").join(name)).unwrap_or_default();
    let trigger = |run_id: &str| {
        test.run(&["dags", "trigger", "killed", "--unpause", "--run-id", run_id]).expect(0);
        test.wait_run("killed", run_id);
    };
    trigger("sent");
    let sorted = |name: &str| written(name).lines().map(str::to_owned).collect::<BTreeSet<_>>();
    wait_until("all callbacks and e-mails", LIMIT, || {
        sorted("calls").len() == 4 && written("mails").lines().count() == 3
    });
    let expected = test.sql(
        "SELECT concat_ws('|', CASE WHEN ti.try_number = t.try_number THEN 'failed' ELSE 'retried' END, task_id, map_index,
                          t.try_number, CASE WHEN task_id || map_index = 'mapped0' THEN 'a' ELSE 'None' END,
                          (extract(epoch FROM t.end_date - coalesce(t.first_start_date, t.start_date)) * 1000000)::bigint, t.outcome)
         FROM task_try t JOIN task_instance ti USING (dag_id, run_id, task_id, map_index)
         WHERE task_id IN ('dies', 'mapped')",
    );
    assert_eq!(sorted("calls"), expected.lines().map(str::to_owned).collect());
    assert!(expected.contains("the task's process was killed by SIGKILL"), "{expected}");
    assert_eq!(sorted("mails"), ["m@example.com False True", "ops@example.com True True"].map(str::to_owned).into());

    test.save("project/refuse", "");
    trigger("refused");
    let show = || test.run(&["runs", "show", "killed", "refused"]).expect(0).stderr;
    for line in [
        "email of dies, try 1: RuntimeError: the mail server refused it (leoflow lite logs server)",
        "email of dies, try 2: ",
        "email of mapped[1], try 1: ",
        "the callbacks of breaks, try 1 failed: the task's process was killed before its callbacks and its e-mail had ended \
         (leoflow tasks logs killed refused breaks --try 1)",
    ] {
        wait_until(line, LIMIT, || show().contains(line));
    }
    let events = "SELECT DISTINCT task_id || map_index FROM event_log WHERE event = 'callback_failed' ORDER BY 1";
    assert_eq!(test.sql(events), "breaks-1\ndies-1\nmapped1");
}

#[test]
fn a_killed_try_calls_back_and_sends_its_email() {
    assert_killed_tries_call_back(&TestHome::new());
}

#[test]
fn a_killed_try_calls_back_with_airflows_own_sdk() {
    assert_killed_tries_call_back(&TestHome::new().with_airflow());
}
