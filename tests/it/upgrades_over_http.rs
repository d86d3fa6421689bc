//! Upgrades asked for over HTTP, as scripts and consoles do: of one instance, of several, and the ways back.

use crate::instances::User;
use crate::support::http::{Session, try_request};
use crate::support::releases::{FIRST, Releases, SECOND, releases};
use crate::support::{TestHome, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

struct Asked(Session);

impl Asked {
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

    /// As it is in the end, whichever server tells.
    #[track_caller]
    fn ended(&self, begun: &Value) -> Value {
        let path = format!("/api/lite/upgrade/{}", begun["id"]);
        let mut last = Value::Null;
        wait_until("it has ended", LIMIT, || {
            if let Some(answer) = self.0.try_request("GET", &path, "").filter(|answer| answer.status == 200) {
                last = answer.json();
            }
            !last.is_null() && last["status"] != "running"
        });
        last
    }
}

fn started(all: &Releases) -> (TestHome, Asked) {
    let test = TestHome::of(all.program("0.1.0"));
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    test.run(&["config", "set", "upgrade.from", all.dist().to_str().unwrap()]).expect(0);
    let session = Session::login(test.port, &password);
    (test, Asked(session))
}

/// What is told to who listens: the events that came on one connection.
fn listen(asked: &Asked, id: &Value) -> Vec<Value> {
    let bearer = format!("Bearer {}", asked.0.token);
    let headers = [("Authorization", bearer.as_str()), ("Accept", "text/event-stream")];
    let heard = try_request(asked.0.port, "GET", &format!("/api/lite/upgrade/{id}"), &headers, "").unwrap();
    assert_eq!(heard.header("content-type"), Some("text/event-stream"), "{heard:?}");
    let lines = heard.body.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_upgrade_outlives_the_server_that_was_asked_and_the_way_back_is_asked_for_as_well() {
    let all = releases(&[FIRST, SECOND]);
    let (test, asked) = started(&all);
    assert_eq!(asked.get("version")["deployed_version"], "0.1.0");
    let mut told = Value::Null;
    wait_until("the newest is looked up", LIMIT, || {
        told = asked.get("version");
        !told["latest_version"].is_null()
    });
    assert_eq!((&told["latest_version"], &told["upgrade_available"]), (&json!("0.2.0"), &json!(true)), "{told}");
    assert_eq!(told["channel"], "stable", "{told}");
    assert!(told["schema_version"].is_i64(), "{told}");

    let planned = asked.ended(&asked.post("upgrade", json!({"dry_run": true}), 202));
    assert_eq!((&planned["status"], &planned["new_version"]), (&json!("planned"), &json!("0.2.0")), "{planned}");
    assert_eq!(asked.get("version")["deployed_version"], "0.1.0");

    let begun =
        asked.post("upgrade", json!({"target_version": "0.2.0", "backup_db": true, "run_migrations": true}), 202);
    assert_eq!(begun["status"], "running");
    // What has no type is read all the same, and by name.
    let bearer = format!("Bearer {}", asked.0.token);
    for wrong in ["{\"backup_db\": false}", "[null, null, null, false]", "{"] {
        let refused =
            try_request(test.port, "POST", "/api/lite/upgrade", &[("Authorization", &bearer)], wrong).unwrap();
        assert_eq!(refused.status, 422, "{wrong}: {}", refused.body);
    }
    // A second time while the first is under way.
    let twice = asked.post("upgrade", json!({}), 409);
    assert!(twice["detail"].as_str().unwrap().contains("under way"), "{twice}");
    let heard = listen(&asked, &begun["id"]);
    assert_eq!(heard[0]["status"], "running", "{heard:?}");
    assert!(heard.len() > 1, "{heard:?}");
    let done = asked.ended(&begun);
    assert_eq!((&done["status"], &done["error"]), (&json!("upgraded"), &Value::Null), "{done}");
    assert_eq!((&done["previous_version"], &done["new_version"]), (&json!("0.1.0"), &json!("0.2.0")));
    assert_eq!(done["migrations_run"].as_array().unwrap().len(), 1);
    assert!(fs::metadata(done["backup_path"].as_str().unwrap()).unwrap().len() > 0);
    assert!(done["details"].as_array().unwrap().len() > 5, "{done}");
    assert_eq!(test.status()["version"], "0.2.0");
    // One who comes afterwards hears the end at once.
    assert_eq!(listen(&asked, &begun["id"]), [done]);
    assert_eq!(asked.ended(&asked.post("upgrade", json!({}), 202))["status"], "up_to_date");
    let logged = test.sql("SELECT count(*) FROM event_log WHERE event = 'upgrade_release'");
    assert_eq!(logged, "7", "two servers have written down what was asked for, also what was refused");

    let back = asked.ended(&asked.post("rollback", json!({"target_version": "0.1.0"}), 202));
    assert_eq!((&back["status"], &back["new_version"]), (&json!("rolled_back"), &json!("0.1.0")), "{back}");
    assert_eq!(test.status()["version"], "0.1.0");
    test.run(&["lite", "stop"]).expect(0);
    test.assert_nothing_runs();
}

#[test]
fn one_whose_process_is_killed_is_told_as_it_is() {
    let all = releases(&[FIRST, SECOND]);
    let (test, asked) = started(&all);
    let begun = asked.post("upgrade", json!({}), 202);
    let file = test.home.join(format!("run/operations/{}.json", begun["id"]));
    let record = || serde_json::from_str::<Value>(&fs::read_to_string(&file).unwrap()).unwrap();
    wait_until("its command runs", LIMIT, || record()["command"]["pid"].is_i64());
    let pid = i32::try_from(record()["process"]["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    // The upgrade goes on, and what became of it is nobody's to write down.
    wait_until("it is upgraded all the same", LIMIT, || {
        test.run(&["lite", "status", "--json"]).json()["version"] == "0.2.0"
    });
    let ended = asked.ended(&begun);
    assert_eq!(ended["status"], "failed", "{ended}");
    assert!(ended["error"].as_str().unwrap().contains("leoflow versions"), "{ended}");
    assert_eq!(asked.ended(&asked.post("upgrade", json!({}), 202))["status"], "up_to_date");
}

#[test]
fn a_backup_that_is_named_is_restored_over_http_and_nothing_else_is() {
    let all = releases(&[FIRST, SECOND]);
    let (test, asked) = started(&all);
    test.run(&["variables", "set", "kept", "then"]).expect(0);
    let begun = asked.post("backups", Value::Null, 202);
    let path = format!("operations/{}", begun["id"]);
    wait_until("the backup is made", LIMIT, || asked.get(&path)["status"] != "running");
    assert_eq!(asked.get(&path)["status"], "done", "{}", asked.get(&path));
    let name = asked.get(&path)["result"]["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    test.run(&["variables", "set", "kept", "now"]).expect(0);
    let own = asked.get("version")["instance"].clone();
    for (body, status) in [
        (json!({"backup": name}), 422),
        (json!({"backup": name, "instance": "another"}), 422),
        (json!({"backup": format!("../backups/{name}"), "instance": own}), 404),
        (json!({"backup": "/etc/passwd", "instance": own}), 404),
        (json!({"backup": name, "instance": own, "force": true}), 422),
    ] {
        asked.post("restore", body, status);
    }
    for (wrong, status) in [
        (json!({"backup_db": false}), 422),
        (json!({"run_migrations": false}), 422),
        (json!({"target_version": "--from=/tmp"}), 422),
        (json!({"from": "/tmp"}), 422),
    ] {
        asked.post("upgrade", wrong, status);
    }
    let bearer = format!("Bearer {}", asked.0.token);
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
    // By the pages: only from there, and only for who has logged in.
    for path in ["/lite/releases/upgrade".to_owned(), format!("/lite/backups/{name}/restore")] {
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        let away = try_request(test.port, "POST", &path, &[form], "instance=vm").unwrap();
        assert_eq!(away.status, 303, "{path}: {}", away.body);
        let origin = ("Origin", "http://evil.example");
        let refused = try_request(test.port, "POST", &path, &[form, ("Authorization", &bearer), origin], "instance=vm");
        assert_eq!(refused.unwrap().status, 403, "{path}");
    }
    let begun_files = fs::read_dir(test.home.join("run/operations")).unwrap().count();
    assert_eq!(begun_files, 1, "nothing else was begun");
    assert_eq!(asked.0.request("GET", &format!("/api/lite/upgrade/{}", begun["id"]), "").status, 404);

    let begun = asked.post("restore", json!({"backup": name, "instance": own}), 202);
    let path = format!("/api/lite/operations/{}", begun["id"]);
    let mut told = Value::Null;
    wait_until("it is restored", LIMIT, || {
        let answer = asked.0.try_request("GET", &path, "").filter(|answer| answer.status == 200);
        told = answer.map_or(told.take(), |answer| answer.json());
        told["status"] == "done" || told["status"] == "failed"
    });
    assert_eq!(told["status"], "done", "{told}");
    assert_eq!(test.run(&["variables", "get", "kept"]).expect(0).stdout.trim(), "then");
}

#[test]
fn several_instances_are_upgraded_one_after_another_with_a_result_each() {
    let all = releases(&[FIRST, SECOND]);
    let user = User::of(all.program("0.1.0"));
    let mut sessions = Vec::new();
    for name in ["one", "two", "three"] {
        let made = user.run(&["--instance", name, "lite", "start", "--json"]).expect(0).json();
        user.run(&["--instance", name, "config", "set", "upgrade.from", all.dist().to_str().unwrap()]).expect(0);
        let port = made["url"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        sessions.push(Asked(Session::login(port, made["admin_password"].as_str().unwrap())));
    }
    user.run(&["--instance", "three", "lite", "stop"]).expect(0);
    let asked = &sessions[0];
    let named = asked.get("instances")["instances"].as_array().unwrap().clone();
    assert_eq!(named.iter().map(|one| &one["name"]).collect::<Vec<_>>(), ["one", "three", "two"]);
    for wrong in [json!({}), json!({"names": ["../one"]}), json!({"names": ["one"], "all": true})] {
        asked.post("instances/upgrade", wrong, 422);
    }
    let unknown = asked.ended(&asked.post("instances/upgrade", json!({"names": ["one", "four"]}), 202));
    assert!(unknown["status"] == "failed" && unknown["error"].as_str().unwrap().contains("\"four\""), "{unknown}");

    // It upgrades the very instance that was asked, too.
    let done = asked.ended(&asked.post("instances/upgrade", json!({"names": ["one", "three"]}), 202));
    let results = |done: &Value| -> Vec<String> {
        let told = |one: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text(&one["name"]), text(&one["status"]), text(&one["result"]["status"]))
        };
        done["instances"].as_array().unwrap_or_else(|| panic!("{done}")).iter().map(told).collect()
    };
    assert_eq!(results(&done), ["one done upgraded", "three done upgraded"], "{done}");
    let versions: Vec<Value> =
        user.run(&["instances", "--json"]).expect(0).json()["instances"].as_array().unwrap().to_vec();
    let versions: Vec<&Value> = versions.iter().map(|one| &one["version"]).collect();
    assert_eq!(versions, ["0.2.0", "0.2.0", "0.1.0"]);
    // The same for all does what is left; the terminal shows a table.
    user.run(&["upgrade", "--all"]).expect(3);
    let shown = user.run(&["upgrade", "--all", "--yes"]).expect(0).stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines[1].starts_with("one       is at 0.2.0 already") && lines[2].starts_with("three     is at"),
        "{shown}"
    );
    assert!(lines[3].starts_with("two       upgraded from 0.1.0 to 0.2.0"), "{shown}");
    let states = user.run(&["lite", "status", "--all", "--json"]).expect(1).json();
    let states: Vec<&Value> =
        states["instances"].as_array().unwrap().iter().map(|one| &one["status"]["state"]).collect();
    assert_eq!(states, ["healthy", "stopped", "healthy"]);
    user.run(&["lite", "stop", "--all"]).expect(0);
}
