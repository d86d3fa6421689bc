//! What a starting instance tells: to the terminal it was started in, or as JSON lines over a pipe
//! to the `lite start` that waits for it.

use super::printer::Printer;
use crate::error::Error;
use crate::home::progress::{Progress, Reporter};
use serde::{Deserialize, Serialize};
use std::io::Write;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Progress(Progress),
    Ready(Ready),
    Failed(Error),
    /// What a worker has to tell at its end; `error` when it did not come to what was asked for.
    Done {
        result: serde_json::Value,
        error: Option<Error>,
    },
}

/// Everything that somebody who has just started it wants to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    pub url: String,
    pub admin_email: String,
    /// Only when nobody has seen it yet.
    pub admin_password: Option<String>,
    pub workspace: String,
    pub seconds: f64,
    /// Something the shell lacks to find `leoflow`.
    pub path_hint: Option<String>,
}

/// Where reports go.
pub trait Sink: Reporter {
    /// Whether it could be said.
    fn ready(&self, ready: &Ready) -> bool;
    /// Whether a person reads it right here.
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
            self.line(format!("To have `leoflow` on your PATH:  {hint}"));
        }
        self.detail(format!("ready after {:.2} s", ready.seconds));
        !self.reader_left()
    }

    fn is_terminal(&self) -> bool {
        true
    }
}

/// Writes to stdout, which is the pipe.
pub struct PipeSink;

impl PipeSink {
    /// Whether it could be said.
    pub fn send(&self, report: &Report) -> bool {
        let Ok(text) = serde_json::to_string(report) else { return false };
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_ok()
    }
}

impl Reporter for PipeSink {
    fn report(&self, progress: Progress) {
        // Nobody at the other end is no reason to stop.
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
