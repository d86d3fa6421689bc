//! The requests of a smoke test: over the private socket of a server on trial, or as a browser sends them.

use super::smoke::{ServerEndpoint, Smoke, parse, settling};
use crate::auth::token::Signer;
use crate::config;
use crate::protocol::http::{self, Ask};
use crate::sys::{clock, unix_socket};
use hyper::{Method, StatusCode, header};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};

/// For one request. A first one may wait for the DAG files to be parsed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts of a request.
const AGAIN: Duration = Duration::from_millis(200);

impl Smoke<'_> {
    pub(super) async fn json(&self, path: &str) -> Result<Value, String> {
        let (status, body) = self.get(path).await?;
        if status == StatusCode::OK { parse(&body) } else { Err(format!("{path} answers {status}")) }
    }

    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, hyper::body::Bytes), String> {
        self.send(Method::GET, path, None).await
    }

    /// A server that has no room for a moment is asked again within the settling time.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, hyper::body::Bytes), String> {
        let deadline = Instant::now() + settling();
        loop {
            match self.send_once(method.clone(), path, body).await {
                Ok((StatusCode::SERVICE_UNAVAILABLE, _)) if Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                }
                // Listeners may be changing hands.
                Err(_) if method == Method::GET && Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
                other => return other,
            }
        }
    }

    pub(super) async fn send_once(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, hyper::body::Bytes), String> {
        let address = self.config.own_address();
        let host = format!("{address}:{}", self.config.port);
        let token = self.token();
        let (bearer, cookie) = (format!("Bearer {token}"), format!("leoflow_session_{}={token}", self.config.port));
        let headers = [(header::AUTHORIZATION, bearer.as_str()), (header::COOKIE, cookie.as_str())];
        let body = body.map(Value::to_string).unwrap_or_default();
        let ask = Ask { method, path, host: &host, headers: &headers, body };
        let asked = async {
            match &self.endpoint {
                ServerEndpoint::Private(path) => {
                    let stream = unix_socket::connect(path).map_err(|error| error.to_string())?;
                    stream.set_nonblocking(true).map_err(|error| error.to_string())?;
                    let stream = UnixStream::from_std(stream).map_err(|error| error.to_string())?;
                    http::ask(stream, ask).await.map_err(|error| error.to_string())
                }
                ServerEndpoint::Open => {
                    let stream =
                        TcpStream::connect((address, self.config.port)).await.map_err(|error| error.to_string())?;
                    http::ask(stream, ask).await.map_err(|error| error.to_string())
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, asked).await;
        in_time.unwrap_or_else(|_| Err(format!("{path} does not answer within {} s", PATIENCE.as_secs())))
    }

    /// A session of the admin's, as a login would give it.
    pub(super) fn token(&self) -> String {
        // A new password or address, set meanwhile, ends the sessions of before.
        let now = self.config_file.as_ref().and_then(|path| config::load_with_secrets(path).ok().flatten());
        let config = now.as_ref().map_or(self.config, |loaded| &loaded.config);
        let secret = config.jwt_secret.as_deref().unwrap_or_default();
        Signer::new(secret).issue(&config.admin_email, config.session_epoch, clock::unix_seconds())
    }
}
