//! Changes keys in the text of a settings file and keeps comments, order and unknown keys. An editor of YAML trees
//! makes the change; parsing the result verifies it.

use super::document::{Problem, to_mapping};
use serde_yaml::Value;
use std::str::FromStr;
use yaml_edit::{Mapping, YamlFile};

#[derive(Debug, thiserror::Error)]
pub enum EditError {
    #[error("the file is not valid: {}", .0.first().map(|problem| problem.message.as_str()).unwrap_or_default())]
    Invalid(Vec<Problem>),
    #[error("cannot edit {0} as it is written; write it on one line as `{0}: VALUE`")]
    CannotChange(String),
}

/// Sets each top-level key to a scalar, a list of strings or a mapping. Verifies that the result differs from `text` in
/// those keys only.
pub fn set_keys(text: &str, changes: &[(&str, Value)]) -> Result<String, EditError> {
    let mut expected = to_mapping(text).map_err(EditError::Invalid)?;
    let mut result = text.to_owned();
    for (key, value) in changes {
        let current = expected.get(*key).and_then(Value::as_mapping);
        result = set_key(&result, key, value, current).ok_or_else(|| EditError::CannotChange((*key).to_owned()))?;
        expected.insert((*key).into(), value.clone());
    }
    checked(result, &expected, changes.first().map_or("", |change| change.0))
}

/// Removes a top-level key.
pub fn remove_key(text: &str, key: &str) -> Result<String, EditError> {
    let mut expected = to_mapping(text).map_err(EditError::Invalid)?;
    if expected.remove(key).is_none() {
        return Ok(text.to_owned());
    }
    edit(text, key, &expected, |mapping| mapping.remove(key).map(drop))
}

/// Removes a key of a mapping, and the mapping if it becomes empty.
pub fn remove_subkey(text: &str, outer: &str, subkey: &str) -> Result<String, EditError> {
    let mut expected = to_mapping(text).map_err(EditError::Invalid)?;
    let Some(Value::Mapping(mapping)) = expected.get_mut(outer) else { return Ok(text.to_owned()) };
    if mapping.remove(subkey).is_none() {
        return Ok(text.to_owned());
    }
    if mapping.is_empty() {
        return remove_key(text, outer);
    }
    edit(text, outer, &expected, |mapping| mapping.get_mapping(outer)?.remove(subkey).map(drop))
}

/// Applies `change` to the tree of the text; `None` from it means that the key cannot be edited.
fn edit(
    text: &str,
    key: &str,
    expected: &serde_yaml::Mapping,
    change: impl FnOnce(&Mapping) -> Option<()>,
) -> Result<String, EditError> {
    let changed = YamlFile::from_str(text).ok().and_then(|file| {
        change(&file.document()?.as_mapping()?)?;
        Some(file.to_string())
    });
    checked(changed.ok_or_else(|| EditError::CannotChange(key.to_owned()))?, expected, key)
}

/// Returns `text` if it parses to `expected`; otherwise `key` cannot be edited.
fn checked(text: String, expected: &serde_yaml::Mapping, key: &str) -> Result<String, EditError> {
    match to_mapping(&text) {
        Ok(parsed) if parsed == *expected => Ok(text),
        _ => Err(EditError::CannotChange(key.to_owned())),
    }
}

/// Returns the text with the key set; `None` if it cannot be edited. If `value` and `current`, the present value, are
/// mappings, only entries that differ are changed.
fn set_key(text: &str, key: &str, value: &Value, current: Option<&serde_yaml::Mapping>) -> Option<String> {
    let file = YamlFile::from_str(text).ok()?;
    let Some(mapping) = file.document().and_then(|document| document.as_mapping()) else {
        // A text of only comments has no tree to edit, so the key is set in another document and appended.
        const TREE: &str = "_: 0\n";
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Some(format!("{text}{newline}{}", set_key(TREE, key, value, None)?.strip_prefix(TREE)?));
    };
    match value {
        Value::Mapping(entries) => match (mapping.get_mapping(key), current) {
            (Some(nested), Some(current)) => {
                for (name, value) in entries.iter().filter(|(name, value)| current.get(*name) != Some(*value)) {
                    put(&nested, name.as_str()?, value)?;
                }
            }
            _ => {
                let nested_text = entries
                    .iter()
                    .try_fold(String::new(), |text, (name, value)| set_key(&text, name.as_str()?, value, None))?;
                mapping.set(key, YamlFile::from_str(&nested_text).ok()?.document()?.as_mapping()?);
            }
        },
        value => put(&mapping, key, value)?,
    }
    let text = file.to_string();
    Some(if text.ends_with('\n') { text } else { text + "\n" })
}

/// Sets an entry to a scalar or a list of strings; `None` for other values.
fn put(mapping: &Mapping, key: &str, value: &Value) -> Option<()> {
    match value {
        Value::String(text) => mapping.set(key, text.as_str()),
        Value::Number(number) => match number.as_i64() {
            Some(number) => mapping.set(key, number),
            None => mapping.set(key, number.as_u64()?),
        },
        Value::Bool(flag) => mapping.set(key, *flag),
        Value::Sequence(list) => {
            // A list goes on one line. JSON's quoting is valid YAML.
            let list: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
            let text = format!("_: {}\n", serde_json::to_string(&list?).ok()?);
            mapping.set(key, YamlFile::from_str(&text).ok()?.document()?.as_mapping()?.get_sequence("_")?);
        }
        _ => return None,
    }
    Some(())
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
            "# top\nport: 9000   # the page\n\nmystery: {a: [1, 2]}\nadmin_email: x@y # who\nsession_epoch: 2\n"
        );
    }

    #[test]
    fn a_list_is_written_on_one_line() {
        let list = |texts: &[&str]| Value::Sequence(texts.iter().map(|text| (*text).into()).collect());
        let mapping = |key: &str, value: Value| Value::Mapping([(key.into(), value)].into_iter().collect());
        for text in ["port: 1\n", "port: 1\nbackup:\n  to: [x] # who\n", "backup: {to: [\"x\"]}\n"] {
            for expected in [&["age1a"][..], &["ssh-ed25519 A: 'b' # c", "age1b"]] {
                let changed = set_keys(text, &[("backup", mapping("to", list(expected)))]).unwrap();
                assert_eq!(to_mapping(&changed).unwrap()["backup"]["to"], list(expected), "{changed}");
                assert_eq!(changed.contains("# who"), text.contains("# who"), "{changed}");
            }
        }
    }

    #[test]
    fn appends_keys_to_a_file_of_only_comments() {
        for (text, expected) in
            [("", "port: 1\n"), ("# mine", "# mine\nport: 1\n"), ("# mine\n\n", "# mine\n\nport: 1\n")]
        {
            assert_eq!(set_keys(text, &[("port", 1.into())]).unwrap(), expected);
        }
        let both = set_keys("", &[("port", 1.into()), ("host", "::".into())]).unwrap();
        assert_eq!(to_mapping(&both).unwrap().len(), 2);
    }

    #[test]
    fn sets_a_mapping_key_in_any_notation() {
        let set = |text: &str| {
            let mut expected =
                to_mapping(text).unwrap().get("upgrade").and_then(Value::as_mapping).cloned().unwrap_or_default();
            expected.insert("channel".into(), "rc".into());
            set_keys(text, &[("upgrade", Value::Mapping(expected))]).unwrap()
        };
        assert_eq!(set("port: 1\n"), "port: 1\nupgrade:\n  channel: rc\n");
        assert_eq!(set(""), "upgrade:\n  channel: rc\n");
        let block = "upgrade:  # mine\n    # the stream\n    channel: stable # yes\n    keep_versions: 2\nport: 1\n";
        assert_eq!(set(block), block.replace("stable", "rc"));
        assert_eq!(set("upgrade:\n   from: /a\nport: 1\n"), "upgrade:\n   from: /a\n   channel: rc\nport: 1\n");
        assert_eq!(set("upgrade: {from: /a} # x\n"), "upgrade: {from: /a, channel: rc} # x\n");
        assert_eq!(set("upgrade: {}\nport: 1\n"), "upgrade: {channel: rc}\nport: 1\n");
        assert_eq!(set("upgrade:\nport: 1\n"), "upgrade:\n  channel: rc\nport: 1\n");
    }

    #[test]
    fn removes_a_key() {
        let text = "# top\nport: 1\npython: /p # mine\nbackup:\n  keep: 2\n";
        assert_eq!(remove_key(text, "python").unwrap(), "# top\nport: 1\nbackup:\n  keep: 2\n");
        assert_eq!(remove_key(text, "nothing").unwrap(), text);
        assert_eq!(remove_key(text, "backup").unwrap(), "# top\nport: 1\npython: /p # mine\n");
    }

    #[test]
    fn removes_a_mapping_key_and_then_the_empty_mapping() {
        let text = "backup:\n  # few\n  keep: 2\n  max_bytes: 5 # much\nport: 1\n";
        let left = remove_subkey(text, "backup", "keep").unwrap();
        assert_eq!(to_mapping(&left).unwrap().get("backup").unwrap().get("max_bytes").unwrap().as_u64(), Some(5));
        assert!(left.contains("max_bytes: 5 # much\nport: 1\n"), "{left}");
        assert_eq!(remove_subkey(&left, "backup", "nothing").unwrap(), left);
        let none = remove_subkey(&left, "backup", "max_bytes").unwrap();
        assert_eq!(to_mapping(&none).unwrap(), to_mapping("port: 1").unwrap());
        assert_eq!(remove_subkey("a: {b: 1, c: 2}\n", "a", "b").unwrap(), "a: {c: 2}\n");
    }

    #[test]
    fn edits_unusual_notation_or_rejects_it() {
        assert_eq!(set_keys("port:\n  deep: 1\nx: 1\n", &[("port", 1.into())]).unwrap(), "port: 1\nx: 1\n");
        assert_eq!(
            to_mapping(&set_keys("{port: 1}", &[("port", 2.into())]).unwrap()).unwrap().get("port"),
            Some(&2.into())
        );
        assert_eq!(set_keys("\"port\": 1\r\nb: 2\r\n", &[("port", 3.into())]).unwrap(), "\"port\": 3\r\nb: 2\r\n");
        assert!(matches!(set_keys("port: [", &[("port", 2.into())]), Err(EditError::Invalid(_))));
        for text in ["# mine\n---\nport: 1\n", "%YAML 1.2\n---\nport: 1 # here\n", "---\nport: 1\n...\n# after\n"] {
            assert_eq!(set_keys(text, &[("port", 2.into())]).unwrap(), text.replace("port: 1", "port: 2"));
        }
        let large: Value = u64::MAX.into();
        assert_eq!(set_keys("port: 1\n", &[("port", large)]).unwrap(), format!("port: {}\n", u64::MAX));
        let anchored = "a: &x {b: 1}\nport: 1\nc: *x\n";
        assert_eq!(set_keys(anchored, &[("port", 2.into())]).unwrap(), anchored.replace("port: 1", "port: 2"));
    }

    #[test]
    fn strings_that_look_like_other_types_stay_strings() {
        let unusual_texts = [
            "no",
            "0x10",
            "1e3",
            "a: b",
            "# c",
            "quote \" and \\",
            "",
            "~",
            "null",
            "2026-01-01",
            "- x",
            "%a",
            "two\nlines",
            " lead",
            "trail ",
            "ä\u{2028}",
            "'",
            "@a",
            "`",
            "!t",
            "&a",
            "*a",
            "1_000",
            ".5",
            "12:30:45",
        ];
        for text in unusual_texts {
            for file in ["", "instance_name: 5 # mine\n", "port: 1\n"] {
                let changed = set_keys(file, &[("instance_name", text.into())]).unwrap();
                assert_eq!(
                    to_mapping(&changed).unwrap().get("instance_name").unwrap().as_str(),
                    Some(text),
                    "{changed}"
                );
            }
        }
    }
}
