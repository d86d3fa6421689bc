//! Upgrades over HTTP, of this instance and of others: begun here, done by the same worker as the command's, and told of by
//! whichever server is there then.

use crate::build_info::build_info;
use crate::config::{self, Channel};
use crate::home::operations::{Operation, Status};
use crate::server::api_error::ApiError;
use crate::server::body::OptionalBody;
use crate::server::lite::{pages, releases};
use crate::server::openapi::answers::Accepted;
use crate::server::own_program::{self, answer};
use crate::server::request::Segments;
use crate::server::state::AppState;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, Json};
use futures_util::stream;
use semver::Version;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

type Shared = State<Arc<AppState>>;
/// By name; what is no object, or says something unknown, is refused, whatever it is called.
type Given = OptionalBody<Map<String, Value>>;

const UPGRADE: &str = "upgrade";
const ROLLBACK: &str = "rollback";
const OF_INSTANCES: &str = "upgrade-instances";
/// How often it is looked for news.
const ROUND: Duration = Duration::from_millis(200);
/// Rounds after which something is said all the same, for proxies.
const QUIET_ROUNDS: u32 = 75;

/// `GET /api/lite/version`. What is newest is what was looked up before; null until then.
pub async fn version(State(state): Shared) -> Result<Json<Value>, ApiError> {
    let config = config::load(&state.home.config()).ok().flatten().map(|loaded| loaded.config);
    let schema_version = pages::ask_supervisor(&state).await.ok().and_then(|status| status.schema_version);
    let upgrade = config.as_ref().map(|config| &config.upgrade);
    let latest = state.newest_release.known(&state.home, format!("{upgrade:?}"));
    Ok(Json(json!({
        "instance": config::instance_name(config.as_ref()),
        "deployed_version": state.version,
        "latest_version": latest.version,
        "latest_looked_at": latest.looked_at,
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
    dry_run: bool,
}

impl Upgrade {
    fn arguments(self) -> Result<Vec<String>, ApiError> {
        if self.backup_db == Some(false) {
            return Err(refused(
                "backup_db",
                "An upgrade takes a backup first, always: it is the way back when the release is bad",
            ));
        }
        if self.run_migrations == Some(false) {
            return Err(refused("run_migrations", "A release runs with its own schema: its migrations belong to it"));
        }
        let mut arguments = vec!["upgrade".to_owned()];
        arguments.extend(self.target_version.as_deref().map(release).transpose()?);
        arguments.push(if self.dry_run { "--dry-run" } else { "--yes" }.to_owned());
        Ok(arguments)
    }
}

fn refused(field: &str, reason: &str) -> ApiError {
    ApiError::unprocessable(&["body", field], "value_error", reason)
}

fn version_of(text: &str) -> Option<Version> {
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

/// A version or a channel, and nothing else that the command could take for something.
fn release(text: &str) -> Result<String, ApiError> {
    match Channel::parse(text).is_some() || version_of(text).is_some() {
        true => Ok(text.to_owned()),
        false => Err(refused("target_version", "Input should be `stable`, `rc`, or a version as 0.3.0")),
    }
}

/// What was given, or what it is without a body.
fn body<T: Default + DeserializeOwned>(OptionalBody(given): Given) -> Result<T, ApiError> {
    let Some(given) = given else { return Ok(T::default()) };
    let wrong = |error: serde_json::Error| ApiError::unprocessable(&["body"], "value_error", error.to_string());
    serde_json::from_value(Value::Object(given)).map_err(wrong)
}

async fn begin(state: &AppState, kind: &'static str, arguments: Vec<String>) -> Result<Accepted<Value>, ApiError> {
    let begun = state.own_program.begin(&state.home, kind, arguments).await?;
    Ok(Accepted(shown(&begun)))
}

/// `POST /api/lite/upgrade`.
pub async fn upgrade(State(state): Shared, given: Given) -> Result<Accepted<Value>, ApiError> {
    begin(&state, UPGRADE, body::<Upgrade>(given)?.arguments()?).await
}

/// `POST /lite/releases/upgrade`, by the page's button. The page says why not.
pub async fn upgrade_for_page(State(state): Shared, Form(wanted): Form<Upgrade>) -> Result<Response, ApiError> {
    match begin(&state, UPGRADE, wanted.arguments()?).await {
        Ok(_) => Ok(Redirect::to("/lite/releases").into_response()),
        Err(refused) => Ok((refused.status(), releases::page_with(&state, &refused.message()).await?).into_response()),
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
pub async fn rollback(State(state): Shared, given: Given) -> Result<Accepted<Value>, ApiError> {
    let Rollback { target_version, dry_run } = body(given)?;
    let mut arguments = vec!["rollback".to_owned()];
    if let Some(version) = target_version {
        let version = version_of(&version);
        let version = version.ok_or_else(|| refused("target_version", "Input should be a version as 0.3.0"))?;
        arguments.extend(["--to".to_owned(), version.to_string()]);
    }
    arguments.push(if dry_run { "--dry-run" } else { "--yes" }.to_owned());
    begin(&state, ROLLBACK, arguments).await
}

/// `GET /api/lite/instances`: those of this user on this machine.
pub async fn instances(State(state): Shared) -> Result<Json<Value>, ApiError> {
    answer(&state.home, &["instances", "list"]).await.map(Json)
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
    dry_run: bool,
}

impl UpgradeInstances {
    fn arguments(self) -> Result<Vec<String>, ApiError> {
        let Self { names, all, target_version, keep_going, dry_run } = self;
        let mut arguments = vec!["upgrade".to_owned()];
        arguments.extend(target_version.as_deref().map(release).transpose()?);
        arguments.push("--all".to_owned());
        match (names, all) {
            (None, true) => {}
            (Some(names), false) if !names.is_empty() => {
                let is_name = |name: &String| crate::home::instances::root(name).is_ok();
                if let Some(wrong) = names.iter().find(|name| !is_name(name)) {
                    return Err(refused("names", &format!("{wrong:?} is no name of an instance")));
                }
                arguments.extend(["--only".to_owned(), names.join(",")]);
            }
            _ => return Err(refused("names", "Say which: either `names`, or `\"all\": true`")),
        }
        if keep_going {
            arguments.push("--keep-going".to_owned());
        }
        arguments.push(if dry_run { "--dry-run" } else { "--yes" }.to_owned());
        Ok(arguments)
    }
}

/// `POST /api/lite/instances/upgrade`: one after another, with a result each.
pub async fn upgrade_instances(State(state): Shared, given: Given) -> Result<Accepted<Value>, ApiError> {
    begin(&state, OF_INSTANCES, body::<UpgradeInstances>(given)?.arguments()?).await
}

/// `GET /api/lite/upgrade/{id}`, also of a rollback and of an upgrade of several instances. With `Accept:
/// text/event-stream` each change is an event, and the last of them ends it.
pub async fn progress(
    State(state): Shared,
    Segments(id): Segments<u64>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = find(&state, id).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains("text/event-stream") {
        return Ok(Json(shown(&found)).into_response());
    }
    let stream = stream::unfold(Some(Told { state, id, last: None, quiet: 0 }), |told| async {
        let mut told = told?;
        let (text, is_over) = told.next().await;
        Some((Ok::<_, Infallible>(text), (!is_over).then_some(told)))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, Body::from_stream(stream)).into_response())
}

async fn find(state: &AppState, id: u64) -> Result<Operation, ApiError> {
    own_program::find(&state.home, id)
        .await
        .filter(|one| [UPGRADE, ROLLBACK, OF_INSTANCES].contains(&one.kind.as_str()))
        .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("There is no upgrade {id} any more")))
}

/// One who listens.
struct Told {
    state: Arc<AppState>,
    id: u64,
    last: Option<Value>,
    quiet: u32,
}

impl Told {
    /// The next event, and whether it is the last.
    async fn next(&mut self) -> (String, bool) {
        let mut leaving = self.state.changes.leaving.subscribe();
        loop {
            let Ok(found) = find(&self.state, self.id).await else { return (String::new(), true) };
            let (now, is_over) = (shown(&found), found.status != Status::Running);
            if self.last.as_ref() != Some(&now) {
                let text = format!("retry: 500\nevent: upgrade\ndata: {now}\n\n");
                (self.last, self.quiet) = (Some(now), 0);
                return (text, is_over);
            }
            self.quiet += 1;
            if self.quiet.is_multiple_of(QUIET_ROUNDS) {
                return (": nothing new\n\n".to_owned(), false);
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                // Another server goes on with it: who listens comes again.
                _ = leaving.wait_for(|leaving| *leaving) => return (String::new(), true),
            }
        }
    }
}

/// What is asked of an upgrade, of whatever became of it.
fn shown(operation: &Operation) -> Value {
    let none = Value::Null;
    let result = operation.result.as_ref().unwrap_or(&none);
    let is_plan = result["status"].is_null() && result["to"].is_string();
    let status = match (operation.status, result["status"].as_str()) {
        (Status::Running, _) => "running",
        (_, Some(said)) => said,
        (Status::Done, None) if is_plan => "planned",
        (Status::Done, None) => "done",
        (Status::Failed, None) => "failed",
    };
    let version = |outcome: &str, plan: &str| if is_plan { &result[plan] } else { &result[outcome] };
    json!({
        "id": operation.id,
        "kind": operation.kind,
        "status": status,
        "started_at": operation.started_at,
        "ended_at": operation.ended_at,
        "previous_version": version("previous_version", "from"),
        "new_version": version("new_version", "to"),
        "commit": result["commit"],
        "migrations_run": if result["migrations_run"].is_array() { result["migrations_run"].clone() } else { json!([]) },
        "backup_path": result["backup_path"],
        "details": operation.progress,
        "plan": is_plan.then_some(result),
        "instances": result["instances"],
        "error": operation.error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments<T: Default + for<'a> Deserialize<'a>>(
        given: Value,
        of: fn(T) -> Result<Vec<String>, ApiError>,
    ) -> Result<String, String> {
        let given = serde_json::from_value(given).map_err(|error| error.to_string())?;
        of(given).map(|words| words.join(" ")).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_body_becomes_the_commands_words_and_nothing_else() {
        let of = |given: Value| arguments(given, Upgrade::arguments);
        assert_eq!(of(json!({})).unwrap(), "upgrade --yes");
        let all = json!({"target_version": "0.3.0-rc.1", "backup_db": true, "run_migrations": true, "dry_run": true});
        assert_eq!(of(all).unwrap(), "upgrade 0.3.0-rc.1 --dry-run");
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
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
        let of = |given: Value| arguments(given, UpgradeInstances::arguments);
        assert_eq!(of(json!({"all": true, "keep_going": true})).unwrap(), "upgrade --all --keep-going --yes");
        assert_eq!(of(json!({"names": ["a", "b"]})).unwrap(), "upgrade --all --only a,b --yes");
        for wrong in [json!({}), json!({"names": []}), json!({"names": ["../x"]}), json!({"names": ["a"], "all": true})]
        {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_operation_is_shown_as_an_upgrade() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(folder.path())).unwrap();
        std::fs::create_dir_all(home.run()).unwrap();
        let mut one = crate::home::operations::begin(&home, UPGRADE, Vec::new()).unwrap().operation;
        assert_eq!(shown(&one)["status"], "running");
        assert_eq!(shown(&one)["migrations_run"], json!([]));
        (one.status, one.error) = (Status::Failed, Some("no".to_owned()));
        assert_eq!((&shown(&one)["status"], &shown(&one)["error"]), (&json!("failed"), &json!("no")));
        one.result = Some(json!({"status": "rolled_back", "previous_version": "0.1.0", "new_version": "0.2.0"}));
        assert_eq!((&shown(&one)["status"], &shown(&one)["new_version"]), (&json!("rolled_back"), &json!("0.2.0")));
        one.status = Status::Done;
        one.result = Some(json!({"from": "0.1.0", "to": "0.2.0", "migrations": []}));
        let planned = shown(&one);
        assert_eq!((&planned["status"], &planned["previous_version"]), (&json!("planned"), &json!("0.1.0")));
        assert_eq!(planned["plan"]["to"], "0.2.0");
    }
}
