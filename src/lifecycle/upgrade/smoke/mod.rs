//! Smoke-tests a release: a candidate server over its private socket, and the whole instance through the public address
//! after the handover.

mod schedules;
pub(crate) mod smoke_client;

use super::import_evidence::Releases;
use hyper::{Method, StatusCode};
use leoflow_base::config::Config;
use leoflow_base::protocol::http::{HttpError, encode};
use leoflow_base::sys::{self, random};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How the smoke test reaches the server.
#[derive(Debug, Clone)]
pub enum ServerEndpoint {
    /// The candidate server's socket, on which the caller is admin.
    Private(PathBuf),
    /// The public address, as a browser uses it.
    Public,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// The observed state, or the error.
    pub detail: String,
    /// A problem that is not the release's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    pub seconds: f64,
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub enum SmokeError {
    #[error("{path} returned {status}")]
    Status { path: String, status: StatusCode },
    #[error("{path} did not respond within {} s", .limit.as_secs())]
    Timeout { path: String, limit: Duration },
    #[error("no response within {} s", .0.as_secs())]
    NoAnswer(Duration),
    #[error(transparent)]
    Connection(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("invalid response: {0}")]
    Json(#[from] serde_json::Error),
    /// The server answers, but not as expected.
    #[error("{0}")]
    Unexpected(String),
}

/// A smoke test of one instance.
pub struct Smoke<'a> {
    pub config: &'a Config,
    pub endpoint: ServerEndpoint,
    /// The expected version.
    pub version: String,
    /// Faults that existed before the change.
    pub known: KnownFaults,
    /// Programs of both releases, to decide whether the new release causes an import error.
    pub releases: Option<Releases>,
    /// The config file from which each request reads the current secrets; `None` uses the secrets of `config`.
    pub config_file: Option<PathBuf>,
}

/// Faults of the installed release, which do not count against the new one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownFaults {
    /// DAG files with import errors; `None` if unknown.
    pub import_errors: Option<BTreeSet<String>>,
    /// DAGs whose grid fails to load.
    pub grids: BTreeSet<String>,
    /// True when the trial task failed twice in a row.
    pub trial_task: bool,
}

/// Time limit for parts that start shortly after the handover of the listeners, such as the scheduler.
pub(super) fn settling_time() -> Duration {
    sys::limit("LEOFLOW_SMOKE_SETTLING", Duration::from_secs(30))
}
/// Beginning of the keys of the variables that the smoke test creates and deletes.
pub(super) const VARIABLE_PREFIX: &str = "leoflow_smoke_";
/// Pages that every server has.
const PAGES: [&str; 2] = ["/", "/auth/login"];
/// Number of DAGs whose grids are checked.
const CHECKED_GRIDS: usize = 5;

impl<'a> Smoke<'a> {
    /// A smoke test of the release `version` without known faults.
    pub fn new(config: &'a Config, endpoint: ServerEndpoint, version: String) -> Self {
        Self { config, endpoint, version, known: KnownFaults::default(), releases: None, config_file: None }
    }
}

impl Smoke<'_> {
    /// True when the health endpoint answers with 200.
    pub(crate) async fn is_healthy(&self) -> bool {
        matches!(self.send_once(Method::GET, "/api/healthz", None).await, Ok((StatusCode::OK, _)))
    }

    /// Runs the checks that a candidate server supports. Stops at the first failure.
    pub(crate) async fn candidate_checks(&self) -> Vec<Check> {
        let mut checks = Checks::default();
        let _ = self.run_common(&mut checks).await;
        checks.0
    }

    /// Runs all checks through the public address. Stops at the first failure.
    pub async fn all_checks(&self) -> Vec<Check> {
        let mut checks = Checks::default();
        let _ = async {
            self.run_common(&mut checks).await?;
            checks.run("scheduler", self.scheduler()).await?;
            checks.run("schedules", self.schedules()).await?;
            checks.run("trial task", self.trial_task()).await
        }
        .await;
        checks.0
    }

    /// Collects the faults of the running release. Fails if the import errors cannot be listed.
    pub(crate) async fn known_faults(&self) -> Result<KnownFaults, SmokeError> {
        let import_errors = Some(self.import_errors().await?);
        let grids = self.grids().await.map(|grids| grids.failed.into_keys().collect()).unwrap_or_default();
        let trial_task = self.run_trial_task().await.is_err() && self.run_trial_task().await.is_err();
        Ok(KnownFaults { import_errors, grids, trial_task })
    }

    async fn run_common(&self, checks: &mut Checks) -> Result<(), ()> {
        checks.run("health", self.health()).await?;
        checks.run("login", self.login()).await?;
        checks.run("datastore", self.datastore()).await?;
        checks.run("read", self.read()).await?;
        checks.run("write", self.write()).await?;
        checks.run("dags", self.dags()).await?;
        checks.run("pages", self.pages()).await
    }

    /// Checks that the expected version answers.
    async fn health(&self) -> Result<String, SmokeError> {
        let answer = self.json("/api/healthz").await?;
        let version = answer["version"].as_str().unwrap_or_default();
        match version == self.version {
            true => Ok(version.to_owned()),
            false => Err(SmokeError::Unexpected(format!("version {version} answers"))),
        }
    }

    /// Checks that the release accepts a session that it has not created, such as one of the previous release.
    async fn login(&self) -> Result<String, SmokeError> {
        match &self.endpoint {
            ServerEndpoint::Private(_) => {
                let body = json!({"token": self.token()});
                let (status, answer) = self.send(Method::POST, "/local/session", Some(&body)).await?;
                let valid = status.is_success() && parse(&answer)?["valid"] == true;
                match valid {
                    true => Ok("session accepted".to_owned()),
                    false => Err(SmokeError::Unexpected("session rejected".to_owned())),
                }
            }
            ServerEndpoint::Public => match self.get("/").await? {
                (StatusCode::OK, _) => Ok("session accepted".to_owned()),
                (status, _) => Err(SmokeError::Unexpected(format!("/ returned {status} with a valid session"))),
            },
        }
    }

    async fn datastore(&self) -> Result<String, SmokeError> {
        self.wait_healthy("metadatabase", "healthy").await
    }

    /// Counts variables and connections.
    async fn read(&self) -> Result<String, SmokeError> {
        let mut counts = Vec::new();
        for collection in ["variables", "connections"] {
            let answer = self.json(&format!("/api/v2/{collection}?limit=1")).await?;
            counts.push(format!("{} {collection}", total_entries(&answer)?));
        }
        Ok(counts.join(", "))
    }

    /// Creates, reads and deletes a variable.
    async fn write(&self) -> Result<String, SmokeError> {
        let key = format!("{VARIABLE_PREFIX}{}", hex::encode(random::bytes::<8>()));
        let path = format!("/api/v2/variables/{key}");
        let body = json!({"key": key, "value": "smoke"});
        let (created, answer) = self.send(Method::POST, "/api/v2/variables", Some(&body)).await?;
        // The key is random, so a conflict means that an earlier attempt of `send`, answered with 503, created it.
        if !created.is_success() && created != StatusCode::CONFLICT {
            let answer = String::from_utf8_lossy(&answer);
            return Err(SmokeError::Unexpected(format!("failed to create a variable: {created} {answer}")));
        }
        let read_back = self.json(&path).await;
        let (deleted, _) = self.send(Method::DELETE, &path, None).await?;
        match read_back {
            Ok(answer) if answer["value"] == "smoke" && deleted.is_success() => {
                Ok("created, read and deleted a variable".to_owned())
            }
            Ok(_) => {
                let text = format!("a variable differs from what was written, or deleting it failed ({deleted})");
                Err(SmokeError::Unexpected(text))
            }
            Err(error) => Err(error),
        }
    }

    /// Checks that no DAG file has an import error that the release caused.
    async fn dags(&self) -> Result<Passed, SmokeError> {
        let dags = total_entries(&self.json("/api/v2/dags?limit=1").await?)?;
        let errors = self.import_errors().await?;
        let new_errors: Vec<&str> = match &self.known.import_errors {
            Some(known) => errors.difference(known).map(String::as_str).collect(),
            None => Vec::new(),
        };
        let detail = format!("{dags} DAGs, {} import errors", errors.len());
        if new_errors.is_empty() {
            return Ok(detail.into());
        }
        let evidence = match &self.releases {
            Some(releases) => releases.evidence(&new_errors).await,
            None => Some(new_errors.join(", ")),
        };
        match evidence {
            Some(file) => Err(SmokeError::Unexpected(format!("no longer importable: {file}"))),
            None => {
                let text = format!("import errors not caused by the release: {}", new_errors.join(", "));
                Ok(Passed { detail, warning: Some(text) })
            }
        }
    }

    /// Lists the DAG files with import errors.
    pub async fn import_errors(&self) -> Result<BTreeSet<String>, SmokeError> {
        let answer = self.json("/api/v2/importErrors?limit=1000").await?;
        let list = answer["import_errors"].as_array().cloned().unwrap_or_default();
        Ok(list.iter().filter_map(|error| error["filename"].as_str()).map(str::to_owned).collect())
    }

    /// Loads the HTML pages, the web UI's configuration, and the grids of the first DAGs.
    async fn pages(&self) -> Result<Passed, SmokeError> {
        let mut pages: Vec<String> = PAGES.map(str::to_owned).into();
        if let ServerEndpoint::Public = self.endpoint {
            // This page shows the supervisor's status, and a candidate server may have no supervisor.
            pages.push("/lite/".to_owned());
        }
        for path in &pages {
            let (status, body) = self.get(path).await?;
            if status != StatusCode::OK || !String::from_utf8_lossy(&body).contains("</html>") {
                return Err(SmokeError::Status { path: path.clone(), status });
            }
        }
        self.json("/ui/config").await?;
        let Grids { loaded_count, failed } = self.grids().await?;
        let is_known = |id: &String| self.known.grids.contains(id);
        if let Some((_, reason)) = failed.iter().find(|(id, _)| !is_known(id)) {
            return Err(SmokeError::Unexpected(reason.clone()));
        }
        let names: Vec<&str> = failed.keys().map(String::as_str).collect();
        Ok(Passed {
            detail: format!("{} pages, {loaded_count} grids", pages.len()),
            warning: (!names.is_empty())
                .then(|| format!("grids that also failed before the change: {}", names.join(", "))),
        })
    }

    /// Loads the grids of the DAGs on the first page.
    async fn grids(&self) -> Result<Grids, SmokeError> {
        let dags = self.json(&format!("/ui/dags?limit={CHECKED_GRIDS}")).await?;
        let ids = dags["dags"].as_array().ok_or_else(|| SmokeError::Unexpected("/ui/dags has no list".to_owned()))?;
        let mut grids = Grids::default();
        for id in ids.iter().filter_map(|dag| dag["dag_id"].as_str()) {
            let path = format!("/ui/grid/structure/{}", encode(id));
            match self.get(&path).await? {
                (StatusCode::OK, body) if parse(&body)?.is_array() => grids.loaded_count += 1,
                (StatusCode::NOT_FOUND, _) if self.is_deleted(id).await? => {}
                (status, _) => drop(grids.failed.insert(id.to_owned(), format!("{path} returned {status}"))),
            }
        }
        Ok(grids)
    }

    async fn is_deleted(&self, id: &str) -> Result<bool, SmokeError> {
        let (status, _) = self.get(&format!("/api/v2/dags/{}", encode(id))).await?;
        Ok(status == StatusCode::NOT_FOUND)
    }

    /// Waits for the scheduler, which takes leadership a moment after its start.
    async fn scheduler(&self) -> Result<String, SmokeError> {
        self.wait_healthy("scheduler", "healthy").await
    }

    /// Waits until a part of the instance is healthy, within the settling time.
    async fn wait_healthy(&self, part: &str, detail: &str) -> Result<String, SmokeError> {
        let deadline = Instant::now() + settling_time();
        loop {
            let answer = self.json("/api/v2/monitor/health").await?;
            match answer[part]["status"].as_str() {
                Some("healthy") => return Ok(detail.to_owned()),
                other if Instant::now() >= deadline => {
                    return Err(SmokeError::Unexpected(format!("status {}", other.unwrap_or("unknown"))));
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Runs the trial task. A failure counts only as a warning if the task also failed before the change.
    async fn trial_task(&self) -> Result<Passed, SmokeError> {
        match self.run_trial_task().await {
            Err(reason) if self.known.trial_task => {
                let warning = Some(format!("also failed before the change: {reason}"));
                Ok(Passed { detail: "no task ran".to_owned(), warning })
            }
            outcome => outcome.map(Passed::from),
        }
    }

    async fn run_trial_task(&self) -> Result<String, SmokeError> {
        let (status, answer) = self.send(Method::POST, "/api/lite/trial-task", None).await?;
        if !status.is_success() {
            return Err(SmokeError::Unexpected(format!("{status} {}", String::from_utf8_lossy(&answer))));
        }
        match parse(&answer)?["reason"].as_str() {
            Some(reason) => Ok(format!("skipped: {reason}")),
            None => Ok("a task ran".to_owned()),
        }
    }
}

#[derive(Default)]
struct Grids {
    /// Number of grids that loaded.
    loaded_count: usize,
    /// The error by DAG id.
    failed: BTreeMap<String, String>,
}

/// A passed check.
struct Passed {
    detail: String,
    warning: Option<String>,
}

impl From<String> for Passed {
    fn from(detail: String) -> Self {
        Self { detail, warning: None }
    }
}

/// Results in order; the first failure is the last entry.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    /// Runs a check and records its result. Returns an error if the check failed.
    async fn run<P: Into<Passed>>(
        &mut self,
        name: &'static str,
        check: impl Future<Output = Result<P, SmokeError>>,
    ) -> Result<(), ()> {
        let begun = Instant::now();
        let outcome = check.await;
        let ok = outcome.is_ok();
        let Passed { detail, warning } = outcome.map_or_else(|error| Passed::from(error.to_string()), Into::into);
        self.0.push(Check { name, ok, detail, warning, seconds: begun.elapsed().as_secs_f64() });
        if ok { Ok(()) } else { Err(()) }
    }
}

/// The warnings: problems that are not the release's fault.
pub fn warnings(checks: &[Check]) -> impl Iterator<Item = String> {
    checks.iter().filter_map(|check| check.warning.as_ref().map(|text| format!("{}: {text}", check.name)))
}

/// The first failure that counts against the release.
pub fn failure(checks: &[Check]) -> Option<String> {
    checks
        .iter()
        .find(|check| !check.ok && check.warning.is_none())
        .map(|check| format!("{}: {}", check.name, check.detail))
}

fn parse(body: &[u8]) -> Result<Value, SmokeError> {
    Ok(serde_json::from_slice(body)?)
}

fn total_entries(answer: &Value) -> Result<i64, SmokeError> {
    answer["total_entries"].as_i64().ok_or_else(|| SmokeError::Unexpected("no total_entries".to_owned()))
}
