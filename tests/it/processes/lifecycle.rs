//! Start, stop, restart, logs and psql of an instance.

use crate::support::http::{self, Session};
use crate::support::processes::{is_alive, signal};
use crate::support::{TestHome, newest, wait_until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

#[test]
fn foreground_start_prints_the_login_and_ctrl_c_stops_cleanly() {
    let test = TestHome::new();
    let mut child = test.foreground();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut printed = String::new();
    while !printed.contains("password") {
        printed.push_str(&lines.next().expect("the password").unwrap());
        printed.push('\n');
    }
    assert!(
        printed.contains(&format!("http://127.0.0.1:{}", test.port)) && printed.contains("admin@leoflow.local"),
        "{printed}"
    );
    signal(child.id() as i32, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(test.home.join("logs/postgres.log")).unwrap();
    assert!(log.contains("database system is shut down"), "no clean shutdown: {log}");
    test.assert_nothing_runs();
    assert_eq!(test.state(), "stopped");
}

#[test]
fn sigterm_and_sighup_stop_lite_and_nohup_is_honoured() {
    let test = TestHome::new();
    // The process that runs the tests may ignore SIGHUP, which children inherit.
    let default_sighup =
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])";
    for name in ["TERM", "HUP"] {
        let mut child = foreground_through(&test, &["python3", "-c", default_sighup]);
        test.wait_healthy();
        signal(child.id() as i32, name);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
    }
    let mut child = foreground_through(&test, &["nohup"]);
    test.wait_healthy();
    signal(child.id() as i32, "HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(test.state(), "healthy");
    test.run(&["lite", "stop"]).expect(0);
    child.wait().unwrap();
}

/// Starts `lite` through a wrapper program.
fn foreground_through(test: &TestHome, wrapper: &[&str]) -> Child {
    let leoflow = test.command(&["lite", "--port", &test.port.to_string()]);
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(leoflow.get_program()).args(leoflow.get_args()).env_clear();
    command.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(test.folder());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_second_ctrl_c_stops_at_once_and_the_next_start_recovers() {
    let test = TestHome::new().with_limit("LEOFLOW_DRAIN_LIMIT", "600");
    let mut child = test.foreground();
    test.wait_healthy();
    // The first stop waits for this request, which never ends.
    let mut slow = std::net::TcpStream::connect(("127.0.0.1", test.port)).unwrap();
    std::io::Write::write_all(
        &mut slow,
        b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    signal(child.id() as i32, "INT");
    wait_until("the stop has begun", Duration::from_secs(20), || test.state() != "healthy");
    signal(child.id() as i32, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130), "the second Ctrl-C does not wait for open requests");
    test.assert_nothing_runs();
    test.start();
}

#[test]
fn a_second_start_is_a_no_op_and_a_second_lite_is_refused() {
    let test = TestHome::started();
    let again = test.run(&["lite", "start"]).expect(0);
    assert!(again.stdout.contains("already running"), "{}", again.stdout);
    let refused = test.run(&["lite"]).expect(1);
    let pid = test.pid("supervisor").to_string();
    assert!(refused.stderr.contains(&pid) && refused.stderr.contains(&test.port.to_string()), "{}", refused.stderr);
    assert_eq!(test.state(), "healthy");
}

#[test]
fn restart_keeps_sessions_and_data_detached_or_not() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    test.run(&["variables", "set", "a", "1"]).expect(0);
    let before = test.pid("supervisor");
    test.run(&["lite", "restart"]).expect(0);
    assert_ne!(test.pid("supervisor"), before);
    assert_eq!(session.request("GET", "/api/v2/variables/a", "").json()["value"], "1");
    test.run(&["lite", "stop"]).expect(0);

    let mut child = test.foreground();
    test.wait_healthy();
    let (supervisor, server) = (test.pid("supervisor"), test.pid("server"));
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(test.pid("supervisor"), supervisor, "a foreground supervisor keeps its pid");
    assert_ne!(test.pid("server"), server);
    // The supervisor starts both processes as /proc/self/exe, but `ps` shows their names.
    for (process, name) in [("server", "leoflow-server"), ("agent", "leoflow-agent")] {
        let shown = std::fs::read_to_string(format!("/proc/{}/comm", test.pid(process))).unwrap();
        assert_eq!(shown.trim(), name);
    }
    assert_eq!(session.request("GET", "/api/v2/variables/a", "").status, 200);
    signal(child.id() as i32, "TERM");
    child.wait().unwrap();
}

#[test]
fn requests_wait_while_the_server_is_replaced() {
    let test = TestHome::started();
    let port = test.port;
    // Dropped after the last replacement, or when the test fails.
    let (replacing, is_over) = channel::<()>();
    let requests = std::thread::spawn(move || {
        let mut statuses = Vec::new();
        while is_over.try_recv() == Err(TryRecvError::Empty) || statuses.len() <= 20 {
            statuses.push(http::try_request(port, "GET", "/api/v2/version", &[], "").map(|response| response.status));
        }
        statuses
    });
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        let old = test.pid("server");
        // A client that was held up before it sent its request.
        let mut slow = TcpStream::connect(("127.0.0.1", port)).unwrap();
        signal(old, "TERM");
        wait_until("the next server runs", Duration::from_secs(30), || {
            test.running_pid("server").is_some_and(|pid| pid != old)
        });
        slow.write_all(b"GET /api/v2/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        slow.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }
    drop(replacing);
    let statuses = requests.join().unwrap();
    let failed = statuses.iter().filter(|status| **status != Some(200)).count();
    assert!(statuses.len() > 20 && failed == 0, "{failed} of {} requests failed", statuses.len());
}

#[test]
fn logs_are_shown_and_followed() {
    let test = TestHome::new();
    test.first_start();
    let all = test.run(&["lite", "logs", "-n", "1000"]).expect(0).stdout;
    assert!(all.contains("postgres   | ") && all.contains("applied: V0001"), "{all}");
    let of_migrate = test.run(&["lite", "logs", "migrate"]).expect(0).stdout;
    assert!(of_migrate.lines().all(|line| line.contains(" INFO  migrate: applied: ")), "{of_migrate}");
    let mut follow =
        test.command(&["lite", "logs", "-f", "-n", "1", "supervisor"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    lines.next().expect("the last line").unwrap();
    signal(test.pid("agent"), "KILL");
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("agent") && line.contains("SIGKILL"), "{line}");
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn psql_works_running_and_stopped_and_cleans_up_after_itself() {
    let test = TestHome::started();
    assert_eq!(test.sql("SELECT current_user"), "leoflow");
    assert_eq!(test.sql("SHOW fsync"), "on");
    assert_eq!(test.sql("SHOW listen_addresses"), "");
    assert_eq!(test.sql("SHOW data_checksums"), "on");
    test.run(&["lite", "stop"]).expect(0);
    assert_eq!(test.sql("SELECT count(*) FROM leoflow_ledger"), newest().to_string());
    assert_ne!(test.run(&["lite", "psql", "--", "-c", "SELECT 1/0"]).code, Some(0));
    test.assert_nothing_runs();
    // `PG*` variables of the environment do not reach psql.
    let done: crate::support::CommandOutput = test
        .command(&["lite", "psql", "--", "-X", "-A", "-t", "-c", "SELECT 5"])
        .env("PGHOST", "nowhere.invalid")
        .env("PGOPTIONS", "-c x=y")
        .output()
        .unwrap()
        .into();
    assert_eq!(done.expect(0).stdout.trim(), "5");
}

#[test]
fn a_failed_start_shows_the_last_log_lines() {
    let test = TestHome::started();
    test.run(&["lite", "stop"]).expect(0);
    let control = test.home.join("managed-postgres/data/global/pg_control");
    let good = std::fs::read(&control).unwrap();
    std::fs::write(&control, &good[..100]).unwrap();
    let done = test.run(&["lite", "start"]).expect(1);
    assert!(done.stderr.contains("postgres failed to start") && done.stderr.contains("pg_control"), "{}", done.stderr);
    assert!(done.stderr.contains("leoflow lite logs postgres") && !done.stderr.contains("Stopping"), "{}", done.stderr);
    test.assert_nothing_runs();
    std::fs::write(&control, good).unwrap();
    test.start();
}

#[test]
fn closed_standard_streams_do_not_crash_setup() {
    let test = TestHome::new();
    let leoflow = test.command(&["setup"]);
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"])
        .arg(leoflow.get_program())
        .args(leoflow.get_args())
        .env_clear();
    shell.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(shell.status().unwrap().code(), Some(0));
    test.start();
}

#[test]
fn lite_start_closes_the_pipes_of_its_caller() {
    let test = TestHome::new();
    let port = test.port.to_string();
    let mut child = test
        .command(&["lite", "start", "--port", &port])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    // Both pipes reach end of file although the instance keeps running.
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success(), "{stderr}");
    assert!(is_alive(test.pid("supervisor")));
}
