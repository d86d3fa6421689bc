//! Notes about current problems with the Pythons of a running process, which `leoflow doctor` shows. Stored in
//! `run/python/<pid>-<part>.json`.

use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::ProcessId;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use tracing::debug;

const MAX_BYTES: u64 = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The process with the problem, such as "the warm Python for tasks".
    pub subject: String,
    /// Path of its Python, which identifies the environment.
    pub program: PathBuf,
    /// The consequence for the user.
    pub effect: String,
    pub reason: String,
    pub since: Timestamp,
    /// Earliest time of a retry; `None` without a retry.
    pub next_try: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    process: ProcessId,
    notes: Vec<Note>,
}

/// The notes file of one part of this process. Dropping the value removes the file.
pub struct Notes {
    home: Home,
    path: PathBuf,
    /// The notes that the file contains now.
    written: Vec<Note>,
}

impl Notes {
    pub fn new(home: &Home, part: &str) -> Self {
        let path = home.python_notes().join(format!("{}-{part}.json", std::process::id()));
        Self { home: home.clone(), path, written: Vec::new() }
    }

    /// Writes the notes if they changed. A failure is harmless: they are only missing from `doctor`.
    pub fn set(&mut self, notes: Vec<Note>) {
        if notes == self.written {
            return;
        }
        if let Err(error) = self.write(&notes) {
            debug!("{}: {error}", self.path.display());
        }
        self.written = notes;
    }

    fn write(&self, notes: &[Note]) -> std::io::Result<()> {
        if notes.is_empty() {
            return files::remove_any(&self.path);
        }
        self.home.create_folder(&self.home.python_notes())?;
        remove_notes_of_dead_processes(&self.home.python_notes());
        let process = ProcessId::current().ok_or_else(|| std::io::Error::other("no /proc"))?;
        let text = serde_json::to_vec(&Stored { process, notes: notes.to_vec() })?;
        files::write_atomic(&self.path, &text, 0o600)
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.set(Vec::new());
    }
}

/// The notes of all running processes.
pub fn of_running(home: &Home) -> Vec<Note> {
    let alive = stored(&home.python_notes()).into_iter().filter(|(_, stored)| stored.process.is_alive());
    alive.flat_map(|(_, stored)| stored.notes).collect()
}

fn stored(folder: &Path) -> Vec<(PathBuf, Stored)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = files::read_text(&path, MAX_BYTES).ok()??;
        Some((path, serde_json::from_str(&text).ok()?))
    };
    paths.into_iter().filter_map(read).collect()
}

fn remove_notes_of_dead_processes(folder: &Path) {
    for (path, _) in stored(folder).into_iter().filter(|(_, stored)| !stored.process.is_alive()) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_last_as_long_as_their_process() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let note = Note {
            subject: "warm Python".to_owned(),
            program: "/venv/bin/python".into(),
            effect: "cold starts".to_owned(),
            reason: "the process ended".to_owned(),
            since: Timestamp::now(),
            next_try: None,
        };
        let mut notes = Notes::new(&home, "tasks");
        notes.set(vec![note.clone()]);
        assert_eq!(of_running(&home), std::slice::from_ref(&note));
        // Notes of a process that was killed.
        let dead = ProcessId { start_ticks: 1, ..ProcessId::current().unwrap() };
        let text = serde_json::to_vec(&Stored { process: dead, notes: vec![note.clone()] }).unwrap();
        fs::write(home.python_notes().join("1-tasks.json"), text).unwrap();
        assert_eq!(of_running(&home).len(), 1);
        notes.set(Vec::new());
        assert!(of_running(&home).is_empty());
        notes.set(vec![note]);
        assert!(!home.python_notes().join("1-tasks.json").exists());
        drop(notes);
        assert!(of_running(&home).is_empty());
    }
}
