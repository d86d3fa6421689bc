//! Tasks that misbehave, and processes that die or freeze around a healthy task. The agent starts a keeper,
//! `leoflow-keeper`, which starts the tasks and records how they ended.

use crate::support::processes::{self, is_alive, signal};
use crate::support::{TestHome, WAITING_DAG, states, task, wait_until};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// Returns a DAG whose one task `t` has this Python body and these arguments of `@task`.
fn dag(dag_id: &str, arguments: &str, body: &str) -> String {
    let body = body.lines().map(|line| format!("        {line}\n")).collect::<String>();
    format!(
        "from datetime import timedelta\nfrom airflow.sdk import DAG, task\nwith DAG({dag_id:?}):\n    @task({arguments})\n    def t(ti=None):\n{body}    t()\n"
    )
}

/// Returns the outcomes of all tries, oldest first.
fn outcome(test: &TestHome) -> String {
    test.sql("SELECT coalesce(string_agg(outcome, '; ' ORDER BY try_number), '') FROM task_try")
}

#[test]
fn abnormal_task_ends_are_reported() {
    let test = TestHome::started();
    for (name, body, expected) in [
        ("exits", "import os; os._exit(7)", "exit code 7"),
        ("segfaults", "import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("kills", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("huge", "return 'x' * 50_000_000", "47.7 MiB; the limit is 10 MiB"),
        ("pushes", "ti.xcom_push('k', object())", "builtins.object, which cannot be stored"),
        ("sysexit", "import sys; sys.exit(3)", "sys.exit(3)"),
    ] {
        test.add_dag(name, &dag(name, "", body));
        let run = test.run_dag(name);
        assert_eq!(
            (run["state"].as_str(), task(&run, "t")["state"].as_str()),
            (Some("failed"), Some("failed")),
            "{name}"
        );
        let outcome = test.sql(&format!("SELECT outcome FROM task_try WHERE dag_id = '{name}'"));
        assert!(outcome.contains(expected), "{name}: {outcome}");
    }
    assert_eq!(test.sql("SELECT count(*) FROM xcom"), "0");
    assert!(test.task_log("segfaults", "t").contains("the task's process ended: SIGSEGV"));
}

#[test]
fn a_task_ignoring_timeout_and_sigterm_is_killed_with_children() {
    let test = TestHome::started_with(&[("LEOFLOW_TIMEOUT_GRACE", "1"), ("LEOFLOW_TERM_GRACE", "1")]);
    let body = "import os, signal, subprocess, sys, time\n\
        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        signal.signal(signal.SIGALRM, signal.SIG_IGN)\n\
        subprocess.Popen(['sleep', '600'], start_new_session=True)\n\
        print('ignores signals', flush=True)\n\
        while True: time.sleep(60)";
    test.add_dag("stubborn", &dag("stubborn", "execution_timeout=timedelta(seconds=1)", body));
    let run = test.run_dag("stubborn");
    assert_eq!(task(&run, "t")["state"], "failed");
    assert!(outcome(&test).contains("execution_timeout"), "{}", outcome(&test));
    let log = test.task_log("stubborn", "t");
    assert!(log.contains("ignores signals\n") && log.contains("left running"), "{log}");
    wait_until("no process of the task is left", SOON, || {
        processes::mentioning(test.folder()).iter().all(|pid| !command_line(*pid).starts_with("sleep"))
    });
}

/// Returns the command line of a process.
fn command_line(pid: i32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// Returns the pid of the keeper.
fn keeper(test: &TestHome) -> i32 {
    let is_keeper = |pid: &i32| command_line(*pid).starts_with("leoflow-keeper");
    processes::mentioning(test.folder()).into_iter().find(is_keeper).unwrap()
}

#[test]
fn double_forked_processes_end_with_their_task() {
    let test = TestHome::started();
    let body = "import os, time\n\
        if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        open('pid', 'w').write(str(os.getpid()))\n        time.sleep(600)\n    os._exit(0)\n\
        while not os.path.exists('pid') or not open('pid').read(): time.sleep(0.01)\n\
        return 'done'";
    test.add_dag("daemon", &dag("daemon", "", body));
    assert_eq!(test.run_dag("daemon")["state"], "success");
    let pid = std::fs::read_to_string(test.workspace().join("pid")).unwrap().parse().unwrap();
    assert!(!is_alive(pid));
    assert!(test.task_log("daemon", "t").contains("ending 1 process(es) that the task left running"));
}

#[test]
fn a_chain_of_processes_ends_with_its_task() {
    let test = TestHome::started();
    // Each process starts the next and exits after 20 ms.
    let body = "import os, signal, time\n\
        if os.fork() == 0:\n    os.setsid()\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    \
        for beat in range(3000):\n        time.sleep(0.02)\n        if os.fork(): os._exit(0)\n        \
        open('beat', 'w').write(str(beat))\n    os._exit(0)\n\
        while not os.path.exists('beat'): time.sleep(0.01)\n\
        return 'done'";
    test.add_dag("chain", &dag("chain", "", body));
    assert_eq!(test.run_dag("chain")["state"], "success");
    let beat = || std::fs::read(test.workspace().join("beat")).unwrap();
    let before = beat();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(beat(), before, "the chain outlived its task");
    assert!(test.task_log("chain", "t").contains("process(es) that the task left running"));
}

#[test]
fn a_flood_of_output_keeps_its_first_and_last_lines() {
    let test = TestHome::started();
    let body = "import os\n\
        os.write(1, b'the first line\\n')\n\
        chunk = b'x' * 99 + b'\\n'\n\
        for _ in range(300): os.write(1, chunk * 10_000)\n\
        os.write(2, b'the last line\\n')\n\
        return 'done'";
    test.add_dag("flood", &dag("flood", "", body));
    assert_eq!(test.run_dag("flood")["state"], "success");
    let log = test.task_log("flood", "t");
    assert!(log.len() < 20_000_000, "{} bytes", log.len());
    assert!(log.contains("the first line") && log.contains("the last line") && log.contains("bytes omitted"));
}

/// A DAG whose tasks append a line when they start and one when they finish.
const COUNTED: &str = "from datetime import timedelta\nfrom airflow.sdk import DAG, task\nwith DAG('counted'):\n    \
    @task(retries=RETRIES, retry_delay=timedelta(seconds=0))\n    def work(before, n, ti=None):\n        import os, time\n        \
    open('log', 'a').write(f'begin {n} {ti.try_number} {os.getpid()}\\n')\n        time.sleep(SECONDS)\n        \
    open('log', 'a').write(f'done {n} {ti.try_number}\\n')\n        return n\n    \
    last = None\n    for n in range(COUNT):\n        last = work.override(task_id=f'w{n}')(last, n)\n";

/// The seconds of a task that is to be killed in its first try.
const ONLY_FIRST_TRY_WAITS: &str = "600 if ti.try_number == 1 else 0";

fn counted(retries: u32, seconds: &str, count: u32) -> String {
    COUNTED.replace("RETRIES", &retries.to_string()).replace("SECONDS", seconds).replace("COUNT", &count.to_string())
}

/// Returns the lines of the tasks' log that begin with `begin` or `done`.
fn lines(test: &TestHome, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(test.workspace().join("log")).unwrap_or_default();
    text.lines().filter(|line| line.starts_with(word)).map(str::to_owned).collect()
}

fn wait_begun(test: &TestHome, count: usize) {
    wait_until(&format!("{count} tasks have started"), SOON, || lines(test, "begin").len() >= count);
}

/// Asserts that the run succeeded and that each of `count` tasks ran once.
fn expect_undisturbed(test: &TestHome, run: &Value, count: usize) {
    assert_eq!(run["state"], "success");
    assert!(states(run).iter().all(|(_, state)| state == "success"));
    assert!(run["task_instances"].as_array().unwrap().iter().all(|instance| instance["try_number"] == 1), "{run}");
    assert_eq!((lines(test, "begin").len(), lines(test, "done").len()), (count, count));
}

#[test]
fn killing_the_agent_disturbs_no_task() {
    let test = TestHome::started();
    test.add_dag("counted", &counted(0, "0.4", 6));
    let run_id = test.trigger("counted");
    for round in 1..=5 {
        wait_begun(&test, round);
        test.kill_and_wait("agent");
    }
    expect_undisturbed(&test, &test.wait_run("counted", &run_id), 6);
}

#[test]
fn killing_the_server_or_postgres_disturbs_no_task() {
    let test = TestHome::started();
    test.add_dag("counted", &counted(0, "0.5", 6));
    let run_id = test.trigger("counted");
    for (round, process) in ["server", "postgres", "server", "postgres"].into_iter().enumerate() {
        wait_begun(&test, round + 1);
        test.kill_and_wait(process);
    }
    expect_undisturbed(&test, &test.wait_run("counted", &run_id), 6);
}

#[test]
fn a_killed_task_fails_its_try_and_is_retried() {
    let test = TestHome::started();
    test.add_dag("counted", &counted(1, ONLY_FIRST_TRY_WAITS, 1));
    let run_id = test.trigger("counted");
    wait_begun(&test, 1);
    let pid: i32 = lines(&test, "begin")[0].rsplit(' ').next().unwrap().parse().unwrap();
    signal(pid, "KILL");
    let run = test.wait_run("counted", &run_id);
    assert_eq!((run["state"].as_str(), task(&run, "w0")["try_number"].as_i64()), (Some("success"), Some(2)));
    assert!(test.sql("SELECT outcome FROM task_try WHERE try_number = 1").contains("SIGKILL"));
}

#[test]
fn a_killed_keeper_ends_its_task_and_fails_the_try() {
    let test = TestHome::started();
    test.add_dag("counted", &counted(1, ONLY_FIRST_TRY_WAITS, 1));
    let run_id = test.trigger("counted");
    wait_begun(&test, 1);
    let pid: i32 = lines(&test, "begin")[0].rsplit(' ').next().unwrap().parse().unwrap();
    signal(keeper(&test), "KILL");
    wait_until("the task is gone", SOON, || !is_alive(pid));
    let run = test.wait_run("counted", &run_id);
    assert_eq!((run["state"].as_str(), task(&run, "w0")["try_number"].as_i64()), (Some("success"), Some(2)));
    assert_eq!(lines(&test, "done"), ["done 0 2"]);
}

#[test]
fn the_end_of_a_try_leaves_the_same_try_of_another_instance_running() {
    let tests = [TestHome::started(), TestHome::started()];
    for test in &tests {
        test.add_dag("patient", WAITING_DAG);
        test.run(&["dags", "trigger", "patient", "--run-id", "r"]).expect(0);
        wait_until("the task", Duration::from_secs(30), || test.workspace().join("ran").exists());
    }
    let [ended, other] = &tests;
    signal(keeper(ended), "KILL");
    assert_eq!(ended.wait_run("patient", "r")["state"], "failed");
    let again = TestHome::started();
    again.add_dag("patient", WAITING_DAG);
    std::fs::write(again.workspace().join("go"), "").unwrap();
    again.run(&["dags", "trigger", "patient", "--run-id", "r"]).expect(0);
    assert_eq!(again.wait_run("patient", "r")["state"], "success");
    std::fs::write(other.workspace().join("go"), "").unwrap();
    assert_eq!(other.wait_run("patient", "r")["state"], "success");
    assert_eq!(std::fs::read_to_string(other.workspace().join("ran")).unwrap(), "x");
}

#[test]
fn killing_all_processes_lets_the_next_start_finish_the_run() {
    let test = TestHome::started();
    test.add_dag("counted", &counted(3, "0.3", 5));
    let run_id = test.trigger("counted");
    for round in [1, 3] {
        wait_begun(&test, round);
        processes::kill_all(test.folder());
        test.start();
    }
    let run = test.wait_run("counted", &run_id);
    assert_eq!(run["state"], "success");
    for n in 0..5 {
        let number = task(&run, &format!("w{n}"))["try_number"].as_i64().unwrap();
        let last = format!("done {n} {number}");
        assert_eq!(lines(&test, "done").iter().filter(|line| **line == last).count(), 1, "{last}");
    }
    test.run(&["lite", "stop", "--yes"]).expect(0);
    test.assert_nothing_runs();
}

#[test]
fn tasks_survive_a_killed_supervisor_and_are_adopted() {
    let test = TestHome::started();
    test.add_dag("counted", &counted(0, "2", 2));
    let run_id = test.trigger("counted");
    wait_begun(&test, 1);
    signal(test.pid("supervisor"), "KILL");
    wait_until("the supervisor's children have exited", SOON, || test.state() == "stopped");
    test.start();
    expect_undisturbed(&test, &test.wait_run("counted", &run_id), 2);
}

#[test]
fn frozen_processes_are_replaced_and_the_run_continues() {
    let test = TestHome::started_with(&[("LEOFLOW_SILENCE_LIMIT", "5")]);
    test.add_dag("counted", &counted(0, "0.5", 4));
    let run_id = test.trigger("counted");
    for (round, process) in ["agent", "server"].into_iter().enumerate() {
        wait_begun(&test, round + 1);
        let pid = test.pid(process);
        signal(pid, "STOP");
        wait_until("the process was replaced", Duration::from_secs(60), || {
            test.running_pid(process).is_some_and(|new| new != pid)
        });
        test.wait_healthy();
    }
    expect_undisturbed(&test, &test.wait_run("counted", &run_id), 4);
}

#[test]
fn tasks_ending_without_agent_and_datastore_are_recorded() {
    let test = TestHome::started();
    // Without dependencies, so that all tasks run in parallel.
    test.add_dag("counted", &counted(0, "1", 8).replace("(last, n)", "(None, n)"));
    let run_id = test.trigger("counted");
    wait_begun(&test, 8);
    let agent = test.pid("agent");
    signal(agent, "STOP");
    wait_until("all tasks have finished", SOON, || lines(&test, "done").len() == 8);
    signal(test.pid("postgres"), "KILL");
    signal(agent, "CONT");
    expect_undisturbed(&test, &test.wait_run("counted", &run_id), 8);
}

#[test]
fn a_command_with_its_own_environment_ends_with_its_keeper() {
    let test = TestHome::started();
    let text = "from airflow.sdk import DAG\nfrom airflow.operators.bash import BashOperator\nwith DAG('bare'):\n    \
        BashOperator(task_id='t', bash_command='echo $$ > pid; sleep 600', env={'A': 'b'}, cwd='.')\n";
    test.add_dag("bare", text);
    let run_id = test.trigger("bare");
    let path = test.workspace().join("pid");
    wait_until("the command runs", SOON, || std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')));
    let pid: i32 = std::fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    signal(keeper(&test), "KILL");
    assert_eq!(test.wait_run("bare", &run_id)["state"], "failed");
    assert!(!is_alive(pid));
}

#[test]
fn a_cancelled_command_can_clean_up() {
    let test = TestHome::started_with(&[("LEOFLOW_TERM_GRACE", "600")]);
    let text = "from airflow.sdk import DAG\nfrom airflow.operators.bash import BashOperator\nwith DAG('trap'):\n    \
        BashOperator(task_id='t', cwd='.', bash_command=\"trap 'sleep 0.2; echo stopping; echo x > cleaned; exit 3' TERM; touch runs; while true; do sleep 0.1; done\")\n";
    test.add_dag("trap", text);
    let run_id = test.trigger("trap");
    wait_until("the command runs", SOON, || test.workspace().join("runs").exists());
    test.run(&["runs", "cancel", "trap", &run_id]).expect(0);
    wait_until("the command has cleaned up", SOON, || test.workspace().join("cleaned").exists());
    wait_until("the task log has its output", SOON, || test.task_log("trap", "t").contains("stopping"));
}

#[test]
fn the_agent_continues_a_stopped_keeper() {
    let test = TestHome::started();
    // Long enough to find and stop the keeper on a busy machine.
    test.add_dag("counted", &counted(0, "5", 1));
    let run_id = test.trigger("counted");
    wait_begun(&test, 1);
    signal(keeper(&test), "STOP");
    expect_undisturbed(&test, &test.wait_run("counted", &run_id), 1);
    let log = std::fs::read_to_string(test.home.join("logs/agent.log")).unwrap();
    assert!(log.contains("is stopped; continuing it"), "{log}");
}

#[test]
fn removing_the_home_ends_all_its_processes() {
    let test = TestHome::started_with(&[("LEOFLOW_FOLDER_ROUND", "1")]);
    test.add_dag("counted", &counted(0, "600", 2).replace("(last, n)", "(None, n)"));
    test.trigger("counted");
    wait_begun(&test, 2);
    wait_until("the home is removed", SOON, || {
        let _ = std::fs::remove_dir_all(&test.home);
        !test.home.exists()
    });
    wait_until("nothing runs", Duration::from_secs(60), || processes::mentioning(test.folder()).is_empty());
    // A task that receives SIGTERM may still compile Python modules, for its shutdown, into the removed home.
    let compiled = test.home.join("python/compiled");
    let recreated: Vec<_> =
        test.snapshot("").into_iter().map(|(path, _)| path).filter(|path| !path.starts_with(&compiled)).collect();
    assert!(!test.home.exists() || recreated.is_empty(), "{recreated:?}");
}

#[test]
fn removed_python_files_are_restored() {
    let test = TestHome::started();
    test.wait_dag("hello", 1);
    // A starting Python writes compiled modules into the folder, so the removal can fail and is repeated.
    let remove = || {
        wait_until("the files are removed", SOON, || std::fs::remove_dir_all(test.home.join("python")).is_ok());
    };
    remove();
    assert_eq!(test.run_dag("hello")["state"], "success");
    remove();
    test.add_dag("counted", &counted(0, "0", 1));
}
