//! The port is somebody else's.

use crate::support::TestHome;
use std::net::TcpListener;

#[test]
fn a_port_taken_by_a_stranger_names_the_process_and_the_flag_and_changes_nothing() {
    let test = TestHome::new();
    let _stranger = TcpListener::bind(("127.0.0.1", test.port)).unwrap();
    let port = test.port.to_string();
    let done = test.run(&["lite", "start", "--port", &port]).expect(1);
    assert!(done.stderr.contains(&format!("pid {}", std::process::id())), "{}", done.stderr);
    assert!(done.stderr.contains("--port"), "{}", done.stderr);
    assert!(!test.home.exists(), "nothing was made");
    test.assert_nothing_runs();
}

#[test]
fn a_port_taken_by_another_leoflow_is_told_and_another_port_works() {
    let one = TestHome::started();
    let two = TestHome::new();
    let taken = one.port.to_string();
    let done = two.run(&["lite", "start", "--port", &taken]).expect(1);
    assert!(done.stderr.contains("leoflow"), "{}", done.stderr);
    two.start();
    assert_eq!(one.state(), "healthy");
    assert_eq!(two.state(), "healthy");
    // The port of the first setup is remembered.
    two.run(&["lite", "stop"]).expect(0);
    assert_eq!(two.run(&["lite", "start", "--json"]).expect(0).json()["url"], format!("http://127.0.0.1:{}", two.port));
}
