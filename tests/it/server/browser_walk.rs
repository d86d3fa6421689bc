//! Visits the pages of Airflow's web UI in a real browser; skipped when no browser is installed.

use crate::support::TestHome;
use crate::support::airflow::newest_version;
use crate::support::clients::Clients;
use crate::support::{cache_lock, shared_cache, wait_until};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const WALK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/walk-ui.mjs");
const BROWSERS: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

#[test]
fn no_request_of_the_web_ui_fails() {
    walk(|clients| clients.wheel, leoflow::web_ui::version(), "");
}

#[test]
fn no_request_of_the_newest_web_ui_fails() {
    walk(|clients| clients.newest_wheel, newest_version(), "web_ui: 3.4\n");
}

/// Walks through the UI of a version in a wheel, which `settings` in `config.yaml` choose.
fn walk(wheel: impl Fn(Clients) -> PathBuf, version: &str, settings: &str) {
    let has_browser = BROWSERS.iter().any(|path| Path::new(path).exists());
    let has_npm = Command::new("npm").arg("--version").output().is_ok_and(|output| output.status.success());
    let Some(clients) = Clients::get().filter(|_| has_browser && has_npm) else {
        println!("skipped: Chromium, npm or the package index is missing");
        return;
    };
    // Two browsers at once are too slow for the waits of the walk.
    let _lock = cache_lock("lock-browser");
    let test = TestHome::new();
    let dag = Command::new("node").args([WALK, "--dag"]).output().unwrap();
    assert!(dag.status.success(), "{dag:?}");
    std::fs::create_dir_all(test.workspace()).unwrap();
    std::fs::write(test.workspace().join("walked.py"), dag.stdout).unwrap();
    let port = test.port.to_string();
    let start = |ui: &Path| {
        let mut start = test.command(&["lite", "start", "--port", &port, "--json"]);
        let output = start.env("LEOFLOW_UI", ui).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let wheel = wheel(clients);
    let started = if settings.is_empty() {
        start(&wheel)
    } else {
        let first = start(Path::new("none"));
        test.run(&["lite", "stop"]).expect(0);
        let config = test.home.join("config.yaml");
        std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + settings).unwrap();
        start(&wheel);
        first
    };
    test.wait_dag("walked", 1);
    test.wait_dag("walked_daily", 1);
    // A debug build unpacks and compresses the UI slowly, in the background.
    let ui = test.home.join("ui").join(version);
    wait_until("the web UI", Duration::from_secs(120), || ui.is_dir());
    for dag_id in ["walked", "walked_daily"] {
        test.run(&["dags", "unpause", dag_id]).expect(0);
    }
    // npm installs the browser driver into HOME; all test runs share this folder.
    let mut walk = Command::new("node");
    walk.args([WALK, &format!("http://127.0.0.1:{port}"), started["admin_password"].as_str().unwrap()]);
    let output =
        walk.env("HOME", shared_cache().join("browser")).env("TMPDIR", test.folder().join("tmp")).output().unwrap();
    if output.status.code() == Some(3) {
        println!("skipped: npm cannot install the browser driver");
        return;
    }
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("0 problems in "), "{text}");
}
