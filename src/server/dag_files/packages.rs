//! Packages that DAG files import: ours (jinja2 and pendulum), which come with a release or over the network, and the
//! user's, which may be installed at any time.

use crate::environments::Environments;
use leoflow_base::home::Home;
use leoflow_base::sys::blocking;
use leoflow_python::{PackageSource, Stamp, install_packages, installed_packages};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::warn;

/// Interval for checking that our packages exist.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Interval for checking the user's packages while an import fails.
const USER_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// First delay before a failed download is retried; grows fourfold up to `MAX_FETCH_RETRY`.
const FETCH_RETRY: Duration = Duration::from_secs(300);
const MAX_FETCH_RETRY: Duration = Duration::from_secs(24 * 3600);

pub enum Change {
    /// Our packages were installed.
    Bundled,
    /// Packages were installed into the user's Python or removed from it, or a Python was found.
    UserPackages,
}

/// Site folders of the user's packages with their stamps; `None` while unknown.
type UserPackages = Option<Vec<(PathBuf, Option<Stamp>)>>;

pub struct Packages {
    home: Home,
    environments: Arc<Environments>,
    next_check: Instant,
    /// The download of our packages and the check of the user's packages, while they run. Kept here, so that they
    /// continue when the call of `changed` is cancelled.
    fetching: Option<Pin<Box<dyn Future<Output = ()>>>>,
    reading: Option<Pin<Box<dyn Future<Output = UserPackages>>>>,
    user_packages: UserPackages,
    /// True when the last check after a failed import found no Python.
    was_unknown: bool,
}

impl Packages {
    pub fn new(home: Home, environments: Arc<Environments>) -> Self {
        let next_check = Instant::now() + CHECK_INTERVAL;
        let mut packages = Self {
            home,
            environments,
            next_check,
            fetching: None,
            reading: None,
            user_packages: None,
            was_unknown: false,
        };
        packages.fetch_missing();
        packages
    }

    /// Completes at the next change. `failed_since` is the start of the oldest failed import, if any. Cancel-safe.
    pub async fn changed(&mut self, failed_since: Option<SystemTime>) -> Change {
        match failed_since {
            None => (self.user_packages, self.reading, self.was_unknown) = (None, None, false),
            Some(_) if self.user_packages.is_none() && !self.was_unknown => self.read_user_packages(),
            Some(_) => {}
        }
        loop {
            if failed_since.is_some() {
                self.next_check = self.next_check.min(Instant::now() + USER_CHECK_INTERVAL);
            }
            tokio::select! {
                () = await_or_pend(&mut self.fetching) => {
                    self.fetching = None;
                    return Change::Bundled;
                }
                now = await_or_pend(&mut self.reading) => {
                    self.reading = None;
                    if self.detect_change(now, failed_since) {
                        return Change::UserPackages;
                    }
                }
                () = tokio::time::sleep_until(self.next_check) => {
                    self.next_check = Instant::now() + CHECK_INTERVAL;
                    self.fetch_missing();
                    if failed_since.is_some() {
                        self.read_user_packages();
                    }
                }
            }
        }
    }

    /// Returns true when the user's packages changed since the last check, or since the failed import.
    fn detect_change(&mut self, current: UserPackages, failed_since: Option<SystemTime>) -> bool {
        let Some(current) = current else {
            self.was_unknown = true;
            return false;
        };
        let is_newer =
            |stamp: &Option<Stamp>| stamp.zip(failed_since).is_some_and(|(stamp, since)| stamp.is_since(since));
        let changed = match &self.user_packages {
            Some(previous) => *previous != current,
            // A Python was found; or something was installed after the parse but before the folders were first read.
            None => self.was_unknown || current.iter().any(|(_, stamp)| is_newer(stamp)),
        };
        (self.user_packages, self.was_unknown) = (Some(current), false);
        changed
    }

    /// Starts downloading our packages if they are missing.
    fn fetch_missing(&mut self) {
        let (home, source) = (self.home.clone(), PackageSource::from_environment());
        if self.fetching.is_some() || source == PackageSource::None || installed_packages(&home).is_some() {
            return;
        }
        self.fetching = Some(Box::pin(async move {
            let mut pause = FETCH_RETRY;
            loop {
                let (home, source) = (home.clone(), source.clone());
                let result =
                    blocking::run(move || install_packages(&home, &source).map_err(|error| error.to_string())).await;
                let Err(reason) = result.map_err(|error| error.to_string()).and_then(|result| result) else { return };
                warn!("failed to get jinja2 and pendulum for DAGs: {reason}");
                tokio::time::sleep(pause).await;
                pause = (pause * 4).min(MAX_FETCH_RETRY);
            }
        }));
    }

    /// Starts reading the stamps of the user's packages.
    fn read_user_packages(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let environments = self.environments.clone();
        let known_folders: Option<Vec<PathBuf>> = self
            .user_packages
            .as_ref()
            .map(|user_packages| user_packages.iter().map(|(folder, _)| folder.clone()).collect());
        self.reading = Some(Box::pin(async move {
            let interpreter = environments.interpreter.get().await.ok()?;
            let stamp_folders = move || {
                let folders = known_folders.unwrap_or_else(|| interpreter.site_folders());
                folders.into_iter().map(|folder| (folder.clone(), Stamp::of_path(&folder))).collect::<Vec<_>>()
            };
            blocking::run(stamp_folders).await.ok().filter(|user_packages| !user_packages.is_empty())
        }));
    }
}

/// Awaits the future; pends for ever when there is none.
async fn await_or_pend<T>(future: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
