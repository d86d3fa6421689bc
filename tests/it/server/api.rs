//! Variables and connections, over HTTP in Airflow's format and over the command line.

use crate::support::TestHome;
use crate::support::http::{Session, socket_request};
use serde_json::{Value, json};
use std::path::PathBuf;

fn started_session() -> (TestHome, Session) {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    let session = Session::login(test.port, &password);
    (test, session)
}

fn send(session: &Session, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = session.request(method, path, &body);
    (response.status, if response.body.is_empty() { Value::Null } else { response.json() })
}

#[test]
fn variables_follow_airflows_api() {
    let (test, session) = started_session();
    let path = "/api/v2/variables";
    let (status, created) = send(&session, "POST", path, json!({"key": "a/b c", "value": "1", "description": "d"}));
    assert_eq!(
        (status, &created),
        (201, &json!({"key": "a/b c", "value": "1", "description": "d", "is_encrypted": true, "team_name": null}))
    );
    let (status, again) = send(&session, "POST", path, json!({"key": "a/b c", "value": "2"}));
    assert_eq!((status, again["detail"].as_str()), (409, Some("The Variable with key: `a/b c` already exists")));
    assert_eq!(send(&session, "GET", "/api/v2/variables/a/b%20c", Value::Null), (200, created));
    let (status, changed) = send(
        &session,
        "PATCH",
        "/api/v2/variables/a%2Fb%20c?update_mask=value",
        json!({"key": "a/b c", "value": {"x": 1}, "description": "other"}),
    );
    assert_eq!(
        (status, changed["value"].as_str(), changed["description"].as_str()),
        (200, Some(r#"{"x":1}"#), Some("d"))
    );
    assert_eq!(send(&session, "PATCH", "/api/v2/variables/a%2Fb%20c", json!({"key": "other", "value": "x"})).0, 400);
    assert_eq!(send(&session, "DELETE", "/api/v2/variables/a%2Fb%20c", Value::Null), (204, Value::Null));
    let (status, gone) = send(&session, "GET", "/api/v2/variables/gone", Value::Null);
    assert_eq!((status, gone["detail"].as_str()), (404, Some("The Variable with key: `gone` was not found")));
    for bad in [
        json!({"key": "a"}),
        json!({"value": "a"}),
        json!({"key": "", "value": "a"}),
        json!({"key": "x".repeat(251), "value": "a"}),
        json!([]),
        json!({"key": "a\u{0}b", "value": "a"}),
    ] {
        let (status, answer) = send(&session, "POST", path, bad.clone());
        assert_eq!(status, 422, "{bad}");
        assert!(answer["detail"][0]["msg"].is_string(), "{answer}");
    }
    assert_eq!(session.request("POST", path, "{not json").status, 422);
    assert_eq!(test.sql("SELECT count(*) FROM variable"), "0");
}

#[test]
fn lists_are_paged_ordered_and_searched() {
    let (test, session) = started_session();
    let file = test.folder().join("v.json");
    let all: serde_json::Map<String, Value> = (0..120).map(|n| (format!("key{n:03}"), json!(n))).collect();
    std::fs::write(&file, Value::Object(all).to_string()).unwrap();
    let done = test.run(&["variables", "import", file.to_str().unwrap()]).expect(0);
    assert!(done.stdout.contains("Imported 120 variables"), "{}", done.stdout);
    let list = |query: &str| send(&session, "GET", &format!("/api/v2/variables{query}"), Value::Null);
    let keys = |answer: &Value| -> Vec<String> {
        answer["variables"].as_array().unwrap().iter().map(|v| v["key"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = list("");
    assert_eq!((first["total_entries"].as_i64(), keys(&first).len()), (Some(120), 50));
    assert_eq!(keys(&list("?limit=2&offset=118").1), ["key118", "key119"]);
    assert_eq!(keys(&list("?limit=1&order_by=-key").1), ["key119"]);
    assert_eq!(keys(&list("?limit=5000").1).len(), 100);
    let (_, matching) = list("?variable_key_pattern=Y05");
    assert_eq!((matching["total_entries"].as_i64(), keys(&matching).len()), (Some(10), 10));
    for (query, status) in [
        ("?limit=-1", 422),
        ("?limit=x", 422),
        ("?offset=-1", 422),
        ("?order_by=value", 400),
        ("?limit=1&limit=2", 200),
        ("?order_by=-id&order_by=key", 200),
    ] {
        assert_eq!(list(query).0, status, "{query}");
    }
}

/// Writes a file with `count` variables that have the same value.
fn many_variables(test: &TestHome, count: usize, value: &str) -> PathBuf {
    let file = test.folder().join(format!("{count}.json"));
    let all: serde_json::Map<String, Value> = (0..count).map(|n| (format!("key{n:06}"), json!(value))).collect();
    std::fs::write(&file, Value::Object(all).to_string()).unwrap();
    file
}

const VALUE: &str = "a value as long as most are, some forty letters";

#[test]
fn more_variables_than_a_statement_has_parameters_are_imported() {
    let test = TestHome::started();
    // 14 MB, as 200,000 values of typical length.
    let value = VALUE.repeat(4);
    let file = many_variables(&test, 66_000, &value);
    let done = test.run(&["variables", "import", file.to_str().unwrap()]).expect(0).stdout;
    assert!(done.contains("Imported 66000 variables, skipped 0"), "{done}");
    assert_eq!(test.run(&["variables", "get", "key065999"]).expect(0).stdout.trim(), value);
}

#[test]
fn a_variable_import_is_all_or_nothing() {
    let test = TestHome::started();
    let file = many_variables(&test, 2_500, VALUE);
    let path = file.to_str().unwrap();
    test.run(&["variables", "set", "key002499", "mine"]).expect(0);
    let refused = test.run(&["variables", "import", path, "-a", "fail"]).expect(1);
    assert!(refused.stderr.contains("key002499"), "{}", refused.stderr);
    assert_eq!(test.sql("SELECT count(*) FROM variable"), "1");
    let skipped = test.run(&["variables", "import", path, "-a", "skip"]).expect(0).stdout;
    assert!(skipped.contains("Imported 2499 variables, skipped 1"), "{skipped}");
    assert_eq!(test.run(&["variables", "get", "key002499"]).expect(0).stdout.trim(), "mine");
    let written = test.run(&["variables", "import", path]).expect(0).stdout;
    assert!(written.contains("Imported 2500 variables, skipped 0"), "{written}");
    assert_eq!(test.run(&["variables", "get", "key002499"]).expect(0).stdout.trim(), VALUE);
}

#[test]
fn a_duplicate_key_in_an_import_follows_on_existing() {
    let test = TestHome::started();
    let import = |on_existing: &str| {
        let entries: Vec<Value> =
            ["first", "second"].iter().map(|value| json!({"key": "twice", "value": value})).collect();
        let body = json!({"on_existing": on_existing, "entries": entries}).to_string();
        socket_request(&test.home, "PUT", "/local/variables", "", &body)
    };
    assert_eq!(import("fail").status, 409);
    assert_eq!(import("skip").json(), json!({"imported": 1, "skipped": 1}));
    assert_eq!(test.run(&["variables", "get", "twice"]).expect(0).stdout.trim(), "first");
    assert_eq!(import("overwrite").status, 200);
    assert_eq!(test.run(&["variables", "get", "twice"]).expect(0).stdout.trim(), "second");
}

#[test]
fn connections_follow_airflows_api_and_hide_passwords() {
    let (test, session) = started_session();
    let path = "/api/v2/connections";
    let new = json!({"connection_id": "db", "conn_type": "postgres", "host": "h", "login": "l", "password": "geheim",
                     "port": 5432, "schema": "s", "extra": "{\"api_key\": \"geheim\", \"a\": 1}", "description": null});
    let (status, created) = send(&session, "POST", path, new.clone());
    assert_eq!((status, created["password"].as_str(), created["port"].as_i64()), (201, Some("***"), Some(5432)));
    assert_eq!(created["extra"], r#"{"api_key":"***","a":1}"#);
    assert_eq!(send(&session, "POST", path, new.clone()).0, 409);
    let (_, listed) = send(&session, "GET", path, Value::Null);
    assert_eq!((listed["total_entries"].as_i64(), &listed["connections"][0]), (Some(1), &created));
    let patched = json!({"connection_id": "db", "conn_type": "postgres", "host": "h2", "password": "***"});
    let (status, changed) = send(&session, "PATCH", "/api/v2/connections/db?update_mask=host,password", patched);
    assert_eq!((status, changed["host"].as_str(), changed["login"].as_str()), (200, Some("h2"), Some("l")));
    let exported = test.run(&["connections", "export", "-"]).expect(0).json();
    assert_eq!((&exported["db"]["password"], &exported["db"]["host"]), (&json!("geheim"), &json!("h2")));
    for bad in [
        json!({"connection_id": "x"}),
        json!({"connection_id": "x", "conn_type": ""}),
        json!({"connection_id": "", "conn_type": "a"}),
        json!({"connection_id": "x", "conn_type": "a", "port": 70000}),
        json!({"connection_id": "x", "conn_type": "a", "extra": "{"}),
    ] {
        assert_eq!(send(&session, "POST", path, bad.clone()).0, 422, "{bad}");
    }
    // The database contains no unencrypted secret.
    let rows = test.sql("SELECT count(*) FROM connection WHERE connection::text LIKE '%geheim%' OR encode(password_encrypted, 'escape') LIKE '%geheim%'");
    assert_eq!(rows, "0");
    assert_eq!(send(&session, "DELETE", "/api/v2/connections/db", Value::Null).0, 204);
    assert_eq!(send(&session, "DELETE", "/api/v2/connections/db", Value::Null).0, 404);
}

#[test]
fn a_patch_changes_only_the_named_fields() {
    let (test, session) = started_session();
    let new = json!({"connection_id": "db", "conn_type": "postgres", "host": "h", "login": "l", "password": "geheim",
                     "port": 5432, "schema": "s", "extra": "{\"api_key\": \"geheim\", \"a\": 1}", "description": "d"});
    assert_eq!(send(&session, "POST", "/api/v2/connections", new).0, 201);
    let stored = || test.run(&["connections", "export", "-"]).expect(0).json()["db"].clone();
    let before = stored();
    let only_host = json!({"connection_id": "db", "conn_type": "postgres", "host": "h2"});
    assert_eq!(send(&session, "PATCH", "/api/v2/connections/db", only_host.clone()).0, 200);
    // A mask may name fields that the body lacks, and may be repeated, as Airflow's clients send it.
    assert_eq!(send(&session, "PATCH", "/api/v2/connections/db?update_mask=host&update_mask=login", only_host).0, 200);
    let mut expected = before.clone();
    expected["host"] = json!("h2");
    assert_eq!(stored(), expected);
    // A client can send back a connection as it was read; masked fields keep their values.
    let mut shown = send(&session, "GET", "/api/v2/connections/db", Value::Null).1;
    assert!(!shown.to_string().contains("geheim"));
    shown["port"] = json!(1);
    assert_eq!(send(&session, "PATCH", "/api/v2/connections/db", shown).0, 200);
    let after = stored();
    assert_eq!((&after["password"], &after["port"]), (&json!("geheim"), &json!(1)));
    assert_eq!(
        serde_json::from_str::<Value>(after["extra"].as_str().unwrap()).unwrap(),
        json!({"api_key": "geheim", "a": 1})
    );
    let cleared = json!({"connection_id": "db", "conn_type": "postgres", "login": null});
    assert_eq!(send(&session, "PATCH", "/api/v2/connections/db", cleared).0, 200);
    assert!(stored()["login"].is_null(), "null is a value");

    send(&session, "POST", "/api/v2/variables", json!({"key": "my_secret", "value": "geheim", "description": "d"}));
    let shown = send(&session, "GET", "/api/v2/variables/my_secret", Value::Null).1;
    let unchanged = json!({"key": shown["key"], "value": shown["value"], "description": shown["description"]});
    assert_eq!(send(&session, "PATCH", "/api/v2/variables/my_secret", unchanged).0, 200);
    assert_eq!(test.run(&["variables", "get", "my_secret"]).expect(0).stdout, "geheim\n");
    assert_eq!(
        send(&session, "PATCH", "/api/v2/variables/my_secret", json!({"key": "my_secret", "value": "x"})).1["description"],
        "d"
    );
    assert_eq!(session.request("GET", "/api/v2/variables/%FF", "").json()["detail"][0]["loc"][0], "path");
}

#[test]
fn the_api_hides_sensitive_variables_and_the_cli_shows_them() {
    let (test, session) = started_session();
    test.run_with_input(&["variables", "set", "my_password", "-"], "s3cret\n").expect(0);
    assert_eq!(send(&session, "GET", "/api/v2/variables/my_password", Value::Null).1["value"], "***");
    assert_eq!(test.run(&["variables", "get", "my_password"]).expect(0).stdout, "s3cret\n");
}

#[test]
fn the_command_line_reads_and_writes_airflows_files() {
    let (test, _) = started_session();
    let file = test.folder().join("export.json");
    let path = file.to_str().unwrap();
    test.run(&["variables", "set", "a", "{\"x\":[1]}", "--description", "why"]).expect(0);
    test.run(&["variables", "set", "b", "-5"]).expect(0);
    test.run(&["variables", "export", path]).expect(0);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let exported: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(exported, json!({"a": {"value": {"x":[1]}, "description": "why"}, "b": -5}));
    test.run(&["variables", "delete", "a"]).expect(0);
    assert!(test.run(&["variables", "delete", "a"]).expect(1).stderr.contains("was not found"));
    assert!(test.run(&["variables", "get", "a"]).expect(1).stderr.contains("was not found"));
    assert_eq!(test.run(&["variables", "get", "a", "--default", "z"]).expect(0).stdout, "z\n");
    let failing = test.run(&["variables", "import", path, "-a", "fail"]).expect(1);
    assert!(failing.stderr.contains("already exists"), "{}", failing.stderr);
    test.run(&["variables", "get", "a"]).expect(1);
    let skipped = test.run(&["variables", "import", path, "-a", "skip"]).expect(0);
    assert!(skipped.stdout.contains("Imported 1 variable, skipped 1"), "{}", skipped.stdout);
    std::fs::write(&file, "[]").unwrap();
    test.run(&["variables", "import", path]).expect(1);
    test.run(&["variables", "import", "/nowhere.json"]).expect(1);

    test.run(&["connections", "add", "u", "--conn-uri", "postgres://me:p%40w@h:1/d?sslmode=x"]).expect(0);
    test.run(&["connections", "add", "u", "--conn-type", "x"]).expect(1);
    test.run(&["connections", "add", "v"]).expect(2);
    let other = test.folder().join("export.yaml");
    let refused = test.run(&["connections", "export", other.to_str().unwrap()]).expect(2);
    assert!(refused.stderr.contains("--file-format json") && !other.exists(), "{}", refused.stderr);
    test.run(&["connections", "export", other.to_str().unwrap(), "--format", "json"]).expect(0);
    test.run(&["connections", "export", path]).expect(0);
    test.run(&["connections", "delete", "u"]).expect(0);
    let imported = test.run(&["connections", "import", path]).expect(0);
    assert!(imported.stdout.contains("Imported 1 connection, skipped 0"), "{}", imported.stdout);
    let list = test.run(&["connections", "list", "--json"]).expect(0).json();
    assert_eq!(list["connections"][0]["login"], "me");
    assert!(!list.to_string().contains("p@w"));
}
