//! The log of one try of a task: where it is, and what its lines look like. Written by the process
//! that keeps the task, read by the server and the command line.
//!
//! A line is `<RFC 3339 time, microseconds, UTC> <out|err|sys> <text>`.

use crate::home::Home;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The first part of a log that is kept whole, bytes.
pub const HEAD_BYTES: u64 = 8 * 1024 * 1024;
/// The last part that is kept, bytes: of the two pieces below, the full one and the one in work.
pub const TAIL_PIECE_BYTES: u64 = 2 * 1024 * 1024;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Output,
    Errors,
    /// Said by Leoflow about the task.
    System,
}

impl Stream {
    pub fn word(self) -> &'static str {
        match self {
            Self::Output => "out",
            Self::Errors => "err",
            Self::System => "sys",
        }
    }
}

/// A line, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: Option<jiff::Timestamp>,
    pub stream: Stream,
    pub text: &'a str,
}

impl<'a> Line<'a> {
    /// Any text is a line; one that is not of ours has no time.
    pub fn parse(line: &'a str) -> Self {
        let mut parts = line.splitn(3, ' ');
        let parsed = || {
            let time = parts.next()?.parse().ok()?;
            let word = parts.next()?;
            let stream = [Stream::Output, Stream::Errors, Stream::System].into_iter().find(|s| s.word() == word)?;
            Some(Self { time: Some(time), stream, text: parts.next().unwrap_or_default() })
        };
        let mut parsed = parsed;
        parsed().unwrap_or(Self { time: None, stream: Stream::Output, text: line })
    }
}

/// Which try of which task instance.
#[derive(Debug, Clone, Copy)]
pub struct TryName<'a> {
    pub dag_id: &'a str,
    pub run_id: &'a str,
    pub task_id: &'a str,
    pub map_index: i32,
    pub try_number: i32,
}

/// The log's file below `task-logs/`.
pub fn path(home: &Home, name: TryName<'_>) -> PathBuf {
    home.task_logs()
        .join(component(name.dag_id))
        .join(component(name.run_id))
        .join(component(name.task_id))
        .join(name.map_index.to_string())
        .join(format!("{}.log", name.try_number))
}

/// While a log is over its first part: the piece in work, and the full one before it.
pub fn tail_pieces(log: &Path) -> [PathBuf; 2] {
    [log.with_extension("log.tail-1"), log.with_extension("log.tail-2")]
}

/// An id as a file name. Ids that file systems cannot hold as they are get a hash of the whole.
fn component(id: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-.+:~".contains(c);
    if id.len() <= 200 && !id.is_empty() && id.chars().all(plain) && id.chars().any(|c| c != '.') {
        return id.to_owned();
    }
    let start: String = id.chars().filter(|c| c.is_ascii_alphanumeric()).take(80).collect();
    format!("{start}~{}", hex::encode(&Sha256::digest(id.as_bytes())[..10]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_and_strange_ones_kept() {
        let line = Line::parse("2026-11-20T10:00:00.000001Z err a  b");
        assert_eq!((line.stream, line.text), (Stream::Errors, "a  b"));
        assert_eq!(line.time.unwrap().to_string(), "2026-11-20T10:00:00.000001Z");
        assert_eq!(Line::parse("2026-11-20T10:00:00Z sys ").text, "");
        let strange = Line::parse("no time here");
        assert_eq!((strange.time, strange.text), (None, "no time here"));
    }

    #[test]
    fn no_id_leaves_the_folder_or_is_too_long_for_it() {
        assert_eq!(component("manual__2026-01-01T00:00:00.5+00:00"), "manual__2026-01-01T00:00:00.5+00:00");
        assert_eq!(component("größe"), "größe");
        for strange in ["..", ".", "", "a/b", "../x", &"ä".repeat(250), "nul\0"] {
            let name = component(strange);
            assert!(!name.contains('/') && !name.contains('\0') && name.len() <= 255 && name.contains('~'), "{name}");
        }
        assert_ne!(component("a/b"), component("a\\b"));
    }
}
