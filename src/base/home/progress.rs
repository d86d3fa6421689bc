//! Progress events of long operations. Features report them; only the command line prints them, and a detached start
//! sends them over a pipe to its terminal.

use serde::{Deserialize, Serialize};

/// A progress event; the texts are for users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Work starts; the line is shown until the next event.
    Started(String),
    /// Measurable work, in bytes. `total` is 0 when unknown.
    Bytes {
        /// The title of the work.
        what: String,
        done: u64,
        total: u64,
    },
    /// Work is done; the line remains.
    Finished(String),
    /// A message that remains.
    Note(String),
    Warning(String),
    /// Only shown with `--verbose`.
    Detail(String),
}

/// Receives progress events.
pub trait Reporter: Sync {
    fn report(&self, progress: Progress);

    /// Reports a message that remains.
    fn note(&self, text: String) {
        self.report(Progress::Note(text));
    }

    /// Reports a warning.
    fn warn(&self, text: String) {
        self.report(Progress::Warning(text));
    }
}

impl<F: Fn(Progress) + Sync> Reporter for F {
    fn report(&self, progress: Progress) {
        self(progress);
    }
}
