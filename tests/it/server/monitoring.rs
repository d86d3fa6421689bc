//! Metrics and probes for monitoring systems.

use crate::support::http::{Response, get, socket_request, try_request};
use crate::support::{TestHome, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::Duration;

fn metrics(port: u16, headers: &[(&str, &str)]) -> Response {
    try_request(port, "GET", "/metrics", headers, "").unwrap()
}

/// The value of a metric with these labels, as they are written.
fn value(text: &str, metric: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse().ok())
}

fn add_failing_dag(test: &TestHome) {
    let text =
        "from airflow.sdk import DAG, task\nwith DAG('failing'):\n    @task\n    def t(): raise ValueError\n    t()\n";
    test.add_dag("failing", text);
}

#[test]
fn metrics_count_runs_and_describe_the_instance() {
    let test = TestHome::started();
    let hello = test.run_dag("hello");
    assert_eq!(hello["state"], "success");
    add_failing_dag(&test);
    test.run_dag("failing");
    let answer = metrics(test.port, &[]);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = answer.body;
    let is = |metric: &str, expected: f64| assert_eq!(value(&text, metric), Some(expected), "{metric} in {text}");
    is("airflow_dagrun_duration_success_count{dag_id=\"hello\"}", 1.0);
    is("airflow_dagrun_duration_failed_count{dag_id=\"failing\"}", 1.0);
    is("airflow_ti_finish_total{dag_id=\"failing\",state=\"failed\"}", 1.0);
    is("airflow_pool_open_slots{pool_name=\"default_pool\"}", 128.0);
    is("airflow_dagbag_size", 2.0);
    is("airflow_scheduler_heartbeat", 1.0);
    is("airflow_executor_open_slots", 32.0);
    is("leoflow_healthy", 1.0);
    is("leoflow_datastore_up", 1.0);
    is("leoflow_last_backup_timestamp_seconds", 0.0);
    assert!(value(&text, "leoflow_process_memory_bytes{process=\"server\"}").unwrap() > 1e6, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn metrics_need_a_token_unless_this_user_asks_directly() {
    let test = TestHome::started();
    // What a proxy forwards.
    assert_eq!(metrics(test.port, &[("X-Forwarded-For", "192.0.2.1")]).status, 401);
    let token = test.run(&["tokens", "create", "prometheus", "--read-only", "--json"]).expect(0).json();
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    assert_eq!(metrics(test.port, &[("X-Forwarded-For", "192.0.2.1"), ("Authorization", &bearer)]).status, 200);
    assert_eq!(socket_request(&test.home, "GET", "/metrics", "", "").status, 200);
}

/// Sends a signal to PostgreSQL and to each of its processes.
fn send_to_datastore(postmaster: i32, signal: Signal) {
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.filter(|pid| *pid == postmaster || parent(*pid) == Some(postmaster)) {
        // A backend may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

#[test]
fn a_frozen_datastore_leaves_a_live_server_that_is_not_ready() {
    let test = TestHome::started();
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(test.port, path).status, 200, "{path}");
    }
    let postgres = test.pid("postgres");
    send_to_datastore(postgres, Signal::SIGSTOP);
    let (live, ready) = (get(test.port, "/livez").status, get(test.port, "/readyz").status);
    let metrics = metrics(test.port, &[]);
    send_to_datastore(postgres, Signal::SIGCONT);
    assert_eq!((live, ready), (200, 503));
    // A frozen datastore is itself a number to watch.
    assert_eq!(value(&metrics.body, "leoflow_datastore_up"), Some(0.0), "{metrics:?}");
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let test = TestHome::started();
    test.run_dag("hello");
    add_failing_dag(&test);
    test.run_dag("failing");
    let once = "from datetime import datetime\nfrom airflow.sdk import DAG, task\nwith DAG('once', schedule='@once', \
                start_date=datetime(2020, 1, 1), is_paused_upon_creation=False):\n    @task\n    def t(): pass\n    t()\n";
    test.add_dag("once", once);
    let has_delay = || metrics(test.port, &[]).body.contains("airflow_dagrun_schedule_delay_count{dag_id=\"once\"} 1");
    wait_until("a scheduled run", Duration::from_secs(30), has_delay);
    let names: Vec<String> = metrics(test.port, &[]).body.lines().map(str::to_owned).collect();
    let dashboard = fs::read_to_string("install/grafana-dashboard.json").unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let words = |text: &str| {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        text.split(|letter| !is_part(letter)).map(str::to_owned).collect::<Vec<_>>()
    };
    let used = targets.flat_map(|target| words(target["expr"].as_str().unwrap()));
    let used: Vec<String> = used.filter(|word| word.starts_with("airflow_") || word.starts_with("leoflow_")).collect();
    assert!(used.len() > 15, "{used:?}");
    let is_known = |word: &str| names.iter().any(|line| line.split(['{', ' ']).any(|part| part == word));
    let declared = |word: &str| word.replace("_count", "").replace("_sum", "").replace("_bucket", "");
    for word in used {
        assert!(is_known(&word) || is_known(&declared(&word)), "{word} is not in {names:?}");
    }
}
