//! System errors while commands and tasks start, run and end. No result is lost, no task runs twice, and temporary
//! errors are retried.

use crate::support::processes::signal;
use crate::support::{CommandOutput, TestHome, WAITING_DAG, task, wait_until};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn reason(test: &TestHome) -> String {
    test.status()["reason"].as_str().unwrap_or_default().to_owned()
}

/// Returns the folder of the only running try.
fn task_folder(test: &TestHome) -> PathBuf {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(test.home.join("run/tasks")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders.remove(0)
}

#[test]
fn an_unreadable_outcome_is_retried_and_the_task_runs_once() {
    let test = TestHome::started();
    test.add_dag("patient", &WAITING_DAG.replace("@task", "@task(retries=2, retry_delay=0)"));
    let run = test.trigger("patient");
    let ran = || std::fs::read_to_string(test.workspace().join("ran")).unwrap_or_default();
    wait_until("the task runs", SOON, || ran() == "x");
    // Reading a folder as a file fails even for root, like a file on a disk that returns EIO.
    let result = task_folder(&test).join("result.json");
    std::fs::create_dir(&result).unwrap();
    signal(test.pid("agent"), "STOP");
    std::fs::write(test.workspace().join("go"), "").unwrap();
    wait_until("the keeper has written the outcome", SOON, || task_folder(&test).join("outcome.json").is_file());
    signal(test.pid("agent"), "CONT");
    wait_until("status shows the failed read", SOON, || reason(&test).contains("cannot read"));
    assert_eq!(test.sql("SELECT state FROM task_instance"), "running");
    std::fs::remove_dir(&result).unwrap();
    std::fs::write(&result, r#"{"state": "success", "xcoms": {"return_value": "\"done\""}}"#).unwrap();
    assert_eq!(test.wait_run("patient", &run)["state"], "success");
    assert_eq!((ran().as_str(), test.sql("SELECT count(*) FROM task_try").as_str()), ("x", "1"));
    wait_until("healthy again", SOON, || test.state() == "healthy");
}

/// Sets the limits of a process's open files, `SOFT:HARD`.
fn set_open_files_limit(pid: i32, limits: &str) {
    let done = Command::new("prlimit").args([&format!("--pid={pid}"), &format!("--nofile={limits}")]).status();
    assert!(done.unwrap().success());
}

#[test]
fn a_task_that_cannot_start_yet_stays_queued() {
    let test = TestHome::started();
    test.add_dag(
        "late",
        "from airflow.sdk import DAG, task\nwith DAG('late'):\n    @task\n    def t(): return 1\n    t()\n",
    );
    let agent = test.pid("agent");
    set_open_files_limit(agent, "3:4096");
    let run = test.trigger("late");
    wait_until("status says why nothing starts", SOON, || reason(&test).contains("Too many open files"));
    assert_eq!(test.state(), "degraded");
    assert_eq!(test.sql("SELECT state || ' ' || try_number FROM task_instance"), "queued 1");
    assert_eq!(test.sql("SELECT count(*) FROM task_try"), "0");
    set_open_files_limit(agent, "1024:4096");
    let run = test.wait_run("late", &run);
    assert_eq!((task(&run, "t")["state"].as_str(), task(&run, "t")["try_number"].as_i64()), (Some("success"), Some(1)));
    wait_until("healthy again", SOON, || test.state() == "healthy");
}

/// Runs `lite start` in an environment where the system calls with these numbers fail with `error`.
fn start_with_failing_calls(test: &TestHome, error: &str, numbers: &str) -> std::process::Output {
    let leoflow = test.command(&["lite", "start", "--port", &test.port.to_string()]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/programs/deny_system_calls.py");
    let mut command = Command::new("python3");
    command.args([script, error, numbers]).arg(leoflow.get_program()).args(leoflow.get_args()).env_clear();
    command.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().unwrap()
}

#[test]
fn tasks_run_where_pidfd_open_and_newer_calls_are_refused() {
    for error in ["EPERM", "ENOSYS"] {
        let test = TestHome::new();
        // pidfd_open, close_range, openat2 and faccessat2, which older kernels and container runtimes do not allow.
        let started = start_with_failing_calls(&test, error, "434,436,437,439");
        assert!(started.status.success(), "{error}: {}", String::from_utf8_lossy(&started.stderr));
        let run = test.run_dag("hello");
        assert_eq!(run["state"], "success", "{error}");
    }
}

#[test]
fn start_is_refused_where_no_task_can_run() {
    let test = TestHome::new();
    let mut start = test.command(&["lite", "start", "--port", &test.port.to_string()]);
    let started = start.env("LEOFLOW_FAIL_AT", "agent.probe").output().unwrap();
    assert!(!started.status.success());
    let stderr = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(stderr.contains("cannot run tasks") && stderr.contains("agent.probe"), "{stderr}");
    test.start();
    assert_eq!(test.run_dag("hello")["state"], "success");
}

/// Runs a command under these `ulimit` limits.
fn run_with_ulimits(test: &TestHome, limits: &str, arguments: &[&str]) -> CommandOutput {
    let leoflow = test.command(arguments);
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("ulimit {limits}; exec \"$@\""), "bash"]).arg(leoflow.get_program());
    shell.args(leoflow.get_args()).env_clear();
    shell.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.output().unwrap().into()
}

#[test]
fn a_file_over_the_size_limit_fails_the_command() {
    let test = TestHome::started();
    let big = format!("of={}", test.workspace().join("big").display());
    let made = Command::new("dd").args(["if=/dev/urandom", "bs=1M", "count=12", "status=none", &big]).status();
    assert!(made.unwrap().success());
    let output = test.folder().join("b.tar.zst");
    let done = run_with_ulimits(&test, "-f 8192", &["lite", "backup", "--output", output.to_str().unwrap()]).expect(1);
    assert!(done.stderr.contains("File too large") && done.stderr.contains("ulimit -f"), "{done:?}");
    assert!(!output.exists());
    let names: Vec<_> = std::fs::read_dir(test.folder()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("tmp-")), "{names:?}");
}

#[test]
fn a_first_start_over_the_file_size_limit_names_the_limit() {
    let test = TestHome::new().with_real_initdb();
    let done = run_with_ulimits(&test, "-f 2048", &["lite", "start", "--port", &test.port.to_string()]).expect(1);
    assert!(done.stderr.contains("ulimit -f"), "{done:?}");
    test.start();
}

#[test]
fn exceeding_the_cpu_time_limit_is_reported() {
    let test = TestHome::new();
    test.set_up();
    let child = test.foreground();
    test.wait_healthy();
    signal(test.pid("server"), "XCPU");
    let log = test.home.join("logs/server.log");
    wait_until("the log names ulimit", SOON, || std::fs::read_to_string(&log).unwrap().contains("ulimit -t"));
    test.wait_healthy();
    signal(child.id() as i32, "XCPU");
    let done = CommandOutput::from(child.wait_with_output().unwrap()).expect(1);
    assert!(done.stderr.contains("CPU time limit"), "{done:?}");
}

#[test]
fn a_failed_start_reports_how_its_process_ended() {
    let test = TestHome::new();
    let mut start = test.command(&["lite", "start", "--port", &test.port.to_string()]);
    let done = CommandOutput::from(start.env("LEOFLOW_KILL_AT", "setup.write-config").output().unwrap()).expect(1);
    assert!(done.stderr.contains("SIGKILL"), "{done:?}");
    test.start();
}

#[test]
fn the_soft_cpu_time_limit_leaves_a_second_for_the_message() {
    let test = TestHome::new();
    run_with_ulimits(&test, "-t 1000", &["lite", "start", "--port", &test.port.to_string()]).expect(0);
    for name in ["supervisor", "server"] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", test.pid(name))).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max cpu time")).unwrap();
        let numbers: Vec<&str> = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
        assert_eq!(numbers, ["999", "1000"], "{name}");
    }
}
