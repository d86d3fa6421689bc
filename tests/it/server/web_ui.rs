//! Airflow's web UI: how its files are served, and the page that replaces it when it is not installed.

use crate::support::TestHome;
use crate::support::http::{Session, socket_request, try_request};
use serde_json::json;
use std::fs;

/// A small substitute for the UI's index page.
const PAGE: &str =
    "<base href=\"{{ backend_server_base_url }}\" /><script src=\"./static/assets/index-1.js\"></script>";

fn install_ui(test: &TestHome) {
    let folder = test.home.join("ui/3.3.2");
    fs::create_dir_all(folder.join("assets")).unwrap();
    fs::write(folder.join("index.html"), PAGE).unwrap();
    fs::write(folder.join("assets/index-1.js"), "whole()").unwrap();
    fs::write(folder.join("assets/index-1.js.gz"), "compressed").unwrap();
    fs::write(folder.join("LICENSE"), "licence").unwrap();
}

#[test]
fn index_page_serves_all_paths_and_files_are_cached() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    let bearer = format!("Bearer {}", session.token);
    let get = |path: &str, headers: &[(&str, &str)]| try_request(test.port, "GET", path, headers, "").unwrap();
    let page = |path: &str| get(path, &[("Authorization", &bearer)]);
    let without = page("/");
    assert!(without.status == 200 && without.body.contains("leoflow setup"), "{}", without.body);
    install_ui(&test);
    for path in ["/", "/dags", "/dags/a%2Fb/runs/x?tab=1", "/plugin/leoflow"] {
        let shown = page(path);
        assert_eq!(shown.status, 200, "{path}");
        assert!(shown.body.contains("<base href=\"/\" />"), "{path}: {}", shown.body);
        let policy = shown.header("content-security-policy").unwrap();
        assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'self'"), "{policy}");
    }
    let anonymous = get("/dags?x=1", &[]);
    assert_eq!((anonymous.status, anonymous.header("location")), (303, Some("/auth/login?next=%2Fdags%3Fx%3D1")));
    for path in
        ["/api/none", "/api/v2/none", "/ui/none", "/auth/none", "/lite/none", "/static/none.js", "/static/LICENSE"]
    {
        assert_eq!(page(path).status, 404, "{path}");
    }
    // An unknown path returns JSON to a program, and the UI's own error page to a browser.
    let unknown = get("/nothing", &[("Authorization", &bearer)]);
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/json")));
    let opened = get("/nothing", &[("Authorization", &bearer), ("Accept", "text/html,*/*;q=0.8")]);
    assert!(opened.status == 404 && opened.body.contains("<base href=\"/\" />"), "{}", opened.body);
    fs::write(test.home.join("ui/3.3.2/assets/inside.json"), "{}").unwrap();
    assert_eq!(get("/static/assets/inside.json", &[]).status, 200);
    fs::write(test.home.join("ui/beside.json"), "{}").unwrap();
    for path in [
        "/static/../beside.json",
        "/static/%2e%2e/beside.json",
        "/static/..%2fbeside.json",
        "/static/assets/%2e%2e%2f..%2fbeside.json",
        "/static/%2e%2e/%2e%2e/setup.json",
        &format!("/static/{}", test.home.join("setup.json").display()),
        "/static/%00.js",
        "/static/assets/index-1.js/x.js",
        &format!("/static/{}.js", "x".repeat(300)),
        "/static/assets",
    ] {
        assert_eq!(get(path, &[]).status, 404, "{path}");
    }
    assert_eq!(try_request(test.port, "POST", "/dags", &[("Authorization", &bearer)], "").unwrap().status, 405);
    // The UI's files are public, and those with a hash in their names or a version in the query are immutable.
    let whole = get("/static/assets/index-1.js", &[]);
    assert_eq!((whole.status, whole.body.as_str()), (200, "whole()"));
    assert_eq!(whole.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(whole.header("content-type"), Some("text/javascript; charset=utf-8"));
    fs::write(test.home.join("ui/3.3.2/words.json"), "{}").unwrap();
    assert_eq!(get("/static/words.json", &[]).header("cache-control"), Some("no-cache"));
    assert_eq!(get("/static/words.json?v=1", &[]).header("cache-control"), whole.header("cache-control"));
    let small = get("/static/assets/index-1.js", &[("Accept-Encoding", "br, gzip;q=0.8")]);
    assert_eq!((small.body.as_str(), small.header("content-encoding")), ("compressed", Some("gzip")));
    assert_eq!(get("/static/assets/index-1.js", &[("Accept-Encoding", "gzip;q=0")]).body, "whole()");
    let tag = small.header("etag").unwrap().to_owned();
    let not_modified = get("/static/assets/index-1.js", &[("Accept-Encoding", "gzip"), ("If-None-Match", &tag)]);
    assert_eq!((not_modified.status, not_modified.body.as_str()), (304, ""));
    // The UI's menu has a link to our own pages.
    let plugins = session.request("GET", "/api/v2/plugins", "").json();
    assert_eq!(plugins["plugins"][0]["external_views"][0]["href"], "/lite/");
    let ours = page("/lite/");
    assert!(ours.status == 200 && ours.body.contains("<h1>Status"), "{}", ours.body);
    assert_eq!(ours.header("x-frame-options"), Some("SAMEORIGIN"));
    assert_eq!(get("/lite/", &[]).header("location"), Some("/auth/login?next=%2Flite%2F"));
    for file in ["style.css", "frame.js", "status.js", "icon.svg"] {
        assert_eq!(get(&format!("/lite/static/{file}"), &[]).status, 200, "{file}");
    }
}

#[test]
fn a_page_on_a_stalled_disk_is_answered_with_408() {
    let test = TestHome::started();
    install_ui(&test);
    let index = test.home.join("ui/3.3.2/index.html");
    fs::remove_file(&index).unwrap();
    // A pipe without a writer blocks who opens it, like a file on a mount that does not answer.
    nix::unistd::mkfifo(&index, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let answer = socket_request(&test.home, "GET", "/dags", "", "");
    assert_eq!(answer.status, 408, "{answer:?}");
    // Ends the thread that reads it.
    drop(fs::OpenOptions::new().write(true).open(&index).unwrap());
}

#[test]
fn a_wrong_wheel_is_refused_and_leaves_nothing() {
    let test = TestHome::new();
    let wheel = test.folder().join("other.whl");
    fs::write(&wheel, "PK no wheel of ours").unwrap();
    test.set_up();
    let done = test.command(&["setup"]).env("LEOFLOW_UI", &wheel).output().unwrap();
    let output = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && output.contains("the file was altered"), "{output}");
    let left: Vec<_> = fs::read_dir(test.home.join("ui")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn ui_queries_work_for_groups_and_mapped_tasks() {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let dag = "
from airflow.sdk import DAG, TaskGroup, Asset, task

@task
def one():
    return 1

@task(outlets=[Asset('made')])
def each(n):
    if n == 2:
        raise ValueError('no')

with DAG('groups', schedule=[Asset('awaited')]):
    start = one.override(task_id='start')()
    with TaskGroup('a') as a:
        one.override(task_id='x')()
        one.override(task_id='y')()
    start >> a >> each.expand(n=[1, 2])
";
    test.save("groups.py", dag);
    test.wait_dag("groups", 1);
    test.run(&["dags", "unpause", "groups"]).expect(0);
    test.run(&["dags", "trigger", "groups", "--run-id", "first", "--wait"]).expect(1);
    let session = Session::login(test.port, &password);
    let get = |path: &str| {
        let answer = session.request("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer
    };
    let grid = get("/ui/grid/structure/groups").json();
    let expected = json!([
        {"id": "start", "label": "start"},
        {"id": "a", "label": "a", "children": [{"id": "a.x", "label": "x"}, {"id": "a.y", "label": "y"}]},
        {"id": "each", "label": "each", "is_mapped": true},
    ]);
    assert_eq!(grid, expected);
    let lines = get("/ui/grid/ti_summaries/groups?run_ids=first&run_ids=none").body;
    let run: serde_json::Value = lines.trim_end().parse().unwrap();
    let state = |id: &str| {
        run["task_instances"].as_array().unwrap().iter().find(|instance| instance["task_id"] == id).unwrap().clone()
    };
    assert_eq!((&state("start")["state"], &state("start")["child_states"]), (&json!("success"), &json!(null)));
    assert_eq!(state("a")["child_states"], json!({"success": 2}));
    assert_eq!(
        (&state("each")["state"], &state("each")["child_states"]),
        (&json!("failed"), &json!({"failed": 1, "success": 1}))
    );
    let graph = get("/ui/structure/structure_data?dag_id=groups&external_dependencies=true").json();
    let edges: Vec<String> = graph["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| format!("{}>{}", edge["source_id"].as_str().unwrap(), edge["target_id"].as_str().unwrap()))
        .collect();
    for edge in
        ["start>a.upstream_join_id", "a.upstream_join_id>a.x", "a.y>a.downstream_join_id", "a.downstream_join_id>each"]
    {
        assert!(edges.contains(&edge.to_owned()), "{edge} is not among {edges:?}");
    }
    assert!(edges.iter().any(|edge| edge.starts_with("each>asset:")), "{edges:?}");
    assert!(edges.contains(&"and-gate-0>start".to_owned()), "{edges:?}");
    let part = get("/ui/structure/structure_data?dag_id=groups&root=a.x&include_upstream=true").json();
    assert_eq!(part["nodes"].as_array().unwrap().len(), 2, "{part}");
    let runs = get("/ui/grid/runs/groups?state=failed").json();
    assert_eq!((&runs[0]["run_id"], &runs[0]["has_note"]), (&json!("first"), &json!(false)));
    assert_eq!(get("/ui/grid/runs/groups?run_type=scheduled").json(), json!([]));
    let gantt = get("/ui/gantt/groups/first").json();
    assert_eq!(
        gantt["task_instances"].as_array().unwrap().len(),
        3,
        "mapped tasks are shown only in the grid: {gantt}"
    );
    let dags = get("/ui/dags?dag_ids=groups").json();
    assert_eq!(
        (&dags["total_entries"], &dags["dags"][0]["latest_dag_runs"][0]["state"]),
        (&json!(1), &json!("failed"))
    );
    assert_eq!(get("/ui/dags/groups/latest_run").json()["run_id"], "first");
    assert!(get("/ui/dags/groups/dagRuns/first/stats").json()["duration"]["p50"].as_f64().unwrap() > 0.0);
    let history = get("/ui/dashboard/historical_metrics_data?start_date=2026-01-01T00:00:00Z").json();
    assert_eq!(
        (&history["dag_run_states"]["failed"], &history["task_instance_states"]["failed"]),
        (&json!(1), &json!(1))
    );
    let waits = get("/ui/next_run_assets/groups").json();
    assert_eq!((&waits["events"][0]["name"], &waits["events"][0]["last_update"]), (&json!("awaited"), &json!(null)));
    let asset = test.sql("SELECT id FROM asset WHERE name = 'made'");
    let around = get(&format!("/ui/dependencies?dependency_type=data&node_id=asset:{asset}")).json();
    assert_eq!(around["edges"][0]["source_id"], "task:groups__SEPARATOR__each");
    let scheduling = get("/ui/dependencies?node_id=dag:groups").json();
    assert_eq!(scheduling["nodes"].as_array().unwrap().len(), 3, "{scheduling}");
    for (path, status) in [
        ("/ui/grid/runs/none", 404),
        ("/ui/gantt/groups/none", 404),
        ("/ui/structure/structure_data?dag_id=none", 404),
        ("/ui/structure/structure_data", 422),
        ("/ui/dependencies?dependency_type=data", 400),
        ("/ui/teams", 403),
        ("/ui/calendar/groups?granularity=weekly", 422),
        ("/ui/dashboard/historical_metrics_data", 422),
    ] {
        assert_eq!(session.request("GET", path, "").status, status, "{path}");
    }
    for path in ["/ui/config", "/ui/dags", "/ui/auth/me", "/ui/connections/hook_meta"] {
        assert_eq!(try_request(test.port, "GET", path, &[], "").unwrap().status, 401, "{path}");
    }
}
