//! An instance whose release changes under load while a task keeps running.

use super::http::{self, Session};
use super::releases::Releases;
use super::{TestHome, WAITING_DAG, wait_until};
use serde_json::json;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub fn started(releases: &Releases) -> TestHome {
    let test = TestHome::with_program(releases.program("0.1.0"));
    test.start();
    test
}

pub fn upgrade(test: &TestHome, releases: &Releases, more: &[&str]) -> super::CommandOutput {
    let from = releases.dist();
    test.run(&[&["upgrade", "--from", from.to_str().unwrap(), "--yes", "--json"], more].concat())
}

pub fn version(test: &TestHome) -> String {
    test.status()["version"].as_str().unwrap().to_owned()
}

pub fn variable(test: &TestHome, key: &str) -> Option<String> {
    let got = test.run(&["variables", "get", key, "--json"]);
    (got.code == Some(0)).then(|| got.json()["value"].as_str().unwrap().to_owned())
}

/// Sends requests from several clients until `end` is called and records which were acknowledged.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<LoadResult>>,
}

/// Keys of acknowledged variables, and the requests that failed.
#[derive(Default)]
pub struct LoadResult {
    pub acknowledged: Vec<String>,
    pub failed: Vec<String>,
}

impl Load {
    pub fn start(port: u16, token: &str) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |number: usize| {
            let (stop, sent, token) = (stop.clone(), sent.clone(), token.to_owned());
            thread::spawn(move || {
                let mut result = LoadResult::default();
                let bearer = format!("Bearer {token}");
                let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let started_at = Instant::now();
                    let key = format!("load_{number}_{round}");
                    let (method, path, body) = match round % 4 {
                        0 => ("POST", "/api/v2/variables", json!({"key": key, "value": "x"}).to_string()),
                        1 => ("GET", "/", String::new()),
                        2 => ("GET", "/api/v2/dags", String::new()),
                        _ => ("GET", "/api/healthz", String::new()),
                    };
                    match http::try_request(port, method, path, &headers, &body) {
                        Some(answer) if answer.status < 400 => {
                            if method == "POST" {
                                result.acknowledged.push(key);
                            }
                        }
                        other => result.failed.push(format!("{method} {path}: {other:?}")),
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(15).saturating_sub(started_at.elapsed()));
                }
                result
            })
        };
        let clients = (0..3).map(client).collect();
        Self { stop, sent, clients }
    }

    /// Returns the number of requests so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn end(self) -> LoadResult {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = LoadResult::default();
        for client in self.clients {
            let result = client.join().unwrap();
            total.acknowledged.extend(result.acknowledged);
            total.failed.extend(result.failed);
        }
        total
    }
}

impl LoadResult {
    /// Asserts that no request failed and that exactly the acknowledged variables exist.
    #[track_caller]
    pub fn assert_nothing_lost(&self, test: &TestHome) {
        assert!(self.failed.is_empty(), "{} failed: {:?}", self.failed.len(), &self.failed[..self.failed.len().min(5)]);
        let kept = test.sql("SELECT count(*) FROM variable WHERE key LIKE 'load%'");
        assert_eq!(kept, self.acknowledged.len().to_string(), "acknowledged variables");
        assert!(!self.acknowledged.is_empty());
    }

    /// Asserts that every acknowledged variable exists. A variable whose request failed may exist too.
    #[track_caller]
    pub fn assert_kept(&self, test: &TestHome) {
        let rows = test.sql("SELECT key FROM variable WHERE key LIKE 'load%'");
        let existing: std::collections::HashSet<&str> = rows.lines().collect();
        let lost: Vec<&String> = self.acknowledged.iter().filter(|key| !existing.contains(key.as_str())).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

/// Starts an instance with some data and a running task; returns it with a session and the id of the task's run.
pub fn populated(releases: &Releases) -> (TestHome, Session, String) {
    populate(TestHome::with_program(releases.program("0.1.0")))
}

/// The same for a home that was not started yet.
pub fn populate(test: TestHome) -> (TestHome, Session, String) {
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    test.run(&["connections", "add", "kept", "--conn-type", "http", "--conn-host", "h"]).expect(0);
    test.add_dag("patient", WAITING_DAG);
    let run = test.trigger("patient");
    wait_until("the task runs", Duration::from_secs(30), || test.workspace().join("ran").exists());
    let session = Session::login(test.port, &password);
    (test, session, run)
}

/// Lets the running task finish, and asserts that it ran once and succeeded.
#[track_caller]
pub fn assert_undisturbed(test: &TestHome, run: &str) {
    fs::write(test.workspace().join("go"), "").unwrap();
    let ended = test.wait_run("patient", run);
    assert_eq!(ended["state"], "success", "{ended}");
    assert_eq!(crate::support::task(&ended, "wait")["try_number"], 1);
    assert_eq!(fs::read_to_string(test.workspace().join("ran")).unwrap(), "x", "it ran once");
}
