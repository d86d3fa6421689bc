//! Logins, sessions, throttling and request limits.

use crate::support::http::{Session, get, send_raw, socket_request, token, try_request};
use crate::support::{TestHome, wait_until};
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};

fn started_home() -> (TestHome, String) {
    let test = TestHome::new();
    let password = test.start()["admin_password"].as_str().unwrap().to_owned();
    (test, password)
}

#[test]
fn login_page_status_page_and_logout_work() {
    let (test, password) = started_home();
    let port = test.port;
    let anonymous = get(port, "/");
    assert_eq!((anonymous.status, anonymous.header("location")), (303, Some("/auth/login?next=%2F")));
    assert!(get(port, "/auth/login").body.contains("<form"));
    let form = |password: &str| {
        let body = format!("username=admin%40leoflow.local&password={password}");
        try_request(port, "POST", "/auth/login", &[("Content-Type", "application/x-www-form-urlencoded")], &body)
            .unwrap()
    };
    let wrong = form("wrong");
    assert_eq!(wrong.status, 401);
    assert!(
        wrong.body.contains("Invalid credentials") && wrong.header("content-type").unwrap().starts_with("text/html")
    );
    let right = form(&password);
    assert_eq!((right.status, right.header("location")), (303, Some("/")));
    let cookie = right.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let session = cookie.split(';').next().unwrap();
    let page = try_request(port, "GET", "/lite/", &[("Cookie", session)], "").unwrap();
    assert_eq!(page.status, 200);
    for expected in ["<h1>Status", "healthy", "postgres", "server", "agent"] {
        assert!(page.body.contains(expected), "{expected} is not on the page");
    }
    assert!(page.header("content-security-policy").is_some() && page.header("x-frame-options").is_some());
    let status = try_request(port, "GET", "/api/lite/status", &[("Cookie", session)], "").unwrap();
    assert_eq!(status.json()["state"], "healthy");
    if nix::unistd::geteuid().is_root() {
        // A browser sends the cookie to every port of localhost, so a server of another user may receive the cookie.
        // That user must not be able to use it.
        let token = session.split_once('=').unwrap().1;
        let api_token = Session::login(port, &password).token;
        for (uid, header, expected) in [
            (65_534, format!("Cookie: {session}"), 401),
            (65_534, format!("Authorization: Bearer {token}"), 401),
            (65_534, format!("Authorization: Bearer {api_token}"), 200),
            (0, format!("Cookie: {session}"), 200),
        ] {
            assert_eq!(status_as(uid, port, &header), expected, "{uid} {header}");
        }
    }
    let out = try_request(port, "POST", "/auth/logout", &[("Cookie", session)], "").unwrap();
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    let again = try_request(port, "GET", "/api/lite/status", &[("Cookie", session)], "").unwrap();
    assert_eq!(again.status, 401, "the session itself is revoked, not only its cookie");
}

/// Requests the status as the user `uid` of this machine; returns the status code.
fn status_as(uid: u32, port: u16, header: &str) -> u16 {
    let script = "import encodings.idna, http.client, os, sys\nuid, port, (name, value) = sys.argv[1], sys.argv[2], \
                  sys.argv[3].split(': ')\nos.setuid(int(uid))\n\
                  connection = http.client.HTTPConnection('127.0.0.1', int(port))\n\
                  connection.request('GET', '/api/lite/status', headers={name: value})\n\
                  print(connection.getresponse().status)";
    let output = std::process::Command::new("python3")
        .args(["-c", script, &uid.to_string(), &port.to_string(), header])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn only_health_and_version_work_without_a_valid_token() {
    let (test, password) = started_home();
    let port = test.port;
    for path in ["/api/v2/variables", "/api/v2/variables/a", "/api/v2/connections", "/api/lite/status"] {
        let refused = get(port, path);
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.json()["detail"], "Not authenticated");
    }
    for path in ["/local/variables", "/local/connections", "/ui/nothing", "/api/v2/nothing", "/nowhere"] {
        assert_eq!(get(port, path).status, 404, "{path}");
    }
    for path in ["/", "/dags", "/dags/a/runs/b"] {
        assert_eq!(get(port, path).status, 303, "{path} is a page of the web UI and needs a login");
    }
    let session = Session::login(port, &password);
    assert_eq!(session.request("GET", "/local/variables", "").status, 404, "never served over TCP, even with a token");
    assert_eq!(session.request("PUT", "/api/v2/version", "").status, 405);
    let version = get(port, "/api/v2/version").json();
    let ours = test.status()["version"].clone();
    assert_eq!(version, json!({"version": leoflow::web_ui::version(), "git_version": ours}));
    assert_eq!(get(port, "/api/healthz").json()["version"], ours);
    let description = session.request("GET", "/openapi.json", "").json();
    assert_eq!(description["info"]["version"], version["version"]);
    assert_eq!(get(port, "/api/v2/monitor/health").json()["metadatabase"]["status"], "healthy");
    assert_eq!(get(port, "/api/healthz").json()["ok"], true);
    let (header, rest) = session.token.split_once('.').unwrap();
    let forged = [
        format!("{rest}.{header}"),
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", rest.split('.').next().unwrap()),
        session.token[..session.token.len() - 2].to_owned(),
        "x".repeat(60_000),
    ];
    for token in forged {
        let refused = Session { port, token }.request("GET", "/api/v2/variables", "");
        assert!([401, 431].contains(&refused.status), "{refused:?}");
    }
}

/// Logs in over the user's own socket; returns the status code.
fn login_over_socket(test: &TestHome, password: &str) -> u16 {
    let body = serde_json::json!({"username": "admin@leoflow.local", "password": password}).to_string();
    socket_request(&test.home, "POST", "/auth/token", "", &body).status
}

#[test]
fn guessed_passwords_are_throttled_without_blocking_others() {
    let (test, password) = started_home();
    let port = test.port;
    let wrong =
        |count: usize| -> Vec<u16> { (0..count).map(|_| token(port, "admin@leoflow.local", "wrong").status).collect() };
    assert_eq!(wrong(5), [401; 5]);
    let started_at = Instant::now();
    assert_eq!(wrong(4), [401; 4]);
    assert!(
        started_at.elapsed() >= Duration::from_millis(250 + 500 + 1000 + 1000),
        "each failed attempt is delayed for longer"
    );
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let guessing: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    token(port, "admin@leoflow.local", "x");
                }
            })
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(token(port, "admin@leoflow.local", &password).status, 201, "the right password works after a delay");
    }
    assert_eq!(login_over_socket(&test, &password), 201);
    assert_eq!(get(port, "/api/healthz").status, 200);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    guessing.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Half of the requests stop in their headers, half in their bodies; together they exceed the server's capacity. The
/// server does not drop them within the test, so other requests are answered beside them.
#[test]
fn unfinished_requests_do_not_block_others() {
    use std::io::Write;
    let test = TestHome::started_with(&[("LEOFLOW_HEADER_LIMIT", "600"), ("LEOFLOW_REQUEST_LIMIT", "600")]);
    let port = test.port;
    let mut unfinished = Vec::new();
    for number in 0..600 {
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { continue };
        let text = match number % 2 {
            0 => "GET /api/healthz HTTP/1.1\r\nHost: loc".to_owned(),
            _ => "POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{".to_owned(),
        };
        let _ = stream.write_all(text.as_bytes());
        unfinished.push(stream);
        if number % 60 == 59 {
            assert_eq!(get(port, "/api/healthz").status, 200, "after {number}");
        }
    }
}

#[test]
fn a_new_hash_or_epoch_in_the_config_ends_sessions_at_once() {
    let (test, password) = started_home();
    let session = Session::login(test.port, &password);
    let path = test.home.join("config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("session_epoch: 1", "session_epoch: 2");
    std::fs::write(&path, &text).unwrap();
    let status_of = |session: &Session| session.request("GET", "/api/v2/variables", "").status;
    wait_until("old sessions end", Duration::from_secs(30), || status_of(&session) == 401);
    let session = Session::login(test.port, &password);
    let issued = session.request("POST", "/ui/auth/token", "{}").json();
    let derived = Session { port: test.port, token: issued["access_token"].as_str().unwrap().to_owned() };
    assert_eq!((status_of(&session), status_of(&derived)), (200, 200));
    let old = text.lines().find(|line| line.starts_with("admin_password_hash")).unwrap();
    let new = leoflow::auth::password::hash("another password").unwrap();
    std::fs::write(&path, text.replace(old, &format!("admin_password_hash: '{new}'"))).unwrap();
    wait_until("sessions of the old password end", Duration::from_secs(30), || status_of(&session) == 401);
    assert_eq!(status_of(&derived), 401, "a token that a session issued ends too");
    assert_eq!(token(test.port, "admin@leoflow.local", &password).status, 401);
    assert_eq!(status_of(&Session::login(test.port, "another password")), 200);
}

#[test]
fn api_tokens_permit_what_their_scope_says() {
    let (test, _) = started_home();
    let create = |arguments: &[&str]| {
        let created = test.run(&[&["--json", "tokens", "create"], arguments].concat()).expect(0).json();
        Session { port: test.port, token: created["token"].as_str().unwrap().to_owned() }
    };
    let (agent, program) = (create(&["agent", "--read-only"]), create(&["program", "--expires", "1h"]));
    let status = |session: &Session, method: &str, path: &str, body: &str| session.request(method, path, body).status;
    let variable = r#"{"key": "city", "value": "Nice"}"#;
    for (method, path, body, of_agent, of_program) in [
        ("GET", "/api/v2/dags", "", 200, 200),
        ("GET", "/lite/", "", 200, 200),
        ("GET", "/openapi.json", "", 200, 200),
        ("POST", "/api/v2/dags/~/dagRuns/list", "{}", 200, 200),
        ("POST", "/api/v2/variables", variable, 403, 201),
        ("DELETE", "/api/v2/variables/city", "", 403, 204),
        ("DELETE", "/api/v2/variables/list", "", 403, 404),
        ("POST", "/lite/backups", "", 403, 0),
        ("POST", "/api/lite/backups", "", 403, 0),
        ("POST", "/ui/auth/token", "{}", 403, 403),
        ("GET", "/local/variables", "", 404, 404),
    ] {
        assert_eq!(status(&agent, method, path, body), of_agent, "agent: {method} {path}");
        if of_program != 0 {
            assert_eq!(status(&program, method, path, body), of_program, "program: {method} {path}");
        }
    }
    let refusal = agent.request("POST", "/api/v2/variables", variable).json();
    assert_eq!(refusal["detail"], "The API token agent does not permit this request");
    let events = program.request("GET", "/api/v2/eventLogs?event=post_variable", "").json();
    assert_eq!(events["event_logs"][0]["owner"], "API token program");
    assert_eq!(status(&Session { port: test.port, token: "leoflow_wrong".to_owned() }, "GET", "/api/v2/dags", ""), 401);

    let listed = test.run(&["--json", "tokens", "list"]).expect(0).json();
    assert_eq!((&listed["tokens"][0]["name"], &listed["tokens"][0]["scope"]), (&json!("agent"), &json!("read-only")));
    assert!(!listed.to_string().contains(&agent.token));
    test.run(&["tokens", "create", "agent"]).expect(1);
    test.run(&["tokens", "revoke", "agent"]).expect(0);
    assert_eq!((status(&agent, "GET", "/api/v2/dags", ""), status(&program, "GET", "/api/v2/dags", "")), (401, 200));
    let file = test.home.join("api-tokens.json");
    let stored = std::fs::read(&file).unwrap();
    std::fs::write(&file, "damaged").unwrap();
    assert_eq!(status(&program, "GET", "/api/v2/dags", ""), 401, "as soon as its record cannot be read");
    std::fs::write(&file, stored).unwrap();
    assert_eq!(status(&program, "GET", "/api/v2/dags", ""), 200);
    test.run(&["lite", "reset-password", "--generate"]).expect(0);
    assert_eq!(status(&program, "GET", "/api/v2/dags", ""), 401, "after a password reset");
    assert_eq!(test.run(&["--json", "tokens", "list"]).expect(0).json()["tokens"], json!([]));
}

#[test]
fn foreign_origins_and_hosts_are_refused() {
    let (test, _) = started_home();
    let port = test.port;
    let with = |headers: &[(&str, &str)]| try_request(port, "POST", "/auth/token", headers, "{}").unwrap().status;
    assert_eq!(with(&[("Host", "evil.example")]), 403);
    assert_eq!(with(&[("Origin", "http://evil.example")]), 403);
    assert_eq!(with(&[("Origin", "null")]), 403);
    assert_eq!(with(&[("Content-Type", "application/json")]), 422, "accepted, then rejected by validation");
    assert_eq!(try_request(port, "GET", "/", &[("Host", "evil.example:80")], "").unwrap().status, 403);
    let localhost = format!("localhost:{port}");
    assert_eq!(try_request(port, "GET", "/api/healthz", &[("Host", &localhost)], "").unwrap().status, 200);
}

#[test]
fn oversized_requests_are_refused_and_the_server_keeps_serving() {
    let (test, password) = started_home();
    let port = test.port;
    let session = Session::login(port, &password);
    let huge = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "x".repeat(10 * 1024 * 1024));
    assert!(send_raw(port, huge.as_bytes()).is_none_or(|response| response.status == 431));
    let many = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n", "a: b\r\n".repeat(2000));
    assert!(send_raw(port, many.as_bytes()).is_none_or(|response| response.status == 431));
    let anonymous = format!(r#"{{"username": "{}", "password": "x"}}"#, "x".repeat(100_000));
    let refused = try_request(port, "POST", "/auth/token", &[("Content-Type", "application/json")], &anonymous);
    assert!(refused.is_none_or(|response| response.status == 413));
    let body = serde_json::json!({"key": "big", "value": "x".repeat(17 * 1024 * 1024)}).to_string();
    assert!(session.try_request("POST", "/api/v2/variables", &body).is_none_or(|response| response.status == 413));
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n"] {
        let _ = send_raw(port, garbage);
    }
    // More connections without a whole request than the server handles at once. The kernel keeps silent ones.
    let begin_request = |_| {
        let mut connection = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        connection.write_all(b"G").ok().map(|()| connection)
    };
    let unfinished: Vec<_> = (0..300).filter_map(begin_request).collect();
    assert_eq!(get(port, "/api/healthz").status, 200);
    drop(unfinished);
    assert_eq!(test.status()["processes"][2]["restarts"], 0);
}
