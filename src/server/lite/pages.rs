//! The pages: a login, DAGs, a DAG, a run, assets, pools, and the processes.

use crate::protocol::control;
use crate::protocol::status::InstanceStatus;
use crate::server::api_error::ApiError;
use crate::server::request::Segments;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use std::fmt::Write as _;
use std::sync::Arc;

const LAYOUT: &str = include_str!("pages/layout.html");
const LOGIN: &str = include_str!("pages/login.html");

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

/// The login form, with what was wrong the last time.
pub fn login(email: &str, error: Option<&str>) -> String {
    let error = error.map(|text| format!("<p class=\"error\" role=\"alert\">{}</p>", escape(text)));
    let form = LOGIN.replace("{{error}}", &error.unwrap_or_default()).replace("{{email}}", &escape(email));
    LAYOUT.replace("{{title}}", "Log in").replace("{{header}}", "").replace("{{main}}", &form)
}

const HEADER: &str = "<nav><a href=\"/\">DAGs</a><a href=\"/assets\">Assets</a><a href=\"/pools\">Pools</a>\
    <a href=\"/status\">Processes</a>\
    <form method=\"post\" action=\"/auth/logout\"><button class=\"quiet\">Log out</button></form></nav>";

fn page(title: &str, main: &str) -> Html<String> {
    let whole = LAYOUT.replace("{{title}}", &escape(title)).replace("{{header}}", HEADER);
    // Last: what it holds may look like a placeholder.
    Html(whole.replace("{{main}}", main))
}

/// A page that its script fills; `about` names what it shows.
fn live(title: &str, script: &str, about: &[(&str, &str)]) -> Html<String> {
    let about: String = about.iter().map(|(name, value)| format!(" data-{name}=\"{}\"", escape(value))).collect();
    page(title, &format!("<div id=\"view\"{about}></div><script type=\"module\" src=\"/static/{script}\"></script>"))
}

pub async fn dags() -> Html<String> {
    live("DAGs", "dags.js", &[])
}

pub async fn dag(Segments(dag): Segments<String>) -> Html<String> {
    live(&dag, "dag.js", &[("dag", &dag)])
}

pub async fn run(Segments((dag, run)): Segments<(String, String)>) -> Html<String> {
    live(&format!("{dag} {run}"), "run.js", &[("dag", &dag), ("run", &run)])
}

pub async fn assets() -> Html<String> {
    live("Assets", "assets.js", &[])
}

pub async fn pools() -> Html<String> {
    live("Pools", "pools.js", &[])
}

/// The processes, as the supervisor sees them.
pub async fn status_page(State(state): State<Arc<AppState>>) -> Result<Html<String>, ApiError> {
    Ok(page("Processes", &processes(&ask_supervisor(&state).await?)))
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

fn processes(status: &InstanceStatus) -> String {
    let mut rows = String::new();
    for process in &status.processes {
        // Writing to a string cannot fail.
        let _ = write!(
            rows,
            "<tr data-name=\"{}\"><td>{}</td><td class=\"state\" data-state=\"{}\">{}</td><td class=\"pid\">{}</td>\
             <td class=\"number restarts\">{}</td><td class=\"number memory\">{}</td></tr>",
            escape(&process.name),
            escape(&process.name),
            escape(&process.state),
            escape(&process.state_text()),
            process.pid.map_or_else(String::new, |pid| pid.to_string()),
            process.restarts,
            process.memory_text(),
        );
    }
    format!(
        "<h1>Processes <span id=\"overall\" class=\"state\" data-state=\"{state}\">{state}</span></h1>\
         <p id=\"reason\">{reason}</p>\
         <dl><dt>Version</dt><dd>{version}</dd><dt>Home</dt><dd>{home}</dd>\
         <dt>Schema</dt><dd>{schema}</dd></dl>\
         <div class=\"wide\"><table id=\"processes\"><thead><tr><th>Process</th><th>State</th><th>Pid</th><th class=\"number\">Restarts</th>\
         <th class=\"number\">Memory</th></tr></thead><tbody>{rows}</tbody></table></div>\
         <script src=\"/static/status.js\"></script>",
        state = status.state,
        reason = escape(status.reason.as_deref().unwrap_or_default()),
        version = escape(&status.version),
        home = escape(&status.home),
        schema = status.schema_version.map_or_else(|| "unknown".to_owned(), |version| version.to_string()),
    )
}

/// For element content and quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_cannot_become_markup() {
        let page = login("a@b", Some("<script>alert('x')</script> & \"more\""));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;"));
        assert!(!page.contains("{{"), "every placeholder is filled");
    }
}
