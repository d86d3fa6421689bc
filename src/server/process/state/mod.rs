//! State shared by all requests, in parts. A function below the handlers takes the part it uses, such as [`Auth`].

mod auth;
mod callback_tokens;
mod dag_files;
mod phase;
mod release;

pub use auth::{Auth, Secrets};
pub use callback_tokens::CallbackTokens;
pub use dag_files::DagFiles;
pub use phase::Phase;
pub use release::Release;

use super::change_feed::Changes;
use super::database::Database;
use crate::environments::Environments;
use leoflow_base::auth::cipher::Cipher;
use leoflow_base::home::Home;
use leoflow_python::SharedInterpreter;
use std::path::PathBuf;
use std::sync::Arc;

pub struct AppState {
    pub home: Home,
    pub database: Arc<Database>,
    pub cipher: Cipher,
    pub changes: Arc<Changes>,
    pub auth: Auth,
    pub callback_tokens: CallbackTokens,
    pub dag_files: DagFiles,
    pub phase: Phase,
    pub release: Release,
}

impl AppState {
    pub fn new(
        home: Home,
        phase: Phase,
        release: Release,
        database: Database,
        (cipher, secrets): (Cipher, Secrets),
        python: Option<PathBuf>,
    ) -> Self {
        let (database, changes) = (Arc::new(database), Arc::new(Changes::new()));
        let interpreter = Arc::new(SharedInterpreter::new(home.clone(), python));
        let environments = Environments::new(home.clone(), interpreter.clone(), database.clone(), changes.clone());
        Self {
            auth: Auth::new(phase.port, secrets),
            callback_tokens: CallbackTokens::default(),
            dag_files: DagFiles::new(interpreter, environments),
            phase,
            release,
            home,
            database,
            cipher,
            changes,
        }
    }

    /// Returns the socket at which processes started by this server can reach it now.
    pub fn own_socket(&self) -> PathBuf {
        self.phase.own_socket(&self.home)
    }
}
