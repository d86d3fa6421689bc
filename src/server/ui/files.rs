//! Static files of Airflow's web UI.

use crate::api::prelude::*;
use crate::login::tokens;
use crate::pages;
use axum::extract::{RawQuery, Request};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{Html, IntoResponse, Response};
use leoflow_base::sys::blocking;
use leoflow_components::web_ui;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

/// A template variable in the UI's index page: the base of all its addresses.
const BASE: &str = "{{ backend_server_base_url }}";
/// The UI creates styles at run time, uses workers for its editors, and embeds our pages.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; script-src 'self'; \
    img-src 'self' data:; font-src 'self' data:; base-uri 'self'; frame-ancestors 'self'; form-action 'self'";
/// First path segments of the UI's pages.
const PAGES: [&str; 20] = [
    "",
    "assets",
    "backfills",
    "configs",
    "connections",
    "dag_runs",
    "dags",
    "deadlines",
    "events",
    "jobs",
    "login",
    "plugin",
    "plugins",
    "pools",
    "providers",
    "required_actions",
    "security",
    "task_instances",
    "variables",
    "xcoms",
];

/// First segments of paths that never are pages of the UI.
const NOT_PAGES: [&str; 7] = ["api", "ui", "auth", "lite", "local", "task", "static"];

/// Errors of reading a path that is no file.
const NO_FILE: [io::ErrorKind; 4] = [
    io::ErrorKind::NotFound,
    io::ErrorKind::NotADirectory,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::InvalidFilename,
];

fn not_found() -> ApiError {
    ApiError::not_found("Not Found")
}

/// Fallback for all other paths: the UI's index page, which routes on the client. A path that is not the UI's is
/// answered with 404.
pub async fn page(State(state): Shared, request: Request) -> ApiResult<Response> {
    let first = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    if !is_read {
        let refusal = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        return Ok(([(header::ALLOW, "GET, HEAD")], refusal).into_response());
    }
    let is_page = PAGES.contains(&first);
    if NOT_PAGES.contains(&first) || !is_page && !accepts_html(request.headers()) {
        return Err(not_found());
    }
    let access = tokens::PresentedTokens::of(&state.auth, &request).access(&state.auth).await;
    if matches!(access, tokens::Access::None) {
        return Ok(tokens::redirect_to_login(&request));
    }
    let Some(folder) = web_ui::installed(&state.core.home, state.release.web_ui) else {
        return Ok(without_ui(&state)?.into_response());
    };
    let text = blocking::run(move || std::fs::read_to_string(folder.join("index.html"))).await;
    let text = text.map_err(|error| ApiError::internal(&error))?.map_err(|error| ApiError::internal(&error))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    // A person who mistypes an address gets the UI's own page for unknown paths; a program gets a plain 404.
    let status = if is_page { StatusCode::OK } else { StatusCode::NOT_FOUND };
    Ok((status, headers, text.replace(BASE, "/")).into_response())
}

/// The page shown while the UI is not installed; it gives the reason, or says that the UI is being installed.
fn without_ui(state: &AppState) -> ApiResult<Html<String>> {
    let context = json!({"reason": state.release.ui.reason()});
    pages::page("without_ui.html", &state.core.instance_name(), context)
}

/// Returns true if the client names HTML, as browsers do when they open a page.
fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/html"))
}

/// The languages that plugins add to the UI's own, which Airflow's server lists from 3.4 on.
pub const LANGUAGES: &str = "/static/i18n/languages.json";

/// `GET /static/i18n/languages.json`: none, since plugins of projects are not loaded by this process.
pub async fn languages() -> Json<Value> {
    Json(json!({"languages": []}))
}

/// `GET /static/…`: compressed when the browser accepts it.
pub async fn file(
    State(state): Shared,
    Id(path): Id,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let relative = Path::new(&path);
    let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    let folder =
        web_ui::installed(&state.core.home, state.release.web_ui).filter(|_| is_plain).ok_or_else(not_found)?;
    let kind = content_type(relative).ok_or_else(not_found)?;
    let takes_gzip = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|encoding| {
            encoding.trim().split(';').next() == Some("gzip") && !encoding.replace(' ', "").ends_with(";q=0")
        });
    let client_tag = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let full_path = folder.join(relative);
    let result = blocking::run(move || read_static_file(&full_path, takes_gzip, client_tag.as_deref())).await;
    let file = match result.map_err(|error| ApiError::internal(&error))? {
        Ok(file) => file,
        // Including names that no file can have.
        Err(error) if NO_FILE.contains(&error.kind()) => return Err(not_found()),
        Err(error) => return Err(ApiError::internal(&error)),
    };
    // File names in `assets/` change with their content; the UI requests translations with a version in the query.
    let is_versioned = query.is_some_and(|query| query.starts_with("v="));
    let cache_control =
        if path.starts_with("assets/") || is_versioned { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = match file.bytes {
        Some(bytes) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        None => StatusCode::NOT_MODIFIED.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if file.is_compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(tag) = HeaderValue::from_str(&file.tag) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

struct StaticFile {
    /// `None` when the browser's copy is current.
    bytes: Option<Vec<u8>>,
    tag: String,
    is_compressed: bool,
}

/// Reads a file, or its compressed copy if there is one. `client_tag` is the tag of the browser's copy.
fn read_static_file(path: &Path, takes_gzip: bool, client_tag: Option<&str>) -> io::Result<StaticFile> {
    let mut compressed = path.as_os_str().to_owned();
    compressed.push(".gz");
    let compressed = Some(PathBuf::from(compressed)).filter(|path| takes_gzip && path.is_file());
    let is_compressed = compressed.is_some();
    let path = compressed.unwrap_or_else(|| path.to_owned());
    let meta = std::fs::metadata(&path)?;
    if !meta.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let modified_at = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let tag = format!("\"{:x}-{modified_at:x}{}\"", meta.len(), if is_compressed { "-gz" } else { "" });
    let bytes = if client_tag == Some(tag.as_str()) { None } else { Some(std::fs::read(path)?) };
    Ok(StaticFile { bytes, tag, is_compressed })
}

/// Returns the media type by extension; `None` for files that are not served.
fn content_type(path: &Path) -> Option<&'static str> {
    Some(match path.extension()?.to_str()? {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "ttf" => "font/ttf",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "map" => "application/json",
        _ => return None,
    })
}
