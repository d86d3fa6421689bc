//! Keys of `config.yaml` that have a new name.

use super::document::{Problem, line_of, line_of_subkey, to_mapping};
use super::edit::{EditError, remove_key, remove_subkey, set_keys};
use super::keys::{DEPRECATED, Deprecated, Notice};
use serde_yaml::{Mapping, Value};

/// Replaces deprecated names in `text`, also those that this version no longer reads: the `config.yaml` in a backup may
/// be older than their removal.
pub fn with_new_names(text: &str) -> Result<String, EditError> {
    let Ok(mut mapping) = to_mapping(text) else { return Ok(text.to_owned()) };
    let mut renamed = text.to_owned();
    for old in DEPRECATED {
        let Some((value, _)) = take(&mut mapping, text, old.name) else { continue };
        set_if_missing(&mut mapping, old.replacement, value);
        renamed = match old.name.split_once('.') {
            None => remove_key(&renamed, old.name)?,
            Some((outer, subkey)) => remove_subkey(&renamed, outer, subkey)?,
        };
        let outer = old.replacement.split('.').next().unwrap_or(old.replacement);
        if let Some(value) = mapping.get(outer) {
            renamed = set_keys(&renamed, &[(outer, value.clone())])?;
        }
    }
    Ok(renamed)
}

/// Replaces deprecated names. Returns a problem for each that `version` no longer reads, and a warning for each other.
pub(super) fn rename_deprecated(
    mapping: &mut Mapping,
    text: &str,
    table: &[Deprecated],
    version: &str,
) -> (Vec<Problem>, Vec<Problem>) {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    for old in table {
        let Some((value, line)) = take(mapping, text, old.name) else { continue };
        match old.notice(version) {
            Notice::Deprecated(message) => {
                warnings.push(Problem { line, message });
                set_if_missing(mapping, old.replacement, value);
            }
            Notice::Removed(message) => problems.push(Problem { line, message }),
        }
    }
    (problems, warnings)
}

/// Removes a key, or a key of a mapping (`upgrade.channel`); returns its value and line.
fn take(mapping: &mut Mapping, text: &str, name: &str) -> Option<(Value, usize)> {
    match name.split_once('.') {
        None => Some((mapping.remove(name)?, line_of(text, name))),
        Some((outer, subkey)) => {
            let value = mapping.get_mut(outer)?.as_mapping_mut()?.remove(subkey)?;
            Some((value, line_of_subkey(text, outer, subkey)))
        }
    }
}

fn set_if_missing(mapping: &mut Mapping, name: &str, value: Value) {
    let (mapping, key) = match name.split_once('.') {
        None => (Some(mapping), name),
        Some((outer, subkey)) => {
            let nested = mapping.entry(outer.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
            (nested.as_mapping_mut(), subkey)
        }
    };
    if let Some(mapping) = mapping {
        mapping.entry(key.into()).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gets_new_names_and_keeps_the_rest() {
        let text = "port: 1 # mine\nupgrade:\n  keep_versions: 2\n  contract_after: 90m\n";
        let renamed = with_new_names(text).unwrap();
        assert!(renamed.contains("port: 1 # mine") && !renamed.contains("contract_after"), "{renamed}");
        let mapping = to_mapping(&renamed).unwrap();
        assert_eq!(mapping["upgrade"]["cleanup_after"], Value::from("90m"));
        assert_eq!(mapping["upgrade"]["keep_versions"], Value::from(2));
        assert_eq!(with_new_names("port: 1\n").unwrap(), "port: 1\n");
        assert_eq!(with_new_names("port: [").unwrap(), "port: [", "its problems are reported by the check");
    }
}
