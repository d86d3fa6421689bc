//! Starts while another process uses the port.

use crate::support::TestHome;
use std::net::TcpListener;

#[test]
fn a_port_in_use_names_the_process_and_changes_nothing() {
    let test = TestHome::new();
    let _listener = TcpListener::bind(("127.0.0.1", test.port)).unwrap();
    let port = test.port.to_string();
    let done = test.run(&["lite", "start", "--port", &port]).expect(1);
    assert!(done.stderr.contains(&format!("pid {}", std::process::id())), "{}", done.stderr);
    assert!(done.stderr.contains("--port"), "{}", done.stderr);
    assert!(!test.home.exists(), "nothing was created");
    test.assert_nothing_runs();
}

#[test]
fn a_port_used_by_another_instance_is_reported() {
    let first = TestHome::started();
    let second = TestHome::new();
    let used_port = first.port.to_string();
    let done = second.run(&["lite", "start", "--port", &used_port]).expect(1);
    let expected = format!("is in use by Leoflow in {}, pid {}", first.home.display(), first.pid("supervisor"));
    assert!(done.stderr.contains(&expected), "{}", done.stderr);
    second.start();
    assert_eq!(first.state(), "healthy");
    assert_eq!(second.state(), "healthy");
}

#[test]
fn the_port_of_the_first_start_is_saved() {
    let (test, other) = (TestHome::new(), TestHome::new());
    let configured = || test.run(&["config", "get", "port"]).expect(0).stdout.trim().to_owned();
    test.run(&["setup", "--port", &other.port.to_string()]).expect(0);
    test.run(&["lite", "start", "--port", &test.port.to_string()]).expect(0);
    assert_eq!(configured(), test.port.to_string());
    test.run(&["lite", "stop"]).expect(0);
    // A later start uses its port for that run only.
    test.run(&["lite", "start", "--port", &other.port.to_string()]).expect(0);
    assert_eq!(configured(), test.port.to_string());
    test.run(&["lite", "stop"]).expect(0);
    let started = test.run(&["lite", "start", "--json"]).expect(0).json();
    assert_eq!(started["url"], format!("http://127.0.0.1:{}", test.port));
}
