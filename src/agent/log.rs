//! Writing the log of a try: each line with its time and where it came from, the first part and
//! the last part of it kept.

use crate::auth::masking::Masker;
use crate::protocol::task_log::{HEAD_BYTES, Stream, TAIL_PIECE_BYTES, tail_pieces};
use crate::sys::files;
use jiff::Timestamp;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tracing::warn;

/// A longer line is cut into several.
const LONGEST_LINE: usize = 64 * 1024;

pub struct TaskLog {
    path: PathBuf,
    file: File,
    /// Bytes in the file that is being written.
    written: u64,
    place: Place,
    /// Bytes that a full tail piece took with it when it was replaced.
    dropped: u64,
    /// Text that has no line end yet.
    open: Vec<u8>,
    /// What is not to be read in it.
    secrets: Masker,
    /// The disk is full, or the file is gone.
    broken: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Head,
    Tail,
}

impl TaskLog {
    /// Begins it, or goes on at its end.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            files::create_private_dir(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            written,
            place: Place::Head,
            dropped: 0,
            open: Vec::new(),
            secrets: Masker::default(),
            broken: false,
        })
    }

    /// A value that is not to be read in any line from here on.
    pub fn hide(&mut self, secret: &str) {
        self.secrets.add(secret);
    }

    /// What was read from the task's pipe.
    pub fn take(&mut self, bytes: &[u8]) {
        let prefix = prefix(Stream::Output);
        let mut text = std::mem::take(&mut self.open);
        let mut lines = Vec::with_capacity(bytes.len() + bytes.len() / 4);
        let mut rest = bytes;
        // A return alone redraws a line; here that is another line.
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            text.extend_from_slice(&rest[..at]);
            let is_pair = rest[at] == b'\r' && rest.get(at + 1) == Some(&b'\n');
            rest = &rest[at + 1 + usize::from(is_pair)..];
            self.push(&mut lines, &prefix, &text);
            text.clear();
        }
        text.extend_from_slice(rest);
        // What is cut off may end with the beginning of a secret, and that has no place in what is written.
        if text.len() > LONGEST_LINE + self.secrets.longest() {
            text = self.secrets.mask(&text).unwrap_or(text);
        }
        while text.len() > LONGEST_LINE + self.secrets.longest() {
            let more = text.split_off(LONGEST_LINE);
            push_lines(&mut lines, &prefix, &text);
            text = more;
        }
        self.open = text;
        self.write(&lines);
    }

    fn push(&mut self, lines: &mut Vec<u8>, prefix: &str, text: &[u8]) {
        match self.secrets.mask(text) {
            Some(masked) => push_lines(lines, prefix, &masked),
            None => push_lines(lines, prefix, text),
        }
    }

    /// A line of ours.
    pub fn say(&mut self, text: &str) {
        let mut lines = Vec::new();
        for line in text.lines() {
            self.push(&mut lines, &prefix(Stream::System), line.as_bytes());
        }
        self.write(&lines);
    }

    /// Writes what has no line end, joins the parts, and says what is missing.
    pub fn close(mut self) {
        let text = std::mem::take(&mut self.open);
        if !text.is_empty() {
            let mut line = Vec::new();
            self.push(&mut line, &prefix(Stream::Output), &text);
            self.write(&line);
        }
        drop(self.file);
        join(&self.path, self.dropped);
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let limit = if self.place == Place::Head { HEAD_BYTES } else { TAIL_PIECE_BYTES };
        if self.written >= limit {
            self.next_piece();
        }
        match self.file.write_all(lines) {
            Ok(()) => {
                self.written += lines.len() as u64;
                self.broken = false;
            }
            // The task goes on without its log; that the disk is full shows elsewhere too.
            Err(error) if !self.broken => {
                self.broken = true;
                warn!("{}: {error}", self.path.display());
            }
            Err(_) => {}
        }
    }

    fn next_piece(&mut self) {
        let [current, full] = tail_pieces(&self.path);
        if self.place == Place::Tail {
            self.dropped += fs::metadata(&full).map_or(0, |meta| meta.len());
            // When it cannot be renamed it is written over, and counted.
            let _ = fs::rename(&current, &full);
        }
        if let Ok(file) = File::create(&current) {
            self.file = file;
            self.place = Place::Tail;
            self.written = 0;
        }
    }
}

/// Puts the last pieces at the end of the first. Also for a log whose writer was killed.
pub fn join(path: &Path, dropped: u64) {
    let [current, full] = tail_pieces(path);
    if !current.exists() && !full.exists() {
        return;
    }
    let Ok(mut log) = OpenOptions::new().append(true).open(path) else { return };
    if dropped > 0 {
        let text = format!("{}… {dropped} bytes are left out here …\n", prefix(Stream::System));
        let _ = log.write_all(text.as_bytes());
    }
    for piece in [full, current] {
        let copied = File::open(&piece).and_then(|mut from| io::copy(&mut from, &mut log));
        if copied.is_ok() {
            let _ = fs::remove_file(&piece);
        }
    }
}

fn prefix(stream: Stream) -> String {
    let now = Timestamp::now();
    format!("{}.{:06}Z {} ", now.strftime("%Y-%m-%dT%H:%M:%S"), now.subsec_nanosecond() / 1000, stream.word())
}

fn push_lines(lines: &mut Vec<u8>, prefix: &str, text: &[u8]) {
    let mut pieces = text.chunks(LONGEST_LINE);
    let first = pieces.next().unwrap_or_default();
    for piece in std::iter::once(first).chain(pieces) {
        lines.extend_from_slice(prefix.as_bytes());
        lines.extend_from_slice(piece);
        lines.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::task_log::Line;

    fn texts(path: &Path) -> Vec<(Stream, String)> {
        let bytes = fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.lines().map(|line| (Line::parse(line).stream, Line::parse(line).text.to_owned())).collect()
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/1.log");
        let mut log = TaskLog::open(&path).unwrap();
        log.take(b"one\ntw");
        log.take(b"o\r\nbar 1\rbar 2\r\n\nlast");
        log.say("said");
        log.close();
        let own = |stream, list: &[&str]| list.iter().map(|text| (stream, (*text).to_owned())).collect::<Vec<_>>();
        let found = texts(&path);
        let of = |wanted| found.iter().filter(|(stream, _)| *stream == wanted).cloned().collect::<Vec<_>>();
        assert_eq!(of(Stream::Output), own(Stream::Output, &["one", "two", "bar 1", "bar 2", "", "last"]));
        assert_eq!(of(Stream::System), own(Stream::System, &["said"]));
    }

    #[test]
    fn of_a_flood_the_first_and_the_last_part_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        let mut log = TaskLog::open(&path).unwrap();
        let mut number = 0;
        for _ in 0..4000 {
            let mut chunk = Vec::new();
            for _ in 0..100 {
                writeln!(chunk, "line {number} {}", "x".repeat(40)).unwrap();
                number += 1;
            }
            log.take(&chunk);
        }
        log.close();
        let size = fs::metadata(&path).unwrap().len();
        assert!(size < HEAD_BYTES + 2 * TAIL_PIECE_BYTES + 100_000, "{size}");
        let found = texts(&path);
        assert!(found[0].1.starts_with("line 0 "));
        assert!(found.last().unwrap().1.starts_with(&format!("line {} ", number - 1)));
        assert!(found.iter().any(|(stream, text)| *stream == Stream::System && text.contains("left out")));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_is_in_no_line_also_where_a_line_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        let mut log = TaskLog::open(&path).unwrap();
        log.take(b"before geheim1\n");
        log.hide("geheim1");
        log.take(b"a gehe");
        log.take(b"im1 b\n");
        for _ in 0..LONGEST_LINE {
            log.take(b"xgeheim1");
        }
        log.close();
        let found: Vec<String> = texts(&path).into_iter().map(|(_, text)| text).collect();
        assert_eq!(found[..2], ["before geheim1", "a *** b"]);
        assert!(found[2..].iter().all(|line| !line.contains('e')), "no part of it is left");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        let mut log = TaskLog::open(&path).unwrap();
        log.take(&vec![b'x'; 3 * LONGEST_LINE + 5]);
        log.close();
        let lengths: Vec<usize> = texts(&path).iter().map(|(_, text)| text.len()).collect();
        assert_eq!(lengths, [LONGEST_LINE, LONGEST_LINE, LONGEST_LINE, 5]);
    }
}
