//! Writing the log of a try: each line with its time and where it came from, the first part and
//! the last part of it kept.

use crate::auth::masking::Masker;
use crate::protocol::task_log::{HEAD_BYTES, Level, RECORD_START, Record, Stream, TAIL_PIECE_BYTES, tail_pieces};
use crate::sys::files;
use jiff::Timestamp;
use serde_json::Map;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tracing::warn;

/// A longer line is cut into several, and so is the text of a longer event.
const LONGEST_LINE: usize = 64 * 1024;
/// A longer event with its traceback becomes plain lines. The server reads more than that at once.
const LONGEST_RECORD: usize = 256 * 1024;
/// What is read for a record at most. What is longer is no record.
const MOST_OF_RECORD: usize = 8 * 1024 * 1024;

pub struct TaskLog {
    path: PathBuf,
    /// `None` while it cannot be opened.
    file: Option<File>,
    /// Bytes in the file that is being written.
    written: u64,
    place: Place,
    /// Bytes that a full tail piece took with it when it was replaced.
    dropped: u64,
    /// Text that has no line end yet: of the output, and of the errors.
    open: [Vec<u8>; 2],
    /// A record that has no end yet, without what begins it.
    record: Option<Vec<u8>>,
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
        let mut log = Self::unopened(path);
        log.open_file()?;
        Ok(log)
    }

    /// For a task that runs already, or soon will: its log is opened now, or with a later line.
    pub fn open_or_later(path: &Path) -> Self {
        let mut log = Self::unopened(path);
        if let Err(error) = log.open_file() {
            log.note_broken(&error);
        }
        log
    }

    fn unopened(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            written: 0,
            place: Place::Head,
            dropped: 0,
            open: [Vec::new(), Vec::new()],
            record: None,
            secrets: Masker::default(),
            broken: false,
        }
    }

    fn open_file(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            files::create_private_dir(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.written = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// A value that is not to be read in any line from here on.
    pub fn hide(&mut self, secret: &str) {
        self.secrets.add(secret);
    }

    /// What was read from the task's output, in which records are.
    pub fn take(&mut self, bytes: &[u8]) {
        let mut lines = Vec::with_capacity(bytes.len() + bytes.len() / 4);
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(mut record) = self.record.take() {
                let Some(at) = rest.iter().position(|byte| *byte == b'\n') else {
                    record.extend_from_slice(rest);
                    self.record = Some(record);
                    break;
                };
                record.extend_from_slice(&rest[..at]);
                rest = &rest[at + 1..];
                self.push_record(&mut lines, &record);
                continue;
            }
            let at = rest.iter().position(|byte| *byte == RECORD_START).unwrap_or(rest.len());
            self.take_text(&mut lines, Stream::Output, &rest[..at]);
            self.record = (at < rest.len()).then(Vec::new);
            rest = rest.get(at + 1..).unwrap_or_default();
        }
        if let Some(record) = self.record.take_if(|record| record.len() > MOST_OF_RECORD) {
            self.take_text(&mut lines, Stream::Output, &record);
        }
        self.write(&lines);
    }

    /// What was read from where programs write their errors.
    pub fn take_errors(&mut self, bytes: &[u8]) {
        let mut lines = Vec::with_capacity(bytes.len() + bytes.len() / 4);
        self.take_text(&mut lines, Stream::Errors, bytes);
        self.write(&lines);
    }

    fn take_text(&mut self, lines: &mut Vec<u8>, stream: Stream, bytes: &[u8]) {
        let prefix = prefix(stream);
        let mut text = std::mem::take(self.open_of(stream));
        let mut rest = bytes;
        // A return alone redraws a line; here that is another line.
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            text.extend_from_slice(&rest[..at]);
            let is_pair = rest[at] == b'\r' && rest.get(at + 1) == Some(&b'\n');
            rest = &rest[at + 1 + usize::from(is_pair)..];
            self.push(lines, &prefix, &text);
            text.clear();
        }
        text.extend_from_slice(rest);
        // What is cut off may end with the beginning of a secret, and that has no place in what is written.
        if text.len() > LONGEST_LINE + self.secrets.longest() {
            text = self.secrets.mask(&text).unwrap_or(text);
        }
        while text.len() > LONGEST_LINE + self.secrets.longest() {
            let more = text.split_off(LONGEST_LINE);
            push_lines(lines, &prefix, &text);
            text = more;
        }
        *self.open_of(stream) = text;
    }

    fn open_of(&mut self, stream: Stream) -> &mut Vec<u8> {
        &mut self.open[usize::from(stream == Stream::Errors)]
    }

    fn push(&mut self, lines: &mut Vec<u8>, prefix: &str, text: &[u8]) {
        match self.secrets.mask(text) {
            Some(masked) => push_lines(lines, prefix, &masked),
            None => push_lines(lines, prefix, text),
        }
    }

    /// An event. What is none was a character in the output of a program.
    fn push_record(&mut self, lines: &mut Vec<u8>, text: &[u8]) {
        let Some(record) = Record::parse(text) else {
            return self.take_text(lines, Stream::Output, &[&[RECORD_START], text, b"\n"].concat());
        };
        push_event(lines, self.masked(record));
    }

    fn masked(&mut self, mut record: Record) -> Record {
        if !self.secrets.is_empty() {
            record.change(|value| self.secrets.mask_json(value));
        }
        record
    }

    /// A line of ours.
    pub fn say(&mut self, level: Level, text: &str) {
        let mut lines = Vec::new();
        for line in text.lines() {
            match level {
                Level::Info => self.push(&mut lines, &prefix(Stream::System), line.as_bytes()),
                _ => push_event(&mut lines, self.masked(Record::own(level, line))),
            }
        }
        self.write(&lines);
    }

    /// Writes what has no line end, joins the parts, and says what is missing.
    pub fn close(mut self) {
        let mut lines = Vec::new();
        if let Some(record) = self.record.take() {
            self.take_text(&mut lines, Stream::Output, &record);
        }
        for stream in [Stream::Output, Stream::Errors] {
            let text = std::mem::take(self.open_of(stream));
            if !text.is_empty() {
                self.push(&mut lines, &prefix(stream), &text);
            }
        }
        self.write(&lines);
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
        match self.write_all(lines) {
            Ok(()) => {
                self.written += lines.len() as u64;
                self.broken = false;
            }
            // The task goes on without its log; that the disk is full shows elsewhere too.
            Err(error) => self.note_broken(&error),
        }
    }

    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.open_file()?;
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(lines))
    }

    /// Once until the next line is written.
    fn note_broken(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.broken, true) {
            warn!("{}: {error}", self.path.display());
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
            self.file = Some(file);
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
        push_whole(lines, prefix, piece);
    }
}

/// One line, or several where the event is too long for one: the last has what is said with it.
fn push_event(lines: &mut Vec<u8>, mut record: Record) {
    let prefix = prefix(Stream::Log);
    while record.event.len() > LONGEST_LINE {
        let at = (0..=LONGEST_LINE).rev().find(|at| record.event.is_char_boundary(*at)).unwrap_or_default();
        let rest = record.event.split_off(at);
        let part = Record { others: Map::new(), ..record.clone() };
        push_whole(lines, &prefix, part.to_json().to_string().as_bytes());
        record.event = rest;
    }
    let text = record.to_json().to_string();
    if text.len() <= LONGEST_RECORD {
        return push_whole(lines, &prefix, text.as_bytes());
    }
    let stream = if record.is_error() { Stream::Errors } else { Stream::Output };
    record.text().lines().for_each(|line| push_lines(lines, &self::prefix(stream), line.as_bytes()));
}

fn push_whole(lines: &mut Vec<u8>, prefix: &str, text: &[u8]) {
    lines.extend_from_slice(prefix.as_bytes());
    lines.extend_from_slice(text);
    lines.push(b'\n');
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
        log.say(Level::Info, "said");
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

    fn records(path: &Path) -> Vec<Record> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| Line::parse(line).record()).collect()
    }

    #[test]
    fn events_have_their_level_and_stay_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        let mut log = TaskLog::open(&path).unwrap();
        log.hide("ge\"heim");
        // However it arrives, and also in the middle of a line that goes on.
        for byte in b"10% \x1e{\"level\": \"error\", \"logger\": \"x\", \"event\": \"a ge\\\"heim\", \"n\": [\"ge\\\"heim\"]}\n20%\n" {
            log.take(&[*byte]);
        }
        log.take_errors(b"from a child\n");
        log.take(b"odd \x1e character\n");
        log.say(Level::Critical, "out of memory");
        log.close();
        let found: Vec<_> = records(&path).into_iter().map(|one| (one.level, one.logger, one.event)).collect();
        let own = |parts: [&str; 3]| (parts[0].to_owned(), parts[1].to_owned(), parts[2].to_owned());
        assert_eq!(
            found,
            [
                own(["error", "x", "a ***"]),
                own(["info", "task.stdout", "10% 20%"]),
                own(["error", "task.stderr", "from a child"]),
                own(["info", "task.stdout", "odd \u{1e} character"]),
                own(["critical", "leoflow", "out of memory"]),
            ]
        );
        assert_eq!(records(&path)[0].others["n"], serde_json::json!(["***"]));
    }

    #[test]
    fn an_event_that_is_too_long_becomes_several() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        let mut log = TaskLog::open(&path).unwrap();
        let record = |event: &str, detail: &str| {
            format!(
                "\u{1e}{{\"level\": \"error\", \"logger\": \"x\", \"event\": \"{event}\", \"error_detail\": \"{detail}\"}}\n"
            )
        };
        log.take(record(&"ü".repeat(LONGEST_LINE), "why").as_bytes());
        log.take(record("short", &"x".repeat(2 * LONGEST_RECORD)).as_bytes());
        log.close();
        let found = records(&path);
        assert!(found.iter().all(|one| one.level == "error"));
        assert_eq!(found[..2].iter().map(|one| one.event.chars().count()).sum::<usize>(), LONGEST_LINE);
        let why: Vec<bool> = found[..2].iter().map(|one| one.others.contains_key("error_detail")).collect();
        assert_eq!(why, [false, true]);
        let longest = fs::read_to_string(&path).unwrap().lines().map(str::len).max();
        assert!(longest < Some(LONGEST_RECORD + 100), "{longest:?}");
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
