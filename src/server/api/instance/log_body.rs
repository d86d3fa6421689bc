//! The body of a response with a log. It is read, parsed and sent piece by piece: the parsed lines of a log of megabytes
//! take many times its size.

use crate::api::prelude::*;
use crate::http::large;
use futures_util::future;
use futures_util::stream::{self, Stream, StreamExt};
use leoflow_base::protocol::task_log::{Line, Record};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

/// Size at which a piece ends, after a whole message; bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// Maximum bytes of the start of a line that are read for the time, level and logger of its later pieces.
const LINE_START_BYTES: u64 = 4 * 1024;

/// Form of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One message per line.
    Lines,
    /// One object with the messages, and the continuation token after them.
    Document,
}

/// Whether the task may still append to its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    Ongoing,
    Ended,
}

/// Where a response starts in a log. As text it is the continuation token: `OFFSET`, or `OFFSET-LINE_START` within a
/// line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    offset: u64,
    /// Offset of the start of the line; `offset` itself unless an earlier response ended within the line.
    line_start: u64,
}

impl Position {
    /// Parses a continuation token.
    pub fn parse(token: &str) -> Option<Self> {
        let (offset, line_start) = token.split_once('-').unwrap_or((token, token));
        let position = Self { offset: offset.parse().ok()?, line_start: line_start.parse().ok()? };
        (position.line_start <= position.offset).then_some(position)
    }

    fn is_within_line(self) -> bool {
        self.line_start < self.offset
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.offset)?;
        if self.is_within_line() { write!(formatter, "-{}", self.line_start) } else { Ok(()) }
    }
}

/// A log line.
#[derive(Serialize, JsonSchema)]
pub struct StructuredLogMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Stamp")]
    pub timestamp: Option<Stamp>,
    pub event: String,
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// The part of a response that is not sent yet.
#[derive(Debug)]
pub struct LogBody {
    reader: LogReader,
    format: Format,
    /// True until the first piece is complete.
    is_first: bool,
    has_message: bool,
}

impl LogBody {
    /// Opens a log to send its whole lines from `position` on, at most `limit` bytes of it; after the end of the task
    /// also an incomplete last line. A line longer than `limit` is sent in pieces, each with the line's time, level and
    /// logger. A missing log (not created yet, or removed) is empty.
    pub fn open(path: &Path, position: Position, limit: u64, writing: Writing, format: Format) -> io::Result<Self> {
        let reader = LogReader::open(path, position, limit, writing)?;
        Ok(Self { reader, format, is_first: true, has_message: false })
    }

    /// Returns the next piece, and the rest if there is more. Blocks.
    pub fn next_piece(mut self) -> io::Result<(Vec<u8>, Option<Self>)> {
        let mut piece = Vec::new();
        if std::mem::take(&mut self.is_first) && self.format == Format::Document {
            piece.extend_from_slice(b"{\"content\":[");
        }
        while piece.len() < PIECE_BYTES {
            let Some(message) = self.reader.next_message()? else {
                if self.format == Format::Document {
                    piece.extend_from_slice(b"],\"continuation_token\":");
                    serde_json::to_writer(&mut piece, &self.reader.continuation_token())?;
                    piece.push(b'}');
                }
                return Ok((piece, None));
            };
            if self.format == Format::Document && std::mem::replace(&mut self.has_message, true) {
                piece.push(b',');
            }
            serde_json::to_writer(&mut piece, &message)?;
            if self.format == Format::Lines {
                piece.push(b'\n');
            }
        }
        Ok((piece, Some(self)))
    }
}

/// The pieces of a body from the first one on.
pub fn stream(first: Vec<u8>, rest: Option<LogBody>) -> impl Stream<Item = io::Result<Vec<u8>>> {
    stream::once(future::ready(Ok(first))).chain(stream::try_unfold(rest, next_piece))
}

async fn next_piece(rest: Option<LogBody>) -> io::Result<Option<(Vec<u8>, Option<LogBody>)>> {
    let Some(body) = rest else { return Ok(None) };
    large::run(move || body.next_piece()).await.map_err(io::Error::other)?.map(Some)
}

fn message(time: Option<Timestamp>, record: Record) -> StructuredLogMessage {
    let Record { level, logger, event, others: extra_fields } = record;
    let level_and_logger = [("level", level), ("logger", logger)].map(|(name, value)| (name.to_owned(), value.into()));
    let others = level_and_logger.into_iter().chain(extra_fields).collect();
    StructuredLogMessage { timestamp: time.map(Stamp), event, others }
}

/// Reads a log by line.
#[derive(Debug)]
struct LogReader {
    /// `None` for a missing log.
    file: Option<BufReader<Take<File>>>,
    /// Position of the next line, or of the next piece of a line.
    next: Position,
    /// The start of the line that contains `next`; `None` at the start of a line.
    line_start: Option<String>,
    /// Size of the log when it was opened, bytes.
    size: u64,
    /// Maximum bytes to read.
    limit: u64,
    writing: Writing,
}

impl LogReader {
    fn open(path: &Path, next: Position, limit: u64, writing: Writing) -> io::Result<Self> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { file: None, next, line_start: None, size: next.offset, limit, writing });
            }
            Err(error) => return Err(error),
        };
        let size = file.metadata()?.len();
        let line_start = if next.is_within_line() { Some(read_line_start(&mut file, next)?) } else { None };
        file.seek(SeekFrom::Start(next.offset))?;
        Ok(Self { file: Some(BufReader::new(file.take(limit))), next, line_start, size, limit, writing })
    }

    /// Returns the next line, or the next piece of a line; `None` at the end.
    fn next_message(&mut self) -> io::Result<Option<StructuredLogMessage>> {
        let mut line = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_until(b'\n', &mut line)?;
        }
        // The last line may be incomplete while the task still writes.
        let is_last = self.writing == Writing::Ended && self.next.offset + line.len() as u64 >= self.size;
        let is_cut = !line.ends_with(b"\n") && !is_last;
        if is_cut {
            // No response can contain the whole line if its start alone reaches the limit. Without this piece of it, the
            // continuation token would never change. The agent's lines are shorter; those of a log that something else
            // wrote may not be.
            if line.len() as u64 != self.limit {
                return Ok(None);
            }
            cut_incomplete_end(&mut line);
        }
        if line.is_empty() {
            return Ok(None);
        }
        self.next.offset += line.len() as u64;
        if !is_cut {
            self.next.line_start = self.next.offset;
        }
        let text = match line.strip_suffix(b"\n") {
            Some(text) => text.strip_suffix(b"\r").unwrap_or(text),
            None => &line,
        };
        let text = String::from_utf8_lossy(text);
        let line_start = self.line_start.take();
        let line = Line::parse(line_start.as_deref().unwrap_or(&text));
        let record = match &line_start {
            Some(_) => line.record_of_piece(&text),
            None if is_cut => line.record_of_piece(line.text),
            None => line.record(),
        };
        Ok(Some(message(line.time, record)))
    }

    /// Returns the position to continue from; `None` after the whole log of an ended task.
    fn continuation_token(&self) -> Option<String> {
        (self.writing == Writing::Ongoing || self.next.offset < self.size).then(|| self.next.to_string())
    }
}

/// Reads the start of the line that contains `position`.
fn read_line_start(file: &mut File, position: Position) -> io::Result<String> {
    let mut start = Vec::new();
    file.seek(SeekFrom::Start(position.line_start))?;
    file.take((position.offset - position.line_start).min(LINE_START_BYTES)).read_to_end(&mut start)?;
    Ok(String::from_utf8_lossy(&start).into_owned())
}

/// Removes the start of a UTF-8 character whose other bytes are missing at the end, or else the last character, because
/// an end of line may follow. Leaves at least one byte.
fn cut_incomplete_end(text: &mut Vec<u8>) {
    let is_start = |byte: &u8| *byte & 0b1100_0000 != 0b1000_0000;
    let last = text.iter().rposition(is_start).unwrap_or(0);
    // Without one of the last four bytes being the start of a character, the text is not UTF-8.
    let end = if text.len() - last <= 4 { last } else { text.len() - 1 };
    text.truncate(end.max(1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;
    use serde_json::json;
    use std::fs;
    use std::path::PathBuf;

    fn log(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn pieces(path: &Path, token: &str, limit: u64, writing: Writing, format: Format) -> Vec<Vec<u8>> {
        let position = Position::parse(token).unwrap();
        let (first, mut rest) = LogBody::open(path, position, limit, writing, format).unwrap().next_piece().unwrap();
        let mut pieces = vec![first];
        while let Some(body) = rest {
            let (piece, more) = body.next_piece().unwrap();
            pieces.push(piece);
            rest = more;
        }
        pieces
    }

    #[tokio::test]
    async fn a_large_log_is_sent_in_small_pieces() {
        let line = format!("2026-11-20T10:00:00Z out {}\n", "x".repeat(1000));
        let (_folder, path) = log(&line.repeat(3000));
        let body = LogBody::open(&path, Position::default(), u64::MAX, Writing::Ended, Format::Document).unwrap();
        let (first, rest) = body.next_piece().unwrap();
        let sent: Vec<Vec<u8>> = stream(first, rest).try_collect().await.unwrap();
        assert!(sent.len() > 10 && sent.iter().all(|piece| piece.len() < PIECE_BYTES + 2000));
        let document: Value = serde_json::from_slice(&sent.concat()).unwrap();
        assert_eq!(document["content"].as_array().unwrap().len(), 3000);
        assert_eq!(document["continuation_token"], Value::Null);
        let lines = pieces(&path, "0", u64::MAX, Writing::Ended, Format::Lines).concat();
        assert_eq!(String::from_utf8(lines).unwrap().lines().count(), 3000);
    }

    fn document(path: &Path, token: &str, limit: u64, writing: Writing) -> Value {
        serde_json::from_slice(&pieces(path, token, limit, writing, Format::Document).concat()).unwrap()
    }

    /// Returns the events of a response and its continuation token.
    fn read(path: &Path, token: &str, limit: u64, writing: Writing) -> Value {
        let document = document(path, token, limit, writing);
        let events: Vec<&str> =
            document["content"].as_array().unwrap().iter().map(|one| one["event"].as_str().unwrap()).collect();
        json!([events, document["continuation_token"]])
    }

    #[test]
    fn only_whole_lines_are_sent_while_the_task_writes() {
        let (_folder, path) = log("a\r\nb\nhalf");
        assert_eq!(read(&path, "0", u64::MAX, Writing::Ongoing), json!([["a", "b"], "5"]));
        assert_eq!(read(&path, "0", u64::MAX, Writing::Ended), json!([["a", "b", "half"], null]));
        assert_eq!(read(&path, "0", 4, Writing::Ended), json!([["a"], "3"]));
        assert_eq!(read(&path, "3", 2, Writing::Ended), json!([["b"], "5"]));
        assert_eq!(read(&path, "5", u64::MAX, Writing::Ongoing), json!([[], "5"]));
        assert_eq!(read(&path.with_extension("none"), "7", u64::MAX, Writing::Ended), json!([[], null]));
    }

    #[test]
    fn a_line_longer_than_a_response_is_sent_in_pieces() {
        let text = format!("2026-11-20T10:00:00Z out {}\nb\n", "ä".repeat(20));
        let (_folder, path) = log(&text);
        // The prefix has 25 bytes and each letter 2: the first response would end within a letter, the second after one.
        for (token, events, next) in [("0", "ä".repeat(2), "29-0"), ("29-0", "ä".repeat(14), "57-0")] {
            for writing in [Writing::Ongoing, Writing::Ended] {
                assert_eq!(read(&path, token, 30, writing), json!([[events], next]));
            }
        }
        assert_eq!(read(&path, "57-0", 30, Writing::Ended), json!([["ääää", "b"], null]));
        assert_eq!(read(&path, "57-0", 30, Writing::Ongoing), json!([["ääää", "b"], "68"]));
        // A line as long as a response has no empty line after it.
        fs::write(&path, "abc\nd\n").unwrap();
        assert_eq!(read(&path, "0", 3, Writing::Ended), json!([["ab"], "2-0"]));
        assert_eq!(read(&path, "2-0", 3, Writing::Ended)[0][0], "c");
        fs::write(&path, b"1234567\xff\xff\xff\xff\xff\xff\n").unwrap();
        assert_eq!(read(&path, "0", 7, Writing::Ended), json!([["123456"], "6-0"]));
        assert_eq!(read(&path, "6-0", 7, Writing::Ended)[1], "12-0");
    }

    #[test]
    fn each_piece_has_the_time_level_and_logger_of_its_line() {
        let event = format!(r#"{{"level":"warning","logger":"x","event":"{}"}}"#, "w".repeat(200));
        let printed = "e".repeat(200);
        let (_folder, path) = log(&format!(
            "2026-11-20T10:00:00Z out a\n2026-11-20T10:00:01Z log {event}\n2026-11-20T10:00:02Z err {printed}\n"
        ));
        let (mut messages, mut token) = (Vec::new(), json!("0"));
        while let Some(text) = token.as_str() {
            let mut document = document(&path, text, 100, Writing::Ended);
            messages.append(document["content"].as_array_mut().unwrap());
            token = document["continuation_token"].take();
        }
        let of_line = |time: &str, level: &str, logger: &str| {
            let is_of_line = |message: &&Value| {
                let is_at = message["timestamp"].as_str().is_some_and(|stamp| stamp.starts_with(time));
                is_at && message["level"] == level && message["logger"] == logger
            };
            let of_line: Vec<&Value> = messages.iter().filter(is_of_line).collect();
            let events: Vec<&str> = of_line.iter().filter_map(|message| message["event"].as_str()).collect();
            (of_line.len(), events.concat())
        };
        let first = of_line("2026-11-20T10:00:00", "info", "task.stdout");
        let second = of_line("2026-11-20T10:00:01", "warning", "x");
        let third = of_line("2026-11-20T10:00:02", "error", "task.stderr");
        assert_eq!((first.1.as_str(), second.1, third.1), ("a", event, printed), "{messages:?}");
        assert!(second.0 > 2 && third.0 > 2 && first.0 + second.0 + third.0 == messages.len(), "{messages:?}");
    }

    #[test]
    fn a_token_is_a_position_in_the_log() {
        for token in ["0", "7", "7-0", "7-6"] {
            assert_eq!(Position::parse(token).unwrap().to_string(), token);
        }
        for invalid in ["", "x", "-", "7-", "-7", "7-8", "7-6-5"] {
            assert_eq!(Position::parse(invalid), None, "{invalid}");
        }
    }
}
