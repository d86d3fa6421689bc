//! Our own pages and their HTTP API: status, backups, releases, doctor, the API's description.

use crate::support::http::{Session, try_request};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, SystemTime};

/// A logged-in user.
struct User(Session);

impl User {
    #[track_caller]
    fn expect(&self, method: &str, path: &str, status: u16) -> Value {
        let answer = self.0.request(method, path, "");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.json()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.expect("GET", path, 200)
    }
}

fn started_user() -> (TestHome, User) {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let user = User(Session::login(test.port, &password));
    (test, user)
}

/// Waits for the end of an operation; returns its last state.
fn wait_ended(user: &User, begun: &Value) -> Value {
    let path = format!("/api/lite/operations/{}", begun["id"]);
    let mut operation = Value::Null;
    wait_until("the operation to end", Duration::from_secs(60), || {
        operation = user.get(&path);
        operation["status"] != "running"
    });
    operation
}

#[test]
fn backups_are_made_and_verified_over_http() {
    let (test, user) = started_user();
    assert_eq!(user.get("/api/lite/backups")["backups"], json!([]));
    let begun = user.expect("POST", "/api/lite/backups", 202);
    let done = wait_ended(&user, &begun);
    assert_eq!((&done["status"], &done["kind"]), (&json!("done"), &json!("backup")), "{done}");
    let path = done["result"]["path"].as_str().unwrap();
    let name = path.rsplit('/').next().unwrap();
    assert!(fs::metadata(path).unwrap().len() > 0);
    let listed = user.get("/api/lite/backups");
    assert_eq!((&listed["backups"][0]["path"], &listed["backups"][0]["last_verified"]), (&json!(path), &Value::Null));
    // A copied or touched file has another time than its backup.
    fs::File::options().append(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let created_at = listed["backups"][0]["created_at"].as_str().unwrap();
    let status = user.0.request("GET", "/lite/", "").body;
    assert!(status.contains(&format!("<dd><time>{created_at}</time>, ")), "{created_at}: {status}");

    let is_verified = || !user.0.request("GET", "/lite/", "").body.contains("none yet; run");
    let doctor = || test.run(&["doctor", "--json"]).json().to_string();
    assert!(!is_verified() && doctor().contains("never test-restored"));
    let begun = user.expect("POST", &format!("/api/lite/backups/{name}/verify"), 202);
    let verified = wait_ended(&user, &begun);
    assert_eq!(verified["status"], "done", "{verified}");
    assert_eq!(user.get("/api/lite/backups")["backups"][0]["last_verified"]["ok"], true);
    assert!(is_verified() && !doctor().contains("never test-restored"));
    // It is the newest backup, so it is the scheduled verification too.
    let record: Value = serde_json::from_slice(&fs::read(test.home.join("run/upkeep.json")).unwrap()).unwrap();
    assert!(record["verification"]["done_at"].is_string(), "{record}");
    // Verification detects a damaged backup.
    fs::write(path, &fs::read(path).unwrap()[..5_000]).unwrap();
    let begun = user.expect("POST", &format!("/api/lite/backups/{name}/verify"), 202);
    let failed = wait_ended(&user, &begun);
    assert_eq!(failed["status"], "failed");
    let progress = failed["progress"].to_string();
    assert!(!progress.contains("exit_code"), "{progress}");
    assert!(failed["id"].as_u64() > begun["id"].as_u64().map(|id| id - 1) && failed["id"].as_u64() > Some(1_000_000));
    let page = user.0.request("GET", "/lite/backups", "");
    assert!(page.status == 200 && page.body.contains(name) && page.body.contains("failed"), "{}", page.body);

    // A path is refused as a backup's name, and an unauthorized request starts no operation.
    fs::copy(path, test.folder().join("outside.tar.zst")).unwrap();
    for name in ["..%2F..%2Foutside.tar.zst", "none.tar.zst", "%00"] {
        user.expect("POST", &format!("/api/lite/backups/{name}/verify"), 404);
    }
    let bearer = format!("Bearer {}", user.0.token);
    let before = user.get("/api/lite/backups");
    for (headers, status) in [
        (&[][..], 401),
        (&[("Authorization", "Bearer none")], 401),
        (&[("Authorization", &bearer), ("Origin", "http://evil.example")], 403),
    ] {
        let refused = try_request(test.port, "POST", "/api/lite/backups", headers, "").unwrap();
        assert_eq!(refused.status, status, "{headers:?}");
    }
    let anonymous = try_request(test.port, "POST", "/lite/backups", &[], "").unwrap();
    assert_eq!(anonymous.header("location"), Some("/auth/login?next=%2F"));
    user.expect("GET", "/api/lite/operations/99", 404);
    user.expect("GET", "/api/lite/operations/-1", 422);
    assert_eq!(user.get("/api/lite/backups"), before);
}

#[test]
fn our_pages_are_shown_after_a_login() {
    let (test, user) = started_user();
    let mut pages = Vec::new();
    let instance = test.run(&["config", "get", "instance_name"]).expect(0).stdout.trim().to_owned();
    for (path, expected) in [
        ("/lite/", "<h1>Status"),
        ("/lite/backups", "There are no backups yet"),
        ("/lite/releases", "No release host is configured"),
        // This build has no key for releases; the page says what to do.
        ("/lite/releases?plan=true", "install a release over it"),
        ("/lite/doctor", "PostgreSQL"),
        ("/lite/docs/", "<article>"),
        ("/docs", "get_dag_runs"),
    ] {
        let page = user.0.request("GET", path, "");
        assert!(page.status == 200 && page.body.contains(expected), "{path}: {}", page.body);
        let address = path.split('?').next().unwrap();
        let current = format!("<a href=\"{address}\" aria-current=\"page\">");
        assert!(
            page.body.contains(&current) && page.body.matches("aria-current").count() == 1,
            "{path}: {}",
            page.body
        );
        assert!(page.body.contains(&format!("· {instance} · Leoflow Lite</title>")), "{path}: {}", page.body);
        assert_eq!(page.body.matches("<h1").count(), 1, "{path}: {}", page.body);
        assert!(!page.body.contains("style=") && !page.body.contains("<style"), "{path}: {}", page.body);
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{path}: {policy}");
        let anonymous = try_request(test.port, "GET", path, &[], "").unwrap();
        assert!(anonymous.status == 303 && anonymous.header("location").unwrap().starts_with("/auth/login"), "{path}");
        pages.push(page.body);
    }
    // All static files of the pages exist.
    let files = pages.iter().flat_map(|page| page.split('"').filter(|part| part.starts_with("/lite/static/")));
    let files: std::collections::BTreeSet<&str> = files.collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        assert_eq!(try_request(test.port, "GET", file, &[], "").unwrap().status, 200, "{file}");
    }
    let releases = user.get("/api/lite/releases");
    assert_eq!((&releases["versions"][0]["current"], &releases["history"]), (&json!(true), &json!([])));
    assert_eq!(user.get("/api/lite/doctor")["ok"], true);
    let refused = user.expect("GET", "/api/lite/releases/plan", 503);
    assert!(refused["detail"].as_str().unwrap().contains("hint: install a release over it"), "{refused}");
    assert_eq!(try_request(test.port, "GET", "/openapi.json", &[], "").unwrap().status, 401);
    assert_eq!(user.get("/openapi.json")["openapi"], "3.1.0");
}

const DAG: &str = "
from airflow.sdk import DAG, task

with DAG('charted'):
    @task
    def good():
        return 1

    @task(pool='narrow')
    def bad():
        raise ValueError('no')

    good()
    bad()
";

#[test]
fn the_status_page_shows_tasks_queue_and_disk_use() {
    let (test, user) = started_user();
    let page = || {
        let page = user.0.request("GET", "/lite/", "");
        assert_eq!(page.status, 200, "{}", page.body);
        page.body
    };
    let empty = page();
    for part in ["No task finished in the last 24 hours", "Nothing is waiting", "There are no backups yet", "MiB"] {
        assert!(empty.contains(part), "{part}: {empty}");
    }
    for kind in ["Datastore", "Backups", "Task logs", "Environments", "Releases", "uv and its cache", "Logs"] {
        assert!(empty.contains(&format!("<th scope=\"row\">{kind}</th>")), "{kind}: {empty}");
    }
    assert!(!empty.contains("Needs attention"), "{empty}");

    test.save("charted.py", DAG);
    test.save("broken.py", "from airflow.sdk import DAG\nraise ValueError('broken')\n");
    test.wait_dag("charted", 1);
    test.run(&["pools", "set", "narrow", "0"]).expect(0);
    test.run(&["dags", "unpause", "charted"]).expect(0);
    test.run(&["dags", "trigger", "charted", "--run-id", "first"]).expect(0);
    wait_until("one task is done and one waits", Duration::from_secs(60), || {
        let page = page();
        page.contains("1 succeeded") && page.contains("The pool narrow has 0 slots")
    });
    let waiting = page();
    assert!(waiting.contains("leoflow --home ") && waiting.contains(" pools set narrow"), "{waiting}");
    test.run(&["pools", "set", "narrow", "1"]).expect(0);
    wait_until("both tasks are done", Duration::from_secs(60), || page().contains("1 failed"));
    let done = page();
    for part in
        ["class=\"chart\" role=\"img\"", "<rect class=\"success\"", "<rect class=\"failed\"", "Nothing is waiting"]
    {
        assert!(done.contains(part), "{part}: {done}");
    }
    wait_until("the import error is shown", Duration::from_secs(60), || page().contains("1 import error: "));
    assert!(page().contains(" dags list-import-errors"));

    test.run(&["dags", "pause", "charted"]).expect(0);
    test.run(&["dags", "trigger", "charted", "--run-id", "second"]).expect(0);
    wait_until("the run waits", Duration::from_secs(60), || page().contains(" dags unpause charted</code>"));
}
