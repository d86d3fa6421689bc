//! `.env` of a project and of the workspace, as `package/leoflow/entry/dotenv.py` reads it: for settings that count before
//! there is a Python.

use crate::sys::{env_vars, files};
use std::path::{Path, PathBuf};

/// As there: what is larger is not read.
const LARGEST: u64 = 256 * 1024;

/// Its path in a folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(".env")
}

/// A variable as children have it: of the nearest folder that sets it, else of our own environment. Folders come
/// the nearest first.
pub fn variable(folders: &[PathBuf], name: &str) -> Option<String> {
    let of_folder = |folder: &PathBuf| {
        // Python says what is wrong with it.
        let text = files::read_text(&path(folder), LARGEST).ok().flatten()?;
        value_of(&text, name)
    };
    folders.iter().find_map(of_folder).or_else(|| env_vars::text(name))
}

/// The last value of a name counts.
fn value_of(text: &str, wanted: &str) -> Option<String> {
    let lines = text.trim_start_matches('\u{feff}').lines();
    lines.filter_map(|line| assignment(line).filter(|(name, _)| *name == wanted)).next_back().map(|(_, value)| value)
}

fn assignment(line: &str) -> Option<(&str, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    if line.contains('\0') {
        return None;
    }
    let text = value.trim();
    let value = match text.chars().next() {
        Some(mark @ ('\'' | '"')) => quoted(text, mark),
        _ => without_comment(value).trim().to_owned(),
    };
    Some((name.trim(), value))
}

/// A comment begins with a `#` behind a blank, which may be all that is before it.
fn without_comment(value: &str) -> &str {
    let begins = |at: &usize| value[..*at].ends_with([' ', '\t']);
    value.match_indices('#').map(|(at, _)| at).find(begins).map_or(value, |at| &value[..at])
}

/// What stands between the quotes; without an end it is taken as it stands.
fn quoted(text: &str, mark: char) -> String {
    let mut value = String::new();
    let mut characters = text.chars().skip(1);
    while let Some(one) = characters.next() {
        match one {
            _ if one == mark => return value,
            '\\' if mark == '"' => match characters.next() {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some(other) => value.push(other),
                None => value.push(one),
            },
            _ => value.push(one),
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same cases as tests/python has for dotenv.py.
    #[test]
    fn values_are_as_python_reads_them() {
        let text = "\u{feff}A=1\n# A=2\nexport B = two # not this\nC='a # b'\nD=\"x\\n\\\"y\\\"\" # z\nE='open\nA=3\nF=\nG=  # none\nH=val\t# tab\nI=#x#y #z\n";
        let values: Vec<_> = ["A", "B", "C", "D", "E", "F", "G", "H", "I"].map(|name| value_of(text, name)).into();
        let wanted =
            ["3", "two", "a # b", "x\n\"y\"", "'open", "", "", "val", "#x#y"].map(|value| Some(value.to_owned()));
        assert_eq!(values, wanted);
        assert_eq!(value_of(text, "J"), None);
    }

    #[test]
    fn the_nearest_folder_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (near, far) = (folder.path().join("near"), folder.path().to_owned());
        std::fs::create_dir(&near).unwrap();
        std::fs::write(path(&far), "ONE=far\nTWO=far\n").unwrap();
        std::fs::write(path(&near), "ONE=near\n").unwrap();
        let folders = [near, far];
        assert_eq!(variable(&folders, "ONE").as_deref(), Some("near"));
        assert_eq!(variable(&folders, "TWO").as_deref(), Some("far"));
        assert_eq!(variable(&folders, "LEOFLOW_NO_SUCH_VARIABLE"), None);
    }
}
