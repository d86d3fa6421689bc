//! `/lite/docs/`: the documentation embedded in the program. Pages are rendered for each request and not cached, since
//! requests are rare and idle memory counts.

use super::docs_html;
use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::pages::page as render_template;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use leoflow_base::build_info::documentation;
use leoflow_base::docs;
use leoflow_base::sys::blocking;
use serde_json::{Value, json};

/// The table of contents.
pub async fn contents(State(state): Shared) -> Result<Response, ApiError> {
    show(&state, docs::CONTENTS).await
}

/// A page, or an image of a page.
pub async fn page(State(state): Shared, Path(name): Path<String>) -> Result<Response, ApiError> {
    if let Some(picture) = documentation().picture(&name) {
        let media_type = if name.ends_with(".svg") { "image/svg+xml" } else { "image/png" };
        return Ok(([(header::CONTENT_TYPE, media_type)], picture.bytes).into_response());
    }
    if documentation().page(&name).is_some() {
        return show(&state, &name).await;
    }
    // `find` also accepts a page's file name and the last part of its name.
    match documentation().find(&name) {
        Some(docs::Page { name: docs::CONTENTS, .. }) => Ok(Redirect::to(docs::ROOT).into_response()),
        Some(page) => Ok(Redirect::to(&format!("{}{}", docs::ROOT, page.name)).into_response()),
        None => Ok((StatusCode::NOT_FOUND, not_found(&state, &name)?).into_response()),
    }
}

async fn show(state: &AppState, name: &str) -> Result<Response, ApiError> {
    let page = documentation().page(name).ok_or_else(|| ApiError::internal(&format!("there is no page {name}")))?;
    let rendered = blocking::run(move || docs_html::render(documentation(), page)).await?;
    let headings: Vec<Value> =
        rendered.headings.iter().map(|heading| json!({"id": heading.id, "text": heading.text})).collect();
    let page = render_template(
        "docs_page.html",
        &state.core.instance_name(),
        json!({
            "title": page.title(), "html": rendered.html, "headings": headings, "is_contents": name == docs::CONTENTS,
            "missing": null,
        }),
    )?;
    Ok(page.into_response())
}

fn not_found(state: &AppState, name: &str) -> Result<Html<String>, ApiError> {
    render_template(
        "docs_page.html",
        &state.core.instance_name(),
        json!({"title": "Page not found", "html": "", "headings": [], "is_contents": false, "missing": name}),
    )
}
