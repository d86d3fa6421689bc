//! Why a child that was started for a DAG file has no result.

use std::fmt;

/// The reason, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoResult {
    /// Permanent: the file or its surroundings must change.
    Permanent(String),
    /// Transient (time, memory or a system error): it may succeed the next time without a change.
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
