//! Logging in and out, for programs (a token) and for people (a cookie).

use super::api_error::ApiError;
use super::body::bad_body;
use super::caller::Caller;
use super::guard;
use super::lite::pages;
use super::logins::{Peer, Source, Turn};
use super::openapi::operation::{Operation, Output, Schemas};
use super::query::{Asked, Kind, Parameter};
use super::state::AppState;
use crate::auth::{password, token};
use crate::config;
use crate::home::Home;
use crate::sys::blocking;
use axum::extract::rejection::FormRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Extension, Form, Json};
use cookie::{Cookie, SameSite};
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

/// Who asks, for the line to wait in.
type Asking = (Extension<Caller>, Option<Extension<Peer>>);

/// Waits for its turn, and checks in a task of its own: a client that leaves in the middle must not take the
/// accounting with it while the hashing goes on.
async fn check(state: &Arc<AppState>, (caller, peer): Asking, given: Credentials) -> Result<String, ApiError> {
    let source = Source::of(caller.0, peer.map(|peer| peer.0)).await;
    let turn = state.logins.turn(source).await.ok_or_else(|| ApiError::too_many(RETRY_AFTER))?;
    let state = state.clone();
    let checked = tokio::spawn(async move { check_now(&state, &turn, given).await }).await;
    checked.map_err(|error| ApiError::internal(&error))?
}

/// Seconds.
const RETRY_AFTER: u64 = 5;

/// Returns a token of the epoch in which the password was right: a reset meanwhile has ended it.
async fn check_now(state: &AppState, turn: &Turn, given: Credentials) -> Result<String, ApiError> {
    let (email, hash, epoch) = {
        let secrets = state.secrets();
        (secrets.admin_email.clone(), secrets.admin_password_hash.clone(), secrets.epoch)
    };
    let right_name = given.username.eq_ignore_ascii_case(&email);
    let short_enough = given.password.len() <= password::LONGEST;
    let home = state.home.clone();
    let hashed = blocking::run(move || {
        let right = short_enough && password::verify(&given.password, &hash);
        if right && right_name && password::is_outdated(&hash) {
            renew(&home, &given.password, hash);
        }
        right
    });
    let right_password = hashed.await.map_err(|error| ApiError::internal(&error))?;
    if right_name && right_password {
        turn.succeeded();
        return Ok(state.issue_token(epoch));
    }
    turn.failed();
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "Invalid credentials"))
}

/// A login is the one moment at which the password is there to be hashed anew, with what this release
/// spends on it. One that cannot be written now is tried again at the next login.
fn renew(home: &Home, password: &str, old: String) {
    let Ok(new) = password::hash(password) else { return };
    let renewed = config::update(home, |loaded| {
        let is_same = loaded.config.admin_password_hash.as_ref() == Some(&old);
        if is_same { vec![("admin_password_hash", new.into())] } else { Vec::new() }
    });
    if let Err(error) = renewed {
        warn!("the password's hash could not be renewed: {error}");
    }
}

/// `POST /auth/token` and `/auth/token/cli`, as Airflow's simple auth manager has them: JSON, or a form.
pub async fn token(
    State(state): State<Arc<AppState>>,
    asking: Asking,
    request: Request,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let given: Credentials = if kind.starts_with("application/x-www-form-urlencoded") {
        let form = Form::from_request(request, &()).await;
        form.map_err(|error| ApiError::unprocessable(&["body"], "value_error", error.body_text()))?.0
    } else {
        Json::from_request(request, &()).await.map_err(bad_body)?.0
    };
    let token = check(&state, asking, given).await?;
    Ok((StatusCode::CREATED, Json(json!({"access_token": token}))))
}

pub async fn login_page(State(state): State<Arc<AppState>>) -> Result<Html<String>, ApiError> {
    pages::login(&state.secrets().admin_email, None)
}

pub async fn login(
    State(state): State<Arc<AppState>>,
    asking: Asking,
    Query(Next { next }): Query<Next>,
    form: Result<Form<Credentials>, FormRejection>,
) -> Response {
    let next = next.filter(|next| is_of_this_site(next));
    let checked = match form {
        Ok(Form(given)) => check(&state, asking, given).await,
        Err(_) => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "E-mail and password are needed")),
    };
    match checked {
        Ok(token) => with_session(&state, Redirect::to(next.as_deref().unwrap_or("/")), token, token::LIFETIME_SECONDS),
        Err(error) => {
            let page = pages::login(&state.secrets().admin_email, Some(&error.message()));
            let mut response = error.into_response();
            let (parts, body) = page.into_response().into_parts();
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response.headers_mut().extend(parts.headers);
            *response.body_mut() = body;
            response
        }
    }
}

#[derive(Deserialize)]
pub struct Next {
    next: Option<String>,
}

pub struct OfLogin;

impl super::query::Query for OfLogin {
    const OTHERS: &'static [Parameter] = &[Parameter::new("next", Kind::Text)];
}

/// `GET /api/v2/auth/login`: where to log in, and to go on from there to `next`.
pub async fn login_redirect(asked: Asked<OfLogin>) -> Result<Redirect, ApiError> {
    let Some(next) = asked.text("next") else { return Ok(Redirect::temporary("/auth/login")) };
    if !is_of_this_site(next) {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "Invalid or unsafe next URL"));
    }
    let next = utf8_percent_encode(next, NON_ALPHANUMERIC);
    Ok(Redirect::temporary(&format!("/auth/login?next={next}")))
}

/// A path here, and no way to another host, whatever a browser makes of it.
fn is_of_this_site(next: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && c != '\\' && !c.is_whitespace();
    next.starts_with('/') && !next.starts_with("//") && next.chars().all(is_plain)
}

/// `GET /api/v2/auth/logout`.
pub async fn logout_redirect(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Led {
    Led(end_session(&state, &headers, Redirect::temporary("/auth/login")).await)
}

/// An answer that leads elsewhere.
pub struct Led(Response);

impl Output for Led {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        Redirect::describe(operation, schemas);
    }
}

impl IntoResponse for Led {
    fn into_response(self) -> Response {
        self.0
    }
}

pub async fn logout(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Response {
    end_session(&state, &headers, Redirect::to("/auth/login")).await
}

/// The tokens are good no more, wherever there are copies of them; the cookie goes whatever else happens.
async fn end_session(state: &AppState, headers: &HeaderMap, answer: Redirect) -> Response {
    for token in guard::tokens(state, headers) {
        let Some(claims) = state.check_token(&token) else { continue };
        if let Err(error) = state.revoked.add(&state.database, &token, &claims).await {
            warn!("that a session has ended could not be written down: {}", error.message());
        }
    }
    with_session(state, answer, String::new(), 0)
}

/// Not `Secure`: it is served over http, to this machine alone.
fn with_session(state: &AppState, answer: Redirect, token: String, seconds: i64) -> Response {
    let cookie = Cookie::build((state.cookie_name(), token))
        .path("/")
        .max_age(cookie::time::Duration::seconds(seconds))
        .http_only(true)
        .same_site(SameSite::Strict);
    ([(header::SET_COOKIE, cookie.to_string())], answer).into_response()
}
