//! Why a child that was started for a DAG file, or reading the settings of the file, has no result.

use std::fmt;

/// The reason, a message for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoResult {
    /// A retry fails too, until the file, its settings or its environment change.
    Permanent(String),
    /// A limit on time or memory, or a system error: a retry may succeed without a change.
    Transient(String),
}

impl NoResult {
    pub fn reason(&self) -> &str {
        match self {
            Self::Permanent(reason) | Self::Transient(reason) => reason,
        }
    }

    /// Appends to the reason.
    pub(crate) fn followed_by(self, text: &str) -> Self {
        match self {
            Self::Permanent(reason) => Self::Permanent(reason + text),
            Self::Transient(reason) => Self::Transient(reason + text),
        }
    }
}

impl fmt::Display for NoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl From<NoResult> for String {
    fn from(no_result: NoResult) -> Self {
        match no_result {
            NoResult::Permanent(reason) | NoResult::Transient(reason) => reason,
        }
    }
}
