//! The tokens of a request, and the checks that require one.

use super::credentials::Auth;
use crate::http::api_error::ApiError;
use crate::http::caller::{Caller, Peer};
use crate::http::openapi::operation::Input;
use axum::extract::{FromRef, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use cookie::Cookie;
use leoflow_base::auth::api_token::{ApiToken, Scope};
use leoflow_base::auth::token::{Bearer, Claims};
use leoflow_base::sys::user;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::convert::Infallible;
use std::sync::Arc;

/// The sender of a request, and the tokens that it presents.
pub struct PresentedTokens {
    caller: Caller,
    peer: Option<Peer>,
    /// The token in `Authorization`, then the one in the session cookie, valid or not.
    pub tokens: Vec<String>,
}

impl PresentedTokens {
    pub fn read(auth: &Auth, headers: &HeaderMap, extensions: &Extensions) -> Self {
        let tokens = bearer(headers).map(str::to_owned).into_iter().chain(session_token(headers, &auth.cookie_name()));
        let caller = extensions.get().copied().unwrap_or(Caller::Network);
        Self { caller, peer: extensions.get().cloned(), tokens: tokens.collect() }
    }

    pub fn of(auth: &Auth, request: &Request) -> Self {
        Self::read(auth, request.headers(), request.extensions())
    }

    /// Returns what the sender may do. Requests over the Unix socket need no token. Only the first token counts.
    pub async fn access(&self, auth: &Auth) -> Access {
        match self.tokens.first() {
            _ if self.caller == Caller::LocalAdmin => Access::Admin,
            Some(token) if self.check_token(auth, token).await.is_some() => Access::Admin,
            Some(token) => auth.api_token(token).map_or(Access::None, Access::ApiToken),
            None => Access::None,
        }
    }

    /// Returns the claims of a token that is valid and that this client may present.
    pub async fn check_token(&self, auth: &Auth, token: &str) -> Option<Claims> {
        let claims = auth.check_token(token)?;
        let may_present = match (claims.bearer(), &self.peer) {
            (Bearer::Any, _) => true,
            (Bearer::Uid(uid), Some(peer)) => peer.uid().await == Some(uid),
            (Bearer::Uid(_), None) => self.caller == Caller::LocalAdmin,
        };
        may_present.then_some(claims)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PresentedTokens
where
    Arc<Auth>: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self::read(&Arc::<Auth>::from_ref(state), &parts.headers, &parts.extensions))
    }
}

impl Input for PresentedTokens {}

/// Returns the token in `Authorization`.
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

/// What the sender of a request may do.
pub enum Access {
    None,
    /// Everything: a login, or a process of this user.
    Admin,
    ApiToken(ApiToken),
}

/// The name of the API token that a request presents, in the request's extensions.
#[derive(Clone)]
pub struct ApiTokenName(pub String);

impl Access {
    /// Runs the request if this access permits it; `refused` answers a request without a login.
    async fn run(self, mut request: Request, next: Next, refused: impl FnOnce(&Request) -> Response) -> Response {
        match self {
            Self::None => return refused(&request),
            Self::Admin => {}
            Self::ApiToken(token) if !permits(token.scope, &request) => {
                let reason = format!("The API token {} does not permit this request", token.name);
                return ApiError::forbidden(reason).into_response();
            }
            Self::ApiToken(token) => _ = request.extensions_mut().insert(ApiTokenName(token.name)),
        }
        next.run(request).await
    }
}

/// Issues the token of a login, which would outlive the API token.
const LOGIN_TOKEN: &str = "/ui/auth/token";

fn permits(scope: Scope, request: &Request) -> bool {
    let (method, path) = (request.method(), request.uri().path());
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    // Airflow reads long lists with POST. No other POST has a parameter in the place of `list`.
    let is_list = method == Method::POST && route.starts_with("/api/v2/dags/") && path.ends_with("/list");
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let reads = is_read || is_list || route.ends_with("/dry_run");
    route != LOGIN_TOKEN && (scope == Scope::Full || reads)
}

/// Requires a token: 401 otherwise, and 403 if it does not permit the request.
pub async fn require_token(State(auth): State<Arc<Auth>>, request: Request, next: Next) -> Response {
    PresentedTokens::of(&auth, &request).access(&auth).await.run(request, next, |_| unauthorized()).await
}

/// Like `require_token`, but lets processes of this user and of root on this machine through without a token, unless they
/// are proxies that forward requests of others.
pub async fn require_token_or_own_user(State(auth): State<Arc<Auth>>, request: Request, next: Next) -> Response {
    let is_forwarded = FORWARDED.iter().any(|name| request.headers().contains_key(*name));
    let uid = match request.extensions().get::<Peer>().cloned() {
        Some(peer) if !is_forwarded => peer.uid().await,
        _ => None,
    };
    match uid {
        Some(uid) if uid == 0 || uid == user::effective_uid() => next.run(request).await,
        _ => require_token(State(auth), request, next).await,
    }
}

/// Headers that proxies add.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

fn unauthorized() -> Response {
    let mut response = ApiError::unauthorized().into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Requires a login for pages: redirects to the login page otherwise.
pub async fn require_login(State(auth): State<Arc<Auth>>, request: Request, next: Next) -> Response {
    PresentedTokens::of(&auth, &request).access(&auth).await.run(request, next, redirect_to_login).await
}

/// Redirects to the login page, which leads back to the requested page.
pub fn redirect_to_login(request: &Request) -> Response {
    // A submitted form cannot be repeated after the login.
    let is_page = request.method() == Method::GET;
    let target = request.uri().path_and_query().filter(|_| is_page).map_or("/", |target| target.as_str());
    let target = utf8_percent_encode(target, NON_ALPHANUMERIC);
    Redirect::to(&format!("/auth/login?next={target}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn finds_tokens_in_header_and_cookie() {
        assert_eq!(bearer(&headers(header::AUTHORIZATION, "Bearer abc")), Some("abc"));
        assert_eq!(bearer(&headers(header::AUTHORIZATION, "Basic abc")), None);
        let jar = headers(header::COOKIE, "a=b; leoflow_session_1=x=y; leoflow_session_2=z");
        assert_eq!(session_token(&jar, "leoflow_session_1").as_deref(), Some("x=y"));
        assert_eq!(session_token(&jar, "leoflow_session"), None);
    }
}
