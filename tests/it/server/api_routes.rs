//! Routes of Airflow's API other than filtered lists: their effects, and the requests that they refuse.

use crate::support::http::{Api, Session, socket_request, try_request};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const DAGS: &str = "
from airflow.sdk import DAG, Asset, AssetAlias, task

@task(retries=1, retry_delay=0, outlets=[Asset('made'), AssetAlias('some')])
def one(ti=None):
    if ti.try_number == 1:
        raise ValueError('once')
    return {'n': 1}

@task(pool='nowhere')
def never():
    pass

with DAG('shown', tags=['red']):
    one()
with DAG('waiting', schedule=[Asset('made'), Asset('other')], is_paused_upon_creation=False, tags=['blue', 'red']):
    never()
";

/// Starts a home where a run of `shown` has finished after two tries of its task.
fn home_with_finished_run() -> (TestHome, Api) {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.save("dags.py", DAGS);
    test.wait_dag("shown", 1);
    test.wait_dag("waiting", 1);
    test.run(&["dags", "trigger", "shown", "--run-id", "first", "--wait"]).expect(0);
    let api = Api(Session::login(test.port, &password));
    (test, api)
}

const TASK: &str = "dags/shown/dagRuns/first/taskInstances/one";

#[test]
fn versions_tags_tries_and_queued_events_are_served() {
    let (test, api) = home_with_finished_run();
    let version = api.get("dags/shown/dagVersions/1");
    assert_eq!(api.get("dags/shown/dagVersions")["dag_versions"], json!([version]));
    // The UI's Code tab has no label for it; the UI needs that of the run to offer a rerun on the newest version.
    assert_eq!(version["bundle_version"], Value::Null);
    assert_eq!(api.get("dags/shown/dagRuns/first")["dag_versions"][0]["bundle_version"], "1");
    assert_eq!(api.get("dags/~/dagVersions?order_by=-version_number")["total_entries"], 3);
    api.expect("GET", "dags/shown/dagVersions/9", Value::Null, 404);
    assert_eq!(api.get("dagTags")["tags"], json!(["blue", "example", "red"]));
    assert_eq!(api.get("dagTags?tag_name_pattern=lu")["tags"], json!(["blue"]));
    let stats = api.get("dagStats?dag_ids=shown");
    let success = stats["dags"][0]["stats"].as_array().unwrap().iter().find(|row| row["state"] == "success");
    assert_eq!((stats["total_entries"].as_i64(), success.unwrap()["count"].as_i64()), (Some(1), Some(1)));
    // As in Airflow, DAGs without runs are left out.
    let with_runs: Vec<String> =
        test.sql("SELECT DISTINCT dag_id FROM dag_run ORDER BY 1").lines().map(str::to_owned).collect();
    let counted: Vec<_> =
        api.get("dagStats")["dags"].as_array().unwrap().iter().map(|dag| dag["dag_id"].clone()).collect();
    assert_eq!(json!(counted), json!(with_runs));
    let warning = &api.get("dagWarnings?dag_id=waiting")["dag_warnings"][0];
    assert!(warning["message"].as_str().unwrap().contains("['nowhere']"), "{warning}");
    assert_eq!(api.get("dagWarnings?warning_type=other")["total_entries"], 0);
    let alias = &api.get("assets/aliases")["asset_aliases"][0];
    assert_eq!((&alias["name"], &api.get(&format!("assets/aliases/{}", alias["id"]))), (&json!("some"), alias));
    let tries = api.get(&format!("{TASK}/tries"));
    let states: Vec<(i64, &str)> = tries["task_instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| (instance["try_number"].as_i64().unwrap(), instance["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [(1, "failed"), (2, "success")]);
    assert_eq!(api.get(&format!("{TASK}/tries/1"))["state"], "failed");
    assert_eq!(api.get(&format!("{TASK}/-1/tries/2"))["state"], "success");
    api.expect("GET", &format!("{TASK}/tries/3"), Value::Null, 404);
    assert_eq!(api.get(&format!("{TASK}/links"))["total_entries"], 0);
    // `waiting` has one of its two assets, so the event stays queued.
    let asset = test.sql("SELECT id FROM asset WHERE name = 'made'");
    let queued = api.get("dags/waiting/assets/queuedEvents");
    assert_eq!(queued["queued_events"][0]["asset_id"].to_string(), asset.trim());
    assert_eq!(api.get(&format!("assets/{asset}/queuedEvents")), queued);
    let event = format!("dags/waiting/assets/{asset}/queuedEvents");
    assert_eq!(api.get(&event), queued["queued_events"][0]);
    api.expect("DELETE", &format!("{event}?before=2020-01-01T00:00:00Z"), Value::Null, 404);
    api.expect("DELETE", &event, Value::Null, 204);
    api.expect("GET", &event, Value::Null, 404);
    assert_eq!(api.get(&format!("assets/{asset}/queuedEvents"))["total_entries"], 0);
    // A name belongs to one asset, and so does a URI. An asset that repeats either is inactive; its DAG gets a warning.
    test.save(
        "twins.py",
        "from airflow.sdk import DAG, Asset\ndag = DAG('twins', schedule=Asset('other', 's://x') | Asset('new', 'made'))\n",
    );
    test.wait_dag("twins", 1);
    let uris = |query: &str| -> Vec<Value> {
        let list = api.get(&format!("assets?order_by=id{query}"));
        list["assets"].as_array().unwrap().iter().map(|asset| asset["uri"].clone()).collect()
    };
    assert_eq!(uris(""), ["made", "other"]);
    assert_eq!(uris("&only_active=false"), ["made", "other", "s://x/", "made"]);
    let warnings = api.get("dagWarnings?warning_type=asset%20conflict&order_by=message");
    let messages: Vec<&str> = warnings["dag_warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| warning["message"].as_str().unwrap())
        .collect();
    assert_eq!(messages.len(), 2, "{warnings}");
    assert!(messages[0].ends_with("; uri is already associated to 'made'"), "{}", messages[0]);
    assert!(messages[1].ends_with("; name is already associated to 'other'"), "{}", messages[1]);
}

#[test]
fn xcoms_and_state_stores_follow_airflows_api() {
    let (test, api) = home_with_finished_run();
    let entries = format!("{TASK}/xcomEntries");
    let created = api.expect("POST", &entries, json!({"key": "a/b", "value": {"x": 1.0}}), 201);
    assert_eq!((&created["value"], &created["map_index"]), (&json!({"x": 1.0}), &json!(-1)));
    api.expect("POST", &entries, json!({"key": "a/b", "value": 2}), 409);
    assert_eq!(api.expect("PATCH", &format!("{entries}/a/b"), json!({"value": [2]}), 200)["value"], json!([2]));
    assert_eq!(api.get(&format!("{entries}/a/b?stringify=true"))["value"], "[2]");
    api.expect("PATCH", &format!("{entries}/none"), json!({"value": 1}), 404);
    api.expect("DELETE", &format!("{entries}/a/b"), Value::Null, 204);
    api.expect("DELETE", &format!("{entries}/a/b"), Value::Null, 404);
    api.expect("POST", &entries, json!({"key": "k", "value": 1, "map_index": 3}), 404);
    api.expect("POST", &entries, json!({"key": "k", "value": 1, "odd": 3}), 422);

    let store = format!("{TASK}/state-store");
    api.expect("PUT", &format!("{store}/where/at"), json!({"value": {"at": 1}, "expires_at": null}), 204);
    let stored = api.get(&format!("{store}/where/at"));
    assert_eq!((&stored["value"], &stored["expires_at"]), (&json!({"at": 1}), &Value::Null));
    api.expect("PATCH", &format!("{store}/where/at"), json!({"value": 2}), 200);
    assert_eq!(api.get(&store)["task_state_store"][0]["value"], 2);
    api.expect("PUT", &format!("{store}/k"), json!({"value": null}), 422);
    api.expect("PUT", &format!("{store}/k"), json!({"value": 1, "expires_at": "tomorrow"}), 422);
    api.expect("PUT", &format!("{store}/k?map_index=4"), json!({"value": 1}), 404);
    api.expect("PATCH", &format!("{store}/k"), json!({"value": 1}), 404);
    api.expect("DELETE", &store, Value::Null, 204);
    assert_eq!(api.get(&store)["total_entries"], 0);

    let asset = test.sql("SELECT id FROM asset WHERE name = 'made'");
    let store = format!("assets/{asset}/state-store");
    api.expect("PUT", &format!("{store}/k"), json!({"value": "v"}), 204);
    let stored = api.get(&format!("{store}/k"));
    let by = &stored["last_updated_by"];
    assert_eq!((&stored["value"], &by["kind"], &by["dag_id"]), (&json!("v"), &json!("api"), &Value::Null));
    api.expect("DELETE", &format!("{store}/k"), Value::Null, 204);
    api.expect("GET", &format!("{store}/k"), Value::Null, 404);
    api.expect("GET", "assets/999/state-store", Value::Null, 404);
}

#[test]
fn each_action_of_a_bulk_change_is_atomic() {
    let (test, api) = home_with_finished_run();
    for (path, name, first, second, changed) in [
        (
            "variables",
            "key",
            json!({"key": "a", "value": "1"}),
            json!({"key": "b", "value": "1"}),
            json!({"value": "2"}),
        ),
        (
            "connections",
            "connection_id",
            json!({"connection_id": "a", "conn_type": "http"}),
            json!({"connection_id": "b", "conn_type": "http"}),
            json!({"conn_type": "http", "host": "h"}),
        ),
        ("pools", "name", json!({"name": "a", "slots": 1}), json!({"name": "b", "slots": 1}), json!({"slots": 2})),
    ] {
        let bulk = |actions: Value| api.expect("PATCH", path, json!({"actions": actions}), 200);
        let create = |entities: Value| json!({"action": "create", "entities": entities});
        let done = bulk(json!([create(json!([first])), create(json!([first, second]))]));
        assert_eq!(done["create"]["success"], json!(["a"]), "{done}");
        assert_eq!(done["create"]["errors"][0]["status_code"], 409, "{done}");
        // The failed second action was rolled back.
        let names = || -> Vec<Value> {
            let listed = api.get(path);
            let all = listed[path].as_array().unwrap().iter().map(|row| row[name].clone());
            all.filter(|name| name != "default_pool").collect()
        };
        assert_eq!(names(), ["a"], "{path}");
        let mut skipping = create(json!([first, second]));
        skipping["action_on_existence"] = "skip".into();
        assert_eq!(bulk(json!([skipping]))["create"]["success"], json!(["b"]));
        let mut change = changed.clone();
        change[if path == "pools" { "pool" } else { name }] = "a".into();
        let done = bulk(json!([
            {"action": "update", "entities": [change]},
            {"action": "delete", "entities": ["b", "none"], "action_on_non_existence": "skip"},
            {"action": "delete", "entities": ["none"]},
        ]));
        assert_eq!((&done["update"]["success"], &done["delete"]["success"]), (&json!(["a"]), &json!(["b"])), "{done}");
        assert_eq!(done["delete"]["errors"][0]["status_code"], 404, "{done}");
        assert_eq!(names(), ["a"], "{path}");
        // An invalid action is refused before any other is applied.
        let valid = create(json!([second]));
        for wrong in [
            json!({"action": "explode", "entities": []}),
            create(json!([{"nokey": 1}])),
            json!({"action": "delete", "entities": [], "update_mask": []}),
        ] {
            api.expect("PATCH", path, json!({"actions": [valid, wrong]}), 422);
        }
        assert_eq!(names(), ["a"], "{path}");
        // Overwriting keeps the fields that the new entity omits.
        let mut again = create(json!([first]));
        again["action_on_existence"] = "overwrite".into();
        assert_eq!(bulk(json!([again]))["create"]["success"], json!(["a"]));
    }
    assert_eq!(test.sql("SELECT slots FROM pool WHERE name = 'a'"), "1");
    assert_eq!(test.sql("SELECT host FROM connection WHERE connection_id = 'a'"), "h");
}

#[test]
fn pauses_pools_reparses_and_waits_follow_airflows_api() {
    let (test, api) = home_with_finished_run();
    let pause = |query: &str, is_paused: bool| {
        let answer = api.expect("PATCH", &format!("dags{query}"), json!({"is_paused": is_paused}), 200);
        answer["total_entries"].as_i64().unwrap()
    };
    assert_eq!(pause("", true), 0);
    assert_eq!(pause("?dag_id_pattern=~", true), 3);
    assert_eq!(test.sql("SELECT count(*) FROM dag WHERE is_paused"), "3");
    assert_eq!(pause("?dag_id_prefix_pattern=sho&limit=0", false), 1);
    api.expect("PATCH", "dags?update_mask=tags&dag_id_pattern=~", json!({"is_paused": true}), 400);
    // A filter that this route does not support is an error, not ignored.
    let error = api.expect("PATCH", "dags?dag_id_pattern=~&last_dag_run_state=failed", json!({"is_paused": true}), 422);
    assert_eq!(error["detail"][0]["loc"], json!(["query", "last_dag_run_state"]));
    assert_eq!(test.sql("SELECT count(*) FROM dag WHERE is_paused"), "2");
    // Lists by POST accept numbers as strings, and errors name the wrong field.
    let list = |body: Value, status| api.expect("POST", "dags/~/dagRuns/list", body, status);
    assert!(list(json!({"page_limit": "1", "duration_gte": "0"}), 200)["dag_runs"].as_array().unwrap().len() <= 1);
    for (body, field) in [(json!({"start_date_gte": "x"}), "start_date_gte"), (json!({"page_limit": -1}), "page_limit")]
    {
        assert_eq!(list(body, 422)["detail"][0]["loc"], json!(["body", field]));
    }
    // Declared limits are enforced, a whole number may end in `.0`, and errors of PostgreSQL get a plain message.
    let pool = |body: &str| api.0.request("POST", "/api/v2/pools", body);
    assert_eq!(pool(r#"{"name": "whole", "slots": 152.0}"#).json()["slots"], 152);
    api.expect("DELETE", "pools/whole", Value::Null, 204);
    let team = format!(r#"{{"name": "p", "slots": 1, "team_name": "{}"}}"#, "t".repeat(51));
    for (body, words) in [
        (team.as_str(), "String should have at most 50 characters"),
        (r#"{"name": "", "slots": 1}"#, "the value of name is empty, too long or out of range"),
        (r#"{"name": "a\u0000b", "slots": 1}"#, "a text contains the NUL character, which cannot be stored"),
    ] {
        let refused = pool(body);
        assert!(refused.status == 422 && refused.body.contains(words), "{refused:?}");
    }
    let class = json!({"module_path": "airflow.providers.standard.decorators.python", "class_name": "_PythonDecoratedOperator"});
    assert_eq!(api.get("dags/shown/tasks/one")["class_ref"], class);
    api.expect("GET", "dags/shown/tasks?order_by=class_ref", Value::Null, 400);
    let ids = |order: &str| {
        let tasks = api.get(&format!("dags/shown/tasks?order_by={order}"));
        let ids: Vec<String> = tasks["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|instance| instance["task_id"].as_str().unwrap().to_owned())
            .collect();
        ids
    };
    let (forwards, mut backwards) = (ids("task_id"), ids("-task_id"));
    backwards.reverse();
    assert_eq!(forwards, backwards);
    assert_eq!(ids("-retry_delay").len(), forwards.len());
    assert_eq!(api.get("jobs?order_by=-id")["jobs"][0]["id"], 3);

    let parsed = || test.sql("SELECT last_parsed_at FROM dag WHERE dag_id = 'shown'");
    let before = parsed();
    let token = api.get("dags/shown")["file_token"].as_str().unwrap().to_owned();
    api.expect("PUT", &format!("parseDagFile/{token}"), Value::Null, 201);
    crate::support::wait_until("the file is parsed", std::time::Duration::from_secs(20), || parsed() != before);
    api.expect("PUT", "parseDagFile/nothing", Value::Null, 404);

    api.expect("POST", "dags/shown/dagRuns", json!({"dag_run_id": "second", "logical_date": null}), 200);
    let lines = api.0.request("GET", "/api/v2/dags/shown/dagRuns/second/wait?interval=0.1&result=one", "").body;
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({"state": "success", "results": {"one": {"n": 1}}}), "{lines}");
    api.expect("GET", "dags/shown/dagRuns/second/wait", Value::Null, 422);
    api.expect("GET", "dags/shown/dagRuns/none/wait?interval=1", Value::Null, 404);
    let ended = api.0.request("GET", "/api/v2/dags/shown/dagRuns/second/wait?interval=0.1&result=%00", "").body;
    assert_eq!(ended.lines().count(), 1, "{ended}");
    api.expect("POST", "connections/test", json!({"connection_id": "x", "conn_type": "http"}), 403);
    api.expect("POST", "connections", json!({"connection_id": "test", "conn_type": "http"}), 201);
    assert_eq!(api.get("connections/test")["conn_type"], "http");
    api.expect("DELETE", "connections/test", Value::Null, 204);
    // The UI sends a connection as it was shown, with empty texts for missing values.
    let saved = json!({
        "connection_id": "saved", "conn_type": "http", "host": "127.0.0.1", "port": test.port, "password": "secret",
        "extra": r#"{"token": "secret", "n": 1}"#,
    });
    api.expect("POST", "connections", saved, 201);
    let shown = api.get("connections/saved");
    let sent = |host: &str, password: &Value| {
        json!({
            "connection_id": "saved", "conn_type": "http", "host": host, "port": shown["port"], "login": "", "schema": "",
            "description": "", "password": password, "extra": shown["extra"],
        })
    };
    let tested = api.expect("POST", "connections/test", sent("127.0.0.1", &shown["password"]), 200);
    assert_eq!(tested["status"], true, "{tested}");
    assert!(tested["message"].as_str().unwrap().contains("is reachable"), "{tested}");
    api.expect("POST", "connections/test", sent("localhost", &shown["password"]), 403);
    api.expect("POST", "connections/test", sent("127.0.0.1", &json!("other")), 403);
    api.expect("POST", "connections/other", Value::Null, 405);
}

#[test]
fn a_login_redirects_only_to_pages_of_this_site() {
    let test = TestHome::started();
    let to = |next: &str| {
        let path = format!("/api/v2/auth/login?next={next}");
        let response = try_request(test.port, "GET", &path, &[], "").unwrap();
        (response.status, response.header("location").map(str::to_owned))
    };
    assert_eq!(to("/dags/a%20b").0, 400);
    assert_eq!(to("/dags/a?b=c"), (307, Some("/auth/login?next=%2Fdags%2Fa%3Fb%3Dc".to_owned())));
    for unsafe_url in ["https://example.com/", "//example.com", "/%5Cexample.com", "/%09/example.com", "dags"] {
        assert_eq!(to(unsafe_url).0, 400, "{unsafe_url}");
    }
    let out = try_request(test.port, "GET", "/api/v2/auth/logout", &[], "").unwrap();
    assert_eq!((out.status, out.header("location")), (307, Some("/auth/login")));
}

const DECLARED: &str = r#"
from datetime import datetime
from airflow.sdk import DAG, task
with DAG("declared", start_date=datetime(2026, 1, 1), params={"of_dag": 1, "both": "dag"},
         render_template_as_native_obj=True, doc_md="""
    # Title
    Text.
    """):
    @task(params={"both": "task"})
    def t(): pass
    t()
"#;

#[test]
fn the_api_shows_what_a_dag_file_declares() {
    let test = TestHome::started();
    test.add_dag("declared", DECLARED);
    let get = |path: &str, headers: &str| socket_request(&test.home, "GET", &format!("/api/v2/{path}"), headers, "");
    let details = get("dags/declared/details", "").json();
    assert_eq!(details["doc_md"], "# Title\nText.");
    assert_eq!(details["render_template_as_native_obj"], true);
    let task = &get("dags/declared/tasks", "").json()["tasks"][0];
    assert_eq!(task["start_date"], details["start_date"], "{task}");
    // A task has the params of its DAG, unless it declares its own.
    assert_eq!((&task["params"]["of_dag"]["value"], &task["params"]["both"]["value"]), (&json!(1), &json!("task")));

    assert_eq!(get("dags/declared/dagRuns/none/upstreamAssetEvents", "").status, 404);
    let test_result = "connections/enqueue-test";
    assert_eq!(get(test_result, "").status, 422);
    assert_eq!(get(test_result, "Airflow-Connection-Test-Token: unknown\r\n").status, 404);
}

#[test]
fn only_the_last_consumed_asset_event_is_triggering() {
    let test = TestHome::started();
    test.add_dag(
        "consumes",
        "from airflow.sdk import DAG, Asset\n\
         dag = DAG('consumes', schedule=[Asset('x'), Asset('y')], is_paused_upon_creation=False)\n",
    );
    let send = |method: &str, path: &str, body: &str| {
        let path = format!("/api/v2/{path}");
        socket_request(&test.home, method, &path, "Content-Type: application/json\r\n", body)
    };
    for name in ["x", "y"] {
        let asset = test.sql(&format!("SELECT id FROM asset WHERE name = '{name}'"));
        let created = send("POST", "assets/events", &format!("{{\"asset_id\": {asset}}}"));
        assert_eq!(created.status, 200, "{}", created.body);
    }
    let runs = || test.sql("SELECT count(*) FROM dag_run WHERE dag_id = 'consumes' AND start_date IS NOT NULL");
    wait_until("the run", Duration::from_secs(60), || runs() == "1");
    let events = send("GET", "assets/events?order_by=timestamp", "").json();
    let triggering: Vec<(&Value, &Value)> = events["asset_events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (&event["name"], &event["created_dagruns"][0]["triggering"]))
        .collect();
    assert_eq!(triggering, [(&json!("x"), &json!(false)), (&json!("y"), &json!(true))], "{events}");
}
