//! Why a child that was started for a DAG file gave nothing.

use std::fmt;

/// The reasons are for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoResult {
    /// The file or what is around it has to change.
    Lasting(String),
    /// Time, memory or the system's refusal: it may go well the next time, with nothing changed.
    Passing(String),
}

impl NoResult {
    pub fn reason(&self) -> &str {
        match self {
            Self::Lasting(reason) | Self::Passing(reason) => reason,
        }
    }

    /// The same with more to say.
    pub fn followed_by(self, more: &str) -> Self {
        match self {
            Self::Lasting(reason) => Self::Lasting(reason + more),
            Self::Passing(reason) => Self::Passing(reason + more),
        }
    }
}

impl fmt::Display for NoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl From<NoResult> for String {
    fn from(none: NoResult) -> Self {
        match none {
            NoResult::Lasting(reason) | NoResult::Passing(reason) => reason,
        }
    }
}
