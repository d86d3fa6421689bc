//! Queued tasks start promptly: no notification is missed, and the agent retries rows that were locked.

use crate::support::rounds::sample_rounds;
use crate::support::{TestHome, processes, wait_until};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// Starts a home whose tasks end at once: a script replaces Python for tasks and fails to start a zygote (warm Python).
fn home_with_instant_tasks() -> TestHome {
    let test = TestHome::new();
    let path: PathBuf = test.folder().join("python-for-tests");
    let script = "#!/bin/sh\nif [ \"$7\" = task ]; then\n  folder=${8#*\\\"folder\\\":\\\"}\n  folder=${folder%%\\\"*}\n  \
                  echo '{\"state\":\"success\"}' > \"$folder/result.json\"\nelif [ \"$7\" = zygote ]; then\n  exit 1\nelse\n  exec python3 \"$@\"\nfi\n";
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    test.set_up();
    let config = test.home.join("config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\npython: {}\n", path.display())).unwrap();
    test.start();
    test
}

fn dag_of_parallel_tasks(dag_id: &str, tasks: usize) -> String {
    format!(
        "from airflow.sdk import DAG, task\nwith DAG('{dag_id}', max_active_tasks={tasks}):\n    for n in range({tasks}):\n        \
         @task(task_id=f't{{n}}')\n        def t(): pass\n        t()\n"
    )
}

#[test]
fn a_hundred_instant_tasks_miss_no_notification() {
    let test = home_with_instant_tasks();
    test.add_dag("wide", &dag_of_parallel_tasks("wide", 100));
    for _ in sample_rounds(0..50, 5) {
        let run_id = test.trigger("wide");
        let run = test.wait_run("wide", &run_id);
        assert_eq!(run["state"], json!("success"));
    }
    let log = std::fs::read_to_string(test.home.join("logs/agent.log")).unwrap();
    assert!(!log.contains("that no notification announced"), "{log}");
}

/// `claim` skips locked rows and no NOTIFY announces the unlock, so the agent must retry.
#[test]
fn rows_locked_during_a_claim_are_claimed_later() {
    let test = home_with_instant_tasks();
    test.add_dag("wide", &dag_of_parallel_tasks("wide", 3));
    let agent = test.pid("agent");
    processes::signal(agent, "STOP");
    let run_id = test.trigger("wide");
    let queued = || test.sql("SELECT count(*) FROM task_instance WHERE state = 'queued'") == "3";
    wait_until("the tasks are queued", Duration::from_secs(10), queued);
    let rows = test.hold_lock("SELECT FROM task_instance FOR UPDATE");
    processes::signal(agent, "CONT");
    // Time for the agent to meet the locked rows.
    std::thread::sleep(Duration::from_millis(300));
    rows.assert_held();
    drop(rows);
    let done = || test.sql("SELECT count(*) FROM task_instance WHERE state = 'success'") == "3";
    wait_until("all tasks have run", Duration::from_secs(30), done);
    assert_eq!(test.wait_run("wide", &run_id)["state"], json!("success"));
    let log = std::fs::read_to_string(test.home.join("logs/agent.log")).unwrap();
    assert!(!log.contains("polling found"), "the agent retries at once, not when it polls: {log}");
}

/// As in apache/airflow#13542, where tasks that were cleared in great numbers stayed queued. The second try of each waits
/// until its first one has ended.
#[test]
fn tasks_that_are_cleared_while_they_run_start_again_at_once() {
    let test = TestHome::started();
    test.add_dag(
        "d",
        "import time\nfrom airflow.sdk import DAG, task\nwith DAG('d'):\n    for n in range(12):\n        \
         @task(task_id=f't{n}')\n        def t(ti=None):\n            if ti.try_number == 1: time.sleep(600)\n        t()\n",
    );
    let run_id = test.trigger("d");
    let running = || test.sql("SELECT count(*) FROM task_try WHERE state = 'running'") == "12";
    wait_until("all tasks run", Duration::from_secs(30), running);
    test.run(&["runs", "clear", "d", &run_id, "--yes"]).expect(0);
    assert_eq!(test.wait_run("d", &run_id)["state"], json!("success"));
    assert_eq!(test.sql("SELECT count(*) FROM task_instance WHERE try_number = 2"), "12");
    let log = std::fs::read_to_string(test.home.join("logs/agent.log")).unwrap();
    assert!(!log.contains("that no notification announced"), "{log}");
}
