//! A client of the running server over `run/api.sock`; the server treats the socket's owner as the admin.

use crate::error::Error;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use leoflow_base::home::Home;
use leoflow_base::protocol::control;
pub use leoflow_base::protocol::http::encode;
use leoflow_base::protocol::http::{self, HttpError, HttpRequest};
use leoflow_base::sys::net::unix_socket;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io;
use std::time::Duration;

pub struct Api<'a> {
    home: &'a Home,
    timeout: Duration,
}

/// Request timeout; longer than the server's own limit for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// Timeout of requests that take long, such as imports and exports; longer than the server's own limit for them.
const BULK_TIMEOUT: Duration = Duration::from_secs(610);

impl<'a> Api<'a> {
    pub fn new(home: &'a Home) -> Self {
        Self { home, timeout: REQUEST_TIMEOUT }
    }

    /// A client with the timeout of requests that take long, such as imports and exports.
    pub fn with_bulk_timeout(&self) -> Self {
        Self { home: self.home, timeout: BULK_TIMEOUT }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.request(Method::GET, path, None).await
    }

    /// Reads one object; `None` if the server has no such object (404).
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        match self.answer(Method::GET, path, None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, bytes) => read(&success(status, bytes, path)?).map(Some),
        }
    }

    /// Reads every entry of a list, page by page. `query` is appended to the URL's query, for example an order.
    pub async fn all(&self, path: &str, query: &str, field: &str) -> Result<Vec<Value>, Error> {
        all_pages(field, async |offset| self.get(&format!("{path}?limit=100&offset={offset}{query}")).await).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Error> {
        self.request(Method::POST, path, Some(body)).await
    }

    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Error> {
        self.request(Method::PUT, path, Some(body)).await
    }

    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Error> {
        self.request(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        self.send(Method::DELETE, path, None).await.map(drop)
    }

    async fn request<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, Error> {
        read(&self.send(method, path, body).await?)
    }

    /// Sends a request; a status that is not a success becomes an error.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, Error> {
        let (status, bytes) = self.answer(method, path, body).await?;
        success(status, bytes, path)
    }

    /// Sends a request with the client's timeout; returns status and body.
    async fn answer(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes), Error> {
        let response = tokio::time::timeout(self.timeout, self.exchange(method, path, body)).await;
        response.map_err(|_| silent_server())?
    }

    /// Sends a request without a time limit; returns status and body.
    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes), Error> {
        let broken = |error: HttpError| {
            Error::failed("the server closed the connection").cause(error).hint("leoflow lite logs server").transient()
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = HttpRequest { method, path, host: "localhost", headers: &[], body };
        http::send(self.connect()?, request).await.map_err(broken)
    }

    fn connect(&self) -> Result<tokio::net::UnixStream, Error> {
        let path = self.home.api_socket();
        let connected = unix_socket::connect(&path).and_then(|stream| {
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        });
        connected.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => silent_server(),
            _ if unix_socket::is_not_listening(&error) => match control::status_of(self.home) {
                Some(_) => Error::failed("run/api.sock is missing")
                    .hint("wait ten seconds for the server to recreate it, or run leoflow lite restart")
                    .transient(),
                None => Error::not_running(),
            },
            _ => Error::io("connect to", &path, &error),
        })
    }
}

/// Reads every entry of the list `field`; `get` returns the page that begins at an offset.
pub async fn all_pages(field: &str, get: impl AsyncFn(usize) -> Result<Value, Error>) -> Result<Vec<Value>, Error> {
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let before = entries.len();
        let mut page = get(before).await?;
        if let Some(Value::Array(page_entries)) = page.get_mut(field).map(Value::take) {
            entries.extend(page_entries);
        }
        if entries.len() == before || entries.len() as u64 >= page["total_entries"].as_u64().unwrap_or(0) {
            return Ok(entries);
        }
    }
}

fn read<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::failed("cannot read the server's response")
            .cause(error)
            .hint("the server may be another version; restart it: leoflow lite restart")
    })
}

/// The body of a response with success; another status becomes an error.
fn success(status: StatusCode, bytes: Bytes, path: &str) -> Result<Bytes, Error> {
    if status.is_success() {
        return Ok(bytes);
    }
    let detail: Option<Value> = serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| v.get("detail").cloned());
    Err(error_from_response(status, detail.unwrap_or_default(), path))
}

fn silent_server() -> Error {
    Error::failed("the server does not respond").hint("leoflow lite status").transient()
}

/// Builds the error for a response, with hints for its status and path.
fn error_from_response(status: StatusCode, detail: Value, path: &str) -> Error {
    let text = match &detail {
        Value::String(text) => text.clone(),
        Value::Object(object) => {
            let text = object.get("message").or_else(|| object.get("reason"));
            text.and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        Value::Array(list) => {
            let messages = list.iter().filter_map(|entry| entry.get("msg").and_then(Value::as_str));
            messages.collect::<Vec<_>>().join("; ")
        }
        _ => String::new(),
    };
    let text = if text.is_empty() { format!("the server returned {status}") } else { text };
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Error::failed(text).hint("leoflow lite status").transient(),
        StatusCode::INTERNAL_SERVER_ERROR => Error::failed(text).hint("leoflow lite logs server"),
        StatusCode::CONFLICT if path.ends_with("/hitlDetails") => {
            Error::failed(text).hint("nothing was changed; clear the task to have it ask again: leoflow tasks clear")
        }
        StatusCode::CONFLICT => {
            Error::failed(text).hint("nothing was changed; if the name is in use, choose another or delete the old one")
        }
        StatusCode::NOT_FOUND => {
            let error = Error::failed(text);
            match list_command(path) {
                Some(command) => error.hint(command),
                None => error,
            }
        }
        _ => Error::failed(text).hint("nothing was changed; see `--help` for valid arguments"),
    }
}

/// Returns the command that lists the valid ids for the path of a request that failed with 404.
fn list_command(path: &str) -> Option<String> {
    if path.ends_with("/hitlDetails") {
        return Some("leoflow hitl list".to_owned());
    }
    let segments: Vec<&str> = path.split(['/', '?']).filter(|segment| !segment.is_empty()).collect();
    if let Some(position) = segments.iter().position(|segment| ["dagRuns", "runs"].contains(segment)) {
        let dag_id = segments.get(position.checked_sub(1)?)?;
        // A request for the list of runs fails with 404 only if the DAG does not exist.
        if segments.get(position + 1).is_none_or(|next| next.contains('=')) {
            return Some("leoflow dags list".to_owned());
        }
        return Some(format!("leoflow runs list {}", percent_encoding::percent_decode_str(dag_id).decode_utf8().ok()?));
    }
    if segments.contains(&"connection-tests") {
        let way =
            "a connection of .env or of a secrets backend is tested by a task: BaseHook.get_hook(ID).test_connection()";
        return Some(way.to_owned());
    }
    let kinds = ["dags", "dagSources", "backfills", "variables", "connections", "pools", "assets", "environments"];
    let command = match kinds.into_iter().find(|kind| segments.contains(kind))? {
        "dagSources" | "backfills" => "dags",
        "environments" => "env",
        kind => kind,
    };
    Some(format!("leoflow {command} list"))
}

/// Iterates over a JSON array; any other value yields no items.
pub fn list_of(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The texts in a JSON array.
pub fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list_of(list).filter_map(Value::as_str)
}

/// The texts in a JSON array, separated by commas.
pub fn joined(list: &Value) -> String {
    texts(list).collect::<Vec<_>>().join(", ")
}

/// A table cell with a text; a missing one is a dash.
pub fn cell(text: &Value) -> String {
    text.as_str().unwrap_or("-").to_owned()
}

/// Path of a DAG in Airflow's API.
pub fn dag_path(dag_id: &str) -> String {
    format!("/api/v2/dags/{}", encode(dag_id))
}

/// Path of a DAG in Leoflow's own API.
pub fn lite_dag_path(dag_id: &str) -> String {
    format!("/api/lite/dags/{}", encode(dag_id))
}

/// Path of a run in Airflow's API.
pub fn run_path(dag_id: &str, run_id: &str) -> String {
    format!("{}/dagRuns/{}", dag_path(dag_id), encode(run_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_never_repeats_the_request_that_failed() {
        let hint = |path: &str| list_command(path).unwrap_or_default();
        assert_eq!(hint("/api/v2/dags/a/dagRuns?limit=1"), "leoflow dags list");
        assert_eq!(hint("/api/v2/dags/a/dagRuns"), "leoflow dags list");
        assert_eq!(hint("/api/v2/dags/a/dagRuns/r/taskInstances?limit=1"), "leoflow runs list a");
        assert_eq!(hint("/api/v2/pools/x"), "leoflow pools list");
    }
}
