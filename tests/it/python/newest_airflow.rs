//! The newest Airflow that was tried: what it has and earlier versions have not.

use crate::support::http::socket_request;
use crate::support::{TestHome, airflow, wait_until};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn started() -> TestHome {
    let test = TestHome::new().with_newest_airflow();
    test.start();
    test
}

#[test]
fn every_message_and_timetable_of_the_sdk_is_known() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for version in [None, Some(airflow::newest_version())] {
        let output = Command::new(airflow::python(version))
            .arg(folder.join("tests/python/unanswered_messages.py"))
            .env("PYTHONPATH", folder.join("src/python/package"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        let unknown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && unknown.is_empty(), "{version:?}: {unknown}{output:?}");
    }
}

/// Adds an event of an asset.
fn update(test: &TestHome, asset: &str, extra: &str) {
    let id = test.sql(&format!("SELECT id FROM asset WHERE name = '{asset}'"));
    let body = json!({"asset_id": id.parse::<i64>().unwrap(), "extra": {"of": extra}}).to_string();
    let json = "Content-Type: application/json\r\n";
    assert_eq!(socket_request(&test.home, "POST", "/api/v2/assets/events", json, &body).status, 200);
}

#[test]
fn a_schedule_of_times_waits_for_its_assets() {
    let test = started();
    test.add_dag(
        "gated",
        "import datetime\nfrom airflow.sdk import DAG, Asset, AssetAndTimeSchedule, DeltaTriggerTimetable, task\n\
         with DAG('gated', start_date=datetime.datetime(2026, 1, 1), is_paused_upon_creation=False,\n          \
         schedule=AssetAndTimeSchedule(timetable=DeltaTriggerTimetable(datetime.timedelta(days=365)),\n                                        \
         assets=Asset('a') & Asset('b'))):\n    @task\n    def reads(triggering_asset_events=None):\n        \
         return sorted(event.extra['of'] for events in triggering_asset_events.values() for event in events)\n    reads()\n",
    );
    let runs = || test.sql("SELECT count(*), min(run_type) FROM dag_run WHERE dag_id = 'gated'");
    let is_due = "SELECT count(*) FROM dag WHERE dag_id = 'gated' AND next_run_after <= now()";
    wait_until("the run is due", SOON, || test.sql(is_due) == "1");
    update(&test, "a", "first");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(runs(), "0|");
    update(&test, "a", "second");
    update(&test, "b", "third");
    let state = || test.sql("SELECT state FROM dag_run WHERE dag_id = 'gated'");
    wait_until("the run", SOON, || state() == "success");
    assert_eq!(runs(), "1|scheduled");
    // Updates alone make no run before the next time.
    update(&test, "a", "fourth");
    update(&test, "b", "fifth");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(runs(), "1|scheduled");
    let read = test.sql("SELECT count(*) FROM dag_run_asset_event WHERE dag_id = 'gated'");
    assert_eq!(read, "3");
    let returned = "SELECT value::text FROM xcom WHERE dag_id = 'gated' AND key = 'return_value'";
    assert_eq!(test.sql(returned), r#"["first", "second", "third"]"#);
}

#[test]
fn each_asset_event_triggers_a_run_unless_they_are_batched() {
    let test = started();
    test.add_dag(
        "each",
        "from airflow.sdk import DAG, Asset, task\n\
         with DAG('each', schedule=Asset('a') | Asset('b'), is_paused_upon_creation=False, max_active_runs=1):\n    \
         @task\n    def reads(triggering_asset_events=None):\n        \
         return sorted(event.extra['of'] for events in triggering_asset_events.values() for event in events)\n    reads()\n",
    );
    test.add_dag(
        "batched",
        "from airflow.sdk import DAG, Asset, AssetTriggeredTimetable, task\n\
         with DAG('batched', schedule=Asset('a') & Asset('b'), is_paused_upon_creation=False):\n    \
         @task\n    def t(): pass\n    t()\n",
    );
    // While a DAG is paused, events do not wait for it.
    test.run(&["dags", "pause", "each"]).expect(0);
    update(&test, "a", "before");
    test.run(&["dags", "unpause", "each"]).expect(0);
    for (asset, extra) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")] {
        update(&test, asset, extra);
    }
    let ended = |dag_id: &str| {
        test.sql(&format!("SELECT count(*) FROM dag_run WHERE dag_id = '{dag_id}' AND state = 'success'"))
    };
    wait_until("a run of each event", SOON, || ended("each") == "4");
    let read =
        "SELECT string_agg(value::text, ' ' ORDER BY r.run_after) FROM xcom JOIN dag_run r USING (dag_id, run_id)
                WHERE dag_id = 'each' AND key = 'return_value'";
    assert_eq!(test.sql(read), r#"["1"] ["2"] ["3"] ["4"]"#);
    wait_until("a run of both assets", SOON, || ended("batched") == "1");
    assert_eq!(test.sql("SELECT count(*) FROM asset_queue WHERE dag_id = 'each'"), "0");
}

#[test]
fn a_retry_policy_reschedules_and_gives_reasons_and_a_task_notes_its_run() {
    let test = started();
    test.add_dag(
        "policies",
        "import datetime\nfrom airflow.sdk import DAG, task, get_current_context\n\
         from airflow.sdk.definitions.retry_policy import RetryAction, RetryDecision, RetryPolicy\n\
         class Waits(RetryPolicy):\n    def evaluate(self, exception, try_number, max_tries, context=None):\n        \
         return RetryDecision(RetryAction.RESCHEDULE, retry_delay=datetime.timedelta(seconds=0), max_reschedules=2, reason='not yet')\n\
         class GivesUp(RetryPolicy):\n    def evaluate(self, exception, try_number, max_tries, context=None):\n        \
         return RetryDecision(RetryAction.FAIL, reason='no use')\n\
         with DAG('policies'):\n    @task(retry_policy=Waits(), execution_timeout=datetime.timedelta(seconds=60))\n    \
         def waits(): raise ValueError('busy')\n    @task(retry_policy=GivesUp(), retries=3)\n    \
         def gives_up(): raise ValueError('broken')\n    @task\n    def notes(ti=None):\n        \
         ti.update_dagrun_note('from the task')\n    \
         waits(), gives_up(), notes()\n",
    );
    test.run_dag("policies");
    let outcome = |task: &str| {
        test.sql(&format!("SELECT try_number, reschedules, outcome FROM task_try WHERE task_id = '{task}'"))
    };
    assert_eq!(outcome("gives_up"), "1|0|ValueError: broken (retry policy: no use)");
    assert_eq!(
        outcome("waits"),
        "1|2|ValueError: busy (retry policy: Reschedule limit reached (max_reschedules=2): not yet)"
    );
    assert_eq!(test.sql("SELECT note FROM dag_run"), "from the task");
}

#[test]
fn what_this_release_does_not_know_is_refused_by_name_and_line() {
    let test = started();
    let looping = "from airflow.sdk import DAG, task, task_group\nwith DAG('looping'):\n    @task_group\n    \
                   def tries():\n        @task\n        def t(): pass\n        t()\n    tries.loop(max_iterations=40_000)\n";
    test.save("looping/dag.py", looping);
    let error = "SELECT stack_trace FROM import_error WHERE filename LIKE '%looping%'";
    wait_until("an import error", SOON, || !test.sql(error).is_empty());
    let text = test.sql(error);
    assert!(text.contains("looping/dag.py:4") && text.contains("max_iterations=40000 of the loop 'tries'"), "{text}");
}

/// Two documents; a task of the first refers to the result of another.
const YAML: &str = "$schema: https://airflow.apache.org/schemas/dag/2026-10-30.json
dag_id: in_yaml
schedule: '@daily'
start_date: 2026-01-01
catchup: false
tags: [yaml]
tasks:
  - id: hello
    uses: airflow.providers.standard.operators.bash.BashOperator
    with:
      bash_command: {$t: 'echo {{ run_id }}'}
  - id: after
    uses: airflow.providers.standard.operators.bash.BashOperator
    with:
      bash_command: 'echo after'
      env: {SAID: {$x: hello}}
---
$schema: https://airflow.apache.org/schemas/dag/2026-10-30.json
dag_id: also_in_yaml
tasks:
  - id: nothing
    uses: airflow.providers.standard.operators.empty.EmptyOperator
";

#[test]
fn dags_in_yaml_run_as_they_were_stored() {
    let test = started();
    test.save("project/flow.yaml", YAML);
    test.wait_imported("in_yaml");
    assert_eq!(test.run_dag("also_in_yaml")["state"], "success");
    let shown = test.run(&["dags", "show", "in_yaml", "--json"]).expect(0).json();
    assert!(shown["fileloc"].as_str().unwrap().ends_with("project/flow.yaml"), "{shown}");
    // A run keeps the text that it began with.
    test.run(&["dags", "trigger", "in_yaml", "--run-id", "one"]).expect(0);
    test.save("project/flow.yaml", &YAML.replace("echo after", "echo edited"));
    test.wait_dag("in_yaml", 2);
    test.run(&["dags", "unpause", "in_yaml"]).expect(0);
    assert_eq!(test.wait_run("in_yaml", "one")["state"], "success");
    let returned = "SELECT string_agg(value::text, ' ' ORDER BY task_id) FROM xcom WHERE dag_id = 'in_yaml' AND key = 'return_value'
        AND run_id = 'one'";
    assert_eq!(test.sql(returned), r#""after" "one""#);
    // An error of the file, and its end.
    test.save("project/flow.yaml", &YAML.replace("uses: airflow.providers.standard.operators.empty", "uses: nowhere"));
    let error = || test.sql("SELECT coalesce(max(stack_trace), '') FROM import_error");
    wait_until("the import error", SOON, || error().contains("also_in_yaml") && error().contains("nowhere"));
    test.save("project/flow.yaml", "dag_id: of another tool\n");
    wait_until("the file has no DAGs", SOON, || {
        error().is_empty() && test.sql("SELECT count(*) FROM dag WHERE is_active AND dag_id LIKE '%in_yaml'") == "0"
    });
}
