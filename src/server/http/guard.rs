//! Timeouts, and checks before the handlers: `Host` and `Origin` of requests over TCP, since a web page elsewhere can
//! make a browser call 127.0.0.1, and where a request came from.

use super::api_error::ApiError;
use super::body::with_body_read;
use super::caller::{Caller, Peer};
use crate::state::Core;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use leoflow_base::sys::user;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::debug;

/// Longest time until a response starts, including the time to read the request's body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Like `REQUEST_TIMEOUT`, for large imports and exports by local commands, and for requests that wait for the build of
/// an environment.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a request may wait for the datastore, which never answers when it is frozen.
pub const DATASTORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Like `REQUEST_TIMEOUT` and `DATASTORE_TIMEOUT`, for changes of backfills, which may have tens of thousands of runs.
const BACKFILL_TIMEOUT: Duration = Duration::from_secs(300);

/// Timeout of all routes but those with `import_timeout`.
pub async fn request_timeout(request: Request, next: Next) -> Result<Response, ApiError> {
    let ordinary = leoflow_base::sys::limit("LEOFLOW_REQUEST_LIMIT", REQUEST_TIMEOUT);
    with_timeout(limit_for(&request, ordinary), request, next).await
}

/// Returns the time limit of a request, which is `ordinary` for most.
pub(super) fn limit_for(request: &Request, ordinary: Duration) -> Duration {
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    if !is_read && request.uri().path().starts_with("/api/v2/backfills") { BACKFILL_TIMEOUT } else { ordinary }
}

/// Timeout of imports, exports, and the routes of environments.
pub async fn import_timeout(request: Request, next: Next) -> Result<Response, ApiError> {
    with_timeout(IMPORT_TIMEOUT, request, next).await
}

async fn with_timeout(limit: Duration, request: Request, next: Next) -> Result<Response, ApiError> {
    let response = tokio::time::timeout(limit, next.run(request)).await;
    response.map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "The request took too long"))
}

/// Answers 503 when a handler takes too long, usually because the datastore does not respond.
pub async fn datastore_timeout(request: Request, next: Next) -> Result<Response, ApiError> {
    with_datastore_timeout(limit_for(&request, DATASTORE_TIMEOUT), request, next).await
}

async fn with_datastore_timeout(limit: Duration, request: Request, next: Next) -> Result<Response, ApiError> {
    let request = with_body_read(request).await?;
    let response = tokio::time::timeout(limit, next.run(request)).await;
    response.map_err(|elapsed| ApiError::unavailable(&elapsed))
}

/// Refuses a request over TCP with a foreign host or origin. Sets security headers on all other responses.
pub async fn check_request(State(core): State<Arc<Core>>, request: Request, next: Next) -> Result<Response, ApiError> {
    if caller(&request) == Caller::Network {
        let host = requested_host(&request)?;
        check_host(host, core.phase.port, server_address(&request))?;
        check_origin(&request, host)?;
    }
    let (method, path, began) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let mut response = next.run(request).await;
    debug!("{method} {path}: {} in {} ms", response.status().as_u16(), began.elapsed().as_millis());
    let headers = response.headers_mut();
    let mut set = |name, value| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "same-origin");
    set(header::CACHE_CONTROL, "no-store");
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    );
    Ok(response)
}

/// Returns where the request came from.
pub fn caller(request: &Request) -> Caller {
    // Without the extension, assume the caller with fewer rights.
    request.extensions().get().copied().unwrap_or(Caller::Network)
}

/// Returns the local address that the connection came to.
fn server_address(request: &Request) -> IpAddr {
    request.extensions().get::<Peer>().map_or(Ipv4Addr::LOCALHOST.into(), |peer| peer.server.ip())
}

/// Returns the host that the request names. A request with several, in `Host` or in an absolute target, is refused as
/// RFC 9112 says: a proxy before this server may have decided by another one.
fn requested_host(request: &Request) -> Result<&str, ApiError> {
    let refusal = || ApiError::bad_request("The request must name one host, in one Host header");
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, None) = (hosts.next(), hosts.next()) else { return Err(refusal()) };
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    match request.uri().authority() {
        Some(target) if !target.as_str().eq_ignore_ascii_case(host) => Err(refusal()),
        _ => Ok(host),
    }
}

/// Accepts the names of the loopback interface; any other name may point here by DNS rebinding. If the request came to
/// another local address, which the setting `host` may allow, also accepts that address and the machine's name.
fn check_host(host: &str, port: u16, server_address: IpAddr) -> Result<(), ApiError> {
    let name = host.strip_suffix(&format!(":{port}")).unwrap_or(host);
    let name_is = |known: &str| name.eq_ignore_ascii_case(known);
    // No other site can use these names. They are accepted at every local address, because a container or a tunnel may
    // forward to any of them.
    // Browsers resolve names below `localhost` to the loopback interface (RFC 6761), so that each instance can have one.
    let is_below_localhost = name.to_ascii_lowercase().ends_with(".localhost");
    let is_loopback_name = is_below_localhost || ["127.0.0.1", "localhost", "[::1]"].into_iter().any(name_is);
    let is_known = match server_address {
        _ if is_loopback_name => true,
        _ if server_address.is_loopback() => name_is(&server_address.to_string()),
        IpAddr::V6(server_address) => name_is(&format!("[{server_address}]")),
        IpAddr::V4(server_address) => {
            let host_name = user::host_name();
            name_is(&server_address.to_string()) || name_is(&host_name) || name_is(&format!("{host_name}.local"))
        }
    };
    if is_known {
        Ok(())
    } else {
        Err(ApiError::forbidden("This host name is not served here: use the IP address or localhost"))
    }
}

fn check_origin(request: &Request, host: &str) -> Result<(), ApiError> {
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let own_origin = format!("http://{host}");
    let is_own = |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| origin.eq_ignore_ascii_case(&own_origin));
    // A foreign page cannot read the response without CORS headers, which are never sent.
    if is_read || request.headers().get_all(header::ORIGIN).iter().all(is_own) {
        Ok(())
    } else {
        Err(ApiError::forbidden("Requests from other sites are refused"))
    }
}

/// Allows our own pages inside frames of this site, where Airflow's web UI shows them.
pub async fn allow_own_frames(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(FRAMED_POLICY));
    response
}

const FRAMED_POLICY: &str = "default-src 'self'; frame-ancestors 'self'; form-action 'self'; base-uri 'none'";

/// Restricts routes to the Unix socket, which this user's commands, tasks and agent use: 404 over TCP.
pub async fn require_local(request: Request, next: Next) -> Result<Response, ApiError> {
    match caller(&request) {
        Caller::LocalAdmin => Ok(next.run(request).await),
        Caller::Network => Err(ApiError::not_found("Not Found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::{Body, Bytes, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::post;
    use futures_util::stream;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use std::convert::Infallible;

    #[test]
    fn serves_only_own_host_names() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        for host in ["127.0.0.1:8088", "localhost:8088", "LOCALHOST", "[::1]:8088", "staging.localhost:8088"] {
            assert!(check_host(host, 8088, loopback).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8088",
            "127.0.0.1.evil.example",
            "localhost:9",
            "evillocalhost",
            "",
            "127.0.0.2",
        ] {
            assert!(check_host(host, 8088, loopback).is_err(), "{host}");
        }
        let lan = IpAddr::from([192, 168, 1, 5]);
        for (host, is_served) in [
            ("192.168.1.5:8088", true),
            (&user::host_name(), true),
            ("192.168.1.6", false),
            ("localhost:8088", true),
            ("evil.example", false),
        ] {
            assert_eq!(check_host(host, 8088, lan).is_ok(), is_served, "{host}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let host_of = |target: &str, hosts: &[&str]| {
            let mut builder = Request::builder().uri(target);
            for host in hosts {
                builder = builder.header(header::HOST, *host);
            }
            requested_host(&builder.body(axum::body::Body::empty()).unwrap()).ok().map(str::to_owned)
        };
        assert_eq!(host_of("/", &["localhost:1"]).as_deref(), Some("localhost:1"));
        assert_eq!(host_of("http://localhost:1/", &["localhost:1"]).as_deref(), Some("localhost:1"));
        // Refused later: no name is served without a host.
        assert_eq!(host_of("/", &[]).as_deref(), Some(""));
        for (target, hosts) in [
            ("/", ["localhost:1", "localhost:1"].as_slice()),
            ("/", &["localhost:1", "evil.example"]),
            ("http://evil.example/", &["localhost:1"]),
            ("http://localhost:1/", &["evil.example"]),
        ] {
            assert_eq!(host_of(target, hosts), None, "{target} {hosts:?}");
        }
    }

    #[tokio::test]
    async fn a_slow_upload_is_not_the_fault_of_the_datastore() {
        let limit = Duration::from_millis(20);
        let router = Router::new()
            .route("/upload", post(async |body: Bytes| body))
            .route("/frozen", post(async || std::future::pending::<()>().await))
            .layer(from_fn(move |request, next| with_datastore_timeout(limit, request, next)));
        let service = TowerToHyperService::new(router);
        let send = async |path: &str| {
            let upload = stream::once(async move {
                tokio::time::sleep(limit * 5).await;
                Ok::<_, Infallible>("content")
            });
            let request = Request::builder().method("POST").uri(path).body(Body::from_stream(upload)).unwrap();
            service.call(request).await.unwrap()
        };
        let uploaded = send("/upload").await;
        assert_eq!(uploaded.status(), StatusCode::OK);
        assert_eq!(to_bytes(uploaded.into_body(), 100).await.unwrap(), "content");
        assert_eq!(send("/frozen").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn changes_of_backfills_may_take_longer() {
        let limit = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
            limit_for(&request, DATASTORE_TIMEOUT)
        };
        assert_eq!(limit("POST", "/api/v2/backfills"), BACKFILL_TIMEOUT);
        assert_eq!(limit("PUT", "/api/v2/backfills/7/cancel"), BACKFILL_TIMEOUT);
        assert_eq!(limit("GET", "/api/v2/backfills"), DATASTORE_TIMEOUT);
        assert_eq!(limit("HEAD", "/api/v2/backfills"), DATASTORE_TIMEOUT);
        assert_eq!(limit("POST", "/api/v2/pools"), DATASTORE_TIMEOUT);
    }

    #[test]
    fn rejects_changes_from_other_sites() {
        let request = |method: &str, origin: Option<&str>| {
            let mut builder = Request::builder().method(method).uri("/");
            if let Some(origin) = origin {
                builder = builder.header(header::ORIGIN, origin);
            }
            builder.body(axum::body::Body::empty()).unwrap()
        };
        let host = "127.0.0.1:8088";
        for (method, origin, allowed) in [
            ("POST", None, true),
            ("POST", Some("http://127.0.0.1:8088"), true),
            ("POST", Some("http://evil.example"), false),
            ("POST", Some("http://127.0.0.1:9999"), false),
            ("POST", Some("null"), false),
            ("DELETE", Some("https://127.0.0.1:8088"), false),
            ("GET", Some("http://evil.example"), true),
            ("POST", Some("http://127.0.0.1:8088 http://evil.example"), false),
        ] {
            assert_eq!(check_origin(&request(method, origin), host).is_ok(), allowed, "{method} {origin:?}");
        }
        let mut two_origins = request("POST", Some("http://127.0.0.1:8088"));
        two_origins.headers_mut().append(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
        assert!(check_origin(&two_origins, host).is_err());
    }
}
