//! The endpoints that the UI requests first: the user, the permitted menu items, and some settings.

use crate::api::prelude::*;
use crate::api::run::rerun_version;
use crate::http::body::body_as;
use axum::extract::rejection::JsonRejection;
use leoflow_base::auth::token::{self, Bearer};
use leoflow_base::config;
use tracing::warn;

/// `/ui/config`.
pub async fn config(State(state): Shared) -> JsonResult<Value> {
    let loaded = config::load(&state.core.home.config()).map_err(|error| ApiError::internal(&error))?;
    let name = config::instance_name(loaded.as_ref().map(|loaded| &loaded.config)).to_owned();
    Ok(Json(json!({
        "fallback_page_limit": 50,
        "auto_refresh_interval": 3,
        "hide_paused_dags_by_default": false,
        "instance_name": name,
        "enable_swagger_ui": true,
        "require_confirmation_dag_change": false,
        "default_wrap": false,
        "test_connection": "Enabled",
        "dashboard_alert": [],
        "show_external_log_redirect": false,
        "external_log_name": null,
        "theme": null,
        "multi_team": false,
        "rerun_with_latest_version": rerun_with_latest_version(&state).await,
    })))
}

/// Returns the instance's setting. An invalid one is logged and becomes `None`, because the UI needs the other
/// settings.
async fn rerun_with_latest_version(state: &AppState) -> Option<bool> {
    rerun_version::setting(state, None).await.unwrap_or_else(|error| {
        warn!("the UI gets no default version for reruns: {}", error.message());
        None
    })
}

/// All of Airflow's menu: the only user may do everything.
const MENU: [&str; 14] = [
    "Required Actions",
    "Assets",
    "Audit Log",
    "Config",
    "Connections",
    "Dags",
    "Deadlines",
    "Docs",
    "Jobs",
    "Plugins",
    "Pools",
    "Providers",
    "Variables",
    "XComs",
];

/// `/ui/auth/menus`.
pub async fn menus(State(state): Shared) -> Json<Value> {
    let newer = state.release.web_ui.is_at_least((3, 4)).then_some("Dag Bundles");
    let items: Vec<&str> = MENU.into_iter().chain(newer).collect();
    Json(json!({"authorized_menu_items": items, "extra_menu_items": []}))
}

/// `/ui/auth/me`.
pub async fn me(State(state): Shared) -> Json<Value> {
    let name = state.auth.admin_email();
    Json(json!({"id": name, "username": name}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    #[serde(default)]
    token_type: Option<String>,
}

/// `POST /ui/auth/token`: issues another token for the logged-in user.
pub async fn token(State(state): Shared, body: Result<Json<Value>, JsonRejection>) -> JsonResult<Value> {
    let request: TokenRequest = body_as(body)?;
    let kind = request.token_type.unwrap_or_else(|| "api".to_owned());
    if !["api", "cli"].contains(&kind.as_str()) {
        return Err(ApiError::unprocessable(&["body", "token_type"], "enum", "Input should be 'api' or 'cli'"));
    }
    let binding = state.auth.secrets().binding.clone();
    Ok(Json(json!({
        "access_token": state.auth.issue_token(Bearer::Any, &binding), "token_type": kind,
        "expires_in_seconds": token::LIFETIME_SECONDS,
    })))
}

/// `/ui/teams`: teams are not supported.
pub async fn teams() -> ApiError {
    ApiError::forbidden("Multi-team mode is not configured in the Airflow environment")
}
