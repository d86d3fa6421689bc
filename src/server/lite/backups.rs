//! Backups, restores and the state of operations over HTTP: the API below `/api/lite`, and a page of backups.

use super::status::problems;
use super::storage::size_text;
use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::http::openapi::answers::Accepted;
use crate::http::request::Segments;
use crate::pages::{page, with_home};
use crate::release::own_program::{self, ask, find, newest};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Form, Json};
use leoflow_base::config;
use leoflow_base::home::operations::Operation;
use leoflow_base::sys::shell;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// `GET /api/lite/backups`: the backups in the home, newest first.
pub async fn list(State(state): Shared) -> Result<Json<Value>, ApiError> {
    backup_list(&state).await.map(Json)
}

async fn backup_list(state: &AppState) -> Result<Value, ApiError> {
    ask(&state.core.home, &["lite", "backups", "list"]).await
}

async fn begin(state: &AppState) -> Result<Operation, ApiError> {
    own_program::begin(&state.core.home, "backup", ["lite", "backup"]).await
}

/// `POST /api/lite/backups`: starts a backup; returns the operation.
pub async fn make(State(state): Shared) -> Result<Accepted<Operation>, ApiError> {
    begin(&state).await.map(Accepted)
}

/// `POST /api/lite/backups/{name}/verify`: starts a test restore.
pub async fn verify(State(state): Shared, Segments(name): Segments<String>) -> Result<Accepted<Operation>, ApiError> {
    begin_verification(&state, &name).await.map(Accepted)
}

/// Returns the path of a listed backup, so that a name cannot lead to another file.
async fn path_of(state: &AppState, name: &str) -> Result<String, ApiError> {
    let found = backup_list(state).await?;
    let mut paths = found["backups"].as_array().into_iter().flatten().filter_map(|backup| backup["path"].as_str());
    let path = paths.find(|path| name_of(path) == name).map(str::to_owned);
    path.ok_or_else(|| ApiError::not_found(format!("There is no backup {name}")))
}

async fn begin_verification(state: &AppState, name: &str) -> Result<Operation, ApiError> {
    let path = path_of(state, name).await?;
    own_program::begin(&state.core.home, "verify", ["lite", "backups", "verify", &path]).await
}

/// A restore replaces all data of an instance, so the request repeats the instance's name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    backup: String,
    instance: String,
}

/// `POST /api/lite/restore`: starts a restore of a listed backup, which replaces this server.
pub async fn restore(
    State(state): Shared,
    body: Result<Json<Restore>, JsonRejection>,
) -> Result<Accepted<Operation>, ApiError> {
    let Json(Restore { backup, instance }) = body?;
    begin_restore(&state, &backup, &instance).await.map(Accepted)
}

async fn begin_restore(state: &AppState, backup: &str, instance: &str) -> Result<Operation, ApiError> {
    let own_name = state.core.instance_name();
    if instance != own_name {
        let reason = format!(
            "A restore replaces all data of this instance: to confirm, enter the instance's name, {own_name:?}"
        );
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, reason));
    }
    let path = path_of(state, backup).await?;
    own_program::begin(&state.core.home, "restore", ["lite", "restore", "--input", &path, "--force", "--yes"]).await
}

fn name_of(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// `GET /api/lite/operations/{id}`.
pub async fn operation(State(state): Shared, Segments(id): Segments<u64>) -> Result<Json<Operation>, ApiError> {
    let found = find(&state.core.home, id).await;
    let missing = || ApiError::not_found(format!("There is no operation {id}"));
    found.map(Json).ok_or_else(missing)
}

/// `/lite/backups`.
pub async fn backups_page(State(state): Shared) -> Result<Html<String>, ApiError> {
    show(&state, None).await
}

/// Renders the page; `refused` is the reason why the previous request was refused.
async fn show(state: &AppState, refused: Option<&str>) -> Result<Html<String>, ApiError> {
    let list = backup_list(state).await;
    let reason = list.as_ref().err().map(ApiError::message);
    let list = list.unwrap_or_default();
    let copies = copies_by_place(&list["copies"]);
    let backups: Vec<Value> = list["backups"].as_array().into_iter().flatten().map(row).collect();
    let operation = newest(&state.core.home).await;
    let config = state.core.config();
    let settings = config.as_ref().map(|config| &config.backup);
    page(
        "backups.html",
        config::instance_name(config.as_ref()),
        json!({
            "backups": backups, "copies": copies, "reason": reason,
            "has_places": settings.is_some_and(|settings| !settings.copies.is_empty()), "operation": operation,
            "schedule": settings.map(|settings| settings.schedule.to_string()),
            "verify": settings.map(|settings| settings.verify.to_string()),
            "problems": problems(&state.core), "refused": refused,
        }),
    )
    .map(|page| with_home(page, &state.core.home))
}

/// The number of backups at each place, and when the newest was created.
fn copies_by_place(copies: &Value) -> Vec<Value> {
    let mut places: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for copy in copies.as_array().into_iter().flatten().filter(|copy| copy["copied_at"].is_string()) {
        let place = places.entry(copy["to"].as_str().unwrap_or_default()).or_default();
        *place = (place.0 + 1, place.1.max(copy["created_at"].as_str().unwrap_or_default()));
    }
    places.into_iter().map(|(to, (count, newest))| json!({"to": to, "count": count, "newest": newest})).collect()
}

fn row(backup: &Value) -> Value {
    let (path, proof) = (backup["path"].as_str().unwrap_or_default(), &backup["last_verified"]);
    let verified = match (backup["problem"].as_str().or(proof["problem"].as_str()), proof.is_null()) {
        (Some(problem), _) => problem,
        (None, true) => "never",
        (None, false) if proof["unopened"] == true => "hashes only, not decrypted",
        (None, false) if proof["quick"] == true => "hashes only",
        (None, false) => "verified by a test restore",
    };
    let is_bad = backup["problem"].is_string() || proof["problem"].is_string();
    let name = utf8_percent_encode(name_of(path), NON_ALPHANUMERIC);
    json!({
        "verify": format!("/lite/backups/{name}/verify"), "restore": format!("/lite/backups/{name}/restore"),
        "path": shell::word(path), "created_at": backup["created_at"], "automatic": backup["automatic"] == true,
        "encrypted": backup["encrypted"] == true,
        "size": size_text(backup["size_bytes"].as_u64()), "version": backup["leoflow_version"],
        "schema_version": backup["schema_version"], "rows": backup["rows"], "verified": verified,
        "verified_at": proof["verified_at"], "is_bad": is_bad, "is_verified": proof["ok"] == true && !is_bad,
    })
}

/// `POST /lite/backups`: the button "Back up now".
pub async fn make_for_page(State(state): Shared) -> Result<Response, ApiError> {
    redirect_or_show_error(&state, begin(&state).await).await
}

/// `POST /lite/backups/{name}/verify`.
pub async fn verify_for_page(State(state): Shared, Segments(name): Segments<String>) -> Result<Response, ApiError> {
    redirect_or_show_error(&state, begin_verification(&state, &name).await).await
}

/// The fields of the page's form.
#[derive(Deserialize)]
pub struct RestoreForm {
    instance: String,
}

/// `POST /lite/backups/{name}/restore`: shows the page with the error if the instance's name is wrong.
pub async fn restore_for_page(
    State(state): Shared,
    Segments(name): Segments<String>,
    Form(RestoreForm { instance }): Form<RestoreForm>,
) -> Result<Response, ApiError> {
    redirect_or_show_error(&state, begin_restore(&state, &name, instance.trim()).await).await
}

/// Redirects to the page, which shows the operation; or shows the page with the error.
async fn redirect_or_show_error(state: &AppState, begun: Result<Operation, ApiError>) -> Result<Response, ApiError> {
    match begun {
        Ok(_) => Ok(Redirect::to("/lite/backups").into_response()),
        Err(refused) => Ok((refused.status(), show(state, Some(&refused.message())).await?).into_response()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_shows_the_files_it_skipped() {
        let one = |kind: &str, result: Value, error: Value| {
            let operation = json!({
                "id": 5, "kind": kind, "status": "failed", "progress": ["first", "<b>"], "result": result, "error": error,
            });
            page("operation.html", "one", json!({ "operation": operation })).unwrap().0
        };
        let skipped = json!({"skipped": [{"path": "ab", "reason": "gone"}, {"path": "c", "reason": "gone"}]});
        let shown = one("backup", skipped, Value::Null);
        assert!(shown.contains(">Backup</h2>") && shown.contains("ab, c") && shown.contains("&lt;b&gt;"), "{shown}");
        for (kind, title) in
            [("upgrade", "Upgrade"), ("upgrade-instances", "several"), ("unknown-kind", "unknown-kind")]
        {
            let shown = one(kind, json!({"status": "x"}), json!("no\nhint: h"));
            assert!(
                shown.contains(title) && shown.contains("hint: h") && !shown.contains("could not be read"),
                "{shown}"
            );
        }
        assert!(!one("verify", Value::Null, Value::Null).contains("could not be read"));
    }
}
