//! Adds dependencies to the text of a `leoflow.yaml` and keeps its other lines.

use super::super::document::{key_on, to_mapping};
use super::super::edit::EditError;
use serde_yaml::Value;

const KEY: &str = "dependencies";

/// Appends packages to `dependencies`. Verifies that the result differs from `text` in that key only.
pub fn add_dependencies(text: &str, packages: &[String]) -> Result<String, EditError> {
    let mut expected = to_mapping(text).map_err(EditError::Invalid)?;
    let mut dependencies: Vec<Value> = expected.get(KEY).and_then(Value::as_sequence).cloned().unwrap_or_default();
    let missing: Vec<&String> =
        packages.iter().filter(|package| !dependencies.contains(&Value::from(package.as_str()))).collect();
    if missing.is_empty() {
        return Ok(text.to_owned());
    }
    dependencies.extend(missing.iter().map(|package| Value::from(package.as_str())));
    expected.insert(KEY.into(), Value::Sequence(dependencies.clone()));
    let lines: Vec<&str> = text.split_inclusive('\n').map(|line| line.trim_end_matches(['\r', '\n'])).collect();
    let result = match lines.iter().position(|line| key_on(line) == Some(KEY)) {
        None => with_line_at(&lines, lines.len(), &one_line_list(&dependencies)),
        Some(key_line) => match last_item(&lines, key_line) {
            Some((last, indent)) => {
                let items: Vec<String> =
                    missing.iter().map(|package| format!("{indent}- {}", quoted(package))).collect();
                with_line_at(&lines, last + 1, &items.join("\n"))
            }
            None => {
                let mut lines = lines.clone();
                let comment =
                    lines.remove(key_line).split_once("] #").map(|(_, rest)| format!(" #{rest}")).unwrap_or_default();
                with_line_at(&lines, key_line, &format!("{}{comment}", one_line_list(&dependencies)))
            }
        },
    };
    let result = if text.contains("\r\n") { result.replace('\n', "\r\n") } else { result };
    match to_mapping(&result) {
        Ok(parsed) if parsed == expected => Ok(result),
        _ => Err(EditError::CannotChange(KEY.to_owned())),
    }
}

/// Index and indentation of the last item of the block list below the line `key`; `None` for another notation.
fn last_item<'a>(lines: &[&'a str], key: usize) -> Option<(usize, &'a str)> {
    let is_item = |line: &&str| line.trim_start().starts_with("- ");
    let is_between = |line: &&str| is_item(line) || line.trim().is_empty() || line.trim_start().starts_with('#');
    let line_count = lines[key + 1..].iter().take_while(|line| is_between(line)).count();
    let last = (key + 1..=key + line_count).rev().find(|index| is_item(&lines[*index]))?;
    let indent = lines[last].len() - lines[last].trim_start().len();
    Some((last, &lines[last][..indent]))
}

fn one_line_list(dependencies: &[Value]) -> String {
    let items: Vec<String> = dependencies.iter().filter_map(Value::as_str).map(quoted).collect();
    format!("{KEY}: [{}]", items.join(", "))
}

/// Quotes an item of a list if YAML might interpret a character.
fn quoted(text: &str) -> String {
    let is_plain =
        text.chars().all(|c| c.is_alphanumeric() || "-_.=~".contains(c)) && !text.starts_with(['-', '=', '~']);
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

/// Joins the lines with `line`, which may have several lines, inserted at `index`.
fn with_line_at(lines: &[&str], index: usize, line: &str) -> String {
    let (before, after) = lines.split_at(index);
    before.iter().chain([&line]).chain(after).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str, packages: &[&str]) -> String {
        add_dependencies(text, &packages.iter().map(|package| (*package).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn appends_to_lists_in_any_notation() {
        assert_eq!(added("", &["pandas"]), "dependencies: [pandas]\n");
        assert_eq!(added("# mine\ndag_id: d", &["a>=2", "b"]), "# mine\ndag_id: d\ndependencies: ['a>=2', b]\n");
        assert_eq!(added("dependencies: [a]\ntags: [x]\n", &["b"]), "dependencies: [a, b]\ntags: [x]\n");
        assert_eq!(added("dependencies:\n", &["b"]), "dependencies: [b]\n");
        assert_eq!(added("dependencies: [a] # all\r\n", &["b"]), "dependencies: [a, b] # all\r\n");
        let block = "dependencies:\n  - a  # why\n  # and\n  - b\n\ntags: [x]\n";
        assert_eq!(added(block, &["c"]), "dependencies:\n  - a  # why\n  # and\n  - b\n  - c\n\ntags: [x]\n");
    }

    #[test]
    fn skips_present_packages_and_rejects_unknown_notation() {
        assert_eq!(added("dependencies: [a]\n", &["a"]), "dependencies: [a]\n");
        let several = "dependencies: [a,\n  b]\n";
        assert!(matches!(add_dependencies(several, &["c".to_owned()]), Err(EditError::CannotChange(_))));
    }
}
