//! Parses a settings file into a mapping and finds the line of a key.

use serde_yaml::{Mapping, Value};

/// A problem at a line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; 0 for the whole file.
    pub line: usize,
    pub message: String,
}

/// Parses the document into a mapping; an empty document or one with only comments is an empty mapping.
pub fn to_mapping(text: &str) -> Result<Mapping, Vec<Problem>> {
    if text.matches(['[', '{']).count() > MAX_OPENING_BRACKETS {
        let message = format!("more than {MAX_OPENING_BRACKETS} brackets; settings files have far fewer");
        return Err(vec![Problem { line: 0, message }]);
    }
    if let Some(line) = text.lines().position(|line| nesting(line) > MAX_DEPTH) {
        let message = format!("nested more than {MAX_DEPTH} levels deep on one line; settings files are not");
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

/// Maximum nesting depth of a line: the YAML library's time grows with the square of the depth.
const MAX_DEPTH: usize = 64;

/// Maximum number of opening brackets in the text, for the same reason. Closing brackets are not subtracted; they may
/// be part of a string.
const MAX_OPENING_BRACKETS: usize = 2_000;

/// Upper bound of the nesting depth of a line.
fn nesting(line: &str) -> usize {
    let opens = line.split(['[', '{']).count() - 1;
    let markers = line.split_ascii_whitespace().take_while(|token| ["-", "?", ":"].contains(token)).count();
    opens.max(markers)
}

/// Line of a top-level key, counted from 1; 0 if unknown.
pub fn line_of(text: &str, key: &str) -> usize {
    text.lines().position(|line| key_on(line) == Some(key)).map_or(0, |index| index + 1)
}

/// Line of a key inside a top-level mapping; the line of the outer key if no line below it sets `subkey`.
pub fn line_of_subkey(text: &str, outer: &str, subkey: &str) -> usize {
    let outer_line = line_of(text, outer);
    let nested_lines = text.lines().enumerate().skip(outer_line).take_while(|(_, line)| key_on(line).is_none());
    let mut lines =
        nested_lines.filter(|(_, line)| key_on(line.trim_start()) == Some(subkey)).map(|(index, _)| index + 1);
    lines.next().unwrap_or(outer_line)
}

/// The key that a line sets at its beginning, if any; a top-level key unless the line was trimmed.
fn key_on(line: &str) -> Option<&str> {
    let (key, after_colon) = line.split_once(':')?;
    let trimmed = key.trim_end();
    let unquoted = trimmed
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .or_else(|| trimmed.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')))
        .unwrap_or(trimmed);
    let starts_key = !unquoted.is_empty() && !unquoted.starts_with([' ', '\t', '#', '-']);
    (starts_key && (after_colon.is_empty() || after_colon.starts_with([' ', '\t', '\r']))).then_some(unquoted)
}

/// Formats a value on one line, at most 60 characters.
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
