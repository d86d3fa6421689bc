//! Clearing, marking and deleting runs and task instances over Airflow's API, and the event log of changes.

use crate::support::TestHome;
use crate::support::http::{Api, Session, socket_request, try_request};
use crate::support::wait_until;
use serde_json::{Value, json};
use std::time::Duration;

const DAGS: &str = "
import time
from datetime import datetime
from airflow.sdk import DAG, TaskGroup, task

@task
def fails():
    raise ValueError('no')

@task
def fine():
    return 1

@task
def each(n):
    return n

@task
def sleeps():
    time.sleep(600)

with DAG('line'):
    one, two, three = (make.override(task_id=name)() for make, name in [(fine, 'one'), (fails, 'two'), (fine, 'three')])
    one >> two >> three
    with TaskGroup('group'):
        each.expand(n=[1, 2])
with DAG('long'):
    sleeps()
with DAG('nightly', schedule='@daily', start_date=datetime(2026, 1, 1), is_paused_upon_creation=False):
    fails.override(task_id='bad')() >> fails.override(task_id='worse', trigger_rule='all_done')()
with DAG('daily', schedule='@daily', start_date=datetime(2026, 1, 1)):
    fine.override(task_id='day')()
";

fn started_api() -> (TestHome, Api) {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.save("dags.py", DAGS);
    test.wait_dag("line", 1);
    let api = Api(Session::login(test.port, &password));
    (test, api)
}

/// Starts a home where a run of `line` has failed.
fn with_failed_run() -> (TestHome, Api) {
    let (test, api) = started_api();
    test.run(&["dags", "trigger", "line", "--run-id", "first", "--wait"]).expect(1);
    (test, api)
}

const RUN: &str = "dags/line/dagRuns/first";

fn states(api: &Api, run: &str) -> Vec<String> {
    let answer = api.get(&format!("{run}/taskInstances?order_by=task_id"));
    let text = |instance: &Value| {
        let state = instance["state"].as_str().unwrap_or("none");
        format!("{}[{}] {state}", instance["task_id"].as_str().unwrap(), instance["map_index"])
    };
    answer["task_instances"].as_array().unwrap().iter().map(text).collect()
}

fn names(answer: &Value) -> Vec<&str> {
    answer["task_instances"].as_array().unwrap().iter().map(|instance| instance["task_id"].as_str().unwrap()).collect()
}

fn wait_state(api: &Api, run: &str, state: &str) {
    wait_until(&format!("{run} is {state}"), Duration::from_secs(30), || api.get(run)["state"] == state);
}

#[test]
fn marking_a_task_success_reruns_upstream_failed_tasks() {
    let (_test, api) = with_failed_run();
    let before = [
        "group.each[0] success",
        "group.each[1] success",
        "one[-1] success",
        "three[-1] upstream_failed",
        "two[-1] failed",
    ];
    assert_eq!(states(&api, RUN), before);
    let two = format!("{RUN}/taskInstances/two");
    let dry_run = api.expect(
        "PATCH",
        &format!("{two}/dry_run"),
        json!({"new_state": "success", "include_downstream": true}),
        200,
    );
    assert_eq!(names(&dry_run), ["three", "two"]);
    assert_eq!(states(&api, RUN), before, "a dry run changes nothing");
    let marked = api.expect("PATCH", &two, json!({"new_state": "success", "note": "by hand"}), 200);
    assert_eq!(
        (&marked["task_instances"][0]["state"], &marked["task_instances"][0]["note"]),
        (&json!("success"), &json!("by hand"))
    );
    wait_state(&api, RUN, "success");
    assert_eq!(states(&api, RUN)[3..], ["three[-1] success", "two[-1] success"]);
    api.expect("PATCH", &two, json!({"new_state": "success"}), 409);
    for (body, status) in [
        (json!({"new_state": "running"}), 422),
        (json!({"new_state": null}), 422),
        (json!({"state": "success"}), 422),
        (json!({"note": "x".repeat(1001)}), 422),
    ] {
        api.expect("PATCH", &two, body, status);
    }
    api.expect("PATCH", &format!("{RUN}/taskInstances/nothing"), json!({"new_state": "success"}), 404);
    api.expect("PATCH", &format!("{RUN}/taskInstances/group.each/7"), json!({"new_state": "failed"}), 404);
    // Marks a mapped instance, then its task group.
    api.expect("PATCH", &format!("{RUN}/taskInstances/group.each/1"), json!({"new_state": "failed"}), 200);
    assert_eq!(states(&api, RUN)[..2], ["group.each[0] success", "group.each[1] failed"]);
    let group = format!("{RUN}/taskGroupInstances/group");
    let dry_run = api.expect("PATCH", &format!("{group}/dry_run"), json!({"new_state": "success"}), 200);
    assert_eq!(dry_run["total_entries"], 1, "{dry_run}");
    api.expect("PATCH", &group, json!({"new_state": "success"}), 200);
    api.expect("PATCH", &group, json!({"new_state": "success"}), 409);
    api.expect("PATCH", &format!("{RUN}/taskGroupInstances/none"), json!({"new_state": "success"}), 404);
    // Removes a note without changing the state.
    api.expect("PATCH", &two, json!({"note": ""}), 200);
    assert_eq!(api.get(&two)["note"], Value::Null);
}

/// As in Airflow, the marks are limited to runs of the schedule, and the clears are not.
#[test]
fn marking_the_future_clears_failed_tasks_of_all_later_runs() {
    let (test, api) = started_api();
    let run = |day: &str| format!("dags/nightly/dagRuns/{day}");
    for day in ["01", "02", "03"] {
        let date = format!("2026-01-{day}T00:00:00Z");
        api.expect("POST", "dags/nightly/dagRuns", json!({"dag_run_id": day, "logical_date": date}), 200);
        wait_state(&api, &run(day), "failed");
    }
    let bad = format!("{}/taskInstances/bad", run("02"));
    let marked = api.expect("PATCH", &bad, json!({"new_state": "success", "include_future": true}), 200);
    assert!(
        marked["task_instances"].as_array().unwrap().iter().all(|instance| instance["dag_run_id"] != "03"),
        "{marked}"
    );
    for day in ["02", "03"] {
        wait_until("the second task was tried again", Duration::from_secs(30), || {
            test.sql(&format!("SELECT count(*) FROM task_try WHERE run_id = '{day}' AND task_id = 'worse'")) == "2"
        });
    }
    let tries = "SELECT string_agg(run_id || ' ' || task_id || ' ' || try_number, ', ' ORDER BY run_id, task_id)
        FROM task_instance WHERE run_id < '10'";
    assert_eq!(test.sql(tries), "01 bad 1, 01 worse 1, 02 bad 1, 02 worse 2, 03 bad 1, 03 worse 2");
}

#[test]
fn marking_a_running_task_ends_its_process() {
    let (test, api) = started_api();
    test.run(&["dags", "trigger", "long", "--run-id", "first"]).expect(0);
    let task = "dags/long/dagRuns/first/taskInstances/sleeps";
    wait_until("the task runs", Duration::from_secs(30), || api.get(task)["pid"].is_number());
    let body = json!({"dag_run_id": "first", "dry_run": false, "only_failed": false, "prevent_running_task": true});
    api.expect("POST", "dags/long/clearTaskInstances", body, 409);
    api.expect("DELETE", task, Value::Null, 409);
    let waits = api.get(&format!("{task}/dependencies"));
    assert_eq!(waits["dependencies"], json!([]), "a running task has no unmet dependencies");
    api.expect("PATCH", task, json!({"new_state": "success"}), 200);
    wait_state(&api, "dags/long/dagRuns/first", "success");
    wait_until("the task's process has ended", Duration::from_secs(30), || {
        test.sql("SELECT count(*) FROM task_try WHERE state = 'running'") == "0"
    });
    api.expect("DELETE", task, Value::Null, 200);
    api.expect("GET", task, Value::Null, 404);
    api.expect("DELETE", task, Value::Null, 404);
}

#[test]
fn clears_reach_other_runs_and_have_a_dry_run() {
    let (test, api) = started_api();
    for day in ["2026-01-01", "2026-01-02", "2026-01-03"] {
        let body = json!({"dag_run_id": day, "logical_date": format!("{day}T00:00:00Z"), "note": "mine"});
        api.expect("POST", "dags/daily/dagRuns", body, 200);
        test.run(&["dags", "unpause", "daily"]).expect(0);
    }
    for day in ["2026-01-01", "2026-01-02", "2026-01-03"] {
        wait_state(&api, &format!("dags/daily/dagRuns/{day}"), "success");
    }
    // Cleared tasks of a paused DAG do not run.
    test.run(&["dags", "pause", "daily"]).expect(0);
    let clear = |body: Value, status| api.expect("POST", "dags/daily/clearTaskInstances", body, status);
    let count = |body: Value| clear(body, 200)["total_entries"].as_i64().unwrap();
    let in_runs = |body: Value| {
        let answer = clear(body, 200);
        let runs = answer["task_instances"].as_array().unwrap().iter();
        runs.map(|instance| instance["dag_run_id"].as_str().unwrap().to_owned())
            .filter(|id| id.starts_with("2026-01-0"))
            .collect::<Vec<_>>()
    };
    assert_eq!(count(json!({"dag_run_id": "2026-01-02"})), 0, "only failed instances by default");
    assert_eq!(count(json!({"dag_run_id": "2026-01-02", "only_failed": false})), 1);
    let past = json!({"dag_run_id": "2026-01-02", "only_failed": false, "include_past": true});
    assert_eq!(in_runs(past), ["2026-01-01", "2026-01-02"]);
    let days = json!({"only_failed": false, "start_date": "2026-01-02T00:00:00Z", "end_date": "2026-01-03T00:00:00Z"});
    assert_eq!(in_runs(days), ["2026-01-02", "2026-01-03"]);
    for wrong in [
        json!({"only_failed": true, "only_running": true}),
        json!({"dag_run_id": "2026-01-02", "start_date": "2026-01-02T00:00:00Z"}),
        json!({"start_date": "2026-01-03T00:00:00Z", "end_date": "2026-01-02T00:00:00Z"}),
        json!({"dag_run_id": "2026-01-02", "task_ids": []}),
        json!({"dag_run_id": "2026-01-02", "task_ids": [["day", "x"]]}),
        json!({"dag_run_id": "2026-01-02", "tasks": ["day"]}),
    ] {
        clear(wrong, 422);
    }
    clear(json!({"dag_run_id": "never"}), 404);
    // Clears the instance but not its run: the instance has no state, and the run stays finished.
    let day = "dags/daily/dagRuns/2026-01-01";
    let instance_only = json!({"dag_run_id": "2026-01-01", "dry_run": false, "only_failed": false, "reset_dag_runs": false, "note": "again"});
    let cleared = clear(instance_only, 200);
    assert_eq!(cleared["task_instances"][0]["note"], "again");
    assert_eq!(
        (&api.get(day)["state"], &api.get(&format!("{day}/taskInstances/day"))["state"]),
        (&json!("success"), &Value::Null)
    );
    // Clears several runs at once.
    let runs = json!([{"dag_run_id": "2026-01-02"}, {"dag_run_id": "2026-01-03"}]);
    let dry_run = api.expect("POST", "dags/daily/clearDagRuns", json!({"dag_runs": runs}), 200);
    assert_eq!(dry_run["total_entries"], 2);
    let done =
        api.expect("POST", "dags/daily/clearDagRuns", json!({"dag_runs": runs, "dry_run": false, "note": "all"}), 200);
    assert_eq!((&done["dag_runs"][0]["state"], &done["dag_runs"][1]["note"]), (&json!("queued"), &json!("all")));
    for wrong in [
        json!({}),
        json!({"dag_runs": runs, "partition_key": "x"}),
        json!({"dag_runs": runs, "only_new": true, "only_failed": true}),
    ] {
        api.expect("POST", "dags/daily/clearDagRuns", wrong, 422);
    }
    api.expect("POST", "dags/~/clearDagRuns", json!({"dag_runs": runs}), 400);
    let with_one_wrong = json!({"dag_runs": [{"dag_run_id": "2026-01-01"}, {"dag_run_id": "never"}], "dry_run": false});
    api.expect("POST", "dags/daily/clearDagRuns", with_one_wrong, 404);
    assert_eq!(api.get(day)["state"], "success", "all runs or none");
    let cleared =
        api.expect("POST", "dags/daily/clearPartitions", json!({"run_id": "2026-01-01", "dry_run": false}), 200);
    assert_eq!(cleared, json!({"dag_runs_cleared": 0, "task_instances_cleared": 0, "dry_run": false}));
    // Clears only tasks without an instance in the run.
    let new = api.expect("POST", &format!("{day}/clear"), json!({"only_new": true}), 200);
    assert_eq!(new["total_entries"], 0);
    test.save("dags.py", &DAGS.replace("task_id='day')()", "task_id='day')()\n    fine.override(task_id='added')()"));
    test.wait_dag("daily", 2);
    let new = api.expect("POST", &format!("{day}/clear"), json!({"only_new": true}), 200);
    assert_eq!(new["task_instances"], json!([{"task_id": "added", "task_display_name": "added"}]));
    let run = api.expect("POST", &format!("{day}/clear"), json!({"only_new": true, "dry_run": false}), 200);
    assert_eq!(run["state"], "queued");
}

#[test]
fn bulk_changes_report_each_entity() {
    let (_test, api) = with_failed_run();
    let instances = |path: &str, actions: Value| {
        api.expect("PATCH", &format!("{path}/taskInstances"), json!({"actions": actions}), 200)
    };
    let answer = instances(
        RUN,
        json!([{"action": "update", "entities": [
            {"task_id": "two", "new_state": "failed"}, {"task_id": "one", "new_state": "failed"},
            {"task_id": "group.each", "map_index": 1, "new_state": "skipped", "note": "n"}]}]),
    );
    assert_eq!(answer["update"]["success"], json!(["line.first.one[-1]", "line.first.group.each[1]"]));
    assert_eq!(
        answer["update"]["errors"],
        json!([{"error": "Task id two is already in failed state", "status_code": 409}])
    );
    assert_eq!(states(&api, RUN)[..3], ["group.each[0] success", "group.each[1] skipped", "one[-1] failed"]);
    let absent = json!([{"action": "delete", "entities": ["nothing", "three"]}]);
    let answer = instances(RUN, absent);
    assert_eq!(
        (&answer["delete"]["success"], &answer["delete"]["errors"][0]["status_code"]),
        (&json!([]), &json!(404))
    );
    let answer = instances(
        RUN,
        json!([{"action": "delete", "entities": ["nothing", "three"], "action_on_non_existence": "skip"}]),
    );
    assert_eq!(answer["delete"]["success"], json!(["line.first.three[-1]"]));
    let answer = instances("dags/~/dagRuns/~", json!([{"action": "delete", "entities": ["two"]}]));
    assert_eq!(answer["delete"]["errors"][0]["status_code"], 400);
    let answer = instances(RUN, json!([{"action": "create", "entities": [{"task_id": "one"}]}]));
    assert_eq!(answer["create"]["errors"][0]["status_code"], 405);
    for wrong in [
        json!([{"action": "update", "entities": [{"task_id": "one", "new_state": "lost"}]}]),
        json!([{"action": "update", "entities": ["one"]}]),
        json!([{"action": "update", "entities": [{"new_state": "failed"}]}]),
        json!([{"action": "update", "entities": [{"task_id": "one", "map_index": "x"}]}]),
    ] {
        api.expect("PATCH", &format!("{RUN}/taskInstances"), json!({"actions": wrong}), 422);
    }
    let runs = |path: &str, actions: Value| {
        api.expect("PATCH", &format!("dags/{path}/dagRuns"), json!({"actions": actions}), 200)
    };
    let answer = runs(
        "~",
        json!([{"action": "update", "entities": [{"dag_id": "line", "dag_run_id": "first", "state": "success", "note": "n"}]}]),
    );
    assert_eq!(answer["update"]["success"], json!(["line.first"]));
    assert_eq!((&api.get(RUN)["state"], &api.get(RUN)["note"]), (&json!("success"), &json!("n")));
    let answer = runs("line", json!([{"action": "delete", "entities": ["first", "never"]}]));
    assert_eq!(answer["delete"]["errors"][0]["status_code"], 404);
    let answer =
        runs("line", json!([{"action": "delete", "entities": ["first", "never"], "action_on_non_existence": "skip"}]));
    assert_eq!(answer["delete"], json!({"success": ["line.first"], "errors": []}));
    api.expect("GET", RUN, Value::Null, 404);
}

#[test]
fn changes_are_logged_without_secrets() {
    let (test, api) = started_api();
    api.expect("POST", "variables", json!({"key": "plain", "value": "s3cret"}), 201);
    api.expect("POST", "variables", json!({"key": "plain", "value": "s3cret"}), 409);
    api.expect(
        "POST",
        "connections",
        json!({"connection_id": "c", "conn_type": "http", "password": "s3cret", "extra": "{\"x\": \"s3cret\"}"}),
        201,
    );
    api.expect(
        "POST",
        "dags/line/dagRuns",
        json!({"dag_run_id": "first", "logical_date": null, "conf": {"token": "s3cret", "n": 1}}),
        200,
    );
    api.expect("POST", "dags/line/clearTaskInstances", json!({"dag_run_id": "first"}), 200);
    api.expect("POST", "dags/line/favorite", Value::Null, 204);
    assert_eq!(api.get("dags?is_favorite=true")["dags"][0]["dag_id"], "line");
    assert_eq!(api.get("dags/line/details")["is_favorite"], true);
    api.expect("POST", "dags/line/unfavorite", Value::Null, 204);
    api.expect("POST", "dags/line/unfavorite", Value::Null, 409);
    api.expect("POST", "dags/nothing/favorite", Value::Null, 404);
    api.expect("PATCH", "dags?dag_id_pattern=no%20such", json!({"is_paused": true}), 200);
    api.expect("DELETE", "dags/line/dagRuns/first/taskInstances/one?map_index=7", Value::Null, 404);
    let logs = api.get("eventLogs?order_by=event_log_id");
    let events: Vec<&str> =
        logs["event_logs"].as_array().unwrap().iter().map(|log| log["event"].as_str().unwrap()).collect();
    assert_eq!(
        events,
        [
            "post_variable",
            "post_variable",
            "post_connection",
            "trigger_dag_run",
            "favorite_dag",
            "unfavorite_dag",
            "unfavorite_dag",
            "favorite_dag",
            "patch_dags",
            "delete_task_instance",
        ]
    );
    assert!(!logs.to_string().contains("s3cret"), "{logs}");
    let run = &api.get("eventLogs?dag_id=line&event_pattern=trigger")["event_logs"][0];
    assert_eq!((&run["run_id"], &run["owner"]), (&json!("first"), &json!("admin@leoflow.local")));
    assert_eq!(run["extra"].as_str().unwrap().parse::<Value>().unwrap()["conf"]["n"], 1);
    assert_eq!(&api.get(&format!("eventLogs/{}", run["event_log_id"])), run);
    let without_posts = "eventLogs?excluded_events=post_variable&excluded_events=post_connection&dag_id=line";
    assert_eq!(api.get(without_posts)["total_entries"], 5, "trigger, favorite, unfavorite twice, and a refused change");
    let last = &api.get("eventLogs?order_by=-event_log_id&limit=2")["event_logs"];
    assert_eq!((&last[0]["map_index"], &last[0]["task_id"]), (&json!(7), &json!("one")));
    assert!(last[1]["extra"].as_str().unwrap().contains("no such"), "{last}");
    assert_eq!(api.get("eventLogs?before=2020-01-01T00:00:00Z")["total_entries"], 0);
    api.expect("GET", "eventLogs/99999", Value::Null, 404);
    assert!(!test.sql("SELECT string_agg(extra, '') FROM event_log").contains("s3cret"));
    // The instance's jobs, configuration and health.
    let jobs = api.get("jobs?is_alive=true");
    assert_eq!(jobs["total_entries"], 3, "{jobs}");
    assert_eq!(api.get("jobs?job_type=SchedulerJob")["jobs"][0]["state"], "running");
    let parallelism = api.get("config/section/core/option/parallelism");
    assert_eq!(parallelism["sections"][0]["options"], json!([{"key": "parallelism", "value": "32"}]));
    assert!(api.get("config")["sections"].as_array().unwrap().len() > 2);
    api.expect("GET", "config?section=none", Value::Null, 404);
    api.expect("GET", "config/section/core/option/none", Value::Null, 404);
    let health = api.get("monitor/health");
    for part in ["metadatabase", "scheduler", "triggerer", "dag_processor"] {
        assert_eq!(health[part]["status"], "healthy", "{health}");
    }
}

#[test]
fn a_token_is_invalid_after_logout() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let form = format!("username=admin%40leoflow.local&password={password}");
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    let response = try_request(test.port, "POST", "/auth/token/cli", &[kind], &form).unwrap();
    assert_eq!(response.status, 201, "{}", response.body);
    let token = format!("Bearer {}", response.json()["access_token"].as_str().unwrap());
    let get_pools =
        |token: &str| try_request(test.port, "GET", "/api/v2/pools", &[("Authorization", token)], "").unwrap().status;
    let other = Session::login(test.port, &password);
    assert_eq!(get_pools(&token), 200);
    let out = try_request(test.port, "GET", "/api/v2/auth/logout", &[("Authorization", &token)], "").unwrap();
    assert_eq!(out.status, 307);
    assert_eq!(get_pools(&token), 401);
    test.run(&["lite", "restart"]).expect(0);
    assert_eq!(get_pools(&token), 401, "also after a restart");
    assert_eq!(other.request("GET", "/api/v2/pools", "").status, 200, "others stay logged in");
}

#[test]
fn changed_after_includes_cleared_and_marked_tasks() {
    let test = TestHome::started();
    let text = "from airflow.sdk import DAG, task\nwith DAG('changes'):\n    @task\n    def one(): pass\n    \
                @task\n    def two(): pass\n    one(), two()\n";
    test.add_dag("changes", text);
    let run_id = test.trigger("changes");
    test.wait_run("changes", &run_id);
    // The scheduler leaves the tasks of a paused DAG as they are.
    test.run(&["dags", "pause", "changes"]).expect(0);
    let now = || test.sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    let changed = |since: &str| -> Vec<String> {
        let path = format!("/api/lite/dags/changes/runs/{run_id}?changed_after={since}");
        let run = socket_request(&test.home, "GET", &path, "", "").json();
        let instances = run["task_instances"].as_array().unwrap().iter();
        instances.map(|one| format!("{} {}", one["task_id"].as_str().unwrap(), one["state"])).collect()
    };
    let start = now();
    assert_eq!(changed(&start), [""; 0]);
    test.run(&["tasks", "clear", "changes", &run_id, "two", "--yes"]).expect(0);
    assert_eq!(changed(&start), ["two null"]);
    let cleared = now();
    let path = format!("/api/v2/dags/changes/dagRuns/{run_id}/taskInstances/one");
    let mark = json!({"new_state": "failed"}).to_string();
    assert_eq!(socket_request(&test.home, "PATCH", &path, "", &mark).status, 200);
    assert_eq!(changed(&cleared), ["one \"failed\""]);
}
