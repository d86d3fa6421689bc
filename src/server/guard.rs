//! Who may ask, checked before any handler: the right `Host` and `Origin` (a web page elsewhere
//! can make a browser call 127.0.0.1), then the token.

use super::api_error::ApiError;
use super::caller::Caller;
use super::logins::Peer;
use super::state::AppState;
use crate::sys::user;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use cookie::Cookie;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::debug;

/// The longest that a request may take, its body included.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// The longest that an import or export may take, which this user's own commands ask for: of as much as there is.
const IMPORT_LIMIT: Duration = Duration::from_secs(600);

/// How long the datastore may take to answer a request. A frozen one answers never.
const DATASTORE_LIMIT: Duration = Duration::from_secs(10);

/// For all but imports and exports.
pub async fn request_timeout(request: Request, next: Next) -> Response {
    within(REQUEST_LIMIT, request, next).await
}

/// For imports and exports.
pub async fn import_timeout(request: Request, next: Next) -> Response {
    within(IMPORT_LIMIT, request, next).await
}

async fn within(limit: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(StatusCode::REQUEST_TIMEOUT, "The request took too long").into_response(),
    }
}

/// For the API: 503 instead of a wait for a datastore that does not answer.
pub async fn datastore_timeout(request: Request, next: Next) -> Response {
    match tokio::time::timeout(DATASTORE_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(elapsed) => ApiError::unavailable(&elapsed).into_response(),
    }
}

/// For what is about DAGs: right after a start their files are still being parsed, and who asks then
/// wants to know what comes of that.
pub async fn after_first_look(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    // The sender is in the state.
    let _ = state.first_look.subscribe().wait_for(|done| *done).await;
    next.run(request).await
}

/// For Variables and Connections: DAG files that ask for them are parsed again when one has changed.
pub async fn telling_dag_files(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let response = next.run(request).await;
    if !reads && response.status().is_success() {
        state.store_changed.notify_one();
    }
    response
}

/// For every request.
pub async fn check_request(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    if caller(&request) == Caller::Network
        && let Err(refusal) =
            check_host(request.headers(), state.port, address(&request)).and_then(|host| check_origin(&request, host))
    {
        return refusal.into_response();
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
    response
}

pub fn caller(request: &Request) -> Caller {
    // Without the mark, the one with fewer rights.
    request.extensions().get().copied().unwrap_or(Caller::Network)
}

/// The one of this machine's that the connection came to.
fn address(request: &Request) -> IpAddr {
    request.extensions().get::<Peer>().map_or(Ipv4Addr::LOCALHOST.into(), |peer| peer.server.ip())
}

/// The names that a machine's own loopback is called by; anything else got here by DNS. What came to another
/// address of the machine, where `host` lets it, is called by that too, or by the machine's name.
fn check_host(headers: &HeaderMap, port: u16, address: IpAddr) -> Result<&str, ApiError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.strip_suffix(&format!(":{port}")).unwrap_or(host);
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    // Those no other site can be called by, wherever they lead to: into a container, through a tunnel.
    let is_loopbacks = ["127.0.0.1", "localhost", "[::1]"].into_iter().any(is);
    let is_known = match address {
        _ if is_loopbacks => true,
        _ if address.is_loopback() => is(&address.to_string()),
        IpAddr::V6(address) => is(&format!("[{address}]")),
        IpAddr::V4(address) => {
            let own = user::host_name();
            is(&address.to_string()) || is(&own) || is(&format!("{own}.local"))
        }
    };
    if is_known {
        Ok(host)
    } else {
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "This host name is not served here: ask by the address, or by localhost",
        ))
    }
}

fn check_origin(request: &Request, host: &str) -> Result<(), ApiError> {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    match request.headers().get(header::ORIGIN).map(HeaderValue::to_str) {
        None => Ok(()),
        Some(Ok(origin)) if origin.eq_ignore_ascii_case(&format!("http://{host}")) => Ok(()),
        // A page elsewhere cannot read the answer without our leave, which we never give.
        Some(_) if reads => Ok(()),
        Some(_) => Err(ApiError::new(StatusCode::FORBIDDEN, "Requests from other sites are refused")),
    }
}

/// Whether the request carries a good token, in `Authorization` or in the session's cookie.
pub fn is_authenticated(state: &AppState, request: &Request) -> bool {
    caller(request) == Caller::LocalAdmin
        || tokens(state, request.headers()).next().is_some_and(|token| state.check_token(&token).is_some())
}

/// Those that a request carries, good or not; the first is the one that counts.
pub fn tokens(state: &AppState, headers: &HeaderMap) -> impl Iterator<Item = String> {
    bearer(headers).map(str::to_owned).into_iter().chain(session_token(headers, &state.cookie_name()))
}

pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn session_token(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(Cookie::split_parse)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == name)
        .map(|cookie| cookie.value().to_owned())
}

/// For the API: 401 without a token.
pub async fn require_token(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    if is_authenticated(&state, &request) { next.run(request).await } else { unauthorized() }
}

fn unauthorized() -> Response {
    let mut response = ApiError::unauthorized().into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// For pages: the login instead.
pub async fn require_login(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    if is_authenticated(&state, &request) {
        return next.run(request).await;
    }
    to_login(&request)
}

/// The login, which leads back to what was asked for.
pub fn to_login(request: &Request) -> Response {
    // What was sent with a form is not there to go on to.
    let is_page = request.method() == Method::GET;
    let asked = request.uri().path_and_query().filter(|_| is_page).map_or("/", |asked| asked.as_str());
    let asked = utf8_percent_encode(asked, NON_ALPHANUMERIC);
    Redirect::to(&format!("/auth/login?next={asked}")).into_response()
}

/// For our own pages, which Airflow's web UI shows inside of its own.
pub async fn framed_by_ourselves(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(FRAMED_POLICY));
    response
}

const FRAMED_POLICY: &str = "default-src 'self'; frame-ancestors 'self'; form-action 'self'; base-uri 'none'";

/// For what only this user's own commands may ask.
pub async fn require_local(request: Request, next: Next) -> Response {
    match caller(&request) {
        Caller::LocalAdmin => next.run(request).await,
        Caller::Network => ApiError::new(StatusCode::NOT_FOUND, "Not Found").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_loopbacks_own_names_are_served() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        for host in ["127.0.0.1:8088", "localhost:8088", "LOCALHOST", "[::1]:8088"] {
            assert!(check_host(&headers(header::HOST, host), 8088, loopback).is_ok(), "{host}");
        }
        for host in ["evil.example", "evil.example:8088", "127.0.0.1.evil.example", "localhost:9", "", "127.0.0.2"] {
            assert!(check_host(&headers(header::HOST, host), 8088, loopback).is_err(), "{host}");
        }
        assert!(check_host(&HeaderMap::new(), 8088, loopback).is_err());
        let lan = IpAddr::from([192, 168, 1, 5]);
        for (host, is_served) in [
            ("192.168.1.5:8088", true),
            (&user::host_name(), true),
            ("192.168.1.6", false),
            ("localhost:8088", true),
            ("evil.example", false),
        ] {
            assert_eq!(check_host(&headers(header::HOST, host), 8088, lan).is_ok(), is_served, "{host}");
        }
    }

    #[test]
    fn another_sites_page_may_not_change_anything() {
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
        ] {
            assert_eq!(check_origin(&request(method, origin), host).is_ok(), allowed, "{method} {origin:?}");
        }
    }

    #[test]
    fn tokens_are_found_where_they_belong() {
        assert_eq!(bearer(&headers(header::AUTHORIZATION, "Bearer abc")), Some("abc"));
        assert_eq!(bearer(&headers(header::AUTHORIZATION, "Basic abc")), None);
        let jar = headers(header::COOKIE, "a=b; leoflow_session_1=x=y; leoflow_session_2=z");
        assert_eq!(session_token(&jar, "leoflow_session_1").as_deref(), Some("x=y"));
        assert_eq!(session_token(&jar, "leoflow_session"), None);
    }
}
