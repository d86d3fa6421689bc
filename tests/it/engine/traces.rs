//! Traces and metrics for a collector of OpenTelemetry.

use crate::support::receiver::{Received, Receiver};
use crate::support::{TestHome, wait_until};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const DAG: &str = "from datetime import timedelta\nfrom airflow.sdk import DAG, task\n\
    with DAG('traced'):\n    @task(retries=1, retry_delay=timedelta(seconds=0))\n    def second(ti=None):\n        \
    if ti.try_number == 1: raise ValueError('once')\n    @task\n    def first(x): pass\n    \
    first.expand(x=[1, 2]) >> second()\n";

fn collected(receiver: &Receiver, path: &str) -> Vec<Received> {
    receiver.all().into_iter().filter(|received| received.head.starts_with(&format!("POST {path} "))).collect()
}

/// The spans from the server.
fn spans(receiver: &Receiver) -> Vec<Value> {
    let requests = collected(receiver, "/v1/traces");
    let own = requests.iter().filter(|request| request.header("content-type") == Some("application/json"));
    own.flat_map(|request| request.json()["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone())
        .collect()
}

fn text<'a>(span: &'a Value, key: &str) -> &'a str {
    span[key].as_str().unwrap_or_default()
}

/// Starts an instance whose workspace sends to a collector.
fn start(test: &TestHome, receiver: &Receiver) {
    let port = receiver.port;
    let variables = format!(
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{port}\nOTEL_EXPORTER_OTLP_HEADERS=x-team=data\n\
         OTEL_METRIC_EXPORT_INTERVAL=300\n"
    );
    test.save(".env", &variables);
    test.start();
}

#[test]
fn a_run_is_one_trace_with_a_span_for_each_try() {
    let (receiver, test) = (Receiver::new(0), TestHome::new());
    start(&test, &receiver);
    test.add_dag("traced", DAG);
    let run = test.run_dag("traced");
    wait_until("the spans", SOON, || spans(&receiver).len() == 5);
    let all = spans(&receiver);
    let names: HashMap<String, &Value> =
        all.iter().map(|span| (format!("{} {}", text(span, "name"), span["status"]["code"]), span)).collect();
    let root = names["dag_run.traced 1"];
    for name in ["task_run.first[0] 1", "task_run.first[1] 1", "task_run.second 2", "task_run.second 1"] {
        assert_eq!(names[name]["traceId"], root["traceId"], "{name}");
        assert_eq!(names[name]["parentSpanId"], root["spanId"], "{name}");
    }
    assert_eq!(text(&names["task_run.second 2"]["status"], "message"), "ValueError: once");
    let request = &collected(&receiver, "/v1/traces")[0];
    assert_eq!(request.header("x-team"), Some("data"));
    // Clearing begins another trace, of what runs again.
    let run_id = run["dag_run_id"].as_str().unwrap();
    test.run(&["tasks", "clear", "traced", run_id, "second", "--yes"]).expect(0);
    wait_until("the spans of the second trace", SOON, || spans(&receiver).len() == 7);
    let again = &spans(&receiver)[5..];
    assert_ne!(again[0]["traceId"], root["traceId"]);
    assert_eq!(text(&again[1], "name"), "task_run.second");
    wait_until("metrics that count the run", SOON, || {
        let requests = collected(&receiver, "/v1/metrics");
        let last = requests.last().map(Received::json).unwrap_or_default();
        let metrics = last["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().cloned().unwrap_or_default();
        let count = metrics.iter().find(|metric| metric["name"] == "airflow.dagrun.duration.success");
        count.is_some_and(|metric| metric["histogram"]["dataPoints"][0]["count"] == "2")
    });
}

#[test]
fn spans_of_a_task_belong_to_its_try() {
    let (receiver, test) = (Receiver::new(0), TestHome::new().with_airflow());
    start(&test, &receiver);
    test.add_dag("traced", DAG);
    test.run_dag("traced");
    wait_until("the spans", SOON, || spans(&receiver).len() == 5);
    // Airflow's SDK sends protobuf, which holds ids as their bytes.
    let from_tasks: Vec<u8> = collected(&receiver, "/v1/traces")
        .into_iter()
        .filter(|request| request.header("content-type") == Some("application/x-protobuf"))
        .flat_map(|request| request.body)
        .collect();
    let has = |bytes: &[u8]| from_tasks.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"worker.first[1]") && has(b"worker.second"));
    for span in spans(&receiver).iter().filter(|span| text(span, "name").starts_with("task_run.")) {
        assert!(has(&hex::decode(text(span, "spanId")).unwrap()), "{span}");
        assert!(has(&hex::decode(text(span, "traceId")).unwrap()), "{span}");
    }
}

#[test]
fn a_collector_that_refuses_holds_up_nothing() {
    let (receiver, test) = (Receiver::new(usize::MAX), TestHome::new());
    start(&test, &receiver);
    test.add_dag("traced", DAG);
    assert_eq!(test.run_dag("traced")["state"], "success");
    let log = || std::fs::read_to_string(test.home.join("logs/server.log")).unwrap_or_default();
    wait_until("a warning", SOON, || log().contains("gets no telemetry: it answered 500"));
}
