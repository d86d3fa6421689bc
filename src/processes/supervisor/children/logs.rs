//! Process logs, size-capped and rotated. A full disk loses log lines but never stops a process.

use leoflow_base::home::Home;
use leoflow_base::protocol::log;
use std::collections::VecDeque;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use tracing::Level;

/// The processes that have a log, in start order.
pub const LOG_NAMES: &[&str] = &["supervisor", "postgres", "migrate", "server", "agent", "keeper", "upgrade"];

const SUPERVISOR: &str = "supervisor";

/// Size in bytes at which a log is renamed to `.1`, and `.1` to `.2`.
const SIZE_LIMIT: u64 = 5 * 1024 * 1024;
/// Number of rotated logs.
const ROTATED_COUNT: u32 = 2;
/// Number of lines kept in memory, shown when a process fails.
const REMEMBERED: usize = 200;

pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    /// The last lines, oldest first.
    remembered: VecDeque<String>,
    /// The beginning of a line whose end was not written yet.
    partial: Vec<u8>,
}

impl LogFile {
    pub fn new(home: &Home, name: &str) -> Self {
        let path = home.logs().join(format!("{name}.log"));
        let mut log = Self { path, file: None, size: 0, remembered: VecDeque::new(), partial: Vec::new() };
        log.open();
        log
    }

    fn open(&mut self) {
        self.file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).ok();
        self.size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
    }

    /// Appends output and rotates the log if it becomes too large.
    pub fn write(&mut self, bytes: &[u8]) {
        self.remember(bytes);
        if self.size + bytes.len() as u64 > SIZE_LIMIT {
            self.rotate();
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.size += bytes.len() as u64;
        }
    }

    /// The remembered lines, oldest first.
    pub fn last_lines(&self) -> Vec<String> {
        self.remembered.iter().cloned().collect()
    }

    /// Clears the remembered lines before a new start, so that only its own lines are shown.
    pub fn clear_remembered_lines(&mut self) {
        self.remembered.clear();
        self.partial.clear();
    }

    fn remember(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                if self.partial.len() < 4096 {
                    self.partial.push(*byte);
                }
                continue;
            }
            self.remembered.push_back(String::from_utf8_lossy(&self.partial).into_owned());
            self.partial.clear();
            if self.remembered.len() > REMEMBERED {
                self.remembered.pop_front();
            }
        }
    }

    fn rotate(&mut self) {
        let numbered = |number: u32| self.path.with_extension(format!("log.{number}"));
        for number in (1..ROTATED_COUNT).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        let _ = fs::rename(&self.path, numbered(1));
        self.open();
    }
}

/// The supervisor's own log; drops lines that are more detailed than `level`.
pub struct OwnLog {
    file: LogFile,
    level: Level,
}

impl OwnLog {
    pub fn new(home: &Home, level: Level) -> Self {
        Self { file: LogFile::new(home, SUPERVISOR), level }
    }

    pub fn info(&mut self, text: impl Display) {
        self.write_line(Level::INFO, text);
    }

    pub fn error(&mut self, text: impl Display) {
        self.write_line(Level::ERROR, text);
    }

    pub fn warn(&mut self, text: impl Display) {
        self.write_line(Level::WARN, text);
    }

    fn write_line(&mut self, level: Level, text: impl Display) {
        if level <= self.level {
            self.file.write(format!("{}\n", log::line(level, SUPERVISOR, text)).as_bytes());
        }
    }
}

/// The last `count` lines of a process's log file, oldest first; empty if the file cannot be read.
pub fn last_lines(home: &Home, name: &str, count: usize) -> Vec<String> {
    let path = home.logs().join(format!("{name}.log"));
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_a_large_log_and_remembers_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let mut log = LogFile::new(&home, "server");
        let line = vec![b'x'; 64 * 1024];
        for _ in 0..200 {
            log.write(&line);
            log.write(b"\n");
        }
        log.write(b"the la");
        log.write(b"st\n");
        assert_eq!(log.last_lines().last().unwrap(), "the last");
        assert_eq!(log.last_lines().len(), REMEMBERED);
        let mut sizes = Vec::new();
        for entry in fs::read_dir(home.logs()).unwrap() {
            sizes.push(entry.unwrap().metadata().unwrap().len());
        }
        assert_eq!(sizes.len(), 3);
        assert!(sizes.iter().all(|size| *size <= SIZE_LIMIT), "{sizes:?}");
    }
}
