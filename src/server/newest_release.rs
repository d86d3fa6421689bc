//! The newest release of this instance's channel, looked up at most once an hour and only when somebody asks; who asks never
//! waits for the network.

use super::own_program::ask;
use crate::home::Home;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long what was found is told.
const FRESH: Duration = Duration::from_secs(60 * 60);
/// The same where nothing could be found.
const AGAIN: Duration = Duration::from_secs(60);

/// What was found the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// `None`: it has not been looked up yet, or cannot be.
    pub version: Option<String>,
    pub is_newer: bool,
    pub looked_at: Option<Timestamp>,
    /// Why it cannot be looked up.
    pub problem: Option<String>,
}

#[derive(Default)]
struct State {
    found: Found,
    /// Where it was looked for, and as what.
    settings: String,
    at: Option<Instant>,
    is_looking: bool,
}

#[derive(Default)]
pub struct NewestRelease(Mutex<State>);

impl NewestRelease {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, with these settings. Where that is old, nothing is, and it is looked up beside.
    pub fn known(self: &Arc<Self>, home: &Home, settings: String) -> Found {
        let mut state = self.state();
        let lasts = if state.found.problem.is_some() { AGAIN } else { FRESH };
        let is_known = state.settings == settings && state.at.is_some_and(|at| at.elapsed() < lasts);
        if !is_known && !state.is_looking {
            state.is_looking = true;
            let (this, home) = (self.clone(), home.clone());
            tokio::spawn(async move {
                let found = read(ask(&home, &["upgrade", "--dry-run"]).await);
                *this.state() = State { found, settings, at: Some(Instant::now()), is_looking: false };
            });
        }
        if is_known { state.found.clone() } else { Found::default() }
    }
}

/// Of what the command says: nothing to do, or a plan.
fn read(said: Result<Value, String>) -> Found {
    let looked_at = Some(Timestamp::now());
    match said {
        Ok(plan) => {
            let is_newer = plan["status"] != "up_to_date";
            let version = if is_newer { &plan["to"] } else { &plan["version"] };
            Found { version: version.as_str().map(str::to_owned), is_newer, looked_at, problem: None }
        }
        Err(problem) => Found { looked_at, problem: Some(problem), ..Found::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plan_is_for_a_newer_one() {
        let found = read(Ok(json!({"from": "0.1.0", "to": "0.2.0"})));
        assert_eq!((found.version.as_deref(), found.is_newer), (Some("0.2.0"), true));
        let found = read(Ok(json!({"status": "up_to_date", "version": "0.2.0"})));
        assert_eq!((found.version.as_deref(), found.is_newer), (Some("0.2.0"), false));
        let found = read(Err("no network".to_owned()));
        assert_eq!((found.version, found.problem.as_deref()), (None, Some("no network")));
        assert!(!found.is_newer && found.looked_at.is_some());
    }
}
