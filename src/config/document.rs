//! The file as a document: its mapping, and which line says what.

use serde_yaml::{Mapping, Value};

/// Something at a line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; 0 when it is about the whole file.
    pub line: usize,
    pub message: String,
}

/// The document as a mapping. Comments alone, or nothing, are an empty one.
pub fn to_mapping(text: &str) -> Result<Mapping, Vec<Problem>> {
    if text.matches(['[', '{']).count() > MOST_OPENED {
        let message = format!("more than {MOST_OPENED} brackets, which no settings have");
        return Err(vec![Problem { line: 0, message }]);
    }
    if let Some(line) = text.lines().position(|line| nesting(line) > DEEPEST) {
        let message = format!("nested more than {DEEPEST} deep on one line, which no settings are");
        return Err(vec![Problem { line: line + 1, message }]);
    }
    let value: Value = serde_yaml::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        vec![Problem { line, message: format!("not valid YAML: {error}") }]
    })?;
    match value {
        Value::Mapping(mapping) => Ok(mapping),
        Value::Null => Ok(Mapping::new()),
        other => {
            let message = format!("expected lines of `key: value`, found {}", show(&other));
            Err(vec![Problem { line: 1, message }])
        }
    }
}

/// Deeper lines are not given to the YAML library: its time grows with the square of the depth.
const DEEPEST: usize = 64;

/// In the whole text, for the same reason; closing ones do not count, they may stand in a string.
const MOST_OPENED: usize = 2_000;

/// At most so deep can a line go, by what opens a level in it.
fn nesting(line: &str) -> usize {
    let opens = line.split(['[', '{']).count() - 1;
    let markers = line.split_ascii_whitespace().take_while(|word| ["-", "?", ":"].contains(word)).count();
    opens.max(markers)
}

/// The line on which a top-level key stands, counted from 1; 0 when it cannot be told.
pub fn line_of(text: &str, key: &str) -> usize {
    text.lines().position(|line| key_on(line) == Some(key)).map_or(0, |at| at + 1)
}

/// The line on which a key stands inside the mapping of a top-level one; that one's line where both stand on it.
pub fn line_of_inner(text: &str, outer: &str, inner: &str) -> usize {
    let first = line_of(text, outer);
    let below = text.lines().enumerate().skip(first).take_while(|(_, line)| key_on(line).is_none());
    let mut found = below.filter(|(_, line)| key_on(line.trim_start()) == Some(inner)).map(|(at, _)| at + 1);
    found.next().unwrap_or(first)
}

/// The top-level key that a line sets, if it does.
pub fn key_on(line: &str) -> Option<&str> {
    let (key, rest) = line.split_once(':')?;
    let plain = key.trim_end();
    let unquoted = plain
        .strip_prefix('"')
        .and_then(|inner| inner.strip_suffix('"'))
        .or_else(|| plain.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')))
        .unwrap_or(plain);
    let starts_key = !unquoted.is_empty() && !unquoted.starts_with([' ', '\t', '#', '-']);
    (starts_key && (rest.is_empty() || rest.starts_with([' ', '\t', '\r']))).then_some(unquoted)
}

/// A value on one line, short.
pub fn show(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => format!("{text:?}"),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Sequence(_) => "a list".to_owned(),
        other => serde_yaml::to_string(other).unwrap_or_default().trim().to_owned(),
    };
    if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text }
}
