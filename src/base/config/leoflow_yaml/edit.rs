//! Adds dependencies to the text of a `leoflow.yaml` and keeps its other lines.

use super::super::document::{line_of, to_mapping};
use super::super::edit::EditError;
use serde_yaml::Value;
use std::str::FromStr;
use yaml_edit::{Sequence, YamlFile};

const KEY: &str = "dependencies";
const ADDITIONAL: &str = "additional_dependencies";

/// True if the text has the key `additional_dependencies`.
pub fn has_additional_dependencies(text: &str) -> bool {
    to_mapping(text).is_ok_and(|mapping| mapping.contains_key(ADDITIONAL))
}

/// Appends packages to `additional_dependencies` if the text has that key, else to `dependencies`. Verifies that the
/// result differs from `text` in that key only.
pub fn add_dependencies(text: &str, packages: &[String]) -> Result<String, EditError> {
    let mut expected = to_mapping(text).map_err(EditError::Invalid)?;
    let key = if has_additional_dependencies(text) { ADDITIONAL } else { KEY };
    let mut dependencies: Vec<Value> = expected.get(key).and_then(Value::as_sequence).cloned().unwrap_or_default();
    let missing: Vec<&String> =
        packages.iter().filter(|package| !dependencies.contains(&Value::from(package.as_str()))).collect();
    if missing.is_empty() {
        return Ok(text.to_owned());
    }
    dependencies.extend(missing.iter().map(|package| Value::from(package.as_str())));
    expected.insert(key.into(), Value::Sequence(dependencies));
    match with_items(text, key, &missing) {
        Some(result) if to_mapping(&result).is_ok_and(|parsed| parsed == expected) => Ok(result),
        _ => Err(EditError::CannotChange(key.to_owned())),
    }
}

/// Returns the text with the packages at the end of the list; `None` if it cannot be edited.
fn with_items(text: &str, key: &str, packages: &[&String]) -> Option<String> {
    let text = if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    let file = YamlFile::from_str(&text).ok()?;
    let Some(mapping) = file.document().and_then(|document| document.as_mapping()) else {
        // A text of only comments has no tree to edit until it has a key.
        let is_set = line_of(&text, key) > 0;
        return if is_set { None } else { with_items(&format!("{text}{key}: []\n"), key, packages) };
    };
    let list = mapping.get_sequence(key).or_else(|| {
        mapping.set(key, Sequence::new_flow());
        mapping.get_sequence(key)
    })?;
    packages.iter().for_each(|package| list.push(package.as_str()));
    let text = file.to_string();
    Some(if text.ends_with('\n') { text } else { text + "\n" })
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
        let additional = "additional_dependencies:\n- a # dags/x.py:1\n";
        assert_eq!(added(additional, &["b"]), format!("{additional}- b\n"));
        assert_eq!(added("# mine\ndag_id: d", &["a>=2", "b"]), "# mine\ndag_id: d\ndependencies: [a>=2, b]\n");
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
        assert_eq!(added(several, &["c"]), "dependencies: [a,\n  b,\n  c]\n");
        let alias = "tags: &all [a]\ndependencies: *all\n";
        assert!(matches!(add_dependencies(alias, &["c".to_owned()]), Err(EditError::CannotChange(_))));
    }

    #[test]
    fn quotes_what_yaml_would_interpret() {
        for package in ["r[socks,x]>=2", "m ; python_version < '3.12'", "m @ git+https://x/y#egg=z", "1.0", "a #b"] {
            for text in ["", "dependencies: [a]\n", "dependencies:\n  - a\n"] {
                let mapping = to_mapping(&added(text, &[package])).unwrap();
                assert_eq!(mapping[KEY].as_sequence().unwrap().last().unwrap().as_str(), Some(package), "{text}");
            }
        }
    }
}
