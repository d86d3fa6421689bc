//! The log of one try of a task: its path and line format. Written by the try's keeper process, or by the agent while
//! there is none; read by the server and the command line.
//!
//! A line is `<RFC 3339 time, microseconds, UTC> <out|err|sys|log> <text>`. The text of `log` is a JSON object: a
//! logger's event with `level`, `logger`, `event` and further fields, under Airflow's names.

use crate::home::Home;
use crate::words;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Size of the first part of a log, which is kept whole; bytes.
pub const HEAD_BYTES: u64 = 8 * 1024 * 1024;
/// Size of each of the two tail pieces, the full one and the current one; bytes.
pub const TAIL_PIECE_BYTES: u64 = 2 * 1024 * 1024;

/// The byte in a task's output that starts a record, which ends at the end of the line: RFC 7464.
pub const RECORD_START: u8 = 0x1e;

words! {
    /// Severity of an event.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Level: word {
        Info = "info",
        Warning = "warning",
        Error = "error",
        Critical = "critical",
    }
}

words! {
    /// Source of a line.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Stream: word {
        Output = "out",
        Errors = "err",
        /// A message of Leoflow about the task.
        System = "sys",
        /// An event of a logger.
        Log = "log",
    }
}

/// A parsed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: Option<jiff::Timestamp>,
    pub stream: Stream,
    pub text: &'a str,
}

impl<'a> Line<'a> {
    /// Parses any text; a line in another format becomes output without a time.
    pub fn parse(line: &'a str) -> Self {
        Self::parse_formatted(line).unwrap_or(Self { time: None, stream: Stream::Output, text: line })
    }

    fn parse_formatted(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let time = parts.next()?.parse().ok()?;
        let stream = Stream::parse(parts.next()?)?;
        Some(Self { time: Some(time), stream, text: parts.next().unwrap_or_default() })
    }

    /// The line as an event. Printed text gets Airflow's loggers `task.stdout` and `task.stderr`.
    pub fn record(&self) -> Record {
        let event_of = |level: Level, logger| Record::new(level, logger, self.text);
        match self.stream {
            Stream::Output => event_of(Level::Info, STDOUT),
            Stream::Errors => event_of(Level::Error, STDERR),
            Stream::System => event_of(Level::Info, OWN),
            Stream::Log => Record::parse(self.text.as_bytes()).unwrap_or_else(|| event_of(Level::Info, STDOUT)),
        }
    }

    /// The event of a piece of a line that is too long for one message: the text `piece` with the level and the logger
    /// of the line. `self` is the start of the line, which may end anywhere. The piece of an event is a part of its JSON.
    pub fn record_of_piece(&self, piece: &str) -> Record {
        let Record { mut level, mut logger, .. } = self.record();
        if self.stream == Stream::Log {
            let mut fields = complete_fields(self.text);
            let mut take = |name: &str| match fields.remove(name) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            };
            level = take("level").unwrap_or(level);
            logger = take("logger").unwrap_or(logger);
        }
        Record { level, logger, event: piece.to_owned(), others: Map::new() }
    }
}

/// The first fields of a JSON object that is incomplete: those that end before the end of `text`.
fn complete_fields(text: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut unread = text.trim_start().strip_prefix('{').unwrap_or_default();
    while let Some((Value::String(name), after_name)) = first_value(unread) {
        let Some((value, after_value)) = after_name.trim_start().strip_prefix(':').and_then(first_value) else { break };
        fields.insert(name, value);
        unread = after_value.trim_start().strip_prefix(',').unwrap_or_default();
    }
    fields
}

/// The first JSON value of a text, and the text after it.
fn first_value(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

const STDOUT: &str = "task.stdout";
const STDERR: &str = "task.stderr";
const OWN: &str = "leoflow";
/// Loggers of printed text: `Record::text` omits their level and name.
const PRINTED: &[&str] =
    &[STDOUT, STDERR, "airflow.task.hooks.airflow.providers.standard.hooks.subprocess.SubprocessHook"];
/// Fields that locate the logging code; `Record::text` omits them.
const CALL_SITE: &[&str] = &["filename", "lineno", "loc"];

/// An event of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub level: String,
    pub logger: String,
    pub event: String,
    /// `error_detail` and all further fields.
    pub others: Map<String, Value>,
}

impl Record {
    fn new(level: Level, logger: &str, event: &str) -> Self {
        Self { level: level.word().to_owned(), logger: logger.to_owned(), event: event.to_owned(), others: Map::new() }
    }

    /// An event of Leoflow itself.
    pub fn own(level: Level, event: &str) -> Self {
        Self::new(level, OWN, event)
    }

    /// Parses an event; `None` for any other text.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut others: Map<String, Value> = serde_json::from_slice(text).ok()?;
        let mut take = |name: &str| match others.shift_remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (event, level) = (take("event")?, take("level")?);
        let logger = take("logger").unwrap_or_default();
        Some(Self { level, logger, event, others })
    }

    /// Changes the event as JSON; keeps the old one if the result is not an event.
    pub fn change(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut json = self.to_json();
        edit(&mut json);
        if let Some(changed) = Self::parse(json.to_string().as_bytes()) {
            *self = changed;
        }
    }

    pub fn to_json(&self) -> Value {
        let mut json = json!({"level": self.level, "logger": self.logger, "event": self.event});
        if let Some(fields) = json.as_object_mut() {
            fields.extend(self.others.clone());
        }
        json
    }

    /// A line of the event's text as printed text, with the event's level.
    pub fn printed_line(&self, line: &str) -> Self {
        let is_error = ["error", "critical"].contains(&self.level.as_str());
        let logger = if is_error { STDERR } else { STDOUT };
        Self { level: self.level.clone(), logger: logger.to_owned(), event: line.to_owned(), others: Map::new() }
    }

    /// The record as text: level, logger, message (`event`), further fields, and the traceback below.
    pub fn text(&self) -> String {
        if self.others.is_empty() && PRINTED.contains(&self.logger.as_str()) {
            return self.event.clone();
        }
        let is_printed = PRINTED.contains(&self.logger.as_str());
        let mut text = match is_printed {
            true => self.event.clone(),
            false => format!("[{}] {}: {}", self.level.to_uppercase(), self.logger, self.event),
        };
        for (name, value) in &self.others {
            if name != "error_detail" && !(is_printed || CALL_SITE.contains(&name.as_str())) {
                text += &format!(" {name}={value}");
            }
        }
        match self.others.get("error_detail") {
            Some(detail) => format!("{text}\n{}", traceback(detail)),
            None => text,
        }
    }
}

/// A traceback as Python prints it, the cause first, but without the sentences that Python prints between errors.
fn traceback(detail: &Value) -> String {
    let Some(errors) = detail.as_array() else {
        return detail.as_str().map_or_else(|| detail.to_string(), str::to_owned);
    };
    let parts: Vec<String> = errors.iter().rev().map(one_traceback).collect();
    parts.join("\n\n")
}

fn one_traceback(error: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |name: &str| error[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines = Vec::new();
    if !list("frames").is_empty() {
        lines.push("Traceback (most recent call last):".to_owned());
    }
    for frame in list("frames") {
        lines.push(format!("  File {}, line {}, in {}", frame["filename"], frame["lineno"], text(&frame["name"])));
        lines.extend(frame["line"].as_str().map(|line| format!("    {line}")));
    }
    lines.push(match text(&error["exc_value"]) {
        value if value.is_empty() => text(&error["exc_type"]),
        value => format!("{}: {value}", text(&error["exc_type"])),
    });
    lines.extend(list("exc_notes").iter().map(text));
    // The members of an exception group.
    lines.extend(list("exceptions").iter().map(|member| traceback(member).replace('\n', "\n  ")));
    lines.join("\n")
}

/// The folder with the logs of all instances of a task in a run.
pub fn folder_of_task(home: &Home, dag_id: &str, run_id: &str, task_id: &str) -> PathBuf {
    folder_of_run(home, dag_id, run_id).join(file_name_for(task_id))
}

pub fn folder_of_run(home: &Home, dag_id: &str, run_id: &str) -> PathBuf {
    folder_of_dag(home, dag_id).join(file_name_for(run_id))
}

pub fn folder_of_dag(home: &Home, dag_id: &str) -> PathBuf {
    home.task_logs().join(file_name_for(dag_id))
}

/// Paths of the tail pieces of a log that exceeds its first part: the current one, and the full one before it.
pub fn tail_pieces(log: &Path) -> [PathBuf; 2] {
    [log.with_extension("log.tail-1"), log.with_extension("log.tail-2")]
}

/// Turns an id into a file name. An id that is not valid as one is shortened, and a hash of the whole id is appended.
fn file_name_for(id: &str) -> String {
    let is_safe = |c: char| c.is_alphanumeric() || "_-.+:~".contains(c);
    if id.len() <= 200 && !id.is_empty() && id.chars().all(is_safe) && id.chars().any(|c| c != '.') {
        return id.to_owned();
    }
    let start: String = id.chars().filter(|c| c.is_ascii_alphanumeric()).take(80).collect();
    format!("{start}~{}", hex::encode(&Sha256::digest(id.as_bytes())[..10]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_lines_and_keeps_unknown_ones() {
        let line = Line::parse("2026-11-20T10:00:00.000001Z err a  b");
        assert_eq!((line.stream, line.text), (Stream::Errors, "a  b"));
        assert_eq!(line.time.unwrap().to_string(), "2026-11-20T10:00:00.000001Z");
        assert_eq!(Line::parse("2026-11-20T10:00:00Z sys ").text, "");
        let unformatted = Line::parse("no time here");
        assert_eq!((unformatted.time, unformatted.text), (None, "no time here"));
    }

    #[test]
    fn every_line_is_an_event_with_a_level_and_a_logger() {
        let record = |line: &str| {
            let Record { level, logger, event, .. } = Line::parse(&format!("2026-11-20T10:00:00Z {line}")).record();
            (level, logger, event)
        };
        let event = |parts: [&str; 3]| (parts[0].to_owned(), parts[1].to_owned(), parts[2].to_owned());
        assert_eq!(record("out a  b"), event(["info", "task.stdout", "a  b"]));
        assert_eq!(record("err a"), event(["error", "task.stderr", "a"]));
        assert_eq!(record("sys a"), event(["info", "leoflow", "a"]));
        assert_eq!(
            record(r#"log {"level": "warning", "logger": "x", "event": "a\nb"}"#),
            event(["warning", "x", "a\nb"])
        );
        assert_eq!(record("log no JSON"), event(["info", "task.stdout", "no JSON"]));
    }

    #[test]
    fn a_piece_has_the_level_and_logger_of_its_line() {
        let record = |line: &str| {
            let Record { level, logger, event, .. } = Line::parse(line).record_of_piece("x");
            [level, logger, event]
        };
        for (start, expected) in [
            ("err a", ["error", "task.stderr", "x"]),
            (r#"log {"level": "warning", "logger": "l", "event": "a"#, ["warning", "l", "x"]),
            (r#"log {"n": [1, {}], "level": "error" , "event": "a\"#, ["error", "task.stdout", "x"]),
            (r#"log {"level": "warn"#, ["info", "task.stdout", "x"]),
            ("log no JSON", ["info", "task.stdout", "x"]),
        ] {
            assert_eq!(record(&format!("2026-11-20T10:00:00Z {start}")), expected, "{start}");
        }
        assert_eq!(record("no time"), ["info", "task.stdout", "x"]);
    }

    #[test]
    fn an_event_is_shown_with_its_fields_and_traceback() {
        let text = r#"{"level": "error", "logger": "task", "event": "Task failed with exception", "lineno": 7, "n": 1, "error_detail": [
            {"exc_type": "KeyError", "exc_value": "'b'", "exc_notes": ["a note"], "frames": [{"filename": "/w/d.py", "lineno": 3, "name": "f", "line": "x['b']"}]},
            {"exc_type": "ValueError", "exc_value": "", "exc_notes": [], "is_cause": true, "frames": []}]}"#;
        let expected = "[ERROR] task: Task failed with exception n=1\nValueError\n\n\
                        Traceback (most recent call last):\n  File \"/w/d.py\", line 3, in f\n    x['b']\n\
                        KeyError: 'b'\na note";
        let record = Record::parse(text.as_bytes()).unwrap();
        assert_eq!(record.text(), expected);
        assert_eq!(Record::parse(record.to_json().to_string().as_bytes()), Some(record));
        assert_eq!(
            Record::parse(br#"{"level": "info", "logger": "task.stderr", "event": "plain"}"#).unwrap().text(),
            "plain"
        );
        assert_eq!(Record::parse(br#"{"event": "without a level"}"#), None);
    }

    #[test]
    fn ids_become_safe_file_names() {
        assert_eq!(file_name_for("manual__2026-01-01T00:00:00.5+00:00"), "manual__2026-01-01T00:00:00.5+00:00");
        assert_eq!(file_name_for("größe"), "größe");
        for invalid in ["..", ".", "", "a/b", "../x", &"ä".repeat(250), "nul\0"] {
            let name = file_name_for(invalid);
            assert!(!name.contains('/') && !name.contains('\0') && name.len() <= 255 && name.contains('~'), "{name}");
        }
        assert_ne!(file_name_for("a/b"), file_name_for("a\\b"));
    }
}
