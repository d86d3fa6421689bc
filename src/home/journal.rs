//! `run/journal.json`: which long operation is under way and how far it came, fsynced before each
//! step acts. Every start looks here first and finishes or undoes what it finds.

use super::Home;
use crate::sys::process::ProcessId;
use crate::sys::{checkpoint, clock, files};
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
        match self {
            Self::Setup => f.write_str("setup"),
            Self::Restore => f.write_str("restore"),
            Self::RestoreUndo => f.write_str("restore-undo"),
            Self::Purge => f.write_str("purge"),
            Self::Upgrade => f.write_str("upgrade"),
            Self::MoveDatastore => f.write_str("move-datastore"),
        }
    }
}

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub operation: Operation,
    pub started_at: String,
    /// What the plan was, in order.
    pub steps: Vec<String>,
    /// The step that was about to act when this was written; `steps.len()` past the last.
    pub at: usize,
    /// What the steps need to know, each operation's own.
    #[serde(default)]
    pub plan: serde_json::Value,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} does not describe an operation that this version knows: {detail}")]
    Unknown { path: PathBuf, detail: String },
}

/// A plan is a few names and places.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// The operation that an earlier process did not finish.
pub fn unfinished(home: &Home) -> Result<Option<Entry>, JournalError> {
    let path = home.journal();
    let text = match files::read_text(&path, SIZE_LIMIT) {
        Ok(None) => return Ok(None),
        Ok(Some(text)) => text,
        Err(error) => return Err(JournalError::Unknown { path, detail: error.to_string() }),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| JournalError::Unknown { path, detail: error.to_string() })
}

/// A change of release that is under way, or was interrupted: as much of it as others have to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeUnderWay {
    /// The release that it leads to.
    pub to: String,
    pub step: String,
    /// RFC 3339.
    pub since: String,
    /// Whether anything was changed by now.
    pub has_changed: bool,
    /// Who is at it; `None` when it was interrupted.
    pub by: Option<ProcessId>,
}

/// The first step of a change of release that changes anything.
const FIRST_CHANGE: &str = "let-go";

/// A journal that cannot be read is another's to tell of.
pub fn change_under_way(home: &Home) -> Option<ChangeUnderWay> {
    let entry = unfinished(home).ok().flatten().filter(|entry| entry.operation == Operation::Upgrade)?;
    let first = entry.steps.iter().position(|step| step == FIRST_CHANGE);
    let holder = super::lock::operation_holder(home);
    let is_change = |command: &str| command.starts_with("leoflow upgrade") || command.starts_with("leoflow rollback");
    Some(ChangeUnderWay {
        to: entry.plan["plan"]["to"].as_str().unwrap_or("another release").to_owned(),
        step: entry.steps.get(entry.at).cloned().unwrap_or_else(|| "its end".to_owned()),
        has_changed: first.is_some_and(|first| entry.at >= first),
        since: entry.started_at,
        by: holder.filter(|holder| is_change(&holder.command)).map(|holder| holder.process),
    })
}

impl std::fmt::Display for ChangeUnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { to, step, since, by, .. } = self;
        match by {
            Some(process) => {
                write!(f, "a change to {to} is under way since {since}: step {step}, pid {}", process.pid)
            }
            None => {
                write!(
                    f,
                    "a change to {to} was interrupted at the step {step}; the supervisor finishes or undoes it, or the next start"
                )
            }
        }
    }
}

/// For an operation of which nothing was left to do.
pub fn clear(home: &Home) -> Result<(), JournalError> {
    remove(home.journal())
}

fn remove(path: PathBuf) -> Result<(), JournalError> {
    let removed = files::remove_any(&path).and_then(|()| files::sync_parent(&path));
    removed.map_err(|source| JournalError::Io { path, source })
}

/// An operation under way.
pub struct Journal {
    path: PathBuf,
    entry: Entry,
}

impl Journal {
    /// Writes down the plan.
    pub fn begin(home: &Home, operation: Operation, steps: Vec<String>) -> Result<Self, JournalError> {
        Self::begin_with(home, operation, steps, serde_json::Value::Null)
    }

    /// As `begin`, with what the steps need to know when another process goes on with them.
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

    /// Goes on with what an earlier process had begun.
    pub fn resume(home: &Home, entry: Entry) -> Self {
        Self { path: home.journal(), entry }
    }

    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Writes down that the plan is another.
    pub fn set_plan(&mut self, plan: serde_json::Value) -> Result<(), JournalError> {
        self.entry.plan = plan;
        self.write()
    }

    /// Writes down that the step at `at` is about to act, or to be taken back. What could not be written down has not
    /// come to pass: the step stays.
    pub fn set_at(&mut self, at: usize) -> Result<(), JournalError> {
        let before = std::mem::replace(&mut self.entry.at, at);
        self.write().inspect_err(|_| self.entry.at = before)
    }

    /// The operation was taken back whole.
    pub fn remove(&self) -> Result<(), JournalError> {
        remove(self.path.clone())
    }

    /// Writes down that the next step has been done. The caller may then do the one after.
    pub fn advance(&mut self) -> Result<(), JournalError> {
        let done = self.entry.steps.get(self.entry.at).cloned().unwrap_or_default();
        self.set_at(self.entry.at + 1)?;
        checkpoint(&format!("{}.{done}", self.entry.operation));
        Ok(())
    }

    /// The operation is complete: the file goes.
    pub fn finish(self) -> Result<(), JournalError> {
        remove(self.path)?;
        checkpoint(&format!("{}.finished", self.entry.operation));
        Ok(())
    }

    fn write(&self) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { path: self.path.clone(), source };
        let text = serde_json::to_vec_pretty(&self.entry).map_err(|error| io(error.into()))?;
        if text.len() as u64 > SIZE_LIMIT {
            // Nobody could go on with it.
            return Err(io(io::Error::other("the plan is too long")));
        }
        files::write_atomic(&self.path, &text, 0o600).map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_could_not_be_written_down_stays() {
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
        // Nothing can be renamed over a folder.
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
