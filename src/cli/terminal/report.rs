//! Reports of a starting instance or a worker: printed to its terminal, or sent as JSON lines over a pipe to the
//! command that waits for them.

use super::printer::Printer;
use crate::error::Error;
use leoflow_base::home::progress::{Progress, Reporter};
use serde::{Deserialize, Serialize};
use std::io::Write;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Progress(Progress),
    Ready(Ready),
    Failed(Error),
    /// The result of a worker that ended; `error` is set when the worker did not do what was requested.
    Done {
        result: serde_json::Value,
        error: Option<Error>,
    },
}

/// The facts that a user needs right after the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    pub url: String,
    pub admin_email: String,
    /// The generated password, until it was shown once.
    pub admin_password: Option<String>,
    pub workspace: String,
    /// Duration of the start.
    pub seconds: f64,
    /// The shell command that puts `leoflow` on the PATH; `None` when none is needed.
    pub path_hint: Option<String>,
}

/// A receiver of reports.
pub trait Sink: Reporter {
    /// Returns true when the report was written.
    fn ready(&self, ready: &Ready) -> bool;
    /// True when the reports are printed for a person.
    fn is_terminal(&self) -> bool;
}

impl Sink for Printer {
    fn ready(&self, ready: &Ready) -> bool {
        self.line(format!("Leoflow is running at {}", self.paint("1", &ready.url)));
        self.line(format!("  workspace  {}", ready.workspace));
        if let Some(password) = &ready.admin_password {
            self.line(format!("  e-mail     {}", ready.admin_email));
            self.line(format!("  password   {}   (shown only now)", self.paint("1", password)));
        }
        if let Some(hint) = &ready.path_hint {
            self.line(format!("To put `leoflow` on your PATH:  {hint}"));
        }
        self.detail(format!("ready after {:.2} s", ready.seconds));
        !self.stdout_closed()
    }

    fn is_terminal(&self) -> bool {
        true
    }
}

/// Writes reports as JSON lines to stdout, which is a pipe.
pub struct PipeSink;

impl PipeSink {
    /// Returns true when the report was written.
    pub fn send(&self, report: &Report) -> bool {
        let Ok(text) = serde_json::to_string(report) else { return false };
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_ok()
    }
}

impl Reporter for PipeSink {
    fn report(&self, progress: Progress) {
        // The start or the worker continues even when the reader is gone.
        self.send(&Report::Progress(progress));
    }
}

impl Sink for PipeSink {
    fn ready(&self, ready: &Ready) -> bool {
        self.send(&Report::Ready(ready.clone()))
    }

    fn is_terminal(&self) -> bool {
        false
    }
}
