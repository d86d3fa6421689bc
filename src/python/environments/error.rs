//! Why a project's environment or its Python cannot be provided. Each text is a message for the user.

use super::declaration::error::{DeclarationError, LineError};
use super::pins::PinError;
use super::uv::UvError;
use crate::NoPython;
use crate::io_error::IoError;

#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error(transparent)]
    Declaration(#[from] DeclarationError),
    /// A variable that is not set.
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("{package} {version} would be installed. {advice}")]
    NewerAirflow { package: String, version: String, advice: String },
    #[error(transparent)]
    Uv(#[from] UvError),
    /// uv's message about requirements, with advice for the user.
    #[error("{0}")]
    Unresolvable(String),
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("the environment's Python does not work: {0}")]
    Broken(String),
    #[error("uv installed {0}, but it does not run here")]
    UnusablePython(String),
    #[error("{message}.\nDownloading one failed: {source}\nInstall one, or change the project's Python version.")]
    MissingPython { message: String, source: Box<EnvironmentError> },
    #[error(transparent)]
    NoPython(#[from] NoPython),
}

/// For callers that only show the reason.
impl From<EnvironmentError> for String {
    fn from(error: EnvironmentError) -> Self {
        error.to_string()
    }
}
