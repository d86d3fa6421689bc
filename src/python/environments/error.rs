//! Why a project's environment or its Python cannot be provided. Each text is a message for the user.

use super::declaration::error::{DeclarationError, LineError};
use super::pins::PinError;
use super::uv::UvError;
use crate::NoPython;
use std::io;
use std::path::{Path, PathBuf};

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
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("environments are being cleaned up: {0}")]
    CleanUp(io::Error),
    #[error("an environment is being built; try again when `leoflow {home_option}env list` shows it: {source}")]
    Build { home_option: String, source: io::Error },
    #[error("failed to resolve its Python: {0}")]
    UnknownPython(io::Error),
    #[error("the environment's Python failed to run: {0}")]
    NotRunnable(io::Error),
    #[error("the environment's Python does not work: {0}")]
    Broken(String),
    #[error("another Python is being installed or removed: {0}")]
    PythonInstall(io::Error),
    #[error("uv installed {0}, but it does not run here")]
    UnusablePython(String),
    #[error("{message}.\nDownloading one failed: {source}\nInstall one, or change the project's Python version.")]
    MissingPython { message: String, source: Box<EnvironmentError> },
    #[error(transparent)]
    NoPython(#[from] NoPython),
}

impl EnvironmentError {
    pub fn write(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Write { path: path.clone(), source }
    }
}

/// For callers that only show the reason.
impl From<EnvironmentError> for String {
    fn from(error: EnvironmentError) -> Self {
        error.to_string()
    }
}
