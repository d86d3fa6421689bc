//! Errors of the system while tasks begin, run and end: nothing is lost, nothing runs twice, what passes is waited for.

use crate::support::processes::signal;
use crate::support::{Done, PATIENT, TestHome, task, wait_until};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn reason(test: &TestHome) -> String {
    test.status()["reason"].as_str().unwrap_or_default().to_owned()
}

/// The folder of the one try that runs.
fn task_folder(test: &TestHome) -> PathBuf {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(test.home.join("run/tasks")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders.remove(0)
}

#[test]
fn an_outcome_that_cannot_be_read_is_read_again_and_the_task_runs_once() {
    let test = TestHome::started();
    test.add_dag("patient", &PATIENT.replace("@task", "@task(retries=2, retry_delay=0)"));
    let run = test.trigger("patient");
    let ran = || std::fs::read_to_string(test.workspace().join("ran")).unwrap_or_default();
    wait_until("it runs", SOON, || ran() == "x");
    // A folder in the place of the file fails for every user, as a disk does that answers with EIO.
    let result = task_folder(&test).join("result.json");
    std::fs::create_dir(&result).unwrap();
    signal(test.pid("agent"), "STOP");
    std::fs::write(test.workspace().join("go"), "").unwrap();
    wait_until("its keeper has written the outcome", SOON, || task_folder(&test).join("outcome.json").is_file());
    signal(test.pid("agent"), "CONT");
    wait_until("status says what cannot be read", SOON, || reason(&test).contains("cannot be read"));
    assert_eq!(test.sql("SELECT state FROM task_instance"), "running");
    std::fs::remove_dir(&result).unwrap();
    std::fs::write(&result, r#"{"state": "success", "xcoms": {"return_value": "\"done\""}}"#).unwrap();
    assert_eq!(test.wait_run("patient", &run)["state"], "success");
    assert_eq!((ran().as_str(), test.sql("SELECT count(*) FROM task_try").as_str()), ("x", "1"));
    wait_until("all is well again", SOON, || test.state() == "healthy");
}

fn limit_files(pid: i32, most: &str) {
    let done = Command::new("prlimit").args([&format!("--pid={pid}"), &format!("--nofile={most}")]).status();
    assert!(done.unwrap().success());
}

#[test]
fn a_task_that_cannot_start_for_now_waits_in_the_queue() {
    let test = TestHome::started();
    test.add_dag(
        "late",
        "from airflow.sdk import DAG, task\nwith DAG('late'):\n    @task\n    def t(): return 1\n    t()\n",
    );
    let agent = test.pid("agent");
    limit_files(agent, "3:4096");
    let run = test.trigger("late");
    wait_until("status says why nothing starts", SOON, || reason(&test).contains("Too many open files"));
    assert_eq!(test.state(), "degraded");
    assert_eq!(test.sql("SELECT state || ' ' || try_number FROM task_instance"), "queued 1");
    assert_eq!(test.sql("SELECT count(*) FROM task_try"), "0");
    limit_files(agent, "1024:4096");
    let run = test.wait_run("late", &run);
    assert_eq!((task(&run, "t")["state"].as_str(), task(&run, "t")["try_number"].as_i64()), (Some("success"), Some(1)));
    wait_until("all is well again", SOON, || test.state() == "healthy");
}

/// `lite start` where these system calls fail.
fn start_without(test: &TestHome, error: &str, numbers: &str) -> std::process::Output {
    let plain = test.command(&["lite", "start", "--port", &test.port.to_string()]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/deny_system_calls.py");
    let mut command = Command::new("python3");
    command.args([script, error, numbers]).arg(plain.get_program()).args(plain.get_args()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().unwrap()
}

#[test]
fn tasks_run_where_pidfd_open_and_newer_calls_are_refused() {
    for error in ["EPERM", "ENOSYS"] {
        let test = TestHome::new();
        let started = start_without(&test, error, "434,436,437,439");
        assert!(started.status.success(), "{error}: {}", String::from_utf8_lossy(&started.stderr));
        let run = test.run_dag("hello");
        assert_eq!(run["state"], "success", "{error}");
    }
}

#[test]
fn a_machine_that_runs_no_task_is_not_started_and_the_reason_is_given() {
    let test = TestHome::new();
    let mut start = test.command(&["lite", "start", "--port", &test.port.to_string()]);
    let started = start.env("LEOFLOW_FAIL_AT", "agent.probe").output().unwrap();
    assert!(!started.status.success());
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(said.contains("does not run tasks") && said.contains("agent.probe"), "{said}");
    test.start();
    assert_eq!(test.run_dag("hello")["state"], "success");
}

/// A command where the shell's `ulimit` has set these limits.
fn limited(test: &TestHome, limits: &str, arguments: &[&str]) -> Done {
    let inner = test.command(arguments);
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("ulimit {limits}; exec \"$@\""), "bash"]).arg(inner.get_program());
    shell.args(inner.get_args()).env_clear();
    shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.output().unwrap().into()
}

#[test]
fn a_file_past_the_size_limit_is_an_error_of_the_command() {
    let test = TestHome::started();
    let big = format!("of={}", test.workspace().join("big").display());
    let made = Command::new("dd").args(["if=/dev/urandom", "bs=1M", "count=12", "status=none", &big]).status();
    assert!(made.unwrap().success());
    let output = test.folder().join("b.tar.zst");
    let done = limited(&test, "-f 8192", &["lite", "backup", "--output", output.to_str().unwrap()]).expect(1);
    assert!(done.stderr.contains("File too large") && done.stderr.contains("ulimit -f"), "{done:?}");
    assert!(!output.exists());
    let names: Vec<_> = std::fs::read_dir(test.folder()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("tmp-")), "{names:?}");
}

#[test]
fn a_first_start_past_the_size_limit_names_it() {
    let test = TestHome::new().with_real_initdb();
    let done = limited(&test, "-f 2048", &["lite", "start", "--port", &test.port.to_string()]).expect(1);
    assert!(done.stderr.contains("ulimit -f"), "{done:?}");
    test.start();
}

#[test]
fn used_up_processor_time_is_an_error_with_a_message() {
    let test = TestHome::new();
    test.set_up();
    let child = test.foreground();
    test.wait_healthy();
    signal(test.pid("server"), "XCPU");
    let log = test.home.join("logs/server.log");
    wait_until("its log says so", SOON, || std::fs::read_to_string(&log).unwrap().contains("ulimit -t"));
    test.wait_healthy();
    signal(child.id() as i32, "XCPU");
    let done = Done::from(child.wait_with_output().unwrap()).expect(1);
    assert!(done.stderr.contains("processor time"), "{done:?}");
}

#[test]
fn a_start_says_how_its_process_ended() {
    let test = TestHome::new();
    let mut start = test.command(&["lite", "start", "--port", &test.port.to_string()]);
    let done = Done::from(start.env("LEOFLOW_KILL_AT", "setup.write-config").output().unwrap()).expect(1);
    assert!(done.stderr.contains("SIGKILL"), "{done:?}");
    test.start();
}

#[test]
fn a_limit_of_processor_time_leaves_a_second_for_the_message() {
    let test = TestHome::new();
    limited(&test, "-t 1000", &["lite", "start", "--port", &test.port.to_string()]).expect(0);
    for name in ["supervisor", "server"] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", test.pid(name))).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max cpu time")).unwrap();
        let numbers: Vec<&str> = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
        assert_eq!(numbers, ["999", "1000"], "{name}");
    }
}
