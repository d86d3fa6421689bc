//! What the handlers share. The floors below take the part they use, such as [`Core`] or [`Auth`].

use crate::dag_code::DagCode;
use crate::dag_files::DagFiles;
use crate::environments::Environments;
use crate::login::credentials::{Auth, Secrets};
use crate::release::Release;
use crate::state::Core;
use axum::extract::{FromRef, State};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone)]
pub struct AppState {
    pub core: Arc<Core>,
    pub auth: Arc<Auth>,
    pub release: Release,
    pub environments: Arc<Environments>,
    pub dag_code: Arc<DagCode>,
    pub dag_files: Arc<DagFiles>,
}

impl AppState {
    /// `python` is the interpreter that the user configured.
    pub fn new(core: Arc<Core>, release: Release, secrets: Secrets, python: Option<PathBuf>) -> Self {
        let environments = Arc::new(Environments::new(core.clone(), python));
        Self {
            auth: Arc::new(Auth::new(core.clone(), secrets)),
            dag_code: Arc::new(DagCode::new(core.clone(), environments.clone())),
            dag_files: Arc::default(),
            environments,
            release,
            core,
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
