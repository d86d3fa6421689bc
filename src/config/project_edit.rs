//! Adding to what a project depends on, in the text of its `leoflow.yaml`: the other lines stay as they are.

use super::document::{key_on, to_mapping};
use super::edit::EditError;
use serde_yaml::Value;

const KEY: &str = "dependencies";

/// Puts these at the end of `dependencies`. The result differs from `text` in that alone, which is checked.
pub fn add_dependencies(text: &str, new: &[String]) -> Result<String, EditError> {
    let mut expected = to_mapping(text).map_err(EditError::Invalid)?;
    let mut all: Vec<Value> = expected.get(KEY).and_then(Value::as_sequence).cloned().unwrap_or_default();
    let missing: Vec<&String> = new.iter().filter(|one| !all.contains(&Value::from(one.as_str()))).collect();
    if missing.is_empty() {
        return Ok(text.to_owned());
    }
    all.extend(missing.iter().map(|one| Value::from(one.as_str())));
    expected.insert(KEY.into(), Value::Sequence(all.clone()));
    let lines: Vec<&str> = text.split_inclusive('\n').map(|line| line.trim_end_matches(['\r', '\n'])).collect();
    let result = match lines.iter().position(|line| key_on(line) == Some(KEY)) {
        None => with_line_at(&lines, lines.len(), &in_one_line(&all)),
        Some(at) => match last_item(&lines, at) {
            Some((last, indent)) => {
                let items: Vec<String> = missing.iter().map(|one| format!("{indent}- {}", quoted(one))).collect();
                with_line_at(&lines, last + 1, &items.join("\n"))
            }
            None => {
                let mut lines = lines.clone();
                let comment =
                    lines.remove(at).split_once("] #").map(|(_, rest)| format!(" #{rest}")).unwrap_or_default();
                with_line_at(&lines, at, &format!("{}{comment}", in_one_line(&all)))
            }
        },
    };
    let result = if text.contains("\r\n") { result.replace('\n', "\r\n") } else { result };
    match to_mapping(&result) {
        Ok(found) if found == expected => Ok(result),
        _ => Err(EditError::CannotChange(KEY.to_owned())),
    }
}

/// The last line of a list with an item on each, and what stands before its dash.
fn last_item<'a>(lines: &[&'a str], key: usize) -> Option<(usize, &'a str)> {
    let is_item = |line: &&str| line.trim_start().starts_with("- ");
    let is_between = |line: &&str| is_item(line) || line.trim().is_empty() || line.trim_start().starts_with('#');
    let inside = lines[key + 1..].iter().take_while(|line| is_between(line)).count();
    let last = (key + 1..=key + inside).rev().find(|at| is_item(&lines[*at]))?;
    let indent = lines[last].len() - lines[last].trim_start().len();
    Some((last, &lines[last][..indent]))
}

fn in_one_line(all: &[Value]) -> String {
    let items: Vec<String> = all.iter().filter_map(Value::as_str).map(quoted).collect();
    format!("{KEY}: [{}]", items.join(", "))
}

/// As it may stand in a list on one line; quotes where YAML would take a sign for its own.
fn quoted(text: &str) -> String {
    let is_plain =
        text.chars().all(|c| c.is_alphanumeric() || "-_.=~".contains(c)) && !text.starts_with(['-', '=', '~']);
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

fn with_line_at(lines: &[&str], at: usize, line: &str) -> String {
    let (before, after) = lines.split_at(at);
    before.iter().chain([&line]).chain(after).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str, new: &[&str]) -> String {
        add_dependencies(text, &new.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn they_come_to_the_end_of_the_list_however_it_is_written() {
        assert_eq!(added("", &["pandas"]), "dependencies: [pandas]\n");
        assert_eq!(added("# mine\ndag_id: d", &["a>=2", "b"]), "# mine\ndag_id: d\ndependencies: ['a>=2', b]\n");
        assert_eq!(added("dependencies: [a]\ntags: [x]\n", &["b"]), "dependencies: [a, b]\ntags: [x]\n");
        assert_eq!(added("dependencies:\n", &["b"]), "dependencies: [b]\n");
        assert_eq!(added("dependencies: [a] # all\r\n", &["b"]), "dependencies: [a, b] # all\r\n");
        let block = "dependencies:\n  - a  # why\n  # and\n  - b\n\ntags: [x]\n";
        assert_eq!(added(block, &["c"]), "dependencies:\n  - a  # why\n  # and\n  - b\n  - c\n\ntags: [x]\n");
    }

    #[test]
    fn what_is_there_is_not_added_and_what_cannot_be_changed_is_said() {
        assert_eq!(added("dependencies: [a]\n", &["a"]), "dependencies: [a]\n");
        let several = "dependencies: [a,\n  b]\n";
        assert!(matches!(add_dependencies(several, &["c".to_owned()]), Err(EditError::CannotChange(_))));
    }
}
