//! What long work tells about itself. Features report; only the command line prints, and a
//! detached start sends these over a pipe to the terminal that asked for it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Work begins; the line stays until the next event.
    Started(String),
    /// Work that can be measured, in bytes. `total` is 0 when unknown.
    Bytes {
        what: String,
        done: u64,
        total: u64,
    },
    /// Work is done; a line that remains.
    Finished(String),
    /// Said once, remains.
    Note(String),
    Warning(String),
    /// Only shown with `--verbose`.
    Detail(String),
}

/// Where progress goes.
pub trait Reporter: Sync {
    fn report(&self, progress: Progress);
}

impl<F: Fn(Progress) + Sync> Reporter for F {
    fn report(&self, progress: Progress) {
        self(progress);
    }
}
