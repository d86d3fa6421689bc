//! Formats the lines of a task's log.

use jiff::Timestamp;
use leoflow_base::protocol::task_log::{Record, Stream};
use serde_json::Map;

/// Maximum bytes of a line; a longer line is split into several, and so is the text of a longer event.
pub const LONGEST_LINE: usize = 64 * 1024;
/// Maximum bytes of an event; a longer event becomes an event for each line of its text. Less than the server reads at
/// once.
pub const LONGEST_RECORD: usize = 256 * 1024;

/// The start of a line: the time and the stream.
pub fn line_prefix(stream: Stream) -> String {
    let now = Timestamp::now();
    format!("{}.{:06}Z {} ", now.strftime("%Y-%m-%dT%H:%M:%S"), now.subsec_nanosecond() / 1000, stream.word())
}

/// Appends a line, or several if it is too long.
pub fn push_lines(lines: &mut Vec<u8>, prefix: &str, text: &[u8]) {
    let mut pieces = text.chunks(LONGEST_LINE);
    let first = pieces.next().unwrap_or_default();
    for piece in std::iter::once(first).chain(pieces) {
        push_line(lines, prefix, piece);
    }
}

/// Appends an event as one line, or as several if it is too long, all with its time and level. If only its text is too
/// long, the last line has the other fields.
pub fn push_event(lines: &mut Vec<u8>, mut record: Record) {
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
