//! Why a project's environment or its Python cannot be provided. Each text is a message for the user.

use super::declaration::error::{DeclarationError, LineError};
use super::pins::PinError;
use crate::NoPython;
use crate::io_error::IoError;
use crate::wheels::WheelError;
use std::path::PathBuf;

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

/// Why uv cannot be run or has failed; each text is a message for the user.
#[derive(Debug, thiserror::Error)]
pub enum UvError {
    /// No versions meet all requirements. uv's own message.
    #[error("{0}")]
    NoSolution(String),
    /// uv's message about any other failure, such as an index that does not answer.
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Io(#[from] IoError),
    /// A settings file of the user that is not valid.
    #[error("{}: {source}", path.display())]
    Settings { path: PathBuf, source: toml::de::Error },
    #[error(
        "failed to install uv, which installs a project's dependencies: {0}\nInstall it (https://docs.astral.sh/uv) so \
         that it is on PATH, or set LEOFLOW_UV to its path."
    )]
    Install(#[from] WheelError),
    #[error("{} is gone", .0.display())]
    Gone(PathBuf),
}
