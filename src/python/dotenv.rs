//! Reads the `.env` of a project and of the workspace like `package/leoflow/entry/dotenv.py`, for settings that apply
//! before a Python starts.

use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use std::path::{Path, PathBuf};

/// Size limit, bytes, as in `dotenv.py`; a larger file is not read.
const MAX_BYTES: u64 = 256 * 1024;

/// Path of the `.env` in a folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(".env")
}

/// A variable as children see it: from the nearest folder whose `.env` sets it, else from our own environment. Folders
/// come nearest first.
pub fn variable(folders: &[PathBuf], name: &str) -> Option<String> {
    let in_folder = |folder: &PathBuf| {
        // The Python side reports errors.
        let text = files::read_text(&path(folder), MAX_BYTES).ok().flatten()?;
        last_assignment(&text, name)
    };
    folders.iter().find_map(in_folder).or_else(|| env_vars::text(name))
}

/// The value of the last assignment to a name.
fn last_assignment(text: &str, target: &str) -> Option<String> {
    let lines = text.trim_start_matches('\u{feff}').lines();
    lines.filter_map(|line| assignment(line).filter(|(name, _)| *name == target)).next_back().map(|(_, value)| value)
}

/// Parses `NAME=value`, also after `export`; `None` for any other line.
fn assignment(line: &str) -> Option<(&str, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    if line.contains('\0') {
        return None;
    }
    let text = value.trim();
    let value = match text.chars().next() {
        Some(quote @ ('\'' | '"')) => unquote(text, quote),
        _ => strip_comment(value).trim().to_owned(),
    };
    Some((name.trim(), value))
}

/// Removes a comment: a `#` after a blank. The value before it may be empty.
fn strip_comment(value: &str) -> &str {
    let follows_blank = |index: &usize| value[..*index].ends_with([' ', '\t']);
    value.match_indices('#').map(|(index, _)| index).find(follows_blank).map_or(value, |index| &value[..index])
}

/// The text between the quotes; without a closing quote the text as is.
fn unquote(text: &str, quote: char) -> String {
    let mut value = String::new();
    let mut characters = text.chars().skip(1);
    while let Some(character) = characters.next() {
        match character {
            _ if character == quote => return value,
            '\\' if quote == '"' => match characters.next() {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some(other) => value.push(other),
                None => value.push(character),
            },
            _ => value.push(character),
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
        let values: Vec<_> =
            ["A", "B", "C", "D", "E", "F", "G", "H", "I"].map(|name| last_assignment(text, name)).into();
        let expected =
            ["3", "two", "a # b", "x\n\"y\"", "'open", "", "", "val", "#x#y"].map(|value| Some(value.to_owned()));
        assert_eq!(values, expected);
        assert_eq!(last_assignment(text, "J"), None);
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
