//! Writes the log of a try: each line with its time and stream. A long log keeps its first and its last part; the
//! middle is dropped.

use jiff::Timestamp;
use leoflow_base::auth::masking::Masker;
use leoflow_base::protocol::task_log::{
    HEAD_BYTES, Level, RECORD_START, Record, Stream, TAIL_PIECE_BYTES, tail_pieces,
};
use leoflow_base::sys::fs::files;
use serde_json::Map;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tracing::warn;

/// Maximum bytes of a record; a longer one is treated as plain output.
const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

/// Maximum bytes of a line; a longer line is split into several, and so is the text of a longer event.
const LONGEST_LINE: usize = 64 * 1024;
/// Maximum bytes of an event; a longer event becomes an event for each line of its text. Less than the server reads at
/// once.
const LONGEST_RECORD: usize = 256 * 1024;

pub(crate) struct TaskLog {
    path: PathBuf,
    /// `None` while the file cannot be opened.
    file: Option<File>,
    /// Bytes in the file being written.
    written: u64,
    segment: Segment,
    /// Bytes of the full tail pieces that newer ones have replaced.
    dropped: u64,
    /// Incomplete last lines: of the output, and of the errors.
    partial_lines: [Vec<u8>; 2],
    /// An incomplete record, without the byte `RECORD_START`.
    record: Option<Vec<u8>>,
    /// Values to mask.
    secrets: Masker,
    /// True while writing fails: the disk is full, or the file is gone.
    broken: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Head,
    Tail,
}

impl TaskLog {
    /// Creates the log, or appends to it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut log = Self::unopened(path);
        log.open_file()?;
        Ok(log)
    }

    /// Creates the file if it is not open. A failure is only logged: the task runs without its log, and each later line
    /// retries.
    pub(crate) fn open_or_later(&mut self) {
        if let Err(error) = self.open_file() {
            self.note_broken(&error);
        }
    }

    /// A log whose first line creates or opens the file.
    pub(crate) fn unopened(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            written: 0,
            segment: Segment::Head,
            dropped: 0,
            partial_lines: [Vec::new(), Vec::new()],
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

    /// Masks a value in all lines from here on.
    pub(crate) fn add_secret(&mut self, secret: &str) {
        self.secrets.add(secret);
    }

    /// Writes bytes of the task's output, which may contain records.
    pub(crate) fn write_output(&mut self, bytes: &[u8]) {
        let mut lines = Vec::with_capacity(bytes.len() + bytes.len() / 4);
        let mut unread = bytes;
        while !unread.is_empty() {
            if let Some(mut record) = self.record.take() {
                let Some(position) = unread.iter().position(|byte| *byte == b'\n') else {
                    record.extend_from_slice(unread);
                    self.record = Some(record);
                    break;
                };
                record.extend_from_slice(&unread[..position]);
                unread = &unread[position + 1..];
                self.push_record(&mut lines, &record);
                continue;
            }
            let position = unread.iter().position(|byte| *byte == RECORD_START).unwrap_or(unread.len());
            self.push_text(&mut lines, Stream::Output, &unread[..position]);
            self.record = (position < unread.len()).then(Vec::new);
            unread = unread.get(position + 1..).unwrap_or_default();
        }
        if let Some(record) = self.record.take_if(|record| record.len() > MAX_RECORD_BYTES) {
            self.push_text(&mut lines, Stream::Output, &record);
        }
        self.write(&lines);
    }

    /// Writes bytes of the task's standard error.
    pub(crate) fn write_errors(&mut self, bytes: &[u8]) {
        let mut lines = Vec::with_capacity(bytes.len() + bytes.len() / 4);
        self.push_text(&mut lines, Stream::Errors, bytes);
        self.write(&lines);
    }

    /// Appends the complete lines of a stream's text to `lines`; keeps an incomplete last line for later.
    fn push_text(&mut self, lines: &mut Vec<u8>, stream: Stream, bytes: &[u8]) {
        let prefix = line_prefix(stream);
        let mut text = std::mem::take(self.partial_line(stream));
        let mut unread = bytes;
        // A lone carriage return redraws a line in a terminal; here it starts another line.
        while let Some(position) = unread.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            text.extend_from_slice(&unread[..position]);
            let is_crlf = unread[position] == b'\r' && unread.get(position + 1) == Some(&b'\n');
            unread = &unread[position + 1 + usize::from(is_crlf)..];
            self.push_masked(lines, &prefix, &text);
            text.clear();
        }
        text.extend_from_slice(unread);
        // Masks the text before splitting it: otherwise a piece could end with the first half of a secret.
        if text.len() > LONGEST_LINE + self.secrets.longest() {
            text = self.secrets.mask(&text).unwrap_or(text);
        }
        while text.len() > LONGEST_LINE + self.secrets.longest() {
            let remainder = text.split_off(LONGEST_LINE);
            push_lines(lines, &prefix, &text);
            text = remainder;
        }
        *self.partial_line(stream) = text;
    }

    fn partial_line(&mut self, stream: Stream) -> &mut Vec<u8> {
        &mut self.partial_lines[usize::from(stream == Stream::Errors)]
    }

    fn push_masked(&mut self, lines: &mut Vec<u8>, prefix: &str, text: &[u8]) {
        push_lines(lines, prefix, self.secrets.mask(text).as_deref().unwrap_or(text));
    }

    /// Writes a record as an event. If the text does not parse, a program has printed a stray start byte: the text is
    /// then plain output.
    fn push_record(&mut self, lines: &mut Vec<u8>, text: &[u8]) {
        let Some(record) = Record::parse(text) else {
            return self.push_text(lines, Stream::Output, &[&[RECORD_START], text, b"\n"].concat());
        };
        push_event(lines, self.mask_record(record));
    }

    fn mask_record(&mut self, mut record: Record) -> Record {
        if !self.secrets.is_empty() {
            record.change(|value| self.secrets.mask_json(value));
        }
        record
    }

    /// Writes a message of Leoflow itself.
    pub(crate) fn write_message(&mut self, level: Level, text: &str) {
        let mut lines = Vec::new();
        for line in text.lines() {
            match level {
                Level::Info => self.push_masked(&mut lines, &line_prefix(Stream::System), line.as_bytes()),
                _ => push_event(&mut lines, self.mask_record(Record::own(level, line))),
            }
        }
        self.write(&lines);
    }

    /// Writes incomplete lines, joins the parts, and notes how much was dropped.
    pub(crate) fn close(&mut self) {
        let mut lines = Vec::new();
        if let Some(record) = self.record.take() {
            self.push_text(&mut lines, Stream::Output, &record);
        }
        for stream in [Stream::Output, Stream::Errors] {
            let text = std::mem::take(self.partial_line(stream));
            if !text.is_empty() {
                self.push_masked(&mut lines, &line_prefix(stream), &text);
            }
        }
        self.write(&lines);
        self.file = None;
        join_pieces(&self.path, self.dropped);
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let limit = if self.segment == Segment::Head { HEAD_BYTES } else { TAIL_PIECE_BYTES };
        if self.written >= limit {
            self.next_piece();
        }
        match self.write_all(lines) {
            Ok(()) => {
                self.written += lines.len() as u64;
                self.broken = false;
            }
            // The task continues without its log; a full disk is reported elsewhere too.
            Err(error) => self.note_broken(&error),
        }
    }

    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.open_file()?;
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(lines))
    }

    /// Logs a failure once, until a line is written again.
    fn note_broken(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.broken, true) {
            warn!("cannot write {}: {error}", self.path.display());
        }
    }

    /// Continues in a new tail piece. The full piece before it is kept, the one before that is dropped.
    fn next_piece(&mut self) {
        let [current, full] = tail_pieces(&self.path);
        if self.segment == Segment::Tail {
            self.dropped += fs::metadata(&full).map_or(0, |meta| meta.len());
            // If the rename fails, `current` is overwritten instead of `full`; `dropped` is then only approximate.
            let _ = fs::rename(&current, &full);
        }
        if let Ok(file) = File::create(&current) {
            self.file = Some(file);
            self.segment = Segment::Tail;
            self.written = 0;
        }
    }
}

/// Appends the tail pieces to the first part, with a line that says how many bytes were `dropped` between them. Also
/// completes a log whose writer was killed.
pub(crate) fn join_pieces(path: &Path, dropped: u64) {
    let [current, full] = tail_pieces(path);
    if !current.exists() && !full.exists() {
        return;
    }
    let Ok(mut log) = OpenOptions::new().append(true).open(path) else { return };
    if dropped > 0 {
        let text = format!("{}… {dropped} bytes omitted here …\n", line_prefix(Stream::System));
        let _ = log.write_all(text.as_bytes());
    }
    for piece in [full, current] {
        let copied = File::open(&piece).and_then(|mut reader| io::copy(&mut reader, &mut log));
        if copied.is_ok() {
            let _ = fs::remove_file(&piece);
        }
    }
}

/// The start of a line: the time and the stream.
fn line_prefix(stream: Stream) -> String {
    let now = Timestamp::now();
    format!("{}.{:06}Z {} ", now.strftime("%Y-%m-%dT%H:%M:%S"), now.subsec_nanosecond() / 1000, stream.word())
}

/// Appends a line, or several if it is too long.
fn push_lines(lines: &mut Vec<u8>, prefix: &str, text: &[u8]) {
    let mut pieces = text.chunks(LONGEST_LINE);
    let first = pieces.next().unwrap_or_default();
    for piece in std::iter::once(first).chain(pieces) {
        push_line(lines, prefix, piece);
    }
}

/// Appends an event as one line, or as several if it is too long, all with its time and level. If only its text is too
/// long, the last line has the other fields.
fn push_event(lines: &mut Vec<u8>, mut record: Record) {
    let prefix = line_prefix(Stream::Log);
    push_start(lines, &prefix, &mut record);
    let text = record.to_json().to_string();
    if text.len() <= LONGEST_RECORD {
        return push_line(lines, &prefix, text.as_bytes());
    }
    for line in record.text().lines() {
        let mut printed = record.printed_line(line);
        push_start(lines, &prefix, &mut printed);
        push_line(lines, &prefix, printed.to_json().to_string().as_bytes());
    }
}

/// Appends lines with the start of the event's text, without the other fields; leaves at most `LONGEST_LINE` bytes of
/// the text.
fn push_start(lines: &mut Vec<u8>, prefix: &str, record: &mut Record) {
    while record.event.len() > LONGEST_LINE {
        let position =
            (0..=LONGEST_LINE).rev().find(|position| record.event.is_char_boundary(*position)).unwrap_or_default();
        let remainder = record.event.split_off(position);
        let part = Record { others: Map::new(), ..record.clone() };
        push_line(lines, prefix, part.to_json().to_string().as_bytes());
        record.event = remainder;
    }
}

fn push_line(lines: &mut Vec<u8>, prefix: &str, text: &[u8]) {
    lines.extend_from_slice(prefix.as_bytes());
    lines.extend_from_slice(text);
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::protocol::task_log::Line;

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
        log.write_output(b"one\ntw");
        log.write_output(b"o\r\nbar 1\rbar 2\r\n\nlast");
        log.write_message(Level::Info, "own");
        log.close();
        let logged = texts(&path);
        let texts_of = |target| {
            let of_stream = logged.iter().filter(|(stream, _)| *stream == target);
            of_stream.map(|(_, text)| text.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(texts_of(Stream::Output), ["one", "two", "bar 1", "bar 2", "", "last"]);
        assert_eq!(texts_of(Stream::System), ["own"]);
    }

    #[test]
    fn a_flood_keeps_its_first_and_last_part() {
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
            log.write_output(&chunk);
        }
        log.close();
        let size = fs::metadata(&path).unwrap().len();
        assert!(size < HEAD_BYTES + 2 * TAIL_PIECE_BYTES + 100_000, "{size}");
        let logged = texts(&path);
        assert!(logged[0].1.starts_with("line 0 "));
        assert!(logged.last().unwrap().1.starts_with(&format!("line {} ", number - 1)));
        assert!(logged.iter().any(|(stream, text)| *stream == Stream::System && text.contains("omitted")));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_is_masked_where_a_line_is_split() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        let mut log = TaskLog::open(&path).unwrap();
        log.write_output(b"before geheim1\n");
        log.add_secret("geheim1");
        log.write_output(b"a gehe");
        log.write_output(b"im1 b\n");
        for _ in 0..LONGEST_LINE {
            log.write_output(b"xgeheim1");
        }
        log.close();
        let logged: Vec<String> = texts(&path).into_iter().map(|(_, text)| text).collect();
        assert_eq!(logged[..2], ["before geheim1", "a *** b"]);
        assert!(logged[2..].iter().all(|line| !line.contains('e')), "no part of the secret is left");
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
        log.add_secret("ge\"heim");
        // Byte by byte, and in the middle of an unfinished line.
        for byte in b"10% \x1e{\"level\": \"error\", \"logger\": \"x\", \"event\": \"a ge\\\"heim\", \"n\": [\"ge\\\"heim\"]}\n20%\n" {
            log.write_output(&[*byte]);
        }
        log.write_errors(b"from a child\n");
        log.write_output(b"odd \x1e character\n");
        log.write_message(Level::Critical, "out of memory");
        log.close();
        let logged: Vec<_> =
            records(&path).into_iter().map(|record| (record.level, record.logger, record.event)).collect();
        let event = |parts: [&str; 3]| (parts[0].to_owned(), parts[1].to_owned(), parts[2].to_owned());
        assert_eq!(
            logged,
            [
                event(["error", "x", "a ***"]),
                event(["info", "task.stdout", "10% 20%"]),
                event(["error", "task.stderr", "from a child"]),
                event(["info", "task.stdout", "odd \u{1e} character"]),
                event(["critical", "leoflow", "out of memory"]),
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
        log.write_output(record(&"ü".repeat(LONGEST_LINE), "why").as_bytes());
        log.write_output(record("short", &"x".repeat(2 * LONGEST_RECORD)).as_bytes());
        log.close();
        let logged = records(&path);
        assert!(logged.iter().all(|record| record.level == "error"));
        assert_eq!(logged[..2].iter().map(|record| record.event.chars().count()).sum::<usize>(), LONGEST_LINE);
        let has_detail: Vec<bool> =
            logged[..2].iter().map(|record| record.others.contains_key("error_detail")).collect();
        assert_eq!(has_detail, [false, true]);
        let longest = fs::read_to_string(&path).unwrap().lines().map(str::len).max();
        assert!(longest < Some(LONGEST_RECORD + 100), "{longest:?}");
    }

    #[test]
    fn the_lines_of_a_long_event_have_its_time_and_level() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        let mut log = TaskLog::open(&path).unwrap();
        let detail = format!("first\\n{}", "ü".repeat(LONGEST_RECORD));
        let event = r#""level": "warning", "logger": "x", "event": "why""#;
        log.write_output(format!("\u{1e}{{{event}, \"error_detail\": \"{detail}\"}}\n").as_bytes());
        log.close();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<Line<'_>> = text.lines().map(Line::parse).collect();
        assert!(lines.len() > 4 && lines.iter().all(|line| line.time == lines[0].time), "{}", lines.len());
        let logged = records(&path);
        assert!(logged.iter().all(|record| (&*record.level, &*record.logger) == ("warning", "task.stdout")));
        let events: Vec<&str> = logged.iter().map(|record| record.event.as_str()).collect();
        assert_eq!(events[..2], ["[WARNING] x: why", "first"]);
        assert_eq!(events[2..].concat(), "ü".repeat(LONGEST_RECORD));
    }

    #[test]
    fn a_line_without_end_is_split() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        let mut log = TaskLog::open(&path).unwrap();
        log.write_output(&vec![b'x'; 3 * LONGEST_LINE + 5]);
        log.close();
        let lengths: Vec<usize> = texts(&path).iter().map(|(_, text)| text.len()).collect();
        assert_eq!(lengths, [LONGEST_LINE, LONGEST_LINE, LONGEST_LINE, 5]);
    }
}
