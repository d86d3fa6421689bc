//! Upgrades and rollbacks of this instance, and upgrades of others, over HTTP. Each change becomes the arguments of a
//! `leoflow` command, which runs as an operation.

use crate::api::ops::health::ask_supervisor;
use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::http::body::OptionalBody;
use crate::http::openapi::answers::Accepted;
use crate::lite::releases;
use crate::lite::upgrade_progress::{ROLLBACK, UPGRADE, UPGRADE_INSTANCES, view};
use crate::release::own_program::{self, ask};
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, Json};
use leoflow_base::build_info::build_info;
use leoflow_base::config::{self, Channel};
use semver::Version;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// An optional JSON object of any content type.
type RequestBody = OptionalBody<Map<String, Value>>;

/// `GET /api/lite/version`. The newest release is that of a lookup in the last hour; without one it is null, and a
/// lookup starts.
pub async fn version(State(state): Shared) -> Result<Json<Value>, ApiError> {
    let config = state.core.config();
    let schema_version = ask_supervisor(&state.core).await.ok().and_then(|status| status.schema_version);
    let latest = state.release.newest_release.known(&state.core.home, config.as_ref());
    Ok(Json(json!({
        "instance": config::instance_name(config.as_ref()),
        "deployed_version": state.release.version,
        "latest_version": latest.version,
        "latest_commit": latest.commit,
        "latest_looked_at": latest.checked_at,
        "latest_problem": latest.problem,
        "commit": build_info().commit,
        "channel": config.as_ref().map(|config| config.upgrade.channel),
        "upgrade_available": latest.is_newer,
        "schema_version": schema_version,
    })))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    target_version: Option<String>,
    backup_db: Option<bool>,
    run_migrations: Option<bool>,
    #[serde(default)]
    accept_old_manifest: bool,
    #[serde(default)]
    dry_run: bool,
}

impl Upgrade {
    fn arguments(self) -> Result<Vec<String>, ApiError> {
        if self.backup_db == Some(false) {
            return Err(refused("backup_db", "An upgrade always creates a backup first, which a rollback needs"));
        }
        if self.run_migrations == Some(false) {
            return Err(refused("run_migrations", "A release needs its own schema, so its migrations always run"));
        }
        let mut arguments = vec!["upgrade".to_owned()];
        arguments.extend(self.target_version.as_deref().map(release).transpose()?);
        arguments.push(if self.dry_run { "--dry-run" } else { "--yes" }.to_owned());
        if self.accept_old_manifest {
            arguments.push(ACCEPT_OLD_MANIFEST.to_owned());
        }
        Ok(arguments)
    }
}

const ACCEPT_OLD_MANIFEST: &str = "--accept-old-manifest";

fn refused(field: &str, reason: &str) -> ApiError {
    ApiError::unprocessable(&["body", field], "value_error", reason)
}

fn version_of(text: &str) -> Option<Version> {
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

/// Accepts only a version or a channel, so that the value cannot be an option of the command.
fn release(text: &str) -> Result<String, ApiError> {
    match Channel::parse(text).is_some() || version_of(text).is_some() {
        true => Ok(text.to_owned()),
        false => Err(refused("target_version", "Input should be `stable`, `rc`, or a version such as 0.3.0")),
    }
}

/// Parses a request body; the default without one. Unknown fields are errors.
fn parse<T: Default + DeserializeOwned>(OptionalBody(body): RequestBody) -> Result<T, ApiError> {
    let Some(body) = body else { return Ok(T::default()) };
    let invalid = |error: serde_json::Error| ApiError::unprocessable(&["body"], "value_error", error.to_string());
    serde_json::from_value(Value::Object(body)).map_err(invalid)
}

async fn begin(state: &AppState, kind: &'static str, arguments: Vec<String>) -> Result<Accepted<Value>, ApiError> {
    let operation = own_program::begin(&state.core.home, kind, arguments).await?;
    Ok(Accepted(view(&operation)))
}

/// `POST /api/lite/upgrade`.
pub async fn upgrade(State(state): Shared, request: RequestBody) -> Result<Accepted<Value>, ApiError> {
    begin(&state, UPGRADE, parse::<Upgrade>(request)?.arguments()?).await
}

/// `POST /lite/releases/upgrade`: the page's button. Shows the page with the error if it is refused.
pub async fn upgrade_for_page(State(state): Shared, Form(request): Form<Upgrade>) -> Result<Response, ApiError> {
    match begin(&state, UPGRADE, request.arguments()?).await {
        Ok(_) => Ok(Redirect::to("/lite/releases").into_response()),
        Err(refused) => Ok((refused.status(), releases::error_page(&state, refused).await?).into_response()),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    target_version: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /api/lite/rollback`.
pub async fn rollback(State(state): Shared, request: RequestBody) -> Result<Accepted<Value>, ApiError> {
    let Rollback { target_version, dry_run } = parse(request)?;
    let mut arguments = vec!["rollback".to_owned()];
    if let Some(version) = target_version {
        let version = version_of(&version);
        let version = version.ok_or_else(|| refused("target_version", "Input should be a version such as 0.3.0"))?;
        arguments.extend(["--to".to_owned(), version.to_string()]);
    }
    arguments.push(if dry_run { "--dry-run" } else { "--yes" }.to_owned());
    begin(&state, ROLLBACK, arguments).await
}

/// `GET /api/lite/instances`: this user's instances on this machine.
pub async fn instances(State(state): Shared) -> Result<Json<Value>, ApiError> {
    ask(&state.core.home, &["instances", "list"]).await.map(Json)
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct UpgradeInstances {
    names: Option<Vec<String>>,
    #[serde(default)]
    all: bool,
    target_version: Option<String>,
    #[serde(default)]
    keep_going: bool,
    #[serde(default)]
    accept_old_manifest: bool,
    #[serde(default)]
    dry_run: bool,
}

impl UpgradeInstances {
    fn arguments(self) -> Result<Vec<String>, ApiError> {
        let Self { names, all, target_version, keep_going, accept_old_manifest, dry_run } = self;
        let mut arguments = vec!["upgrade".to_owned()];
        arguments.extend(target_version.as_deref().map(release).transpose()?);
        arguments.push("--all".to_owned());
        match (names, all) {
            (None, true) => {}
            (Some(names), false) if !names.is_empty() => {
                let is_name = |name: &String| leoflow_base::home::instances::root(name).is_ok();
                if let Some(wrong) = names.iter().find(|name| !is_name(name)) {
                    return Err(refused("names", &format!("{wrong:?} is not a valid instance name")));
                }
                arguments.extend(["--only".to_owned(), names.join(",")]);
            }
            _ => return Err(refused("names", "Set either `names` or `\"all\": true`")),
        }
        if keep_going {
            arguments.push("--keep-going".to_owned());
        }
        if accept_old_manifest {
            arguments.push(ACCEPT_OLD_MANIFEST.to_owned());
        }
        arguments.push(if dry_run { "--dry-run" } else { "--yes" }.to_owned());
        Ok(arguments)
    }
}

/// `POST /api/lite/instances/upgrade`: upgrades one after another, with a result for each.
pub async fn upgrade_instances(State(state): Shared, request: RequestBody) -> Result<Accepted<Value>, ApiError> {
    begin(&state, UPGRADE_INSTANCES, parse::<UpgradeInstances>(request)?.arguments()?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments<T: Default + for<'a> Deserialize<'a>>(
        body: Value,
        convert: fn(T) -> Result<Vec<String>, ApiError>,
    ) -> Result<String, ApiError> {
        let request = serde_json::from_value(body).map_err(|error| ApiError::bad_request(error.to_string()))?;
        convert(request).map(|words| words.join(" "))
    }

    #[test]
    fn bodies_become_arguments_of_the_command() {
        let upgrade = |body: Value| arguments(body, Upgrade::arguments);
        assert_eq!(upgrade(json!({})).unwrap(), "upgrade --yes");
        let all = json!({"target_version": "0.3.0-rc.1", "backup_db": true, "run_migrations": true, "dry_run": true});
        assert_eq!(upgrade(all).unwrap(), "upgrade 0.3.0-rc.1 --dry-run");
        for wrong in [
            json!({"backup_db": false}),
            json!({"run_migrations": false}),
            json!({"target_version": "--from=/tmp/evil"}),
            json!({"target_version": "0.3.0 --from"}),
            json!({"target_version": ""}),
            json!({"target_version": "plan"}),
            json!({"from": "/tmp"}),
            json!({"dry_run": "no"}),
        ] {
            assert!(upgrade(wrong.clone()).is_err(), "{wrong}");
        }
        let several = |body: Value| arguments(body, UpgradeInstances::arguments);
        assert_eq!(several(json!({"all": true, "keep_going": true})).unwrap(), "upgrade --all --keep-going --yes");
        assert_eq!(several(json!({"names": ["a", "b"]})).unwrap(), "upgrade --all --only a,b --yes");
        for wrong in [json!({}), json!({"names": []}), json!({"names": ["../x"]}), json!({"names": ["a"], "all": true})]
        {
            assert!(several(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
