//! Packages that DAG files import: ours, which come with a release or over the network, and the user's own, which
//! somebody may install at any time.

use super::super::state::AppState;
use crate::python::{PackageSource, Stamp, install_packages, installed_packages};
use crate::sys::blocking;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::warn;

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

/// Where packages of the user's go, with how each was; `None` while nobody can say.
type Theirs = Option<Vec<(PathBuf, Option<Stamp>)>>;

pub struct Packages {
    state: Arc<AppState>,
    next_look: Instant,
    /// Both go on when whoever waits for them is cut short.
    fetching: Option<Pin<Box<dyn Future<Output = ()>>>>,
    asking: Option<Pin<Box<dyn Future<Output = Theirs>>>>,
    theirs: Theirs,
    /// Since something failed, nobody could say.
    was_unknown: bool,
}

impl Packages {
    pub fn new(state: Arc<AppState>) -> Self {
        let next_look = Instant::now() + LOOK;
        let mut packages = Self { state, next_look, fetching: None, asking: None, theirs: None, was_unknown: false };
        packages.fetch_missing();
        packages
    }

    /// Completes at the next change; `failed_since` is since when something waits for one of the user's, if
    /// anything does. Cut short, it has lost nothing.
    pub async fn changed(&mut self, failed_since: Option<SystemTime>) -> Change {
        match failed_since {
            None => (self.theirs, self.asking, self.was_unknown) = (None, None, false),
            Some(_) if self.theirs.is_none() && !self.was_unknown => self.ask(),
            Some(_) => {}
        }
        loop {
            if failed_since.is_some() {
                self.next_look = self.next_look.min(Instant::now() + LOOK_FOR_THEIRS);
            }
            tokio::select! {
                () = or_never(&mut self.fetching) => {
                    self.fetching = None;
                    return Change::Ours;
                }
                now = or_never(&mut self.asking) => {
                    self.asking = None;
                    if self.have_changed(now, failed_since) {
                        return Change::Theirs;
                    }
                }
                () = tokio::time::sleep_until(self.next_look) => {
                    self.next_look = Instant::now() + LOOK;
                    self.fetch_missing();
                    if failed_since.is_some() {
                        self.ask();
                    }
                }
            }
        }
    }

    fn have_changed(&mut self, now: Theirs, failed_since: Option<SystemTime>) -> bool {
        let Some(now) = now else {
            self.was_unknown = true;
            return false;
        };
        let is_late =
            |stamp: &Option<Stamp>| stamp.zip(failed_since).is_some_and(|(stamp, since)| stamp.is_since(since));
        let have_changed = match &self.theirs {
            Some(before) => *before != now,
            // There is a Python now; or something was installed between a parse and the first look at the folders,
            // which came too late for the one.
            None => self.was_unknown || now.iter().any(|(_, stamp)| is_late(stamp)),
        };
        (self.theirs, self.was_unknown) = (Some(now), false);
        have_changed
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
                let done = blocking::run(move || install_packages(&home, &source)).await;
                let Err(reason) = done.map_err(|error| error.to_string()).and_then(|done| done) else { return };
                warn!("jinja2 and pendulum for DAGs could not be had: {reason}");
                tokio::time::sleep(pause).await;
                pause = (pause * 4).min(FETCH_LONGEST);
            }
        }));
    }

    fn ask(&mut self) {
        if self.asking.is_some() {
            return;
        }
        let state = self.state.clone();
        let known: Option<Vec<PathBuf>> =
            self.theirs.as_ref().map(|theirs| theirs.iter().map(|(folder, _)| folder.clone()).collect());
        self.asking = Some(Box::pin(async move {
            let interpreter = state.interpreter.get().await.ok()?;
            let look = move || {
                let folders = known.unwrap_or_else(|| interpreter.site_folders());
                folders.into_iter().map(|folder| (folder.clone(), Stamp::of_path(&folder))).collect::<Vec<_>>()
            };
            blocking::run(look).await.ok().filter(|theirs| !theirs.is_empty())
        }));
    }
}

async fn or_never<T>(future: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
