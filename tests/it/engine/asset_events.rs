//! Every event of an asset starts a run, or is part of one, exactly once.

use crate::support::http::socket_request;
use crate::support::{TestHome, task, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const DAGS: &str = "
from airflow.sdk import DAG, Asset, task

single, mapped = Asset('single'), Asset('mapped')

@task
def consume(triggering_asset_events=None):
    import time, os
    while not os.path.exists('GO'):
        time.sleep(0.02)
    return sum(len(events) for events in triggering_asset_events.values())

with DAG('one_at_a_time', schedule=[single], max_active_runs=1, is_paused_upon_creation=False):
    consume()
with DAG('of_mapped', schedule=[mapped], is_paused_upon_creation=False):
    consume()
with DAG('maps', is_paused_upon_creation=False):
    @task(outlets=[mapped])
    def make(n):
        pass
    make.expand(n=list(range(20)))
";

/// A run that waits for `max_active_runs` takes all events up to its start, and mapped tasks that end together lose
/// none: apache/airflow#56050 and #54659.
#[test]
fn events_during_a_run_and_of_mapped_tasks_are_consumed_once() {
    let test = TestHome::started();
    let go = test.folder().join("go");
    test.save("dags.py", &DAGS.replace("GO", go.to_str().unwrap()));
    test.wait_dag("maps", 1);
    let asset = test.sql("SELECT id FROM asset WHERE name = 'single'");
    let add_event = |number: i32| {
        let body = format!("{{\"asset_id\": {asset}, \"extra\": {{\"number\": {number}}}}}");
        let answer =
            socket_request(&test.home, "POST", "/api/v2/assets/events", "Content-Type: application/json\r\n", &body);
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    add_event(1);
    let running = "SELECT count(*) FROM dag_run WHERE dag_id = 'one_at_a_time' AND state = 'running'";
    wait_until("the first event's run", SOON, || test.sql(running) == "1");
    for number in 2..=4 {
        add_event(number);
    }
    test.run(&["dags", "trigger", "maps", "--wait"]).expect(0);
    std::fs::write(&go, "").unwrap();
    let consumed = |dag_id: &str| {
        test.sql(&format!("SELECT coalesce(sum((value #>> '{{}}')::int), 0) FROM xcom WHERE dag_id = '{dag_id}'"))
    };
    wait_until("all events", SOON, || consumed("one_at_a_time") == "4" && consumed("of_mapped") == "20");
    let unfinished = "SELECT count(*) FROM dag_run WHERE state IN ('queued', 'running')";
    wait_until("no further run", SOON, || test.sql(unfinished) == "0");
    assert_eq!((consumed("one_at_a_time"), consumed("of_mapped")), ("4".to_owned(), "20".to_owned()));
}

const CONFLICTING: &str = "
from airflow.sdk import DAG, Asset, task

with DAG('older'):
    @task(outlets=[Asset('orders', uri='s3://a/orders')])
    def writes(): ...
    writes()
with DAG('newer', schedule=[Asset('orders', uri='s3://a/orders')]):
    @task(inlets=[Asset('orders', uri='s3://b/orders')])
    def reads(): ...
    @task(outlets=[Asset('sales', uri='s3://a/orders')])
    def writes(): ...
    reads()
    writes()
";

/// As in Airflow, of two assets with one name or URI the older is active, and a task of the other fails.
fn assert_tasks_of_inactive_assets_fail(test: &TestHome) {
    test.start();
    test.save("conflicting.py", CONFLICTING);
    test.wait_dag("newer", 1);
    test.run(&["dags", "trigger", "older", "--wait"]).expect(0);
    test.run(&["dags", "unpause", "newer"]).expect(0);
    let run_id = test.trigger("newer");
    let run = test.wait_run("newer", &run_id);
    for (task_id, asset) in [("reads", "s3://b/orders"), ("writes", "sales")] {
        assert_eq!(task(&run, task_id)["state"], "failed", "{run}");
        let reason =
            test.sql(&format!("SELECT outcome FROM task_try WHERE dag_id = 'newer' AND task_id = '{task_id}' LIMIT 1"));
        assert!(reason.contains("inactive assets in its inlets or outlets") && reason.contains(asset), "{reason}");
    }
    let warnings = socket_request(&test.home, "GET", "/api/v2/dagWarnings?order_by=message", "", "").json();
    let messages: Vec<_> = warnings["dag_warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| warning["message"].as_str().unwrap())
        .collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(
        messages[0].contains("s3://b/orders") && messages[0].contains("name is already associated to 's3://a/orders'")
    );
    assert!(messages[1].contains("sales") && messages[1].contains("uri is already associated to 'orders'"));
}

#[test]
fn tasks_of_inactive_assets_fail_with_the_small_package() {
    assert_tasks_of_inactive_assets_fail(&TestHome::new());
}

#[test]
fn tasks_of_inactive_assets_fail_with_airflows_sdk() {
    assert_tasks_of_inactive_assets_fail(&TestHome::new().with_airflow());
}
