//! `leoflow.yaml`, a project's own settings. This release knows its keys and honours the first; one
//! that asks for more is an error of that project, because to pass over it would change its meaning.

use super::document::{Problem, line_of, show, to_mapping};
use crate::sys::files;
use serde_yaml::Value;
use std::io;
use std::path::{Path, PathBuf};

/// Its name in a project's folder.
pub const FILE: &str = "leoflow.yaml";

const SCHEMA_VERSION: &str = "1.0";
/// What a later release reads.
const LATER: &[&str] =
    &["dag_id", "description", "owner", "tags", "python_version", "dependencies", "dag_source", "defaults", "tasks"];

const SIZE_LIMIT: u64 = 1024 * 1024;

/// What is wrong with the settings in `folder`; nothing when there are none.
pub fn check(folder: &Path) -> io::Result<Vec<Problem>> {
    Ok(files::read_text(&folder.join(FILE), SIZE_LIMIT)?.map_or_else(Vec::new, |text| check_text(&text)))
}

fn check_text(text: &str) -> Vec<Problem> {
    let mapping = match to_mapping(text) {
        Ok(mapping) => mapping,
        Err(problems) => return problems,
    };
    let mut problems = Vec::new();
    for (key, value) in &mapping {
        let name = key.as_str().unwrap_or_default();
        let message = match name {
            "schema_version" if is_version(value) => continue,
            "schema_version" => format!("schema_version: {} is not {SCHEMA_VERSION:?}", show(value)),
            later if LATER.contains(&later) => format!("{later} is not supported in this release"),
            _ => format!("unknown key {}; the keys are schema_version, {}", show(key), LATER.join(", ")),
        };
        problems.push(Problem { line: line_of(text, name), message });
    }
    problems.sort_by_key(|problem| problem.line);
    problems
}

/// Also without the quotes, as people write it.
fn is_version(value: &Value) -> bool {
    value.as_str() == Some(SCHEMA_VERSION) || value.as_f64() == Some(1.0)
}

/// The projects of a workspace that have settings, in order.
pub fn with_settings(workspace: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(workspace)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join(FILE).exists())
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_passed_over_is_a_problem() {
        assert_eq!(check_text("# nothing\n"), []);
        assert_eq!(check_text("schema_version: \"1.0\"\n"), []);
        assert_eq!(check_text("schema_version: 1.0\n"), []);
        let problems = check_text("schema_version: '2'\n\ndependencies: [pandas]\ncolour: red\n");
        let told: Vec<_> = problems.iter().map(|problem| (problem.line, problem.message.as_str())).collect();
        assert_eq!(told[0], (1, "schema_version: \"2\" is not \"1.0\""));
        assert_eq!(told[1], (3, "dependencies is not supported in this release"));
        assert!(told[2].1.starts_with("unknown key \"colour\"; the keys are schema_version, dag_id"), "{told:?}");
        assert_eq!(check_text("a: [").len(), 1);
        assert_eq!(check_text("- a\n").len(), 1);
        assert!(check(Path::new("/nowhere")).unwrap().is_empty());
    }
}
