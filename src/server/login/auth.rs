//! Login and logout, with a token for programs and a cookie for browsers.

use super::credentials::Auth;
use super::logins::{Source, Turn};
use super::tokens::PresentedTokens;
use crate::http::api_error::ApiError;
use crate::http::caller::{Caller, Peer};
use crate::http::query::{Kind, Parameter, QueryParams};
use crate::pages;
use axum::extract::rejection::FormRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Extension, Form, Json};
use cookie::{Cookie, SameSite};
use leoflow_base::auth::password;
use leoflow_base::auth::token::{self, Bearer};
use leoflow_base::config;
use leoflow_base::home::Home;
use leoflow_base::sys::blocking;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::warn;

#[derive(Deserialize)]
pub struct Credentials {
    username: String,
    password: String,
}

/// Identifies the client, for login throttling.
type LoginClient = (Extension<Caller>, Option<Extension<Peer>>);

/// The purpose of a login.
#[derive(Clone, Copy)]
enum LoginKind {
    /// A token that its user may hand on to any program.
    Token,
    /// A cookie, which a browser also sends to other servers on this host.
    Session,
}

/// Waits until this client may try, then checks the credentials and returns a token. The check runs in a task of its
/// own: a client that disconnects must not cancel the throttle accounting while hashing continues.
async fn authenticate(
    auth: &Arc<Auth>,
    (caller, peer): LoginClient,
    credentials: Credentials,
    kind: LoginKind,
) -> Result<String, ApiError> {
    let source = Source::identify(caller.0, peer.as_deref()).await;
    let bearer = match (kind, source) {
        (LoginKind::Session, Source::Uid(uid)) => Bearer::Uid(uid),
        _ => Bearer::Any,
    };
    let password_hash = auth.secrets().admin_password_hash.clone();
    let turn = auth.logins.turn(source, &password_hash).await;
    let turn = turn
        .map_err(|retry_after| ApiError::too_many(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)))?;
    let auth = auth.clone();
    tokio::spawn(async move { verify_credentials(&auth, &turn, credentials, bearer).await }).await?
}

/// Checks the credentials and issues a token that is bound to the password hash that matched: a reset in the meantime
/// invalidates it.
async fn verify_credentials(
    auth: &Auth,
    turn: &Turn,
    credentials: Credentials,
    bearer: Bearer,
) -> Result<String, ApiError> {
    let (email, hash, binding) = {
        let secrets = auth.secrets();
        (secrets.admin_email.clone(), secrets.admin_password_hash.clone(), secrets.binding.clone())
    };
    let is_right_name = credentials.username.eq_ignore_ascii_case(&email);
    let is_short_enough = credentials.password.len() <= password::LONGEST;
    let home = auth.core.home.clone();
    let verified = blocking::run(move || {
        let is_right = is_short_enough && password::verify(&credentials.password, &hash);
        let must_renew = is_right && is_right_name && password::is_outdated(&hash);
        let renewed_hash = if must_renew { rehash_password(&home, &credentials.password, hash) } else { None };
        (is_right, renewed_hash)
    });
    let (is_right_password, renewed_hash) = verified.await?;
    if is_right_name && is_right_password {
        turn.succeeded();
        let renewed = renewed_hash.map(|hash| auth.secrets().binding_with(&hash));
        return Ok(auth.issue_token(bearer, &renewed.unwrap_or(binding)));
    }
    turn.failed();
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "Invalid credentials"))
}

/// Rehashes the password with this release's hashing cost, which only a login can do: it has the plain text. Returns the
/// new hash if it was stored. A failure is retried at the next login.
fn rehash_password(home: &Home, password: &str, old_hash: String) -> Option<String> {
    let new_hash = password::hash(password).ok()?;
    let mut is_unchanged = false;
    let updated = config::update(home, |loaded| {
        is_unchanged = loaded.config.admin_password_hash.as_ref() == Some(&old_hash);
        if is_unchanged { vec![("admin_password_hash", new_hash.clone().into())] } else { Vec::new() }
    });
    if let Err(error) = updated {
        warn!("failed to update the password hash: {error}");
        return None;
    }
    is_unchanged.then_some(new_hash)
}

/// `POST /auth/token` and `/auth/token/cli`, as in Airflow's simple auth manager: JSON or a form.
pub async fn token(
    State(auth): State<Arc<Auth>>,
    client: LoginClient,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let credentials: Credentials = if kind.starts_with("application/x-www-form-urlencoded") {
        let form = Form::from_request(request, &()).await;
        form.map_err(|error| ApiError::unprocessable(&["body"], "value_error", error.body_text()))?.0
    } else {
        Json::from_request(request, &()).await?.0
    };
    let token = authenticate(&auth, client, credentials, LoginKind::Token).await?;
    Ok((StatusCode::CREATED, Json(json!({"access_token": token}))))
}

pub async fn login_page(State(auth): State<Arc<Auth>>, (_, peer): LoginClient) -> Result<Html<String>, ApiError> {
    login_form(&auth, peer.as_deref(), None)
}

/// Renders the login form, with the error of the last attempt.
fn login_form(auth: &Auth, peer: Option<&Peer>, error: Option<&str>) -> Result<Html<String>, ApiError> {
    // A browser on another machine must not learn the administrator's e-mail address.
    let is_local = peer.is_none_or(Peer::is_on_this_machine);
    let email = if is_local { auth.admin_email() } else { String::new() };
    // No instance name: by default it is the machine's name, which only logged-in users may see.
    pages::page("login.html", "", json!({"email": email, "error": error}))
}

pub async fn login(
    State(auth): State<Arc<Auth>>,
    client: LoginClient,
    Query(Next { next }): Query<Next>,
    form: Result<Form<Credentials>, FormRejection>,
) -> Response {
    let next = next.filter(|next| is_local_path(next));
    let peer = client.1.clone();
    let authenticated = match form {
        Ok(Form(credentials)) => authenticate(&auth, client, credentials, LoginKind::Session).await,
        Err(_) => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Enter an e-mail address and a password")),
    };
    match authenticated {
        Ok(token) => {
            let redirect = Redirect::to(next.as_deref().unwrap_or("/"));
            with_session_cookie(&auth, redirect, token, token::LIFETIME_SECONDS).into_response()
        }
        Err(error) => {
            let page = login_form(&auth, peer.as_deref(), Some(&error.message()));
            let mut response = error.into_response();
            let (parts, body) = page.into_response().into_parts();
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response.headers_mut().extend(parts.headers);
            *response.body_mut() = body;
            response
        }
    }
}

/// The query of the login form.
#[derive(Deserialize)]
pub struct Next {
    /// The path to continue with after the login.
    next: Option<String>,
}

pub struct LoginQuery;

impl crate::http::query::Query for LoginQuery {
    const OTHERS: &'static [Parameter] = &[Parameter::new("next", Kind::Text)];
}

/// `GET /api/v2/auth/login`: redirects to the login page, which continues to `next`.
pub async fn login_redirect(params: QueryParams<LoginQuery>) -> Result<Redirect, ApiError> {
    let Some(next) = params.text("next") else { return Ok(Redirect::temporary("/auth/login")) };
    if !is_local_path(next) {
        return Err(ApiError::bad_request("Invalid or unsafe next URL"));
    }
    let next = utf8_percent_encode(next, NON_ALPHANUMERIC);
    Ok(Redirect::temporary(&format!("/auth/login?next={next}")))
}

/// True for a path on this site that no browser can interpret as another host.
fn is_local_path(next: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && c != '\\' && !c.is_whitespace();
    next.starts_with('/') && !next.starts_with("//") && next.chars().all(is_plain)
}

/// `GET /api/v2/auth/logout`.
pub async fn logout_redirect(State(auth): State<Arc<Auth>>, presented: PresentedTokens) -> RedirectWithCookie {
    end_session(&auth, &presented, Redirect::temporary("/auth/login")).await
}

pub async fn logout(State(auth): State<Arc<Auth>>, presented: PresentedTokens) -> RedirectWithCookie {
    end_session(&auth, &presented, Redirect::to("/auth/login")).await
}

/// Revokes the tokens of the request, so that copies of them are refused too, and removes the cookie.
async fn end_session(auth: &Auth, presented: &PresentedTokens, redirect: Redirect) -> RedirectWithCookie {
    for token in &presented.tokens {
        let Some(claims) = presented.check_token(auth, token).await else { continue };
        if let Err(error) = auth.revoked.add(&auth.core.database, token, &claims).await {
            warn!("failed to record the end of a session: {error}");
        }
    }
    with_session_cookie(auth, redirect, String::new(), 0)
}

/// A redirect that sets or removes the session cookie.
type RedirectWithCookie = ([(HeaderName, String); 1], Redirect);

/// Sets the session cookie, which expires after `seconds`. The cookie is not `Secure`, since all pages are served over
/// http.
fn with_session_cookie(auth: &Auth, redirect: Redirect, token: String, seconds: i64) -> RedirectWithCookie {
    let cookie = Cookie::build((auth.cookie_name(), token))
        .path("/")
        .max_age(cookie::time::Duration::seconds(seconds))
        .http_only(true)
        .same_site(SameSite::Strict);
    ([(header::SET_COOKIE, cookie.to_string())], redirect)
}
