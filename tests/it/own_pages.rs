//! Our own pages, and what they are made of over HTTP: backups, releases, the doctor, the API's description.

use crate::support::http::{Session, try_request};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// Somebody who has logged in.
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

fn started() -> (TestHome, User) {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let user = User(Session::login(test.port, &password));
    (test, user)
}

fn ended(user: &User, begun: &Value) -> Value {
    let path = format!("/api/lite/operations/{}", begun["id"]);
    let mut found = Value::Null;
    wait_until("the operation to end", Duration::from_secs(60), || {
        found = user.get(&path);
        found["status"] != "running"
    });
    found
}

#[test]
fn backups_are_made_and_proved_over_http() {
    let (test, user) = started();
    assert_eq!(user.get("/api/lite/backups")["backups"], json!([]));
    let begun = user.expect("POST", "/api/lite/backups", 202);
    let made = ended(&user, &begun);
    assert_eq!((&made["status"], &made["kind"]), (&json!("done"), &json!("backup")), "{made}");
    let path = made["result"]["path"].as_str().unwrap();
    let name = path.rsplit('/').next().unwrap();
    assert!(fs::metadata(path).unwrap().len() > 0);
    let listed = user.get("/api/lite/backups");
    assert_eq!((&listed["backups"][0]["path"], &listed["backups"][0]["last_verified"]), (&json!(path), &Value::Null));

    let begun = user.expect("POST", &format!("/api/lite/backups/{name}/verify"), 202);
    let proved = ended(&user, &begun);
    assert_eq!(proved["status"], "done", "{proved}");
    assert_eq!(user.get("/api/lite/backups")["backups"][0]["last_verified"]["ok"], true);
    // One that is damaged is found out.
    fs::write(path, &fs::read(path).unwrap()[..5_000]).unwrap();
    let begun = user.expect("POST", &format!("/api/lite/backups/{name}/verify"), 202);
    let failed = ended(&user, &begun);
    assert_eq!(failed["status"], "failed");
    let progress = failed["progress"].to_string();
    assert!(!progress.contains("exit_code"), "{progress}");
    assert!(failed["id"].as_u64() > begun["id"].as_u64().map(|id| id - 1) && failed["id"].as_u64() > Some(1_000_000));
    let page = user.0.request("GET", "/lite/backups", "");
    assert!(page.status == 200 && page.body.contains(name) && page.body.contains("failed"), "{}", page.body);

    // A name is no path, and nothing is begun for who may not.
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
    let after_login = try_request(test.port, "POST", "/lite/backups", &[], "").unwrap();
    assert_eq!(after_login.header("location"), Some("/auth/login?next=%2F"));
    user.expect("GET", "/api/lite/operations/99", 404);
    user.expect("GET", "/api/lite/operations/-1", 422);
    assert_eq!(user.get("/api/lite/backups"), before);
}

#[test]
fn every_page_of_our_own_is_shown_to_who_has_logged_in() {
    let (test, user) = started();
    let mut pages = Vec::new();
    for (path, said) in [
        ("/lite/", "What runs"),
        ("/lite/backups", "Make a backup"),
        ("/lite/releases", "Look for a newer release"),
        // This build knows no place of releases, and says what to do.
        ("/lite/releases?plan=true", "upgrade --from"),
        ("/lite/doctor", "PostgreSQL"),
        ("/docs", "get_dag_runs"),
    ] {
        let page = user.0.request("GET", path, "");
        assert!(page.status == 200 && page.body.contains(said), "{path}: {}", page.body);
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{path}: {policy}");
        let away = try_request(test.port, "GET", path, &[], "").unwrap();
        assert!(away.status == 303 && away.header("location").unwrap().starts_with("/auth/login"), "{path}");
        pages.push(page.body);
    }
    // What they are made with is there.
    let files = pages.iter().flat_map(|page| page.split('"').filter(|part| part.starts_with("/lite/static/")));
    let files: std::collections::BTreeSet<&str> = files.collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        assert_eq!(try_request(test.port, "GET", file, &[], "").unwrap().status, 200, "{file}");
    }
    let releases = user.get("/api/lite/releases");
    assert_eq!((&releases["versions"][0]["current"], &releases["history"]), (&json!(true), &json!([])));
    assert_eq!(user.get("/api/lite/doctor")["ok"], true);
    let told = user.expect("GET", "/api/lite/releases/plan", 503);
    assert!(told["detail"].as_str().unwrap().contains("hint: leoflow upgrade --from"), "{told}");
    // For programs, without a login.
    let description = try_request(test.port, "GET", "/openapi.json", &[], "").unwrap().json();
    assert_eq!(description["openapi"], "3.1.0");
}
