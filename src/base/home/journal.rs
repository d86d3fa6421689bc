//! `run/journal.json`: the running long operation and its current step, fsynced before each step acts. Every start
//! reads it first and finishes or undoes an unfinished operation.

use super::Home;
use crate::sys::fs::files;
use crate::sys::process::ProcessId;
use crate::sys::{checkpoint, clock};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    Setup,
    Restore,
    RestoreUndo,
    Purge,
    Upgrade,
    MoveDatastore,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// The content of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub operation: Operation,
    /// RFC 3339.
    pub started_at: String,
    /// The names of all steps, in order.
    pub steps: Vec<String>,
    /// Index of the current step, written before it acts; `steps.len()` after the last one.
    pub at: usize,
    /// The data that the operation's steps need.
    #[serde(default)]
    pub plan: serde_json::Value,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot write or remove {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} cannot be read as an operation that this version knows: {detail}")]
    Unknown { path: PathBuf, detail: String },
}

/// Size limit of the file; a plan is a few names and paths.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// Reads the operation that is not finished: it runs, or an earlier process was interrupted. `None` without a journal.
pub fn unfinished(home: &Home) -> Result<Option<Entry>, JournalError> {
    let path = home.journal();
    files::read_json(&path, SIZE_LIMIT).map_err(|error| JournalError::Unknown { path, detail: error.to_string() })
}

/// An upgrade or rollback that runs or was interrupted, as other processes see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeUnderWay {
    /// The target release.
    pub to: String,
    /// Name of the current step; `end` after the last one.
    pub step: String,
    /// Start time, RFC 3339.
    pub since: String,
    /// True once a step has changed anything.
    pub has_changed: bool,
    /// The process that performs the change; `None` when it was interrupted.
    pub by: Option<ProcessId>,
}

/// [`ChangeUnderWay::step`] after the last step.
const END: &str = "end";

/// The first step of an upgrade or rollback that changes anything.
const FIRST_CHANGE: &str = "let-go";

/// The upgrade or rollback that runs or was interrupted. An unreadable journal counts as none; other callers report it.
pub fn change_under_way(home: &Home) -> Option<ChangeUnderWay> {
    let entry = unfinished(home).ok().flatten().filter(|entry| entry.operation == Operation::Upgrade)?;
    let first_change = entry.steps.iter().position(|step| step == FIRST_CHANGE);
    let holder = super::lock::operation_holder(home);
    let is_change = |command: &str| command.starts_with("leoflow upgrade") || command.starts_with("leoflow rollback");
    Some(ChangeUnderWay {
        to: entry.plan["plan"]["to"].as_str().unwrap_or("another release").to_owned(),
        step: entry.steps.get(entry.at).cloned().unwrap_or_else(|| END.to_owned()),
        has_changed: first_change.is_some_and(|first_change| entry.at >= first_change),
        since: entry.started_at,
        by: holder.filter(|holder| is_change(&holder.command)).map(|holder| holder.process),
    })
}

impl std::fmt::Display for ChangeUnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { to, step, since, by, .. } = self;
        let place = if step == END { "after its last step".to_owned() } else { format!("at step {step}") };
        match by {
            Some(process) => {
                write!(f, "a change to {to} has been running since {since}: {place}, pid {}", process.pid)
            }
            None => {
                write!(
                    f,
                    "a change to {to} was interrupted {place}; the supervisor or the next start finishes or undoes it"
                )
            }
        }
    }
}

/// Removes the journal of an operation with nothing left to do.
pub fn clear(home: &Home) -> Result<(), JournalError> {
    remove(home.journal())
}

fn remove(path: PathBuf) -> Result<(), JournalError> {
    let removed = files::remove_any(&path).and_then(|()| files::sync_parent(&path));
    removed.map_err(|source| JournalError::Io { path, source })
}

/// The journal of a running operation.
pub struct Journal {
    path: PathBuf,
    entry: Entry,
}

impl Journal {
    /// Starts a journal.
    pub fn begin(home: &Home, operation: Operation, steps: Vec<String>) -> Result<Self, JournalError> {
        Self::begin_with(home, operation, steps, serde_json::Value::Null)
    }

    /// Starts a journal with the data that another process needs to resume the steps.
    pub fn begin_with(
        home: &Home,
        operation: Operation,
        steps: Vec<String>,
        plan: serde_json::Value,
    ) -> Result<Self, JournalError> {
        let entry = Entry { operation, started_at: clock::now_rfc3339(), steps, at: 0, plan };
        let journal = Self { path: home.journal(), entry };
        journal.write()?;
        checkpoint(&format!("{operation}.begun"));
        Ok(journal)
    }

    /// Continues the journal of an earlier process.
    pub fn resume(home: &Home, entry: Entry) -> Self {
        Self { path: home.journal(), entry }
    }

    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Replaces the plan's data.
    pub fn set_plan(&mut self, plan: serde_json::Value) -> Result<(), JournalError> {
        self.entry.plan = plan;
        self.write()
    }

    /// Records that the step with this index acts or is undone next. If the write fails, the current step stays
    /// unchanged.
    pub fn set_at(&mut self, at: usize) -> Result<(), JournalError> {
        let before = std::mem::replace(&mut self.entry.at, at);
        self.write().inspect_err(|_| self.entry.at = before)
    }

    /// Removes the journal after the operation was undone.
    pub fn remove(&self) -> Result<(), JournalError> {
        remove(self.path.clone())
    }

    /// Records the current step as done and moves to the next one.
    pub fn advance(&mut self) -> Result<(), JournalError> {
        let done = self.entry.steps.get(self.entry.at).cloned().unwrap_or_default();
        self.set_at(self.entry.at + 1)?;
        checkpoint(&format!("{}.{done}", self.entry.operation));
        Ok(())
    }

    /// Removes the journal of a complete operation.
    pub fn finish(&self) -> Result<(), JournalError> {
        remove(self.path.clone())?;
        checkpoint(&format!("{}.finished", self.entry.operation));
        Ok(())
    }

    fn write(&self) -> Result<(), JournalError> {
        let write_error = |source| JournalError::Io { path: self.path.clone(), source };
        let text = serde_json::to_vec_pretty(&self.entry).map_err(|error| write_error(error.into()))?;
        if text.len() as u64 > SIZE_LIMIT {
            // `unfinished` refuses to read a larger file.
            return Err(write_error(io::Error::other("the plan is too large")));
        }
        files::write_atomic(&self.path, &text, 0o600).map_err(write_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_change_says_where() {
        let change = |step: &str| ChangeUnderWay {
            to: "0.2.0".to_owned(),
            step: step.to_owned(),
            since: "now".to_owned(),
            has_changed: true,
            by: None,
        };
        let text = |step: &str| change(step).to_string();
        assert!(text("let-go").starts_with("a change to 0.2.0 was interrupted at step let-go;"));
        assert!(text(END).starts_with("a change to 0.2.0 was interrupted after its last step;"));
    }

    #[test]
    fn a_failed_write_keeps_the_current_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.json");
        let steps = vec!["one".to_owned(), "two".to_owned()];
        let entry = Entry {
            operation: Operation::Setup,
            started_at: String::new(),
            steps,
            at: 0,
            plan: serde_json::Value::Null,
        };
        let mut journal = Journal { path: path.clone(), entry };
        // A file cannot be renamed over a folder.
        std::fs::create_dir(&path).unwrap();
        assert!(journal.advance().is_err());
        assert!(journal.set_at(1).is_err());
        assert_eq!(journal.entry().at, 0);
        std::fs::remove_dir(&path).unwrap();
        journal.advance().unwrap();
        assert_eq!(journal.entry().at, 1);
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"at\": 1"));
    }
}
