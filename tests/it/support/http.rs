//! A minimal HTTP client that controls every byte it sends.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Sends one request on its own connection; `None` when the connection is refused or cut.
pub fn try_request(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Response> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("Host: 127.0.0.1:{port}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    send_raw(port, format!("{text}\r\n{body}").as_bytes())
}

/// Sends a request with a JSON body over a home's own socket.
#[track_caller]
pub fn socket_request(home: &Path, method: &str, path: &str, headers: &str, body: &str) -> Response {
    try_socket_request(home, method, path, headers, body).expect("an answer")
}

/// Like [`socket_request`]; `None` when the connection is refused or cut.
pub fn try_socket_request(home: &Path, method: &str, path: &str, headers: &str, body: &str) -> Option<Response> {
    let stream = UnixStream::connect(home.join("run/api.sock")).ok()?;
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(stream, text.as_bytes())
}

/// Sends arbitrary bytes; returns the response.
pub fn send_raw(port: u16, bytes: &[u8]) -> Option<Response> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    exchange(stream, bytes)
}

fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> Option<Response> {
    // A server may close the connection before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response { status, head: head.to_owned(), body: decode(head, body) })
}

fn decode(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let mut rest = body;
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    whole
}

#[track_caller]
pub fn get(port: u16, path: &str) -> Response {
    try_request(port, "GET", path, &[], "").expect("an answer")
}

/// A logged-in client.
pub struct Session {
    pub port: u16,
    pub token: String,
}

impl Session {
    #[track_caller]
    pub fn login(port: u16, password: &str) -> Self {
        let response = token(port, "admin@leoflow.local", password);
        assert_eq!(response.status, 201, "{response:?}");
        Self { port, token: response.json()["access_token"].as_str().unwrap().to_owned() }
    }

    pub fn try_request(&self, method: &str, path: &str, body: &str) -> Option<Response> {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        try_request(self.port, method, path, &headers, body)
    }

    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: &str) -> Response {
        self.try_request(method, path, body).expect("an answer")
    }
}

/// Airflow's REST API with a logged-in session.
pub struct Api(pub Session);

impl Api {
    /// Returns the status and the body: JSON, or a string if it is not JSON.
    pub fn send(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.0.request(method, &format!("/api/v2/{path}"), &body);
        let text = response.body.clone();
        (response.status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let (status, answer) = self.send("GET", path, Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    #[track_caller]
    pub fn expect(&self, method: &str, path: &str, body: Value, status: u16) -> Value {
        let (actual, answer) = self.send(method, path, body);
        assert_eq!(actual, status, "{method} {path}: {answer}");
        answer
    }
}

#[track_caller]
pub fn token(port: u16, username: &str, password: &str) -> Response {
    let body = serde_json::json!({"username": username, "password": password}).to_string();
    try_request(port, "POST", "/auth/token", &[("Content-Type", "application/json")], &body).expect("an answer")
}
