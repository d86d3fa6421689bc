//! The pages: a login, DAGs, a DAG, a run, assets, pools, and the processes.

use crate::protocol::control;
use crate::protocol::status::InstanceStatus;
use crate::server::api_error::ApiError;
use crate::server::request::Segments;
use crate::server::state::AppState;
use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use std::sync::Arc;

pub async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("pages/style.css"))
}

/// `/static/NAME.js`.
pub async fn script(Segments(name): Segments<String>) -> Response {
    let scripts = [
        ("app.js", include_str!("pages/app.js")),
        ("dags.js", include_str!("pages/dags.js")),
        ("dag.js", include_str!("pages/dag.js")),
        ("run.js", include_str!("pages/run.js")),
        ("task.js", include_str!("pages/task.js")),
        ("mapped.js", include_str!("pages/mapped.js")),
        ("assets.js", include_str!("pages/assets.js")),
        ("pools.js", include_str!("pages/pools.js")),
        ("status.js", include_str!("pages/status.js")),
    ];
    match scripts.into_iter().find(|(known, _)| *known == name) {
        Some((_, text)) => ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], text).into_response(),
        None => ApiError::new(StatusCode::NOT_FOUND, "Not Found").into_response(),
    }
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

/// A page that its script fills; `about` names what it shows.
#[derive(Template)]
#[template(path = "live.html", config = "src/server/lite/askama.toml")]
struct LivePage<'a> {
    title: &'a str,
    script: &'a str,
    about: &'a [(&'a str, &'a str)],
}

#[derive(Template)]
#[template(path = "processes.html", config = "src/server/lite/askama.toml")]
struct ProcessesPage<'a> {
    status: &'a InstanceStatus,
}

fn page(template: &impl Template) -> Result<Html<String>, ApiError> {
    template.render().map(Html).map_err(|error| ApiError::internal(&error))
}

/// The login form, with what was wrong the last time.
pub fn login(email: &str, error: Option<&str>) -> Result<Html<String>, ApiError> {
    page(&LoginPage { email, error })
}

fn live(title: &str, script: &str, about: &[(&str, &str)]) -> Result<Html<String>, ApiError> {
    page(&LivePage { title, script, about })
}

pub async fn dags() -> Result<Html<String>, ApiError> {
    live("DAGs", "dags.js", &[])
}

pub async fn dag(Segments(dag): Segments<String>) -> Result<Html<String>, ApiError> {
    live(&dag, "dag.js", &[("dag", &dag)])
}

pub async fn run(Segments((dag, run)): Segments<(String, String)>) -> Result<Html<String>, ApiError> {
    live(&format!("{dag} {run}"), "run.js", &[("dag", &dag), ("run", &run)])
}

pub async fn assets() -> Result<Html<String>, ApiError> {
    live("Assets", "assets.js", &[])
}

pub async fn pools() -> Result<Html<String>, ApiError> {
    live("Pools", "pools.js", &[])
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
        let Html(page) = live("a \" b", "dag.js", &[("dag", "\" onload=\"x")]).unwrap();
        assert!(page.contains("data-dag=\"&#34; onload=&#34;x\""), "{page}");
    }
}
