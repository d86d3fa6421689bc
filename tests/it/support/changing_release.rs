//! An instance whose release changes: under load, with a task that runs on.

use super::http::{self, Session};
use super::releases::Releases;
use super::{PATIENT, TestHome, wait_until};
use serde_json::json;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub fn started(all: &Releases) -> TestHome {
    let test = TestHome::of(all.program("0.1.0"));
    test.start();
    test
}

pub fn upgrade(test: &TestHome, all: &Releases, more: &[&str]) -> super::Done {
    let from = all.dist();
    test.run(&[&["upgrade", "--from", from.to_str().unwrap(), "--yes", "--json"], more].concat())
}

pub fn version(test: &TestHome) -> String {
    test.status()["version"].as_str().unwrap().to_owned()
}

pub fn variable(test: &TestHome, key: &str) -> Option<String> {
    let got = test.run(&["variables", "get", key, "--json"]);
    (got.code == Some(0)).then(|| got.json()["value"].as_str().unwrap().to_owned())
}

/// Requests from several clients until `end` is called; what was acknowledged is counted.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Loaded>>,
}

/// What came of it.
#[derive(Default)]
pub struct Loaded {
    pub written: Vec<String>,
    pub failed: Vec<String>,
}

impl Load {
    pub fn start(port: u16, token: &str) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |number: usize| {
            let (stop, sent, token) = (stop.clone(), sent.clone(), token.to_owned());
            thread::spawn(move || {
                let mut loaded = Loaded::default();
                let bearer = format!("Bearer {token}");
                let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let begun = Instant::now();
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
                                loaded.written.push(key);
                            }
                        }
                        other => loaded.failed.push(format!("{method} {path}: {other:?}")),
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(15).saturating_sub(begun.elapsed()));
                }
                loaded
            })
        };
        let clients = (0..3).map(client).collect();
        Self { stop, sent, clients }
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn end(self) -> Loaded {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Loaded::default();
        for client in self.clients {
            let one = client.join().unwrap();
            all.written.extend(one.written);
            all.failed.extend(one.failed);
        }
        all
    }
}

impl Loaded {
    #[track_caller]
    pub fn assert_nothing_lost(&self, test: &TestHome) {
        assert!(self.failed.is_empty(), "{} failed: {:?}", self.failed.len(), &self.failed[..self.failed.len().min(5)]);
        let kept = test.sql("SELECT count(*) FROM variable WHERE key LIKE 'load%'");
        assert_eq!(kept, self.written.len().to_string(), "acknowledged variables");
        assert!(!self.written.is_empty());
    }

    /// Every variable that was acknowledged is there; one that was written without an answer may be there too.
    #[track_caller]
    pub fn assert_kept(&self, test: &TestHome) {
        let there = test.sql("SELECT key FROM variable WHERE key LIKE 'load%'");
        let there: std::collections::HashSet<&str> = there.lines().collect();
        let lost: Vec<&String> = self.written.iter().filter(|key| !there.contains(key.as_str())).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

/// An instance with something in it, a task that runs, and a session.
pub fn populated(all: &Releases) -> (TestHome, Session, String) {
    let test = TestHome::of(all.program("0.1.0"));
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.run(&["variables", "set", "kept", "value"]).expect(0);
    test.run(&["connections", "add", "kept", "--conn-type", "http", "--conn-host", "h"]).expect(0);
    test.add_dag("patient", PATIENT);
    let run = test.trigger("patient");
    wait_until("the task runs", Duration::from_secs(30), || test.workspace().join("ran").exists());
    let session = Session::login(test.port, &password);
    (test, session, run)
}

/// The task that was running before has run once, and ends well.
#[track_caller]
pub fn assert_undisturbed(test: &TestHome, run: &str) {
    fs::write(test.workspace().join("go"), "").unwrap();
    let ended = test.wait_run("patient", run);
    assert_eq!(ended["state"], "success", "{ended}");
    assert_eq!(crate::support::task(&ended, "wait")["try_number"], 1);
    assert_eq!(fs::read_to_string(test.workspace().join("ran")).unwrap(), "x", "it ran once");
}
