//! Looks up the newest release of this instance's channel, only on request. A result is reused for an hour, a failure
//! for a minute. Callers never wait for the network.

use super::own_program::ask;
use crate::http::api_error::ApiError;
use jiff::Timestamp;
use leoflow_base::build_info;
use leoflow_base::config::Config;
use leoflow_base::home::Home;
use leoflow_base::sys::mutex::lock;
use serde::Serialize;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a result is reused.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// How long a failure is reused.
const FAILURE_MAX_AGE: Duration = Duration::from_secs(60);

/// The result of the last lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lookup {
    /// `None` while unknown.
    pub version: Option<String>,
    /// The commit that the release was built from, if its manifest names one or the release is this program.
    pub commit: Option<String>,
    pub is_newer: bool,
    #[serde(rename = "looked_at")]
    pub checked_at: Option<Timestamp>,
    /// Why the lookup failed.
    pub problem: Option<String>,
}

#[derive(Default)]
struct State {
    lookup: Lookup,
    /// The release source and channel that the result belongs to.
    settings: String,
    looked_up: Option<Instant>,
    /// True while a lookup runs.
    is_running: bool,
}

#[derive(Default)]
pub struct NewestRelease(Mutex<State>);

impl NewestRelease {
    /// Returns the result for these settings. If it is missing or stale, returns an empty one and starts a lookup in
    /// the background, unless one is running.
    pub fn known(self: &Arc<Self>, home: &Home, config: Option<&Config>) -> Lookup {
        let settings = settings_of(config);
        let mut state = lock(&self.0);
        let max_age = if state.lookup.problem.is_some() { FAILURE_MAX_AGE } else { MAX_AGE };
        let is_known =
            state.settings == settings && state.looked_up.is_some_and(|looked_up| looked_up.elapsed() < max_age);
        if !is_known && !state.is_running {
            state.is_running = true;
            let (this, home) = (self.clone(), home.clone());
            tokio::spawn(async move {
                let lookup = parse(ask(&home, &["upgrade", "--dry-run"]).await);
                *lock(&this.0) = State { lookup, settings, looked_up: Some(Instant::now()), is_running: false };
            });
        }
        if is_known { state.lookup.clone() } else { Lookup::default() }
    }

    /// Returns the result of the last lookup for these settings, however old; `None` before the first. Starts no
    /// lookup.
    pub fn last(&self, config: Option<&Config>) -> Option<Lookup> {
        let settings = settings_of(config);
        let state = lock(&self.0);
        (state.looked_up.is_some() && state.settings == settings).then(|| state.lookup.clone())
    }
}

/// Identifies the release source and channel that a result belongs to.
fn settings_of(config: Option<&Config>) -> String {
    format!("{:?}", config.map(|config| &config.upgrade))
}

/// Interprets the command's output: nothing to do, or a plan.
fn parse(output: Result<Value, ApiError>) -> Lookup {
    let checked_at = Some(Timestamp::now());
    match output {
        Ok(plan) => {
            let is_newer = plan["status"] != "up_to_date";
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let version = text(if is_newer { &plan["to"] } else { &plan["version"] });
            let is_own = version.as_deref() == Some(build_info::version());
            let own_commit = build_info::build_info().commit.filter(|_| is_own).map(str::to_owned);
            Lookup { version, commit: text(&plan["commit"]).or(own_commit), is_newer, checked_at, problem: None }
        }
        Err(error) => Lookup { checked_at, problem: Some(error.message()), ..Lookup::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_plans_and_up_to_date_answers() {
        let lookup = parse(Ok(json!({"from": "0.1.0", "to": "0.2.0", "commit": "0123abc"})));
        assert_eq!((lookup.version.as_deref(), lookup.is_newer), (Some("0.2.0"), true));
        assert_eq!(lookup.commit.as_deref(), Some("0123abc"));
        let lookup = parse(Ok(json!({"status": "up_to_date", "version": "0.2.0"})));
        assert_eq!((lookup.version.as_deref(), lookup.is_newer), (Some("0.2.0"), false));
        let lookup = parse(Err(ApiError::retry_later("no network")));
        assert_eq!((lookup.version, lookup.problem.as_deref()), (None, Some("no network")));
        assert!(!lookup.is_newer && lookup.checked_at.is_some());
    }
}
