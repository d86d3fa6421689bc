//! Why an environment cannot be provided, or code in one gives no answer. Each text is a message for users.

use crate::state::database::DatastoreError;
use leoflow_engine::store::StoreError;
use leoflow_python::environments::EnvironmentError;
use leoflow_python::{AnswerError, NoPython, NoResult};
use tokio::task::JoinError;

#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    #[error(transparent)]
    NoPython(#[from] NoPython),
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Panic(#[from] JoinError),
    #[error("no workspace is configured")]
    NoWorkspace,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    NoResult(#[from] NoResult),
    #[error(transparent)]
    NoAnswer(#[from] AnswerError),
    /// An answer in another form than the question's.
    #[error(transparent)]
    BadAnswer(#[from] serde_json::Error),
}

impl CodeError {
    /// True if the code may have run, and may have had effects.
    pub fn may_have_run(&self) -> bool {
        matches!(self, Self::NoResult(NoResult::TimedOut(_)) | Self::NoAnswer(_) | Self::BadAnswer(_))
    }
}
