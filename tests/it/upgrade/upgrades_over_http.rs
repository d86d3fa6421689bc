//! Upgrades of one and of several instances, rollbacks and restores, requested over HTTP.

use crate::setup::instances::User;
use crate::support::http::{Session, try_request};
use crate::support::releases::{FIRST, Releases, SECOND, releases};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

struct Client(Session);

impl Client {
    #[track_caller]
    fn post(&self, path: &str, body: Value, status: u16) -> Value {
        let answer = self.0.request("POST", &format!("/api/lite/{path}"), &body.to_string());
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        answer.json()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let answer = self.0.request("GET", &format!("/api/lite/{path}"), "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Waits for the end of an upgrade, also while its server is replaced; returns the upgrade's last record.
    #[track_caller]
    fn wait_ended(&self, begun: &Value) -> Value {
        let path = format!("/api/lite/upgrade/{}", begun["id"]);
        let mut last = Value::Null;
        wait_until("the upgrade has ended", LIMIT, || {
            if let Some(answer) = self.0.try_request("GET", &path, "").filter(|answer| answer.status == 200) {
                last = answer.json();
            }
            !last.is_null() && last["status"] != "running"
        });
        last
    }
}

fn started_client(all: &Releases) -> (TestHome, Client) {
    let (test, client, _) = started_with_password(all);
    (test, client)
}

/// Starts an instance; returns it with a client that has logged in and the administrator's password.
fn started_with_password(all: &Releases) -> (TestHome, Client, String) {
    let test = TestHome::with_program(all.program("0.1.0"));
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.run(&["config", "set", "upgrade.from", all.dist().to_str().unwrap()]).expect(0);
    let session = Session::login(test.port, &password);
    (test, Client(session), password)
}

/// Reads the server-sent events of an upgrade until the server closes the connection.
fn read_events(client: &Client, id: &Value) -> Vec<Value> {
    let bearer = format!("Bearer {}", client.0.token);
    let headers = [("Authorization", bearer.as_str()), ("Accept", "text/event-stream")];
    let response = try_request(client.0.port, "GET", &format!("/api/lite/upgrade/{id}"), &headers, "").unwrap();
    assert_eq!(response.header("content-type"), Some("text/event-stream"), "{response:?}");
    let lines = response.body.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_upgrade_survives_its_server_and_is_rolled_back_over_http() {
    let all = releases(&[FIRST, SECOND]);
    let (test, client) = started_client(&all);
    assert_eq!(client.get("version")["deployed_version"], "0.1.0");
    let mut version = Value::Null;
    wait_until("the server has found the newest release", LIMIT, || {
        version = client.get("version");
        !version["latest_version"].is_null()
    });
    assert_eq!(
        (&version["latest_version"], &version["upgrade_available"]),
        (&json!("0.2.0"), &json!(true)),
        "{version}"
    );
    assert_eq!(version["channel"], "stable", "{version}");
    assert!(version["schema_version"].is_i64(), "{version}");

    let planned = client.wait_ended(&client.post("upgrade", json!({"dry_run": true}), 202));
    assert_eq!((&planned["status"], &planned["new_version"]), (&json!("planned"), &json!("0.2.0")), "{planned}");
    assert_eq!(client.get("version")["deployed_version"], "0.1.0");

    let begun =
        client.post("upgrade", json!({"target_version": "0.2.0", "backup_db": true, "run_migrations": true}), 202);
    assert_eq!(begun["status"], "running");
    // Bodies without a content type are still validated as JSON objects.
    let bearer = format!("Bearer {}", client.0.token);
    for wrong in ["{\"backup_db\": false}", "[null, null, null, false]", "{"] {
        let refused =
            try_request(test.port, "POST", "/api/lite/upgrade", &[("Authorization", &bearer)], wrong).unwrap();
        assert_eq!(refused.status, 422, "{wrong}: {}", refused.body);
    }
    // A second upgrade is refused while the first runs.
    let twice = client.post("upgrade", json!({}), 409);
    assert!(twice["detail"].as_str().unwrap().contains("is running"), "{twice}");
    let events = read_events(&client, &begun["id"]);
    assert_eq!(events[0]["status"], "running", "{events:?}");
    assert!(events.len() > 1, "{events:?}");
    let done = client.wait_ended(&begun);
    assert_eq!((&done["status"], &done["error"]), (&json!("upgraded"), &Value::Null), "{done}");
    assert_eq!((&done["previous_version"], &done["new_version"]), (&json!("0.1.0"), &json!("0.2.0")));
    assert_eq!(done["migrations_run"].as_array().unwrap().len(), 1);
    assert!(fs::metadata(done["backup_path"].as_str().unwrap()).unwrap().len() > 0);
    assert!(done["details"].as_array().unwrap().len() > 5, "{done}");
    assert_eq!(test.status()["version"], "0.2.0");
    // A later connection gets the final record at once.
    assert_eq!(read_events(&client, &begun["id"]), [done]);
    assert_eq!(client.wait_ended(&client.post("upgrade", json!({}), 202))["status"], "up_to_date");
    let logged = test.sql("SELECT count(*) FROM event_log WHERE event = 'upgrade_release'");
    assert_eq!(logged, "7", "both servers log all requests, including refused ones");

    let rolled_back = client.wait_ended(&client.post("rollback", json!({"target_version": "0.1.0"}), 202));
    assert_eq!(
        (&rolled_back["status"], &rolled_back["new_version"]),
        (&json!("rolled_back"), &json!("0.1.0")),
        "{rolled_back}"
    );
    assert_eq!(test.status()["version"], "0.1.0");
    test.run(&["lite", "stop"]).expect(0);
    test.assert_nothing_runs();
}

/// The recorder is the process that starts the upgrade command and writes the operation's record.
#[test]
fn an_upgrade_whose_recorder_is_killed_is_reported_as_failed() {
    let all = releases(&[FIRST, SECOND]);
    let (test, client) = started_client(&all);
    let begun = client.post("upgrade", json!({}), 202);
    let file = test.home.join(format!("run/operations/{}.json", begun["id"]));
    let record = || serde_json::from_str::<Value>(&fs::read_to_string(&file).unwrap()).unwrap();
    wait_until("the upgrade command runs", LIMIT, || record()["command"]["pid"].is_i64());
    let pid = i32::try_from(record()["process"]["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    // The upgrade continues, but the killed process cannot record its result.
    wait_until("the upgrade is done", LIMIT, || test.run(&["lite", "status", "--json"]).json()["version"] == "0.2.0");
    let failed = client.wait_ended(&begun);
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("leoflow versions"), "{failed}");
    assert_eq!(client.wait_ended(&client.post("upgrade", json!({}), 202))["status"], "up_to_date");
}

#[test]
fn only_an_existing_named_backup_is_restored_over_http() {
    let all = releases(&[FIRST, SECOND]);
    let (test, client, password) = started_with_password(&all);
    test.run(&["variables", "set", "kept", "then"]).expect(0);
    let begun = client.post("backups", Value::Null, 202);
    let path = format!("operations/{}", begun["id"]);
    wait_until("the backup is made", LIMIT, || client.get(&path)["status"] != "running");
    assert_eq!(client.get(&path)["status"], "done", "{}", client.get(&path));
    let name = client.get(&path)["result"]["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    test.run(&["variables", "set", "kept", "now"]).expect(0);
    let own = client.get("version")["instance"].clone();
    for (body, status) in [
        (json!({"backup": name}), 422),
        (json!({"backup": name, "instance": "another"}), 422),
        (json!({"backup": format!("../backups/{name}"), "instance": own}), 404),
        (json!({"backup": "/etc/passwd", "instance": own}), 404),
        (json!({"backup": name, "instance": own, "force": true}), 422),
    ] {
        client.post("restore", body, status);
    }
    for (wrong, status) in [
        (json!({"backup_db": false}), 422),
        (json!({"run_migrations": false}), 422),
        (json!({"target_version": "--from=/tmp"}), 422),
        (json!({"from": "/tmp"}), 422),
    ] {
        client.post("upgrade", wrong, status);
    }
    let bearer = format!("Bearer {}", client.0.token);
    for path in ["upgrade", "rollback", "restore", "instances/upgrade"] {
        for (headers, status) in [
            (&[][..], 401),
            (&[("Authorization", "Bearer none")], 401),
            (&[("Authorization", &bearer), ("Origin", "http://evil.example")], 403),
        ] {
            let refused = try_request(test.port, "POST", &format!("/api/lite/{path}"), headers, "").unwrap();
            assert_eq!(refused.status, status, "{path} {headers:?}");
        }
    }
    // The forms of our pages work only from the same origin and after a login.
    for path in ["/lite/releases/upgrade".to_owned(), format!("/lite/backups/{name}/restore")] {
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        let anonymous = try_request(test.port, "POST", &path, &[form], "instance=vm").unwrap();
        assert_eq!(anonymous.status, 303, "{path}: {}", anonymous.body);
        let origin = ("Origin", "http://evil.example");
        let refused = try_request(test.port, "POST", &path, &[form, ("Authorization", &bearer), origin], "instance=vm");
        assert_eq!(refused.unwrap().status, 403, "{path}");
    }
    let operation_count = fs::read_dir(test.home.join("run/operations")).unwrap().count();
    assert_eq!(operation_count, 1, "no other operation was started");
    assert_eq!(client.0.request("GET", &format!("/api/lite/upgrade/{}", begun["id"]), "").status, 404);

    let begun = client.post("restore", json!({"backup": name, "instance": own}), 202);
    let path = format!("/api/lite/operations/{}", begun["id"]);
    let mut operation = Value::Null;
    // A restore makes a new signing key, which ends the sessions.
    let is_refused = || client.0.try_request("GET", &path, "").is_some_and(|answer| answer.status == 401);
    wait_until("the session has ended", LIMIT, is_refused);
    let session = Session::login(test.port, &password);
    wait_until("the restore has ended", LIMIT, || {
        let answer = session.try_request("GET", &path, "").filter(|answer| answer.status == 200);
        operation = answer.map_or(operation.take(), |answer| answer.json());
        operation["status"] == "done" || operation["status"] == "failed"
    });
    assert_eq!(operation["status"], "done", "{operation}");
    assert_eq!(test.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "then");
}

#[test]
fn several_instances_are_upgraded_one_after_another() {
    let all = releases(&[FIRST, SECOND]);
    let user = User::with_program(all.program("0.1.0"));
    let mut sessions = Vec::new();
    for name in ["one", "two", "three"] {
        let made = user.run(&["--instance", name, "lite", "start", "--json"]).expect(0).json();
        user.run(&["--instance", name, "config", "set", "upgrade.from", all.dist().to_str().unwrap()]).expect(0);
        let port = made["url"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        sessions.push(Client(Session::login(port, made["admin_password"].as_str().unwrap())));
    }
    user.run(&["--instance", "three", "lite", "stop"]).expect(0);
    let client = &sessions[0];
    let named = client.get("instances")["instances"].as_array().unwrap().clone();
    assert_eq!(named.iter().map(|entry| &entry["name"]).collect::<Vec<_>>(), ["one", "three", "two"]);
    for wrong in [json!({}), json!({"names": ["../one"]}), json!({"names": ["one"], "all": true})] {
        client.post("instances/upgrade", wrong, 422);
    }
    let unknown = client.wait_ended(&client.post("instances/upgrade", json!({"names": ["one", "four"]}), 202));
    assert!(unknown["status"] == "failed" && unknown["error"].as_str().unwrap().contains("\"four\""), "{unknown}");

    // The instance that receives the request can upgrade itself, too.
    let done = client.wait_ended(&client.post("instances/upgrade", json!({"names": ["one", "three"]}), 202));
    let results = |done: &Value| -> Vec<String> {
        let describe = |entry: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text(&entry["name"]), text(&entry["status"]), text(&entry["result"]["status"]))
        };
        done["instances"].as_array().unwrap_or_else(|| panic!("{done}")).iter().map(describe).collect()
    };
    assert_eq!(results(&done), ["one done upgraded", "three done upgraded"], "{done}");
    let versions: Vec<Value> =
        user.run(&["instances", "--json"]).expect(0).json()["instances"].as_array().unwrap().to_vec();
    let versions: Vec<&Value> = versions.iter().map(|entry| &entry["version"]).collect();
    assert_eq!(versions, ["0.2.0", "0.2.0", "0.1.0"]);
    // `upgrade --all` upgrades the remaining instance and prints a table.
    user.run(&["upgrade", "--all"]).expect(3);
    let shown = user.run(&["upgrade", "--all", "--yes"]).expect(0).stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines[1].starts_with("one       already at 0.2.0") && lines[2].starts_with("three     already at"),
        "{shown}"
    );
    assert!(lines[3].starts_with("two       upgraded from 0.1.0 to 0.2.0"), "{shown}");
    let states = user.run(&["lite", "status", "--all", "--json"]).expect(1).json();
    let states: Vec<&Value> =
        states["instances"].as_array().unwrap().iter().map(|entry| &entry["status"]["state"]).collect();
    assert_eq!(states, ["healthy", "stopped", "healthy"]);
    user.run(&["lite", "stop", "--all"]).expect(0);
}
