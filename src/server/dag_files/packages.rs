//! Packages that DAG files import: ours, which come with a release or over the network, and the user's own, which
//! somebody may install at any time.

use super::super::state::AppState;
use crate::protocol::log;
use crate::python::{PackageSource, Stamp, install_packages, installed_packages};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How often it is looked whether ours are still there.
const LOOK: Duration = Duration::from_secs(60);
/// How often the user's are looked at, while something cannot be imported.
const LOOK_FOR_THEIRS: Duration = Duration::from_secs(2);
/// Until packages that could not be had are asked for again; then longer and longer.
const FETCH_AGAIN: Duration = Duration::from_secs(300);
const FETCH_LONGEST: Duration = Duration::from_secs(24 * 3600);

pub enum Change {
    /// Ours have come that were not there.
    Ours,
    /// Something was installed into that Python, or removed from it.
    Theirs,
}

pub struct Packages {
    state: Arc<AppState>,
    fetching: Option<Pin<Box<dyn Future<Output = ()>>>>,
    next_look: Instant,
    /// Where the user's are installed, as it was at the last look; asked for when it is first needed.
    theirs: Option<Vec<(PathBuf, Option<Stamp>)>>,
}

impl Packages {
    pub fn new(state: Arc<AppState>) -> Self {
        let mut packages = Self { state, fetching: None, next_look: Instant::now() + LOOK, theirs: None };
        packages.fetch_missing();
        packages
    }

    /// Completes at the next change; `failed_since` is since when something waits for one of the user's, if
    /// anything does. Cut short, it has lost nothing.
    pub async fn changed(&mut self, failed_since: Option<SystemTime>) -> Change {
        match failed_since {
            None => self.theirs = None,
            Some(since) if self.theirs.is_none() => {
                self.theirs_have_changed().await;
                // What was installed between a parse and this look at the folders came too late for the one.
                if self.theirs.iter().flatten().any(|(_, stamp)| stamp.is_some_and(|stamp| stamp.is_since(since))) {
                    return Change::Theirs;
                }
            }
            Some(_) => {}
        }
        loop {
            if failed_since.is_some() {
                self.next_look = self.next_look.min(Instant::now() + LOOK_FOR_THEIRS);
            }
            let fetched = match &mut self.fetching {
                Some(fetching) => tokio::time::timeout_at(self.next_look, fetching).await.is_ok(),
                None => {
                    tokio::time::sleep_until(self.next_look).await;
                    false
                }
            };
            if fetched {
                self.fetching = None;
                return Change::Ours;
            }
            self.next_look = Instant::now() + LOOK;
            self.fetch_missing();
            if failed_since.is_some() && self.theirs_have_changed().await {
                return Change::Theirs;
            }
        }
    }

    fn fetch_missing(&mut self) {
        let (home, source) = (self.state.home.clone(), PackageSource::from_environment());
        if self.fetching.is_some() || source == PackageSource::None || installed_packages(&home).is_some() {
            return;
        }
        self.fetching = Some(Box::pin(async move {
            let mut pause = FETCH_AGAIN;
            loop {
                let (home, source) = (home.clone(), source.clone());
                let done = tokio::task::spawn_blocking(move || install_packages(&home, &source)).await;
                let Err(reason) = done.map_err(|error| error.to_string()).and_then(|done| done) else { return };
                log::say(format!("jinja2 and pendulum for DAGs could not be had: {reason}"));
                tokio::time::sleep(pause).await;
                pause = (pause * 4).min(FETCH_LONGEST);
            }
        }));
    }

    async fn theirs_have_changed(&mut self) -> bool {
        let Ok(interpreter) = self.state.interpreter.get().await else { return false };
        let before = self.theirs.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let folders: Vec<PathBuf> = match before {
                Some(before) => before.into_iter().map(|(folder, _)| folder).collect(),
                None => interpreter.site_folders(),
            };
            folders
                .into_iter()
                .map(|folder| (Stamp::of_path(&folder), folder))
                .map(|(stamp, folder)| (folder, stamp))
                .collect::<Vec<_>>()
        });
        let Ok(now) = looked.await else { return false };
        let has_changed = self.theirs.as_ref().is_some_and(|before| *before != now);
        self.theirs = Some(now);
        has_changed
    }
}
