//! Runs from the command line and over the API: trigger, show, cancel, clear, delete.

use crate::support::http::{Session, socket_request};
use crate::support::processes::is_alive;
use crate::support::{CommandOutput, TestHome, states, task, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn the_starter_dag_runs_and_its_results_are_shown() {
    let test = TestHome::started();
    test.wait_dag("hello", 1);
    let done = test.run(&["dags", "trigger", "hello", "--wait", "--conf", r#"{"name": "Ada"}"#]).expect(0);
    for line in ["choose_words  success", "greet  success", "count  success"] {
        assert!(done.stderr.contains(line), "{}", done.stderr);
    }
    assert!(done.stdout.trim_end().ends_with("success"), "{}", done.stdout);
    let run = test.run(&["runs", "show", "hello", "latest", "--json"]).expect(0).json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&run),
        [
            "dag_id",
            "dag_run_id",
            "state",
            "logical_date",
            "start_date",
            "end_date",
            "task_instances",
            "callback_failures"
        ]
    );
    assert_eq!(
        keys(&run["task_instances"][0]),
        ["task_id", "map_index", "state", "try_number", "start_date", "end_date"]
    );
    assert_eq!(
        states(&run).iter().map(|(id, state)| format!("{id} {state}")).collect::<Vec<_>>(),
        ["choose_words success", "greet success", "count success"]
    );
    assert_eq!(
        keys(&test.dags()["dags"][0]),
        ["dag_id", "is_paused", "fileloc", "bundle_name", "owners", "schedule", "last_run_state", "import_error"]
    );
    let log = test.task_log("hello", "greet");
    assert!(log.contains("Hello, Ada!\n"), "{log}");
    let count = test.run(&["xcom", "get", "hello", "latest", "count", "--json"]).expect(0).json();
    assert_eq!(count, json!({"greetings": 3, "letters": 39}));
    let missing = test.run(&["xcom", "get", "hello", "latest", "count", "--key", "other"]).expect(1);
    assert!(missing.stderr.contains("leoflow xcom list"), "{}", missing.stderr);
    let triggered = test.run(&["dags", "trigger", "hello", "--json"]).expect(0).json();
    assert_eq!(
        (keys(&triggered), &triggered["state"]),
        (vec!["dag_id".into(), "dag_run_id".into(), "state".into()], &json!("queued"))
    );
    let waited = test.run(&["dags", "trigger", "hello", "--wait", "--json"]).expect(0).json();
    assert_eq!(waited["state"], "success");
    for wrong in [
        &["dags", "trigger", "nope"][..],
        &["runs", "show", "hello", "nope"],
        &["tasks", "logs", "hello", "latest", "nope"],
    ] {
        let done = test.run(wrong).expect(1);
        assert!(done.stderr.contains("hint:"), "{wrong:?}: {}", done.stderr);
    }
    assert!(test.run(&["dags", "trigger", "hello", "--conf", "[1]"]).expect(2).stderr.contains("not a JSON object"));
}

#[test]
fn dags_test_works_without_a_running_instance() {
    let test = TestHome::new();
    test.first_setup();
    let done = test.run(&["dags", "test", "hello", "--conf", r#"{"name": "Ada"}"#]).expect(0);
    assert!(done.stdout.contains("Hello, Ada!") && done.stdout.ends_with("hello  success\n"), "{done:?}");
    test.save("sad.py", "from airflow.sdk import DAG, task\nwith DAG('sad'):\n    @task\n    def t():\n        value = 42\n        raise ValueError('sad')\n    t()\n");
    let done = test.run(&["dags", "test", "sad"]).expect(1);
    assert!(done.stderr.contains("ValueError: sad") && done.stdout.ends_with("sad  failed\n"), "{done:?}");
    // A missing folder for temporary files is no obstacle, and none is left.
    let missing = test.folder().join("missing");
    let done: CommandOutput =
        test.command(&["dags", "test", "hello"]).env("TMPDIR", missing.join("below")).output().unwrap().into();
    assert!(done.expect(0).stdout.ends_with("hello  success\n") && !missing.exists());
    let mut names = std::fs::read_dir(test.home.join("run")).unwrap().flatten().map(|entry| entry.file_name());
    assert!(!names.any(|name| name.to_string_lossy().starts_with("foreground-")));
    let done = test.run_with_input(&["dags", "test", "sad", "--pdb"], "p value\nq\n").expect(1);
    assert!(done.stdout.contains("(Pdb) 42"), "{done:?}");
    assert!(test.run(&["dags", "test", "nope"]).expect(1).stderr.contains("hint:"));
    test.run(&["init", test.workspace().join("mine").to_str().unwrap()]).expect(0);
    assert!(test.run(&["validate"]).expect(0).stdout.contains(": mine\n"));
    test.run(&["init", test.workspace().join("mine").to_str().unwrap()]).expect(1);
    test.assert_nothing_runs();
}

#[test]
fn a_new_project_can_be_triggered_at_once() {
    let test = TestHome::started();
    test.run(&["init", test.workspace().join("mine").to_str().unwrap()]).expect(0);
    test.run(&["dags", "trigger", "mine"]).expect(0);
}

const FRAGILE: &str = "from airflow.sdk import DAG, task\nwith DAG('fragile'):\n    @task\n    def first(): return 1\n    \
    @task\n    def second(x): BODY\n    @task\n    def third(x): return x\n    third(second(first()))\n";

#[test]
fn a_cleared_task_reruns_with_the_chosen_version() {
    let test = TestHome::started();
    test.add_dag("fragile", &FRAGILE.replace("BODY", "raise ValueError('not yet')"));
    let done = test.run(&["dags", "trigger", "fragile", "--wait"]).expect(1);
    assert!(done.stderr.contains("second: ValueError: not yet"), "{}", done.stderr);
    assert!(
        done.stderr.contains("leoflow tasks logs fragile") && done.stderr.contains("--only-failed"),
        "{}",
        done.stderr
    );
    let clear = |more: &[&str]| {
        let done = test.run(&[&["tasks", "clear", "fragile", "latest"], more, &["--yes"]].concat()).expect(0);
        (test.wait_run("fragile", "latest"), done.stderr)
    };
    let result = || test.run(&["xcom", "get", "fragile", "latest", "third"]).expect(0).stdout;
    let refused = test.run(&["runs", "clear", "fragile", "latest", "--only-failed"]).expect(3);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    test.save("fragile.py", &FRAGILE.replace("BODY", "return x + 1"));
    test.wait_dag("fragile", 2);
    // By default the run keeps its version, as in Airflow, and the command says so.
    let (run, notes) = clear(&["--only-failed"]);
    assert_eq!(run["state"], "failed");
    assert!(notes.contains("keeps version 1 of fragile") && notes.contains("--run-on-latest-version"), "{notes}");
    let cleared = ["runs", "clear", "fragile", "latest", "--only-failed", "--run-on-latest-version", "--yes", "--json"];
    assert_eq!(test.run(&cleared).expect(0).json()["cleared"], 2);
    let run = test.wait_run("fragile", "latest");
    assert_eq!(run["state"], "success");
    let tries = |id: &str| task(&run, id)["try_number"].as_i64().unwrap();
    assert_eq!((tries("first"), tries("second"), tries("third")), (1, 3, 1));
    assert_eq!(result(), "2\n");
    assert!(
        test.run(&["tasks", "logs", "fragile", "latest", "second", "--try", "1"]).expect(0).stdout.contains("not yet")
    );
    let (run, _) = clear(&["second", "--downstream"]);
    let tries: Vec<i64> = ["first", "second", "third"].map(|id| task(&run, id)["try_number"].as_i64().unwrap()).into();
    assert_eq!((run["state"].as_str(), tries), (Some("success"), vec![1, 4, 2]));
    // Without an option of the command, the DAG's `rerun_with_latest_version` decides, then Airflow's setting.
    let reruns_newest = FRAGILE.replace("'fragile'", "'fragile', rerun_with_latest_version=True");
    test.save("fragile.py", &reruns_newest.replace("BODY", "return x + 2"));
    test.wait_dag("fragile", 3);
    clear(&["second", "--downstream", "--no-run-on-latest-version"]);
    assert_eq!(result(), "2\n");
    clear(&["second", "--downstream"]);
    assert_eq!(result(), "3\n");
    test.save("fragile.py", &FRAGILE.replace("BODY", "return x + 3"));
    test.wait_dag("fragile", 4);
    clear(&["second", "--downstream"]);
    assert_eq!(result(), "3\n");
    std::fs::write(test.workspace().join(".env"), "AIRFLOW__CORE__RERUN_WITH_LATEST_VERSION=true\n").unwrap();
    clear(&["second", "--downstream"]);
    assert_eq!(result(), "4\n");
}

#[test]
fn a_run_on_a_newer_version_takes_its_pools() {
    let test = TestHome::started();
    test.run(&["pools", "set", "closed", "0"]).expect(0);
    let text = |pool: &str, body: &str| {
        format!(
            "from airflow.sdk import DAG, task\nwith DAG('moved'):\n    @task(pool='{pool}')\n    def waits(): return 1\n    \
             @task\n    def fails(): {body}\n    waits()\n    fails()\n"
        )
    };
    test.add_dag("moved", &text("closed", "raise ValueError('no')"));
    let runs = [test.trigger("moved"), test.trigger("moved")];
    let failed = "SELECT count(*) FROM task_instance WHERE task_id = 'fails' AND state = 'failed'";
    wait_until("both runs wait for the pool", SOON, || test.sql(failed) == "2");
    test.save("moved.py", &text("default_pool", "return 2"));
    test.wait_dag("moved", 2);
    for run_id in &runs {
        test.run(&["runs", "clear", "moved", run_id, "--only-failed", "--run-on-latest-version", "--yes"]).expect(0);
    }
    for run_id in &runs {
        assert_eq!(test.wait_run("moved", run_id)["state"], "success");
    }
    assert_eq!(test.sql("SELECT DISTINCT pool FROM task_instance WHERE dag_id = 'moved'"), "default_pool");
}

#[test]
fn triggering_a_paused_dag_says_how_to_unpause_it() {
    let test = TestHome::started();
    test.wait_dag("hello", 1);
    test.run(&["dags", "pause", "hello"]).expect(0);
    let refused = test.run(&["dags", "trigger", "hello", "--wait"]).expect(1);
    assert!(refused.stderr.contains("--unpause"), "{}", refused.stderr);
    let triggered = test.run(&["dags", "trigger", "hello"]).expect(0);
    assert!(triggered.stderr.contains("leoflow dags unpause hello"), "{}", triggered.stderr);
    assert_eq!(test.run(&["runs", "show", "hello", "latest", "--json"]).expect(0).json()["state"], "queued");
    test.run(&["dags", "unpause", "hello"]).expect(0);
    assert_eq!(test.wait_run("hello", "latest")["state"], "success");
    test.save("planned.py", "from airflow.sdk import DAG\ndag = DAG('planned', schedule='@daily')\n");
    test.wait_dag("planned", 1);
    let dag = test.dags()["dags"].as_array().unwrap().iter().find(|dag| dag["dag_id"] == "planned").cloned().unwrap();
    assert_eq!((&dag["is_paused"], &dag["schedule"]), (&json!(true), &json!("@daily")));
}

/// A DAG whose task writes its pid, then waits for the file `go`.
const LONG: &str = "from airflow.sdk import DAG, task\nwith DAG('long'):\n    @task\n    def sleep():\n        import os, time\n        \
    open('pid', 'w').write(str(os.getpid()))\n        while not os.path.exists('go'): time.sleep(0.05)\n        return 'slept'\n    \
    @task\n    def after(x): return x\n    after(sleep())\n";

fn task_pid(test: &TestHome) -> i32 {
    let path = test.workspace().join("pid");
    wait_until("the task runs", SOON, || std::fs::read_to_string(&path).is_ok_and(|text| !text.is_empty()));
    let pid = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    std::fs::remove_file(path).unwrap();
    pid
}

#[test]
fn cancelling_a_run_ends_its_processes() {
    let test = TestHome::started();
    test.add_dag("long", LONG);
    let run_id = test.trigger("long");
    let pid = task_pid(&test);
    test.run(&["runs", "cancel", "long", &run_id]).expect(0);
    wait_until("the task is gone", SOON, || !is_alive(pid));
    let run = test.wait_run("long", &run_id);
    assert_eq!(
        (run["state"].as_str(), task(&run, "sleep")["state"].as_str(), task(&run, "after")["state"].as_str()),
        (Some("failed"), Some("failed"), Some("skipped"))
    );
    wait_until("the try has ended too", SOON, || test.sql("SELECT state FROM task_try") == "failed");
    assert!(test.task_log("long", "sleep").contains("stopping the task on request"));
    assert!(test.run(&["runs", "cancel", "long", &run_id]).expect(1).stderr.contains("already finished"));
    // After a clear the task runs again.
    test.run(&["runs", "clear", "long", &run_id, "--yes"]).expect(0);
    let second_pid = task_pid(&test);
    assert_ne!(second_pid, pid);
    test.run(&["dags", "delete", "long", "--yes"]).expect(1);
    test.run(&["runs", "cancel", "long", &run_id]).expect(0);
    wait_until("the second task is gone", SOON, || !is_alive(second_pid));
}

#[test]
fn tasks_survive_a_restart_but_not_a_stop() {
    let test = TestHome::started();
    test.add_dag("long", LONG);
    let run_id = test.trigger("long");
    let pid = task_pid(&test);
    test.run(&["lite", "restart"]).expect(0);
    assert!(is_alive(pid), "the task keeps running");
    let mut watch = test.command(&["runs", "watch", "long", &run_id]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("sleep  running")), "the task is shown as running");
    let go = test.save("go", "");
    let run = test.wait_run("long", &run_id);
    assert_eq!((run["state"].as_str(), task(&run, "sleep")["try_number"].as_i64()), (Some("success"), Some(1)));
    assert!(lines.any(|line| line.contains("after  success")));
    assert!(watch.wait().unwrap().success());
    std::fs::remove_file(go).unwrap();
    let run_id = test.trigger("long");
    let pid = task_pid(&test);
    let refused = test.run(&["lite", "stop"]).expect(3);
    assert!(refused.stderr.contains("1 running task") && refused.stderr.contains("--wait"), "{refused:?}");
    assert!(is_alive(pid));
    let stopped = test.run(&["lite", "stop", "--yes"]).expect(0);
    assert!(stopped.stderr.contains("Ended 1 running task"), "{}", stopped.stderr);
    assert!(!is_alive(pid));
    test.assert_nothing_runs();
    test.start();
    let run = test.wait_run("long", &run_id);
    assert_eq!((run["state"].as_str(), task(&run, "sleep")["state"].as_str()), (Some("failed"), Some("failed")));
}

fn post_as_task(test: &TestHome, token: &str, path: &str, body: &str) -> u16 {
    socket_request(&test.home, "POST", path, &format!("Authorization: Bearer {token}\r\n"), body).status
}

#[test]
fn a_tasks_token_ends_with_its_try() {
    let test = TestHome::started();
    let text = "from airflow.sdk import DAG, task, Variable\nwith DAG('tokens'):\n    @task\n    def t(ti=None):\n        \
        from leoflow.common import leoflow_server\n        Variable.set('v', 'of the task')\n        ti.xcom_push('k', {'a': 1})\n        \
        open('token', 'w').write(leoflow_server._client.token)\n        \
        import os, time\n        while not os.path.exists('go'): time.sleep(0.05)\n    t()\n";
    test.add_dag("tokens", text);
    let run_id = test.trigger("tokens");
    let path = test.workspace().join("token");
    wait_until("a token", SOON, || std::fs::read_to_string(&path).is_ok_and(|text| !text.is_empty()));
    let token = std::fs::read_to_string(&path).unwrap();
    let push = r#"{"key": "other", "value_json": "1"}"#;
    assert_eq!(post_as_task(&test, &token, "/task/xcoms/push", push), 204);
    assert_eq!(post_as_task(&test, "wrong", "/task/xcoms/push", push), 401);
    test.save("go", "");
    assert_eq!(test.wait_run("tokens", &run_id)["state"], "success");
    assert_eq!(post_as_task(&test, &token, "/task/xcoms/push", push), 401);
    assert_eq!(test.sql("SELECT string_agg(key, ',' ORDER BY key) FROM xcom"), "k,other");
    assert_eq!(test.run(&["variables", "get", "v"]).expect(0).stdout, "of the task\n");
    assert_eq!(test.sql("SELECT count(*) FROM task_try WHERE token_hash IS NOT NULL"), "0");
}

#[test]
fn api_fields_and_errors_match_airflow() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    test.wait_dag("hello", 1);
    let get = |path: &str| session.request("GET", path, "");
    let dag = get("/api/v2/dags/hello").json();
    assert_eq!((&dag["is_paused"], &dag["relative_fileloc"]), (&json!(false), &json!("hello/dag.py")));
    assert_eq!(dag["tags"][0]["name"], "example");
    assert_eq!(get("/api/v2/dags?dag_id_pattern=HEL").json()["total_entries"], 1);
    assert_eq!(get("/api/v2/dags?tags=none").json()["total_entries"], 0);
    assert_eq!(get("/api/v2/dags/nope").json()["detail"], "The Dag with ID: `nope` was not found");
    assert_eq!(get("/api/v2/dags/hello/details").json()["params"]["name"]["value"], "world");
    let runs = "/api/v2/dags/hello/dagRuns";
    for (body, status) in [
        ("{}", 422),
        (r#"{"logical_date": null, "x": 1}"#, 422),
        (r#"{"logical_date": null, "dag_run_id": "a/b"}"#, 400),
    ] {
        assert_eq!(session.request("POST", runs, body).status, status, "{body}");
    }
    let created = session.request(
        "POST",
        runs,
        r#"{"logical_date": "2026-01-31T00:00:00Z", "dag_run_id": "one", "conf": {"name": "x"}}"#,
    );
    assert_eq!((created.status, created.json()["state"].as_str()), (200, Some("queued")));
    assert_eq!(created.json()["data_interval_start"], "2026-01-31T00:00:00Z");
    assert_eq!(session.request("POST", runs, r#"{"logical_date": null, "dag_run_id": "one"}"#).status, 409);
    assert_eq!(test.wait_run("hello", "one")["state"], "success");
    let run = get(&format!("{runs}/one")).json();
    assert_eq!((&run["run_type"], &run["triggered_by"]), (&json!("manual"), &json!("rest_api")));
    let all = get(&format!("{runs}/one/taskInstances")).json();
    assert_eq!(all["total_entries"], 3);
    let instance = get(&format!("{runs}/one/taskInstances/greet")).json();
    assert_eq!(
        (&instance["operator"], &instance["operator_name"]),
        (&json!("_PythonDecoratedOperator"), &json!("@task"))
    );
    let log = get(&format!("{runs}/one/taskInstances/greet/logs/1")).json();
    assert_eq!(log["continuation_token"], Value::Null);
    assert!(
        log["content"]
            .as_array()
            .unwrap()
            .iter()
            .any(|line| line["event"] == "Hello, x!" && line["logger"] == "task.stdout")
    );
    assert_eq!(get(&format!("{runs}/one/taskInstances/greet/logs/7")).status, 404);
    let xcom = get(&format!("{runs}/one/taskInstances/count/xcomEntries/return_value")).json();
    assert_eq!(xcom["value"]["greetings"], 3);
    assert_eq!(get(&format!("{runs}/one/taskInstances/~/xcomEntries")).json()["total_entries"], 3);
    assert!(get("/api/v2/dagSources/hello").json()["content"].as_str().unwrap().contains("def greet"));
    assert_eq!(get("/api/v2/importErrors").json(), json!({"import_errors": [], "total_entries": 0}));
    let cleared = session.request("POST", &format!("{runs}/one/clear"), "{}").json();
    assert_eq!(cleared["total_entries"], 3, "a dry run by default");
    assert_eq!(get(&format!("{runs}/one")).json()["state"], "success");
    assert_eq!(session.request("PATCH", "/api/v2/dags/hello", r#"{"is_paused": true}"#).json()["is_paused"], true);
    assert_eq!(session.request("DELETE", &format!("{runs}/one"), "").status, 204);
    assert_eq!(get(&format!("{runs}/one")).status, 404);
}

#[test]
fn a_run_id_that_looks_like_a_date_names_its_run() {
    let test = TestHome::started();
    test.save("d.py", "from airflow.sdk import DAG, task\nwith DAG('d'):\n    @task\n    def t(): pass\n    t()\n");
    test.run(&["dags", "unpause", "d"]).expect(0);
    let trigger = |arguments: &[&str]| test.run(&[&["dags", "trigger", "d", "--wait"], arguments].concat()).expect(0);
    trigger(&["--run-id", "20260131"]);
    trigger(&["--run-id", "other", "--logical-date", "2026-01-31"]);
    let run_of = |name: &str| test.run(&["runs", "show", "d", name, "--json"]).expect(0).json()["dag_run_id"].clone();
    assert_eq!((run_of("20260131"), run_of("2026-01-31")), (json!("20260131"), json!("other")));
    test.run(&["tasks", "state", "d", "t", "20260131"]).expect(0);
    test.run(&["runs", "delete", "d", "20260131", "--yes"]).expect(0);
    assert_eq!(run_of("20260131"), "other");
    test.run(&["runs", "show", "d", "2026-02-01"]).expect(1);
}

#[test]
fn a_run_waits_for_its_run_after_time_and_logical_date() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    test.wait_dag("hello", 1);
    let after = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1500);
    let body = json!({"logical_date": null, "run_after": after.to_string(), "dag_run_id": "later"}).to_string();
    assert_eq!(session.request("POST", "/api/v2/dags/hello/dagRuns", &body).status, 200);
    let run = test.wait_run("hello", "later");
    assert_eq!(run["state"], "success");
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&run["start_date"]) >= after);
    // A logical date in the future delays the tasks of a run, not the run.
    let date = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let body = json!({"logical_date": date.to_string(), "dag_run_id": "ahead"}).to_string();
    assert_eq!(session.request("POST", "/api/v2/dags/hello/dagRuns", &body).status, 200);
    let has_started = "SELECT count(*) FROM dag_run WHERE run_id = 'ahead' AND state = 'running'";
    wait_until("the run has started", SOON, || test.sql(has_started) == "1");
    test.run(&["dags", "trigger", "hello", "--run-id", "beside", "--wait"]).expect(0);
    assert_eq!(test.sql("SELECT count(*) FROM task_instance WHERE run_id = 'ahead' AND state IS NOT NULL"), "0");
    let date = test.sql(
        "UPDATE dag_run SET logical_date = now() WHERE run_id = 'ahead'
         RETURNING to_char(logical_date AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    );
    let date: jiff::Timestamp = date.parse().unwrap();
    test.plan_again();
    let run = test.wait_run("hello", "ahead");
    assert_eq!(run["state"], "success");
    assert!(time(&run["start_date"]) < date && time(&task(&run, "greet")["start_date"]) >= date, "{run}");
}

#[test]
fn a_cleared_run_ends_although_its_task_left_the_dag() {
    let test = TestHome::started();
    test.add_dag("long", LONG);
    let run_id = test.trigger("long");
    let pid = task_pid(&test);
    test.save(
        "long.py",
        "from airflow.sdk import DAG, task\nwith DAG('long'):\n    @task\n    def other(): return 1\n    other()\n",
    );
    test.wait_dag("long", 2);
    test.run(&["runs", "clear", "long", &run_id, "--run-on-latest-version", "--yes"]).expect(0);
    let run = test.wait_run("long", &run_id);
    assert_eq!((run["state"].as_str(), task(&run, "sleep")["state"].as_str()), (Some("success"), Some("removed")));
    assert!(!is_alive(pid));
}

#[test]
fn a_run_with_running_tasks_is_not_deleted() {
    let test = TestHome::new().with_limit("LEOFLOW_TERM_GRACE", "600");
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    let ignores_sigterm = "import os, time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)";
    test.add_dag("long", &LONG.replace("import os, time", ignores_sigterm));
    let run_id = test.trigger("long");
    task_pid(&test);
    let path = format!("/api/v2/dags/long/dagRuns/{}", run_id.replace('+', "%2B"));
    assert_eq!(session.request("DELETE", &path, "").status, 409);
    test.run(&["runs", "cancel", "long", &run_id]).expect(0);
    assert_eq!(session.request("DELETE", &path, "").status, 409, "its task is still ending");
    test.save("go", "");
    wait_until("the task has ended", SOON, || session.request("DELETE", &path, "").status == 204);
}

#[test]
fn dags_test_isolates_tasks_and_applies_timeouts() {
    let test = TestHome::new();
    test.set_up();
    let text = "from datetime import timedelta\nfrom airflow.sdk import DAG, task, Variable\nSEEN = []\nwith DAG('apart'):\n    \
        @task\n    def first():\n        import os\n        SEEN.append(1); os.environ['LEFT'] = '1'\n        return Variable.get('v', default='offline')\n    \
        @task(execution_timeout=timedelta(seconds=1), retries=0)\n    def second(v):\n        import os, time\n        \
        print('saw', SEEN, os.environ.get('LEFT'), v)\n        time.sleep(30)\n    second(first())\n";
    test.save("apart.py", text);
    let done = test.run(&["dags", "test", "apart"]).expect(1);
    assert!(done.stdout.contains("saw [] None offline\n"), "{done:?}");
    assert!(done.stderr.contains("AirflowTaskTimeout") && done.stderr.contains("using the default"), "{done:?}");
    test.save("broken.py", "from airflow.sdk import DAG\nDAG('broken'\n");
    let done = test.run(&["dags", "test", "broken"]).expect(1);
    assert!(done.stderr.contains("SyntaxError"), "{}", done.stderr);
}

#[test]
fn the_cli_accepts_airflows_commands() {
    let test = TestHome::started();
    let text = "from airflow.sdk import DAG, task\n\
        with DAG('words'):\n    \
        @task\n    def work(n):\n        print('n is', n)\n        if n == 2: raise ValueError('two')\n    work.expand(n=[1, 2, 3])\n";
    test.add_dag("words", text);
    let timed = "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n\
        from datetime import datetime\n\
        with DAG('timed', schedule='0 6 * * *', start_date=datetime(2026, 1, 1), catchup=False):\n    EmptyOperator(task_id='t')\n";
    test.add_dag("timed", timed);
    let run = |arguments: &[&str]| test.run(arguments);
    wait_until("a next run", SOON, || !run(&["dags", "next-execution", "timed"]).stdout.is_empty());
    let next = run(&["dags", "next-execution", "timed", "-n", "3", "--utc"]).expect(0).stdout;
    let lines: Vec<&str> = next.lines().collect();
    assert_eq!(lines.len(), 3, "{next}");
    assert!(lines.iter().all(|line| line.ends_with("06:00:00 UTC")) && lines[0] < lines[1], "{next}");
    // The command waits for the import of a saved file.
    test.save("timed.py", &timed.replace("0 6", "0 7"));
    let changed = run(&["dags", "next-execution", "timed", "--json", "--utc"]).expect(0).json();
    assert!(changed["next"][0]["run_after"].as_str().unwrap().contains("T07:00:00"), "{changed}");
    assert!(changed["next_dagrun_run_after"].as_str().unwrap().contains("T07:00:00"), "{changed}");
    test.save("timed.py", timed);
    let mut local = test.command(&["dags", "next-execution", "timed"]);
    let local = String::from_utf8(local.env("TZ", "Asia/Tokyo").output().unwrap().stdout).unwrap();
    assert!(local.trim_end().ends_with("15:00:00 JST"), "{local}");
    // One mapped task instance, written as Leoflow prints it.
    let run_id = test.trigger("words");
    let watched = run(&["runs", "watch", "words", &run_id]);
    assert!(watched.stderr.contains("work[1]  failed"), "{}", watched.stderr);
    assert!(watched.stderr.contains("tasks logs words") && watched.stderr.contains("'work[1]'"), "{}", watched.stderr);
    assert_eq!(run(&["tasks", "state", "words", "latest", "work[2]"]).expect(0).stdout, "success\n");
    assert!(run(&["tasks", "logs", "words", "latest", "work[0]", "--plain"]).expect(0).stdout.contains("n is 1"));
    let unnamed = run(&["tasks", "state", "words", "latest", "work"]).expect(1);
    assert!(unnamed.stderr.contains("for example 'work[0]'"), "{}", unnamed.stderr);
    run(&["tasks", "logs", "words", "latest", "work[0]", "--map-index", "1"]).expect(2);
    // Output formats.
    let yaml = run(&["runs", "list", "words", "-o", "yaml"]).expect(0).stdout;
    assert!(yaml.contains("total_entries: 1"), "{yaml}");
    assert_eq!(run(&["runs", "list", "words", "--output", "json"]).expect(0).json()["total_entries"], 1);
    assert!(run(&["runs", "list", "words", "-o", "plain"]).expect(0).stdout.starts_with("RUN"));
    let refused = run(&["runs", "show", "nothing", "latest", "--json"]).expect(1);
    let error: Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!((&error["exit_code"], error["hints"].as_array().is_some()), (&json!(1), true), "{error}");
    let wrong = run(&["runs", "frobnicate", "--json"]).expect(2);
    assert_eq!(serde_json::from_str::<Value>(&wrong.stderr).unwrap()["exit_code"], 2);
    // DAG file commands.
    assert!(run(&["dags", "report"]).expect(0).stdout.contains("words.py"));
    run(&["dags", "list-import-errors"]).expect(0);
    test.save("broken.py", "from airflow.sdk import DAG\nraise ValueError('no')\n");
    wait_until("an import error", SOON, || run(&["dags", "list-import-errors"]).code == Some(1));
    let errors = run(&["dags", "list-import-errors", "--json"]).expect(1).json();
    assert!(errors["import_errors"][0]["filepath"].as_str().unwrap().ends_with("broken.py"), "{errors}");
    // Tasks to clear are selected by name, regular expression and dates.
    test.run(&["tasks", "clear", "words", "latest", "work[1]", "--yes"]).expect(0);
    test.wait_run("words", &run_id);
    for date in ["2026-02-01", "2026-02-02", "2026-02-03"] {
        let triggered = run(&["dags", "trigger", "words", "--logical-date", date, "--json"]).expect(0).json();
        test.wait_run("words", triggered["dag_run_id"].as_str().unwrap());
    }
    let some = ["tasks", "clear", "words", "-t", "^wo", "-s", "2026-02-02", "-e", "2026-02-03", "--yes", "--json"];
    let cleared = run(&some).expect(0).json();
    assert_eq!((cleared["dag_run_ids"].as_array().unwrap().len(), &cleared["cleared"]), (2, &json!(6)), "{cleared}");
    for bad in [&["-t", "^none", "-s", "2026-02-02"][..], &["-s", "2030-01-01"], &["-t", "(", "-s", "2026-01-01"]] {
        let done = run(&[&["tasks", "clear", "words", "--yes"], bad].concat());
        assert!(done.code != Some(0) && done.stderr.contains("hint:"), "{bad:?}: {}", done.stderr);
    }
    for run_id_of_cleared in cleared["dag_run_ids"].as_array().unwrap() {
        test.wait_run("words", run_id_of_cleared.as_str().unwrap());
    }
    let logs = test.home.join("task-logs/words").join(&run_id);
    assert!(logs.join("work/2").is_dir(), "{}", logs.display());
    let instance = format!("/api/v2/dags/words/dagRuns/{run_id}/taskInstances/work?map_index=2");
    assert_eq!(socket_request(&test.home, "DELETE", &instance, "", "").status, 200);
    assert!(!logs.join("work/2").exists() && logs.join("work/1").is_dir());
    run(&["runs", "delete", "words", &run_id, "--yes"]).expect(0);
    run(&["runs", "show", "words", &run_id]).expect(1);
    // Otherwise a new run with the same id would append to these logs.
    assert!(!logs.exists() && logs.parent().unwrap().is_dir());
    // Connection commands.
    let port = test.port.to_string();
    run(&["connections", "add", "here", "--conn-type", "http", "--conn-host", "127.0.0.1", "--conn-port", &port])
        .expect(0);
    assert!(run(&["connections", "test", "here"]).expect(0).stdout.contains("is reachable"));
    run(&["connections", "add", "gone", "--conn-type", "postgres", "--conn-host", "127.0.0.1", "--conn-port", "9"])
        .expect(0);
    assert!(run(&["connections", "test", "gone"]).expect(1).stdout.contains("not reachable"));
    // Short forms of commands.
    assert_eq!(run(&["status", "--json"]).expect(0).json()["state"], "healthy");
    assert!(!run(&["logs"]).expect(0).stdout.is_empty());
    run(&["backfill", "create", "timed", "--from-date", "2026-03-01", "--to-date", "2026-03-02", "--dry-run"])
        .expect(0);
    run(&["stop", "--yes"]).expect(0);
}

#[test]
fn shell_completion_offers_existing_ids() {
    let test = TestHome::started();
    test.wait_dag("hello", 1);
    let run_id = test.trigger("hello");
    let complete = |words: &[&str]| {
        let mut command = test.command(&[]);
        command.env("LEOFLOW_HOME", &test.home).env("LEOFLOW_COMPLETE", "bash").env("LEOFLOW_COMPLETE_LIMIT", "60");
        let index = (words.len() - 1).to_string();
        command.env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_IFS", "\n");
        // The shell's completion script passes the words that the user has typed and nothing else, not even `--home`.
        let program = command.get_program().to_owned();
        let mut completer = std::process::Command::new(program);
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                completer.env(name, value);
            }
        }
        String::from_utf8(completer.arg("--").args(words).output().unwrap().stdout).unwrap()
    };
    assert_eq!(complete(&["leoflow", "dags", "trigger", "he"]), "hello");
    assert!(complete(&["leoflow", "runs", "show", "hello", ""]).contains(&run_id));
    assert!(complete(&["leoflow", "tasks", "logs", "hello", "latest", ""]).contains("greet"));
    assert!(complete(&["leoflow", "runs", "--output", "json", "show", "hello", ""]).contains(&run_id));
    test.run(&["lite", "stop", "--yes"]).expect(0);
    assert_eq!(complete(&["leoflow", "dags", "trigger", "he"]), "");
}

#[test]
fn a_kill_during_a_deletion_keeps_a_dag_or_deletes_it() {
    for (checkpoint, is_kept) in [("logs.moved", true), ("logs.deletion-committed", false)] {
        let test = TestHome::started_with(&[("LEOFLOW_KILL_AT", checkpoint)]);
        let text =
            "from airflow.sdk import DAG, task\nwith DAG('deleted'):\n    @task\n    def t(): print('ran')\n    t()\n";
        test.add_dag("deleted", text);
        test.run(&["dags", "trigger", "deleted", "--run-id", "one", "--wait"]).expect(0);
        let server = test.pid("server");
        let interrupted = test.run(&["dags", "delete", "deleted", "--yes"]);
        assert_ne!(interrupted.code, Some(0), "{checkpoint}: {interrupted:?}");
        wait_until("a new server", SOON, || test.running_pid("server").is_some_and(|pid| pid != server));
        test.wait_healthy();
        let runs = || test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'deleted'");
        assert_eq!(runs(), if is_kept { "1" } else { "0" }, "{checkpoint}");
        let moved_away = test.home.join("task-logs/,deleted");
        wait_until("the moved logs are settled", SOON, || {
            std::fs::read_dir(&moved_away).is_ok_and(|mut entries| entries.next().is_none())
        });
        if !is_kept {
            // Its file still defines the DAG, whose new run has the id of the deleted one.
            test.wait_dag("deleted", 1);
            test.run(&["dags", "trigger", "deleted", "--run-id", "one", "--wait"]).expect(0);
        }
        let log = test.task_log("deleted", "t");
        assert_eq!(log.matches("ran").count(), 1, "{checkpoint}: {log}");
        assert_eq!(runs(), "1");
    }
}

#[test]
fn a_triggered_run_that_is_reset_takes_the_newest_version() {
    let test = TestHome::started();
    let target = |arguments: &str, word: &str| {
        format!(
            "from airflow.sdk import DAG, task\nwith DAG('target'{arguments}):\n    @task\n    def t(): return {word:?}\n    t()\n"
        )
    };
    let caller = "from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator\n\
                  from airflow.sdk import DAG\nwith DAG('caller'):\n    \
                  TriggerDagRunOperator(task_id='call', trigger_dag_id='target', trigger_run_id='fixed',\n        \
                  reset_dag_run=True, wait_for_completion=True, poke_interval=0.2)\n";
    test.add_dag("target", &target("", "first"));
    test.add_dag("caller", caller);
    let said = || test.sql("SELECT value FROM xcom WHERE dag_id = 'target' AND run_id = 'fixed'");
    let version = || {
        test.sql("SELECT v.version_number FROM dag_run r JOIN dag_version v ON v.id = r.dag_version_id WHERE r.run_id = 'fixed'")
    };
    let call = || assert_eq!(test.run_dag("caller")["state"], "success");
    call();
    assert_eq!((said().as_str(), version().as_str()), ("\"first\"", "1"));
    // Like Airflow with a local bundle.
    test.save("target.py", &target("", "second"));
    test.wait_dag("target", 2);
    call();
    assert_eq!((said().as_str(), version().as_str()), ("\"second\"", "2"));
    // The DAG's own setting decides.
    test.save("target.py", &target(", rerun_with_latest_version=False", "third"));
    test.wait_dag("target", 3);
    call();
    assert_eq!((said().as_str(), version().as_str()), ("\"second\"", "2"));
    assert_eq!(test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'target'"), "1");
}

#[test]
fn a_waiting_retry_shows_its_next_try() {
    let test = TestHome::started();
    test.add_dag(
        "again",
        "from airflow.sdk import DAG, task\n\n@task(retries=1, retry_delay=300)\ndef report():\n    raise ValueError('no')\n\n\
         with DAG('again'):\n    report()\n",
    );
    let run_id = test.trigger("again");
    wait_until("the task waits for its retry", Duration::from_secs(30), || {
        test.run(&["runs", "show", "again", &run_id]).expect(0).stdout.contains("up_for_retry")
    });
    let shown = test.run(&["runs", "show", "again", &run_id]).expect(0).stdout;
    assert!(shown.contains("next try at ") && shown.contains(": ValueError: no"), "{shown}");
}

#[test]
fn a_retry_without_a_delay_has_its_own_start_date() {
    let test = TestHome::started();
    test.add_dag(
        "again",
        "from airflow.sdk import DAG, task\n\n@task(retries=1, retry_delay=0)\ndef report(ti):\n    if ti.try_number == 1:\n        \
         raise ValueError('no')\n\n\nwith DAG('again'):\n    report()\n",
    );
    test.run(&["dags", "trigger", "again", "--wait"]).expect(0);
    let query = "SELECT t.start_date >= first.end_date, t.try_number FROM task_instance t
                 JOIN task_try first ON first.dag_id = t.dag_id AND first.try_number = 1";
    assert_eq!(test.sql(query), "t|2");
}
