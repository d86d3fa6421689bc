//! The body of a response with a log. It is read, parsed and sent piece by piece: the parsed lines of a log of megabytes
//! take many times its size.

use crate::api::views::Stamp;
use crate::http::large;
use futures_util::future;
use futures_util::stream::{self, Stream, StreamExt};
use leoflow_base::protocol::task_log::{Line, Record};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

/// Size at which a piece ends, after a whole message; bytes.
const PIECE_BYTES: usize = 256 * 1024;

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
    /// Opens a log to send its whole lines from `offset` on, at most `limit` bytes of it; after the end of the task also
    /// an incomplete last line. A line longer than `limit` is sent in pieces. A missing log (not created yet, or removed)
    /// is empty.
    pub fn open(path: &Path, offset: u64, limit: u64, writing: Writing, format: Format) -> io::Result<Self> {
        let reader = LogReader::open(path, offset, limit, writing)?;
        Ok(Self { reader, format, is_first: true, has_message: false })
    }

    /// Returns the next piece, and the rest if there is more. Blocks.
    pub fn next_piece(mut self) -> io::Result<(Vec<u8>, Option<Self>)> {
        let mut piece = Vec::new();
        if std::mem::take(&mut self.is_first) && self.format == Format::Document {
            piece.extend_from_slice(b"{\"content\":[");
        }
        while piece.len() < PIECE_BYTES {
            let Some(line) = self.reader.next_line()? else {
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
            serde_json::to_writer(&mut piece, &message(&line))?;
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

fn message(line: &str) -> StructuredLogMessage {
    let line = Line::parse(line);
    let Record { level, logger, event, others: extra_fields } = line.record();
    let level_and_logger = [("level", level), ("logger", logger)].map(|(name, value)| (name.to_owned(), value.into()));
    let others = level_and_logger.into_iter().chain(extra_fields).collect();
    StructuredLogMessage { timestamp: line.time.map(Stamp), event, others }
}

/// Reads a log by line.
#[derive(Debug)]
struct LogReader {
    /// `None` for a missing log.
    file: Option<BufReader<Take<File>>>,
    /// Offset of the next line.
    next: u64,
    /// Size of the log when it was opened, bytes.
    size: u64,
    /// Maximum bytes to read.
    limit: u64,
    writing: Writing,
}

impl LogReader {
    fn open(path: &Path, offset: u64, limit: u64, writing: Writing) -> io::Result<Self> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { file: None, next: offset, size: offset, limit, writing });
            }
            Err(error) => return Err(error),
        };
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file: Some(BufReader::new(file.take(limit))), next: offset, size, limit, writing })
    }

    /// Returns the next line; `None` at the end.
    fn next_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_until(b'\n', &mut line)?;
        }
        // The last line may be incomplete while the task still writes.
        let is_last = self.writing == Writing::Ended && self.next + line.len() as u64 >= self.size;
        if !line.ends_with(b"\n") && !is_last {
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
        self.next += line.len() as u64;
        let text = match line.strip_suffix(b"\n") {
            Some(text) => text.strip_suffix(b"\r").unwrap_or(text),
            None => &line,
        };
        Ok(Some(String::from_utf8_lossy(text).into_owned()))
    }

    /// Returns the offset to continue from; `None` after the whole log of an ended task.
    fn continuation_token(&self) -> Option<String> {
        (self.writing == Writing::Ongoing || self.next < self.size).then(|| self.next.to_string())
    }
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

    fn pieces(path: &Path, offset: u64, limit: u64, writing: Writing, format: Format) -> Vec<Vec<u8>> {
        let (first, mut rest) = LogBody::open(path, offset, limit, writing, format).unwrap().next_piece().unwrap();
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
        let (first, rest) =
            LogBody::open(&path, 0, u64::MAX, Writing::Ended, Format::Document).unwrap().next_piece().unwrap();
        let sent: Vec<Vec<u8>> = stream(first, rest).try_collect().await.unwrap();
        assert!(sent.len() > 10 && sent.iter().all(|piece| piece.len() < PIECE_BYTES + 2000));
        let document: Value = serde_json::from_slice(&sent.concat()).unwrap();
        assert_eq!(document["content"].as_array().unwrap().len(), 3000);
        assert_eq!(document["continuation_token"], Value::Null);
        let lines = pieces(&path, 0, u64::MAX, Writing::Ended, Format::Lines).concat();
        assert_eq!(String::from_utf8(lines).unwrap().lines().count(), 3000);
    }

    /// Returns the events of a response and its continuation token.
    fn read(path: &Path, offset: u64, limit: u64, writing: Writing) -> Value {
        let document = pieces(path, offset, limit, writing, Format::Document).concat();
        let document: Value = serde_json::from_slice(&document).unwrap();
        let events: Vec<&str> =
            document["content"].as_array().unwrap().iter().map(|one| one["event"].as_str().unwrap()).collect();
        json!([events, document["continuation_token"]])
    }

    #[test]
    fn only_whole_lines_are_sent_while_the_task_writes() {
        let (_folder, path) = log("a\r\nb\nhalf");
        assert_eq!(read(&path, 0, u64::MAX, Writing::Ongoing), json!([["a", "b"], "5"]));
        assert_eq!(read(&path, 0, u64::MAX, Writing::Ended), json!([["a", "b", "half"], null]));
        assert_eq!(read(&path, 0, 4, Writing::Ended), json!([["a"], "3"]));
        assert_eq!(read(&path, 3, 2, Writing::Ended), json!([["b"], "5"]));
        assert_eq!(read(&path, 5, u64::MAX, Writing::Ongoing), json!([[], "5"]));
        assert_eq!(read(&path.with_extension("none"), 7, u64::MAX, Writing::Ended), json!([[], null]));
    }

    #[test]
    fn a_line_longer_than_a_response_is_sent_in_pieces() {
        let text = format!("2026-11-20T10:00:00Z out {}\nb\n", "ä".repeat(20));
        let (_folder, path) = log(&text);
        // The prefix has 25 bytes and each letter 2: the first response would end within a letter, the second after one.
        for (offset, expected) in [(0, json!(["ä".repeat(2), "29"])), (29, json!(["ä".repeat(14), "57"]))] {
            for writing in [Writing::Ongoing, Writing::Ended] {
                assert_eq!(read(&path, offset, 30, writing), json!([[expected[0]], expected[1]]));
            }
        }
        assert_eq!(read(&path, 57, 30, Writing::Ended), json!([["ääää", "b"], null]));
        assert_eq!(read(&path, 57, 30, Writing::Ongoing), json!([["ääää", "b"], "68"]));
        // A line as long as a response has no empty line after it.
        fs::write(&path, "abc\nd\n").unwrap();
        assert_eq!(read(&path, 0, 3, Writing::Ended), json!([["ab"], "2"]));
        assert_eq!(read(&path, 2, 3, Writing::Ended)[0][0], "c");
        fs::write(&path, b"1234567\xff\xff\xff\xff\xff\xff\n").unwrap();
        assert_eq!(read(&path, 0, 7, Writing::Ended), json!([["123456"], "6"]));
        assert_eq!(read(&path, 6, 7, Writing::Ended)[1], "12");
    }
}
