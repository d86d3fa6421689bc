//! All routes, and what every request passes on its way to them.

use super::api_error::ApiError;
use super::body::LARGEST;
use super::caller::Caller;
use super::guard;
use super::lite::pages;
use super::state::AppState;
use super::{api, audit, auth, health, lite, task, ui};
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use axum::{Extension, Router};
use std::sync::Arc;

type Routes = Router<Arc<AppState>>;

/// The largest body of those who have not logged in.
const ANONYMOUS_BODY_BYTES: usize = 16 * 1024;

/// The one set of routes, for either listener.
pub struct Routers(Router);

impl Routers {
    pub fn with_caller(&self, caller: Caller) -> Router {
        self.0.clone().layer(Extension(caller))
    }
}

pub fn routers(state: Arc<AppState>) -> Routers {
    let all = open_routes()
        .merge(authorized_routes(&state))
        .merge(lite::page_routes(&state))
        .merge(lite::local_routes(&state))
        .merge(lite::unhurried_routes(&state))
        .merge(api::unhurried_routes(&state))
        .merge(ui::unhurried_routes(&state))
        .merge(task::routes(&state))
        .merge(task::trigger_routes())
        .layer(from_fn(guard::request_timeout))
        .merge(lite::import_routes(&state))
        .merge(lite::environment_routes())
        .fallback(ui::page)
        .method_not_allowed_fallback(async || ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
        .layer(from_fn_with_state(state.clone(), guard::check_request))
        .with_state(state);
    Routers(all)
}

/// For anybody.
fn open_routes() -> Routes {
    Router::new()
        .route("/api/healthz", get(health::healthz))
        .route("/api/v2/version", get(health::version))
        .route("/api/v2/monitor/health", get(health::monitor))
        .route("/auth/token", post(auth::token))
        .route("/auth/token/cli", post(auth::token))
        .route("/auth/login", get(auth::login_page).post(auth::login))
        .route("/auth/logout", post(auth::logout))
        .route("/api/v2/auth/login", get(auth::login_redirect))
        .route("/api/v2/auth/logout", get(auth::logout_redirect))
        .merge(lite::static_routes())
        .merge(ui::static_routes())
        .layer(DefaultBodyLimit::max(ANONYMOUS_BODY_BYTES))
}

/// For who has a token or a session, answered in the time that the datastore is given.
fn authorized_routes(state: &Arc<AppState>) -> Routes {
    let about_dags = api::dag_routes()
        .merge(lite::dag_routes())
        .merge(ui::dag_routes())
        .layer(from_fn_with_state(state.clone(), guard::after_first_look));
    about_dags
        .merge(api::store_routes(state))
        .merge(ui::session_routes())
        .route("/api/lite/status", get(pages::status))
        .layer(from_fn_with_state(state.clone(), audit::log))
        .layer(from_fn(guard::datastore_timeout))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(from_fn_with_state(state.clone(), guard::require_token))
}
