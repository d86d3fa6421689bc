//! The state of a project's environment: ready, being built, or failed.

use leoflow_python::Interpreter;
use leoflow_python::environments::Declared;
use std::path::PathBuf;

/// A Python with the packages that a project requires.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Hash of its lock; `None` for the plain interpreter.
    pub hash: Option<String>,
    pub interpreter: Interpreter,
}

/// The result of requesting an environment.
#[derive(Debug)]
pub enum Availability {
    Ready(Environment),
    /// The environment is being built, its Python is being downloaded, or the datastore does not answer.
    /// `Environments::changed` notifies when to request it again.
    Waits,
    /// Holds the reason, for the user.
    Failed(String),
}

/// A required environment, as the API shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RequiredEnvironment {
    pub declared: Declared,
    pub python: String,
    /// DAG files that require it.
    pub files: Vec<PathBuf>,
    pub state: &'static str,
    pub detail: Option<String>,
    pub hash: Option<String>,
}
