//! Whether a release works: asked of its server over a private socket before it gets the listeners, and
//! whole, through the public address, afterwards.

use super::import_evidence::Releases;
use crate::config::Config;
use crate::protocol::http::encode;
use crate::sys::{self, random};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How the server is reached.
#[derive(Debug, Clone)]
pub enum ServerEndpoint {
    /// Before it has the listeners: there the caller is admin.
    Private(PathBuf),
    /// As a browser does.
    Open,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What is wrong and not the release's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    pub seconds: f64,
}

/// Of the instance that is asked.
pub struct Smoke<'a> {
    pub config: &'a Config,
    pub endpoint: ServerEndpoint,
    /// The version that should answer.
    pub version: String,
    /// Faults that were there before the change.
    pub known: KnownFaults,
    /// Who is asked whether a file that cannot be imported any more is a release's fault.
    pub releases: Option<Releases>,
    /// Where the present secrets are read for each request; `None` keeps those of `config`.
    pub config_file: Option<PathBuf>,
}

/// Faults of the release that is in force, which do not count against another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownFaults {
    /// DAG files that cannot be imported; `None` if nothing is known of them.
    pub import_errors: Option<BTreeSet<String>>,
    /// DAGs whose grid is not shown.
    pub grids: BTreeSet<String>,
    /// Whether the trial task fails, twice in a row.
    pub trial_task: bool,
}

/// For what comes up a moment after the listeners are handed over.
pub(super) fn settling() -> Duration {
    sys::limit("LEOFLOW_SMOKE_SETTLING", Duration::from_secs(30))
}
const PAGES: [&str; 2] = ["/", "/auth/login"];
/// How many DAGs' pages are looked at.
const DAG_PAGES: usize = 5;

impl Smoke<'_> {
    /// Whether it answers at all.
    pub async fn answers(&self) -> bool {
        matches!(self.send_once(Method::GET, "/api/healthz", None).await, Ok((StatusCode::OK, _)))
    }

    /// What can be asked of a server on trial. Stops at the first that is wrong.
    pub async fn on_trial(&self) -> Vec<Check> {
        let mut checks = Checks::default();
        let _ = self.run_common(&mut checks).await;
        checks.0
    }

    /// Everything, through the public address.
    pub async fn whole(&self) -> Vec<Check> {
        let mut checks = Checks::default();
        let _ = async {
            self.run_common(&mut checks).await?;
            checks.run("scheduler", self.scheduler()).await?;
            checks.run("trial task", self.trial_task()).await
        }
        .await;
        checks.0
    }

    /// What fails on the running release. An error if it does not say which DAG files it cannot import.
    pub async fn known_faults(&self) -> Result<KnownFaults, String> {
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

    async fn health(&self) -> Result<String, String> {
        let answer = self.json("/api/healthz").await?;
        let version = answer["version"].as_str().unwrap_or_default();
        if version == self.version { Ok(version.to_owned()) } else { Err(format!("{version} answers")) }
    }

    /// A session from before the change is still accepted: the keys are the same.
    async fn login(&self) -> Result<String, String> {
        match &self.endpoint {
            ServerEndpoint::Private(_) => {
                let body = json!({"token": self.token()});
                let (status, answer) = self.send(Method::POST, "/local/session", Some(&body)).await?;
                let valid = status.is_success() && parse(&answer)?["valid"] == true;
                if valid { Ok("a session is good".to_owned()) } else { Err("a session is not good".to_owned()) }
            }
            ServerEndpoint::Open => match self.get("/").await? {
                (StatusCode::OK, _) => Ok("a session is good".to_owned()),
                (status, _) => Err(format!("with a session, / answers {status}")),
            },
        }
    }

    async fn datastore(&self) -> Result<String, String> {
        self.settled("metadatabase", "healthy").await
    }

    async fn read(&self) -> Result<String, String> {
        let mut found = Vec::new();
        for what in ["variables", "connections"] {
            let answer = self.json(&format!("/api/v2/{what}?limit=1")).await?;
            found.push(format!("{} {what}", answer["total_entries"].as_i64().ok_or("no total_entries")?));
        }
        Ok(found.join(", "))
    }

    async fn write(&self) -> Result<String, String> {
        let key = format!("leoflow_smoke_{}", hex::encode(random::bytes::<8>()));
        let path = format!("/api/v2/variables/{key}");
        let body = json!({"key": key, "value": "smoke"});
        let (created, answer) = self.send(Method::POST, "/api/v2/variables", Some(&body)).await?;
        // A first attempt that was answered with 503 may have made it: nothing else knows its name.
        if !created.is_success() && created != StatusCode::CONFLICT {
            return Err(format!("a variable cannot be made: {created} {}", String::from_utf8_lossy(&answer)));
        }
        let read = self.json(&path).await;
        let (deleted, _) = self.send(Method::DELETE, &path, None).await?;
        match read {
            Ok(answer) if answer["value"] == "smoke" && deleted.is_success() => {
                Ok("a variable was made, read and deleted".to_owned())
            }
            Ok(_) => Err(format!("a variable is not as it was written, or cannot be deleted ({deleted})")),
            Err(error) => Err(error),
        }
    }

    async fn dags(&self) -> Result<Passed, String> {
        let dags = self.json("/api/v2/dags?limit=1").await?["total_entries"].as_i64().unwrap_or(-1);
        let errors = self.import_errors().await?;
        let new: Vec<&str> = match &self.known.import_errors {
            Some(known) => errors.difference(known).map(String::as_str).collect(),
            None => Vec::new(),
        };
        let found = format!("{dags} DAGs, {} import errors", errors.len());
        if new.is_empty() {
            return Ok(found.into());
        }
        let evidence = match &self.releases {
            Some(releases) => releases.evidence(&new).await,
            None => Some(new.join(", ")),
        };
        match evidence {
            Some(file) => Err(format!("cannot be imported any more: {file}")),
            None => {
                let text = format!("cannot be imported, for a reason that is not the release's: {}", new.join(", "));
                Ok(Passed { detail: found, warning: Some(text) })
            }
        }
    }

    /// The DAG files that cannot be imported.
    pub async fn import_errors(&self) -> Result<BTreeSet<String>, String> {
        let answer = self.json("/api/v2/importErrors?limit=1000").await?;
        let list = answer["import_errors"].as_array().cloned().unwrap_or_default();
        Ok(list.iter().filter_map(|error| error["filename"].as_str()).map(str::to_owned).collect())
    }

    /// The pages, and what the web UI asks for its first ones.
    async fn pages(&self) -> Result<Passed, String> {
        let mut pages: Vec<String> = PAGES.map(str::to_owned).into();
        if let ServerEndpoint::Open = self.endpoint {
            // It shows what the supervisor says, and a server on trial may have none.
            pages.push("/lite/".to_owned());
        }
        for path in &pages {
            let (status, body) = self.get(path).await?;
            if status != StatusCode::OK || !String::from_utf8_lossy(&body).contains("</html>") {
                return Err(format!("{path} answers {status}"));
            }
        }
        self.json("/ui/config").await?;
        let Grids { shown, failed } = self.grids().await?;
        let is_known = |id: &String| self.known.grids.contains(id);
        if let Some((_, reason)) = failed.iter().find(|(id, _)| !is_known(id)) {
            return Err(reason.clone());
        }
        let names: Vec<&str> = failed.keys().map(String::as_str).collect();
        Ok(Passed {
            detail: format!("{} pages, {shown} grids", pages.len()),
            warning: (!names.is_empty()).then(|| format!("no grid, as before the change: {}", names.join(", "))),
        })
    }

    /// The grids of the DAGs that the first page lists.
    async fn grids(&self) -> Result<Grids, String> {
        let dags = self.json(&format!("/ui/dags?limit={DAG_PAGES}")).await?;
        let ids = dags["dags"].as_array().ok_or("/ui/dags has no list")?;
        let mut grids = Grids::default();
        for id in ids.iter().filter_map(|dag| dag["dag_id"].as_str()) {
            let path = format!("/ui/grid/structure/{}", encode(id));
            match self.get(&path).await? {
                (StatusCode::OK, body) if parse(&body)?.is_array() => grids.shown += 1,
                (StatusCode::NOT_FOUND, _) if self.is_deleted(id).await? => {}
                (status, _) => drop(grids.failed.insert(id.to_owned(), format!("{path} answers {status}"))),
            }
        }
        Ok(grids)
    }

    async fn is_deleted(&self, id: &str) -> Result<bool, String> {
        let (status, _) = self.get(&format!("/api/v2/dags/{}", encode(id))).await?;
        Ok(status == StatusCode::NOT_FOUND)
    }

    /// It leads a moment after it has started.
    async fn scheduler(&self) -> Result<String, String> {
        self.settled("scheduler", "beats").await
    }

    /// A part of the instance that is healthy within the settling time.
    async fn settled(&self, part: &str, detail: &str) -> Result<String, String> {
        let deadline = Instant::now() + settling();
        loop {
            let answer = self.json("/api/v2/monitor/health").await?;
            match answer[part]["status"].as_str() {
                Some("healthy") => return Ok(detail.to_owned()),
                other if Instant::now() >= deadline => return Err(format!("{other:?}")),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn trial_task(&self) -> Result<Passed, String> {
        match self.run_trial_task().await {
            Err(reason) if self.known.trial_task => {
                let warning = Some(format!("failed before the change too: {reason}"));
                Ok(Passed { detail: "no task has run".to_owned(), warning })
            }
            outcome => outcome.map(Passed::from),
        }
    }

    async fn run_trial_task(&self) -> Result<String, String> {
        let (status, answer) = self.send(Method::POST, "/api/lite/trial-task", None).await?;
        if !status.is_success() {
            return Err(format!("{status} {}", String::from_utf8_lossy(&answer)));
        }
        match parse(&answer)?["reason"].as_str() {
            Some(reason) => Ok(format!("skipped: {reason}")),
            None => Ok("a task has run".to_owned()),
        }
    }
}

#[derive(Default)]
struct Grids {
    shown: usize,
    /// By DAG, with the reason.
    failed: BTreeMap<String, String>,
}

/// What a check has found that is well.
struct Passed {
    detail: String,
    warning: Option<String>,
}

impl From<String> for Passed {
    fn from(detail: String) -> Self {
        Self { detail, warning: None }
    }
}

/// In order; the first that fails is the last.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    async fn run<P: Into<Passed>>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<P, String>>,
    ) -> Result<(), ()> {
        let begun = Instant::now();
        let outcome = work.await;
        let ok = outcome.is_ok();
        let Passed { detail, warning } = outcome.map_or_else(Passed::from, Into::into);
        self.0.push(Check { name, ok, detail, warning, seconds: begun.elapsed().as_secs_f64() });
        if ok { Ok(()) } else { Err(()) }
    }
}

/// What is wrong and not the release's fault.
pub fn warnings(checks: &[Check]) -> impl Iterator<Item = String> {
    checks.iter().filter_map(|check| check.warning.as_ref().map(|text| format!("{}: {text}", check.name)))
}

/// The first that speaks against the release.
pub fn failure(checks: &[Check]) -> Option<String> {
    checks
        .iter()
        .find(|check| !check.ok && check.warning.is_none())
        .map(|check| format!("{}: {}", check.name, check.detail))
}

pub(super) fn parse(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("its answer cannot be read: {error}"))
}
