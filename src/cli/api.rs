//! Asking the running server over `run/api.sock`, where we are admin by being this user.

use crate::error::Error;
use crate::home::Home;
use crate::protocol::control;
pub use crate::protocol::http::encode;
use crate::protocol::http::{self, Ask, HttpError};
use crate::sys::unix_socket;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io;
use std::time::Duration;

pub struct Api<'a> {
    home: &'a Home,
    patience: Duration,
}

/// Longer than the server lets a request take.
const PATIENCE: Duration = Duration::from_secs(40);
/// The same for imports and exports.
const LONG_PATIENCE: Duration = Duration::from_secs(610);

impl<'a> Api<'a> {
    pub fn new(home: &'a Home) -> Self {
        Self { home, patience: PATIENCE }
    }

    /// For an import or export, which takes as long as there is much of it.
    pub fn patient(&self) -> Self {
        Self { home: self.home, patience: LONG_PATIENCE }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::GET, path, None).await
    }

    /// Every entry of a list, page after page. `query` is more of it, such as an order.
    pub async fn all(&self, path: &str, query: &str, field: &str) -> Result<Vec<Value>, Error> {
        let mut found: Vec<Value> = Vec::new();
        loop {
            let before = found.len();
            let mut page: Value = self.get(&format!("{path}?limit=100&offset={before}{query}")).await?;
            if let Some(Value::Array(more)) = page.get_mut(field).map(Value::take) {
                found.extend(more);
            }
            if found.len() == before || found.len() as u64 >= page["total_entries"].as_u64().unwrap_or(0) {
                return Ok(found);
            }
        }
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Error> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Error> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Error> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        self.send(Method::DELETE, path, None).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, Error> {
        let bytes = self.send(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::failed("the server's answer cannot be read")
                .cause(error)
                .hint("is it another version? `leoflow lite restart`")
        })
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, Error> {
        let answered = tokio::time::timeout(self.patience, self.exchange(method, path, body)).await;
        let (status, bytes) = answered
            .map_err(|_| Error::failed("the server does not answer").hint("leoflow lite status").for_now())??;
        if status.is_success() {
            return Ok(bytes);
        }
        let detail: Option<Value> = serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| v.get("detail").cloned());
        Err(explain(status, detail.unwrap_or_default(), path))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes), Error> {
        let broken = |error: HttpError| {
            Error::failed("the server broke off").cause(error).hint("leoflow lite logs server").for_now()
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let ask = Ask { method, path, host: "localhost", headers: &[], body };
        http::ask(self.connect()?, ask).await.map_err(broken)
    }

    fn connect(&self) -> Result<tokio::net::UnixStream, Error> {
        let path = self.home.api_socket();
        let connected = unix_socket::connect(&path).and_then(|stream| {
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        });
        connected.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => match control::status_of(self.home) {
                Some(_) => Error::failed("run/api.sock is gone")
                    .hint("wait ten seconds, it comes back; or leoflow lite restart")
                    .for_now(),
                None => not_running(),
            },
            _ => Error::io("connect to", &path, &error),
        })
    }
}

/// For every command that needs a running instance.
pub fn not_running() -> Error {
    Error::failed("Leoflow is not running").hint("leoflow lite start").for_now()
}

fn explain(status: StatusCode, detail: Value, path: &str) -> Error {
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
    let text = if text.is_empty() { format!("the server answered {status}") } else { text };
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Error::failed(text).hint("leoflow lite status").for_now(),
        StatusCode::INTERNAL_SERVER_ERROR => Error::failed(text).hint("leoflow lite logs server"),
        StatusCode::CONFLICT if path.ends_with("/hitlDetails") => {
            Error::failed(text).hint("nothing was changed; `leoflow tasks clear` makes the task ask again")
        }
        StatusCode::CONFLICT => {
            Error::failed(text).hint("nothing was changed; remove it first, or choose another name")
        }
        StatusCode::NOT_FOUND if path.contains("/dags") || path.contains("/dagSources") => {
            Error::failed(text).hint("leoflow dags list").hint("leoflow runs list DAG")
        }
        StatusCode::NOT_FOUND => Error::failed(text).hint("the same command with `list` shows what there is"),
        _ => Error::failed(text).hint("nothing was changed; `--help` shows what is allowed"),
    }
}

/// The items of a list in an answer; none where there is none.
pub fn list_of(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
