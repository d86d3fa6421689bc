//! `run/operations/ID.json`: commands that the server was asked for and that go on without it, each with what became of it. The
//! process that does one writes it; whoever asks reads it, also a server that came later.

use super::Home;
use crate::sys::files;
use crate::sys::process::ProcessId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::PathBuf;

/// Lines of one.
const MOST_LINES: usize = 50;
/// Those that are kept.
const KEPT: usize = 20;
const SIZE_LIMIT: u64 = 16 * 1024 * 1024;
const CUT_OFF: &str = "it was cut off, and what became of it was not written down\nhint: leoflow versions, leoflow lite backups \
                       and leoflow doctor tell how things are";
/// Until its process has to be there.
const BEGINS_WITHIN: SignedDuration = SignedDuration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Running,
    Done,
    Failed,
}

/// A command that takes its time, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    pub id: u64,
    /// What it does: `backup`, `verify`, `upgrade`.
    pub kind: String,
    pub status: Status,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// What it has said, oldest first.
    pub progress: Vec<String>,
    /// What it has printed.
    pub result: Option<Value>,
    /// Why it failed, in its own words.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub operation: Operation,
    /// Of this program.
    pub arguments: Vec<String>,
    /// The one that looks after it.
    pub process: Option<ProcessId>,
    /// The command itself, which goes on when that one is killed.
    #[serde(default)]
    pub command: Option<ProcessId>,
}

impl Record {
    pub fn say(&mut self, line: &str) {
        let progress = &mut self.operation.progress;
        progress.push(line.to_owned());
        progress.drain(..progress.len().saturating_sub(MOST_LINES));
    }

    /// Whether it has no end, and nobody is there any more to bring it to one.
    pub fn is_abandoned(&self) -> bool {
        self.operation.status == Status::Running && !self.is_under_way()
    }

    /// Whether its process is there, or may still be beginning.
    fn is_under_way(&self) -> bool {
        match &self.process {
            Some(process) => process.is_alive() || self.command.as_ref().is_some_and(ProcessId::is_alive),
            // A clock that was set back is not waited for.
            None => Timestamp::now().duration_since(self.operation.started_at).abs() < BEGINS_WITHIN,
        }
    }
}

/// Writes a new one down, under a number that none before it had.
pub fn begin(home: &Home, kind: &str, arguments: Vec<String>) -> io::Result<Record> {
    let last = ids(home).last().copied().unwrap_or(0);
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    let operation = Operation {
        id: now.max(last + 1),
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
    let all = ids(home);
    for old in &all[..all.len().saturating_sub(KEPT)] {
        files::remove_any(&path(home, *old))?;
    }
    Ok(record)
}

/// Writes down how it ended: what it printed, or why it failed, or both.
pub fn end(home: &Home, mut record: Record, ended: Result<Value, (Option<Value>, String)>) -> io::Result<()> {
    let operation = &mut record.operation;
    operation.ended_at = Some(Timestamp::now());
    (operation.status, operation.result, operation.error) = match ended {
        Ok(result) => (Status::Done, Some(result), None),
        Err((result, error)) => (Status::Failed, result, Some(error)),
    };
    write(home, &record)
}

pub fn write(home: &Home, record: &Record) -> io::Result<()> {
    files::write_atomic(&path(home, record.operation.id), &serde_json::to_vec(record)?, 0o600)
}

/// As it was written. `None` where there is none, or it cannot be read.
pub fn read(home: &Home, id: u64) -> Option<Record> {
    let text = files::read_text(&path(home, id), SIZE_LIMIT).ok()??;
    serde_json::from_str(&text).ok()
}

/// How it is, whatever its process could write at last.
pub fn find(home: &Home, id: u64) -> Option<Operation> {
    let found = read(home, id)?;
    if !found.is_abandoned() {
        return Some(found.operation);
    }
    // It may have ended just now, after it has written how.
    let mut found = read(home, id)?;
    if found.is_abandoned() {
        found.operation.status = Status::Failed;
        found.operation.error = Some(CUT_OFF.to_owned());
    }
    Some(found.operation)
}

pub fn newest(home: &Home) -> Option<Operation> {
    find(home, *ids(home).last()?)
}

/// The one that is under way.
pub fn running(home: &Home) -> Option<Operation> {
    let all = ids(home).into_iter().rev().filter_map(|id| find(home, id));
    all.into_iter().find(|one| one.status == Status::Running)
}

/// Oldest first.
fn ids(home: &Home) -> Vec<u64> {
    let entries = std::fs::read_dir(home.operations()).into_iter().flatten().flatten();
    let mut ids: Vec<u64> = entries.filter_map(|entry| id_of(entry.file_name().to_str()?)).collect();
    ids.sort_unstable();
    ids
}

/// Of a file's name.
pub fn id_of(name: &str) -> Option<u64> {
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
    fn what_its_process_did_not_end_is_no_more_under_way() {
        let (_folder, home) = home();
        let mut record = begin(&home, "backup", vec!["lite".into()]).unwrap();
        let id = record.operation.id;
        assert_eq!(running(&home).unwrap().id, id);
        record.process = ProcessId::current();
        (0..60).for_each(|line| record.say(&line.to_string()));
        write(&home, &record).unwrap();
        assert_eq!(read(&home, id).unwrap(), record);
        assert_eq!((record.operation.progress.len(), &*record.operation.progress[0]), (50, "10"));
        assert_eq!(running(&home).unwrap().id, id);
        record.process.as_mut().unwrap().start_ticks += 1;
        write(&home, &record).unwrap();
        let gone = newest(&home).unwrap();
        assert_eq!(gone.status, Status::Failed);
        assert!(gone.error.unwrap().contains("cut off"));
        assert_eq!(running(&home), None);
        record.process = None;
        record.operation.started_at -= BEGINS_WITHIN;
        write(&home, &record).unwrap();
        assert_eq!(find(&home, id).unwrap().status, Status::Failed);
    }

    #[test]
    fn the_newest_are_kept_and_each_has_a_number_of_its_own() {
        let (_folder, home) = home();
        let made: Vec<u64> = (0..25).map(|_| begin(&home, "verify", Vec::new()).unwrap().operation.id).collect();
        assert!(made.is_sorted_by(|one, next| one < next), "{made:?}");
        assert_eq!(ids(&home), made[5..]);
        std::fs::write(home.operations().join("7.json"), "{").unwrap();
        assert!(find(&home, 7).is_none() && find(&home, 8).is_none());
        assert_eq!(newest(&home).unwrap().id, made[24]);
    }
}
