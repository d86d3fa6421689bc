//! Sends the requests of a smoke test: over a candidate server's private socket, or to the public address.

use super::{ServerEndpoint, Smoke, SmokeError, parse, settling_time};
use hyper::{Method, StatusCode, header};
use leoflow_base::auth::token::{Bearer, Signer};
use leoflow_base::config;
use leoflow_base::protocol::http::{self, HttpRequest};
use leoflow_base::sys::clock;
use leoflow_base::sys::net::unix_socket;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};

/// A status and the whole body.
type Response = (StatusCode, hyper::body::Bytes);

/// Time limit of a request; the first one may wait until the DAG files are parsed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Delay between attempts.
const RETRY_DELAY: Duration = Duration::from_millis(200);

impl Smoke<'_> {
    /// Gets a path and parses its JSON. Fails unless the status is 200.
    pub(crate) async fn json(&self, path: &str) -> Result<Value, SmokeError> {
        let (status, body) = self.get(path).await?;
        match status {
            StatusCode::OK => parse(&body),
            _ => Err(SmokeError::Status { path: path.to_owned(), status }),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Response, SmokeError> {
        self.send(Method::GET, path, None).await
    }

    /// Sends a request; retries a 503, and for GET a failed connection, within the settling time.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, SmokeError> {
        let deadline = Instant::now() + settling_time();
        loop {
            match self.send_once(method.clone(), path, body).await {
                Ok((StatusCode::SERVICE_UNAVAILABLE, _)) if Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                // The listeners may be handed over at this moment.
                Err(_) if method == Method::GET && Instant::now() < deadline => tokio::time::sleep(RETRY_DELAY).await,
                other => return other,
            }
        }
    }

    /// Sends a request as an admin, without retries.
    pub(crate) async fn send_once(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, SmokeError> {
        let address = self.config.own_address();
        let host = format!("{address}:{}", self.config.port);
        let token = self.token();
        let (bearer, cookie) = (format!("Bearer {token}"), format!("leoflow_session_{}={token}", self.config.port));
        let headers = [(header::AUTHORIZATION, bearer.as_str()), (header::COOKIE, cookie.as_str())];
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = HttpRequest { method, path, host: &host, headers: &headers, body };
        let exchange = async {
            Ok::<_, SmokeError>(match &self.endpoint {
                ServerEndpoint::Private(path) => {
                    let stream = unix_socket::connect(path)?;
                    stream.set_nonblocking(true)?;
                    http::send(UnixStream::from_std(stream)?, request).await?
                }
                ServerEndpoint::Public => {
                    http::send(TcpStream::connect((address, self.config.port)).await?, request).await?
                }
            })
        };
        let response = tokio::time::timeout(REQUEST_TIMEOUT, exchange).await;
        response.unwrap_or_else(|_| Err(SmokeError::Timeout { path: path.to_owned(), limit: REQUEST_TIMEOUT }))
    }

    /// Issues an admin token, as a login does.
    pub(crate) fn token(&self) -> String {
        // Read the secrets again: a password or email that was changed meanwhile invalidates earlier tokens.
        let current = self.config_file.as_ref().and_then(|path| config::load_with_secrets(path).ok().flatten());
        let config = current.as_ref().map_or(self.config, |loaded| &loaded.config);
        let secret = config.jwt_secret.as_deref().unwrap_or_default();
        let signer = Signer::new(secret);
        let binding = signer.binding(config.session_epoch, config.admin_password_hash.as_deref().unwrap_or_default());
        signer.issue(&config.admin_email, Bearer::Any, &binding, clock::unix_seconds())
    }
}
