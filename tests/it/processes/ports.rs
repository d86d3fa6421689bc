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
    // The port of the first setup is saved.
    second.run(&["lite", "stop"]).expect(0);
    assert_eq!(
        second.run(&["lite", "start", "--json"]).expect(0).json()["url"],
        format!("http://127.0.0.1:{}", second.port)
    );
}
