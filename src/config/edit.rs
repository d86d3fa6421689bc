//! Changing keys in the text, so that comments, order and unknown keys stay as the user wrote them.

use super::document::{Problem, key_on, to_mapping};
use serde_yaml::{Mapping, Value};

#[derive(Debug, thiserror::Error)]
pub enum EditError {
    #[error("the file is not valid: {}", .0.first().map(|problem| problem.message.as_str()).unwrap_or_default())]
    Invalid(Vec<Problem>),
    #[error("{0} is written in a way that cannot be changed by machine; write it as one line `{0}: VALUE`")]
    NotOneLine(String),
}

/// Sets top-level keys to scalar values, or to a mapping of such. The result differs from `text` in those keys alone, which
/// is checked before it is returned.
pub fn set_keys(text: &str, changes: &[(&str, Value)]) -> Result<String, EditError> {
    let mut expected = to_mapping(text).map_err(EditError::Invalid)?;
    let mut result = text.to_owned();
    for (key, value) in changes {
        let failed = || EditError::NotOneLine((*key).to_owned());
        result = match value {
            Value::Mapping(mapping) => replace_mapping(&result, key, mapping, expected.get(*key)).ok_or_else(failed)?,
            value => replace_line(&result, key, &scalar(value).ok_or_else(failed)?),
        };
        expected.insert((*key).into(), value.clone());
    }
    match to_mapping(&result) {
        Ok(found) if found == expected => Ok(result),
        _ => Err(EditError::NotOneLine(changes.first().map(|c| c.0.to_owned()).unwrap_or_default())),
    }
}

/// Takes a top-level key of one line out. The result differs from `text` in that key alone, which is
/// checked before it is returned.
pub fn remove_key(text: &str, key: &str) -> Result<String, EditError> {
    let mut expected = to_mapping(text).map_err(EditError::Invalid)?;
    if expected.remove(key).is_none() {
        return Ok(text.to_owned());
    }
    let kept: Vec<&str> = text.lines().filter(|line| key_on(line) != Some(key)).collect();
    let result = kept.join("\n") + "\n";
    match to_mapping(&result) {
        Ok(found) if found == expected => Ok(result),
        _ => Err(EditError::NotOneLine(key.to_owned())),
    }
}

/// Takes a key of a mapping out, and the mapping when nothing is left in it.
pub fn remove_inner_key(text: &str, outer: &str, inner: &str) -> Result<String, EditError> {
    let mut expected = to_mapping(text).map_err(EditError::Invalid)?;
    let now = expected.get(outer).cloned();
    let Some(Value::Mapping(mut mapping)) = now.clone() else { return Ok(text.to_owned()) };
    if mapping.remove(inner).is_none() {
        return Ok(text.to_owned());
    }
    if mapping.is_empty() {
        expected.remove(outer);
    } else {
        expected.insert(outer.into(), Value::Mapping(mapping.clone()));
    }
    let failed = || EditError::NotOneLine(outer.to_owned());
    let mut lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| key_on(line) == Some(outer)).ok_or_else(failed)?;
    let is_inner = |line: &&str| line.trim().is_empty() || line.starts_with([' ', '\t', '#']);
    let end = at + 1 + lines[at + 1..].iter().take_while(|line| is_inner(line)).count();
    let result = match (at + 1..end).find(|place| key_on(lines[*place].trim_start()) == Some(inner)) {
        Some(place) => {
            lines.remove(place);
            if mapping.is_empty() {
                lines.remove(at);
            }
            lines.join("\n") + "\n"
        }
        // All of it is on one line.
        None if mapping.is_empty() => return remove_key(text, outer),
        None => replace_mapping(text, outer, &mapping, now.as_ref()).ok_or_else(failed)?,
    };
    match to_mapping(&result) {
        Ok(found) if found == expected => Ok(result),
        _ => Err(failed()),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        // JSON's double-quoted form is YAML's too, and never needs guessing about `no` or `0x1`.
        Value::String(text) => serde_json::to_string(text).ok(),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn replace_line(text: &str, key: &str, scalar: &str) -> String {
    let mut found = false;
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        if !found && key_on(line) == Some(key) {
            found = true;
            lines.push(format!("{key}: {scalar}{}", trailing_comment(line)));
        } else {
            lines.push(line.to_owned());
        }
    }
    if !found {
        lines.push(format!("{key}: {scalar}"));
    }
    lines.join("\n") + "\n"
}

/// The lines of a mapping's keys that are not as they should be; the others stay.
fn replace_mapping(text: &str, key: &str, wanted: &Mapping, now: Option<&Value>) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let changed = wanted.iter().filter(|(name, value)| now.and_then(|now| now.get(*name)) != Some(*value));
    let changed: Vec<(String, String)> =
        changed.map(|(name, value)| Some((name.as_str()?.to_owned(), scalar(value)?))).collect::<Option<_>>()?;
    let Some(at) = lines.iter().position(|line| key_on(line) == Some(key)) else {
        lines.push(format!("{key}:"));
        lines.extend(changed.iter().map(|(name, value)| format!("  {name}: {value}")));
        return Some(lines.join("\n") + "\n");
    };
    let comment = trailing_comment(&lines[at]).to_owned();
    let rest = lines[at].split_once(':').map_or("", |(_, rest)| rest).trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        // On one line: all of it is written anew.
        let inner: Option<Vec<String>> =
            wanted.iter().map(|(name, value)| Some(format!("{}: {}", name.as_str()?, scalar(value)?))).collect();
        lines[at] = format!("{key}: {{{}}}{comment}", inner?.join(", "));
        return Some(lines.join("\n") + "\n");
    }
    let is_inner = |line: &String| line.trim().is_empty() || line.starts_with([' ', '\t', '#']);
    let end = at + 1 + lines[at + 1..].iter().take_while(|line| is_inner(line)).count();
    let indent = |line: &String| line[..line.len() - line.trim_start().len()].to_owned();
    let is_key = |line: &&String| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let margin = lines[at + 1..end].iter().find(is_key).map_or("  ".to_owned(), indent);
    for (name, value) in changed {
        let place = (at + 1..end).find(|place| key_on(lines[*place].trim_start()) == Some(name.as_str()));
        match place {
            Some(place) => lines[place] = format!("{margin}{name}: {value}{}", trailing_comment(&lines[place])),
            None => lines.insert(at + 1, format!("{margin}{name}: {value}")),
        }
    }
    Some(lines.join("\n") + "\n")
}

/// ` # …` at the end of a line, outside quotes.
fn trailing_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        match (quote, character) {
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character && before != '\\' => quote = None,
            (None, '#') if before.is_whitespace() => return &line[line[..at].trim_end().len()..],
            _ => {}
        }
        before = character;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_order_and_unknown_keys_survive() {
        let text = "# top\nport: 8088   # the page\n\nmystery: {a: [1, 2]}\nadmin_email: 'a@b#c' # who\n";
        let changed =
            set_keys(text, &[("port", 9000.into()), ("admin_email", "x@y".into()), ("session_epoch", 2.into())])
                .unwrap();
        assert_eq!(
            changed,
            "# top\nport: 9000   # the page\n\nmystery: {a: [1, 2]}\nadmin_email: \"x@y\" # who\nsession_epoch: 2\n"
        );
    }

    #[test]
    fn a_key_of_a_mapping_can_be_set_however_it_is_written() {
        let set = |text: &str| {
            let mut wanted =
                to_mapping(text).unwrap().get("upgrade").and_then(Value::as_mapping).cloned().unwrap_or_default();
            wanted.insert("channel".into(), "rc".into());
            set_keys(text, &[("upgrade", Value::Mapping(wanted))]).unwrap()
        };
        assert_eq!(set("port: 1\n"), "port: 1\nupgrade:\n  channel: \"rc\"\n");
        let block = "upgrade:  # mine\n    # the stream\n    channel: stable # yes\n    keep_versions: 2\nport: 1\n";
        assert_eq!(set(block), block.replace("stable", "\"rc\""));
        assert_eq!(set("upgrade:\n   from: /a\nport: 1\n"), "upgrade:\n   channel: \"rc\"\n   from: /a\nport: 1\n");
        assert_eq!(set("upgrade: {from: /a} # x\n"), "upgrade: {from: \"/a\", channel: \"rc\"} # x\n");
    }

    #[test]
    fn a_key_can_be_taken_out() {
        let text = "# top\nport: 1\npython: /p # mine\nbackup:\n  keep: 2\n";
        assert_eq!(remove_key(text, "python").unwrap(), "# top\nport: 1\nbackup:\n  keep: 2\n");
        assert_eq!(remove_key(text, "nothing").unwrap(), text);
        assert!(matches!(remove_key(text, "backup"), Err(EditError::NotOneLine(_))));
    }

    #[test]
    fn what_cannot_be_changed_safely_is_refused() {
        let nested = "port:\n  deep: 1\n";
        assert!(matches!(set_keys(nested, &[("port", 1.into())]), Err(EditError::NotOneLine(_))));
        assert!(matches!(set_keys("{port: 1}", &[("port", 2.into())]), Err(EditError::NotOneLine(_))));
        assert!(matches!(set_keys("port: [", &[("port", 2.into())]), Err(EditError::Invalid(_))));
    }

    #[test]
    fn strings_that_look_like_something_else_stay_strings() {
        for text in ["no", "0x10", "1e3", "a: b", "# c", "quote \" and \\"] {
            let changed = set_keys("", &[("instance_name", text.into())]).unwrap();
            assert_eq!(to_mapping(&changed).unwrap().get("instance_name").unwrap().as_str(), Some(text));
        }
    }
}
