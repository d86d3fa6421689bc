//! What the handlers share. The floors below take the part they use, such as [`Core`] or [`Auth`].

use crate::dag_code::DagCode;
use crate::dag_files::DagFiles;
use crate::environments::Environments;
use crate::history::Cleaner;
use crate::login::credentials::{Auth, Secrets};
use crate::release::Release;
use crate::state::Core;
use axum::extract::{FromRef, State};
use leoflow_python::SettingsUnread;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two searches for settings without effect, which read the settings of every project.
const SETTINGS_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct AppState {
    pub core: Arc<Core>,
    pub auth: Arc<Auth>,
    pub release: Release,
    pub environments: Arc<Environments>,
    pub dag_code: Arc<DagCode>,
    pub dag_files: Arc<DagFiles>,
    pub history: Arc<Cleaner>,
    pub last_settings: Arc<LastSettings>,
}

impl AppState {
    /// `python` is the interpreter that the user configured.
    pub fn new(core: Arc<Core>, release: Release, secrets: Secrets, python: Option<PathBuf>) -> Self {
        let environments = Arc::new(Environments::new(core.clone(), python));
        Self {
            auth: Arc::new(Auth::new(core.clone(), secrets)),
            dag_code: Arc::new(DagCode::new(core.clone(), environments.clone())),
            dag_files: Arc::default(),
            history: Arc::default(),
            last_settings: Arc::default(),
            environments,
            release,
            core,
        }
    }
}

/// The number of settings of Airflow without effect.
pub type SettingsCount = Result<usize, SettingsUnread>;

/// The time and the result of the last search for settings of Airflow without effect.
#[derive(Default)]
pub struct LastSettings(Mutex<Option<(Instant, SettingsCount)>>);

impl LastSettings {
    /// Returns the last result, or searches if that is too old. Concurrent requests wait for one search.
    pub fn count(&self, search: impl FnOnce() -> SettingsCount) -> SettingsCount {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((searched_at, count)) if searched_at.elapsed() < SETTINGS_INTERVAL => count,
            _ => last.insert((Instant::now(), search())).1,
        }
    }
}

/// The extractor of a handler that needs more than a part.
pub type Shared = State<AppState>;

impl FromRef<AppState> for Arc<Core> {
    fn from_ref(state: &AppState) -> Self {
        state.core.clone()
    }
}

impl FromRef<AppState> for Arc<Auth> {
    fn from_ref(state: &AppState) -> Self {
        state.auth.clone()
    }
}
