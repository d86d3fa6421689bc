//! All routes, with their middleware.

use crate::api::audit;
use crate::api::docs;
use crate::api::ops::health;
use crate::app_state::AppState;
use crate::http::api_error::ApiError;
use crate::http::body::{MAX_BODY_BYTES, read_body};
use crate::http::{guard, large};
use crate::lite::{metrics, status};
use crate::login::{auth, tokens};
use crate::{api, dag_files, lite, pages, task, ui};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

type Routes = Router<AppState>;

/// Largest request body of routes that need no login.
const ANONYMOUS_BODY_BYTES: usize = 16 * 1024;

/// All routes. The listeners add the [`Caller`](crate::http::caller::Caller) to each request.
pub fn router(state: AppState) -> Router {
    open_routes(&state)
        .merge(authorized_routes(&state))
        .merge(lite::page_routes(&state))
        .merge(docs_routes(&state))
        .merge(lite::local_routes())
        .merge(lite::slow_routes(&state))
        .merge(api::slow_routes().router.layer(from_fn_with_state(state.auth.clone(), tokens::require_token)))
        .merge(ui::slow_routes(&state))
        .merge(task::routes(&state))
        .merge(task::trigger_routes(&state))
        .fallback(ui::page)
        .layer(from_fn(guard::request_timeout))
        .merge(lite::import_routes(&state))
        .merge(lite::environment_routes())
        .method_not_allowed_fallback(async || ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
        .layer(from_fn_with_state(state.core.clone(), guard::check_request))
        .with_state(state)
}

/// Routes that need no login.
fn open_routes(state: &AppState) -> Routes {
    Router::new()
        .route("/api/healthz", get(health::healthz))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::healthz))
        .merge(metrics_routes(state))
        .merge(api::open_routes().router)
        .route("/auth/token", post(auth::token))
        .route("/auth/token/cli", post(auth::token))
        .route("/auth/login", get(auth::login_page).post(auth::login))
        .route("/auth/logout", post(auth::logout))
        .route("/lite/static/{name}", get(pages::static_file))
        .merge(ui::static_routes())
        .layer(DefaultBodyLimit::max(ANONYMOUS_BODY_BYTES))
}

/// Metrics; see [`tokens::require_token_or_own_user`].
fn metrics_routes(state: &AppState) -> Routes {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .layer(from_fn_with_state(state.auth.clone(), tokens::require_token_or_own_user))
}

/// The OpenAPI document, and the page that shows it.
fn docs_routes(state: &AppState) -> Routes {
    let document = Router::new()
        .route("/openapi.json", get(docs::openapi))
        .layer(from_fn_with_state(state.auth.clone(), tokens::require_token));
    Router::new()
        .route("/docs", get(docs::docs))
        .layer(from_fn_with_state(state.auth.clone(), tokens::require_login))
        .layer(from_fn(guard::allow_own_frames))
        .merge(document)
}

/// Routes that need a token or session and answer within the datastore timeout.
fn authorized_routes(state: &AppState) -> Routes {
    let dag_routes = api::dag_routes()
        .router
        .merge(lite::dag_routes())
        .merge(ui::dag_routes())
        .layer(from_fn_with_state(state.dag_files.clone(), dag_files::after_initial_parse));
    dag_routes
        .merge(
            api::variable_and_connection_routes()
                .router
                .layer(from_fn_with_state(state.dag_files.clone(), dag_files::notify_store_changed)),
        )
        .merge(api::other_routes().router)
        .merge(ui::session_routes())
        .route("/api/lite/status", get(status::status))
        // The first is the outermost. Each call of `layer` wraps all of the many routes again.
        .layer((
            from_fn_with_state(state.auth.clone(), tokens::require_token),
            DefaultBodyLimit::max(MAX_BODY_BYTES),
            // A slow upload must not hold up other large requests.
            from_fn(read_body),
            from_fn(large::off_the_event_loop),
            from_fn(guard::datastore_timeout),
            from_fn_with_state(state.clone(), audit::log),
        ))
}
