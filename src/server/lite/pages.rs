//! The pages of our own: a login, what runs, and what stands in for Airflow's web UI.

use crate::protocol::control;
use crate::protocol::status::InstanceStatus;
use crate::server::api_error::ApiError;
use crate::server::state::AppState;
use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use std::sync::Arc;

pub async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("pages/style.css"))
}

pub async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("pages/status.js"))
}

pub async fn docs_script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("pages/docs.js"))
}

pub async fn icon() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "image/svg+xml")], include_str!("pages/icon.svg"))
}

#[derive(Template)]
#[template(path = "login.html", config = "src/server/lite/askama.toml")]
struct LoginPage<'a> {
    email: &'a str,
    error: Option<&'a str>,
}

/// In the place of Airflow's web UI, where that is not there.
#[derive(Template)]
#[template(path = "without_ui.html", config = "src/server/lite/askama.toml")]
struct WithoutUiPage<'a> {
    /// Why not; nothing while it is being fetched.
    reason: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "processes.html", config = "src/server/lite/askama.toml")]
struct ProcessesPage<'a> {
    status: &'a InstanceStatus,
}

pub fn page(template: &impl Template) -> Result<Html<String>, ApiError> {
    template.render().map(Html).map_err(|error| ApiError::internal(&error))
}

/// The login form, with what was wrong the last time.
pub fn login(email: &str, error: Option<&str>) -> Result<Html<String>, ApiError> {
    page(&LoginPage { email, error })
}

pub fn without_ui(reason: Option<&str>) -> Result<Html<String>, ApiError> {
    page(&WithoutUiPage { reason })
}

/// The processes, as the supervisor sees them.
pub async fn status_page(State(state): State<Arc<AppState>>) -> Result<Html<String>, ApiError> {
    page(&ProcessesPage { status: &ask_supervisor(&state).await? })
}

/// The same for the page's script, which keeps it fresh.
pub async fn status(State(state): State<Arc<AppState>>) -> Result<Json<InstanceStatus>, ApiError> {
    ask_supervisor(&state).await.map(Json)
}

pub(in crate::server) async fn ask_supervisor(state: &AppState) -> Result<InstanceStatus, ApiError> {
    let home = state.home.clone();
    let asked = tokio::task::spawn_blocking(move || control::status_of(&home)).await;
    asked
        .map_err(|error| ApiError::internal(&error))?
        .ok_or_else(|| ApiError::unavailable(&"the supervisor does not answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_cannot_become_markup() {
        let Html(page) = login("a@b", Some("<script>alert('x')</script> & \"more\"")).unwrap();
        assert!(page.contains("&#60;script&#62;alert(&#39;x&#39;)&#60;/script&#62; &#38; &#34;more&#34;"), "{page}");
    }
}
