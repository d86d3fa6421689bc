//! Why a child that was started for a DAG file, or reading the settings of the file, has no result.

/// The reason, a message for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoResult {
    /// A retry fails too, until the file, its settings or its environment change.
    #[error("{0}")]
    Permanent(String),
    /// A limit on memory, or a system error: a retry may succeed without a change.
    #[error("{0}")]
    Transient(String),
    /// The child reached its time limit; a retry may succeed without a change.
    #[error("{0}")]
    TimedOut(String),
}

impl NoResult {
    pub fn reason(&self) -> &str {
        match self {
            Self::Permanent(reason) | Self::Transient(reason) | Self::TimedOut(reason) => reason,
        }
    }
}
