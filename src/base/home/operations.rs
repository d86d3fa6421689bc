//! `run/operations/ID.json`: commands that the server started and that continue without it, with their results. The
//! process that performs a command writes the file; any server, also a later one, reads it.

use super::Home;
use crate::sys::fs::files;
use crate::sys::process::ProcessId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::PathBuf;

/// Maximum number of progress lines of an operation.
const MAX_LINES: usize = 50;
/// Number of retained operations.
const RETAINED_COUNT: usize = 20;
const SIZE_LIMIT: u64 = 16 * 1024 * 1024;
const INTERRUPTED: &str = "it was interrupted, and its result was not recorded\nhint: run leoflow versions, leoflow lite backups \
                       and leoflow doctor to see the current state";
/// Time within which the process of an operation must start.
const START_LIMIT: SignedDuration = SignedDuration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Running,
    Done,
    Failed,
}

/// A long-running command and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    pub id: u64,
    /// For example `backup`, `verify` or `upgrade`.
    pub kind: String,
    pub status: Status,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Its progress messages, oldest first.
    pub progress: Vec<String>,
    /// Its JSON output.
    pub result: Option<Value>,
    /// Its error message.
    pub error: Option<String>,
}

/// The file of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub operation: Operation,
    /// The arguments of the `leoflow` program.
    pub arguments: Vec<String>,
    /// The process that monitors the command.
    pub process: Option<ProcessId>,
    /// The command's own process, which continues when the monitor is killed.
    pub command: Option<ProcessId>,
}

impl Record {
    /// Appends a progress line and drops the oldest ones beyond `MAX_LINES`.
    pub fn add_progress(&mut self, line: &str) {
        let progress = &mut self.operation.progress;
        progress.push(line.to_owned());
        progress.drain(..progress.len().saturating_sub(MAX_LINES));
    }

    /// True when the operation has no result and its processes are dead.
    pub fn is_abandoned(&self) -> bool {
        self.operation.status == Status::Running && !self.is_under_way()
    }

    /// True while its process is alive, or may still be starting.
    fn is_under_way(&self) -> bool {
        match &self.process {
            Some(process) => process.is_alive() || self.command.as_ref().is_some_and(ProcessId::is_alive),
            // The difference is absolute, because the clock may have been set back.
            None => Timestamp::now().duration_since(self.operation.started_at).abs() < START_LIMIT,
        }
    }
}

/// Creates a record with a new unique id, and removes the oldest records beyond `RETAINED_COUNT`.
pub fn begin(home: &Home, kind: &str, arguments: Vec<String>) -> io::Result<Record> {
    let newest_id = ids(home).last().copied().unwrap_or(0);
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    let operation = Operation {
        id: now.max(newest_id + 1),
        kind: kind.to_owned(),
        status: Status::Running,
        started_at: Timestamp::now(),
        ended_at: None,
        progress: Vec::new(),
        result: None,
        error: None,
    };
    let record = Record { operation, arguments, process: None, command: None };
    home.create_folder(&home.operations())?;
    write(home, &record)?;
    let all_ids = ids(home);
    for old_id in &all_ids[..all_ids.len().saturating_sub(RETAINED_COUNT)] {
        files::remove_any(&path(home, *old_id))?;
    }
    Ok(record)
}

/// Records the result: the JSON output, the error, or both.
pub fn end(home: &Home, mut record: Record, outcome: Result<Value, (Option<Value>, String)>) -> io::Result<()> {
    let operation = &mut record.operation;
    operation.ended_at = Some(Timestamp::now());
    (operation.status, operation.result, operation.error) = match outcome {
        Ok(result) => (Status::Done, Some(result), None),
        Err((result, error)) => (Status::Failed, result, Some(error)),
    };
    write(home, &record)
}

/// Writes a record.
pub fn write(home: &Home, record: &Record) -> io::Result<()> {
    files::write_atomic(&path(home, record.operation.id), &serde_json::to_vec(record)?, 0o600)
}

/// Reads a record. `None` when it is missing or unreadable.
pub fn read(home: &Home, id: u64) -> Option<Record> {
    files::read_json(&path(home, id), SIZE_LIMIT).ok()?
}

/// Reads an operation; one whose process died without a result counts as failed.
pub fn find(home: &Home, id: u64) -> Option<Operation> {
    let record = read(home, id)?;
    if !record.is_abandoned() {
        return Some(record.operation);
    }
    // The process may have written its result and exited after the first read.
    let mut record = read(home, id)?;
    if record.is_abandoned() {
        record.operation.status = Status::Failed;
        record.operation.error = Some(INTERRUPTED.to_owned());
    }
    Some(record.operation)
}

/// The operation that was started last.
pub fn newest(home: &Home) -> Option<Operation> {
    find(home, *ids(home).last()?)
}

/// The newest operation that runs.
pub fn running(home: &Home) -> Option<Operation> {
    let operations = ids(home).into_iter().rev().filter_map(|id| find(home, id));
    operations.into_iter().find(|operation| operation.status == Status::Running)
}

/// The ids of all records, oldest first.
fn ids(home: &Home) -> Vec<u64> {
    let entries = std::fs::read_dir(home.operations()).into_iter().flatten().flatten();
    let mut ids: Vec<u64> = entries.filter_map(|entry| id_of(entry.file_name().to_str()?)).collect();
    ids.sort_unstable();
    ids
}

/// Parses the id in a record's file name.
pub(crate) fn id_of(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
}

fn path(home: &Home, id: u64) -> PathBuf {
    home.operations().join(format!("{id}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().to_owned() };
        (folder, home)
    }

    #[test]
    fn an_operation_whose_process_died_has_failed() {
        let (_folder, home) = home();
        let mut record = begin(&home, "backup", vec!["lite".into()]).unwrap();
        let id = record.operation.id;
        assert_eq!(running(&home).unwrap().id, id);
        record.process = ProcessId::current();
        (0..60).for_each(|line| record.add_progress(&line.to_string()));
        write(&home, &record).unwrap();
        assert_eq!(read(&home, id).unwrap(), record);
        assert_eq!((record.operation.progress.len(), &*record.operation.progress[0]), (50, "10"));
        assert_eq!(running(&home).unwrap().id, id);
        record.process.as_mut().unwrap().start_ticks += 1;
        write(&home, &record).unwrap();
        let failed = newest(&home).unwrap();
        assert_eq!(failed.status, Status::Failed);
        assert!(failed.error.unwrap().contains("interrupted"));
        assert_eq!(running(&home), None);
        record.process = None;
        record.operation.started_at -= START_LIMIT;
        write(&home, &record).unwrap();
        assert_eq!(find(&home, id).unwrap().status, Status::Failed);
    }

    #[test]
    fn retains_the_newest_operations_with_unique_ids() {
        let (_folder, home) = home();
        let new_ids: Vec<u64> = (0..25).map(|_| begin(&home, "verify", Vec::new()).unwrap().operation.id).collect();
        assert!(new_ids.is_sorted_by(|previous, next| previous < next), "{new_ids:?}");
        assert_eq!(ids(&home), new_ids[5..]);
        std::fs::write(home.operations().join("7.json"), "{").unwrap();
        assert!(find(&home, 7).is_none() && find(&home, 8).is_none());
        assert_eq!(newest(&home).unwrap().id, new_ids[24]);
    }
}
