//! Reads the `.env` of a project and of the workspace like `package/leoflow/entry/env_file.py`, for settings that apply
//! before a Python starts.

use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use regex::{Captures, Regex};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Size limit, bytes, as in `entry/dotenv.py`; a larger file is not read.
const MAX_BYTES: u64 = 256 * 1024;

/// Paths of the files with variables, nearest first, existing or not: `.env` in each folder, and for a project in a
/// workspace the one beside its folder, such as `sales.env` for the folder `sales`, which takes precedence over the
/// project's own. `folders` are ordered nearest first.
pub fn paths(folders: &[PathBuf]) -> Vec<PathBuf> {
    let beside = folders.first().filter(|_| folders.len() > 1).and_then(|project| path_beside(project));
    beside.into_iter().chain(folders.iter().map(|folder| folder.join(".env"))).collect()
}

/// The path of the file with variables beside a project's folder; `None` for a path without a name.
pub fn path_beside(folder: &Path) -> Option<PathBuf> {
    files::beside(folder, "env")
}

/// A variable from the nearest of `paths` that sets it, else from our own environment, including variables that
/// children do not get. `folders` are ordered nearest first.
pub fn variable(folders: &[PathBuf], name: &str) -> Option<String> {
    let mut variables: HashMap<String, String> = HashMap::new();
    for path in paths(folders).iter().rev() {
        // Errors are ignored here; `entry/dotenv.py` reports them.
        if let Some(text) = files::read_text(path, MAX_BYTES).ok().flatten() {
            variables = Reader {
                others: Others::Environment,
                variables,
                lines: text.trim_start_matches('\u{feff}').lines().collect(),
            }
            .read();
        }
    }
    variables.remove(name).or_else(|| env_vars::text(name))
}

/// The variables of one file, in any order; empty if it cannot be read. References to variables that the file does not
/// set stay as they are.
pub fn variables_of(path: &Path) -> Vec<(String, String)> {
    let text = files::read_text(path, MAX_BYTES).ok().flatten().unwrap_or_default();
    let lines = text.trim_start_matches('\u{feff}').lines().collect();
    Reader { variables: HashMap::new(), lines, others: Others::Kept }.read().into_iter().collect()
}

/// Airflow's spellings of booleans.
const TRUE: [&str; 3] = ["t", "true", "1"];
const FALSE: [&str; 3] = ["f", "false", "0"];

/// A variable with a value that Airflow does not allow; the text is a message for the user.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {value:?} is {problem}")]
pub struct InvalidVariable {
    pub name: String,
    pub value: String,
    pub problem: &'static str,
}

/// Reads a boolean [`variable`], spelled as Airflow allows; `None` if it is empty or not set.
pub fn flag(folders: &[PathBuf], name: &str) -> Result<Option<bool>, InvalidVariable> {
    let text = variable(folders, name).unwrap_or_default().trim().to_lowercase();
    match text.as_str() {
        "" => Ok(None),
        word if TRUE.contains(&word) => Ok(Some(true)),
        word if FALSE.contains(&word) => Ok(Some(false)),
        word => {
            let (name, value) = (name.to_owned(), word.to_owned());
            Err(InvalidVariable { name, value, problem: "neither true nor false" })
        }
    }
}

/// `${NAME}` or `${NAME:-default}`.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| expression(r"\$\{([^}:\s]+)(?::-([^}]*))?\}"));
/// What has a meaning inside of quotes: escapes, references and the closing quote.
static DOUBLE_QUOTED: LazyLock<Regex> =
    LazyLock::new(|| expression(&format!(r#"\\[ntr'"\\$]|"|{}"#, REFERENCE.as_str())));
static SINGLE_QUOTED: LazyLock<Regex> = LazyLock::new(|| expression(r"\\['\\]|'"));

fn expression(text: &str) -> Regex {
    Regex::new(text).expect("a valid expression")
}

/// What becomes of references to variables that no file sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// They mean those of our own environment.
    Environment,
    Kept,
}

/// Reads one `.env`.
struct Reader<'a> {
    others: Others,
    /// The variables that this file and those of farther folders have set so far.
    variables: HashMap<String, String>,
    lines: Vec<&'a str>,
}

impl Reader<'_> {
    fn read(mut self) -> HashMap<String, String> {
        let mut index = 0;
        while index < self.lines.len() {
            index = self.read_from(index);
        }
        self.variables
    }

    /// Reads the assignment that begins in this line; returns the index of the next line. Lines of any other form set
    /// nothing.
    fn read_from(&mut self, index: usize) -> usize {
        let line = self.lines[index].trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else { return index + 1 };
        let name = name.trim();
        let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "#'\"".contains(c));
        if !is_name || line.contains('\0') {
            return index + 1;
        }
        let text = value.trim_start();
        match text.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                let text = [&text[1..]].into_iter().chain(self.lines[index + 1..].iter().copied());
                let text = text.collect::<Vec<_>>().join("\n");
                let Some((value, rest)) = self.unquote(&text, quote) else { return index + 1 };
                let line_breaks = text[..text.len() - rest.len()].matches('\n').count();
                let after = rest.lines().next().unwrap_or_default().trim_start();
                if line_breaks > 0 && !after.is_empty() && !after.starts_with('#') {
                    return index + 1;
                }
                if !value.contains('\0') {
                    self.variables.insert(name.to_owned(), value);
                }
                index + line_breaks + 1
            }
            _ => {
                let value = self.expand(strip_comment(value).trim());
                self.variables.insert(name.to_owned(), value);
                index + 1
            }
        }
    }

    /// Returns the value up to the closing quote, and the text after the quote; `None` if the quote is not closed.
    fn unquote<'t>(&self, text: &'t str, quote: char) -> Option<(String, &'t str)> {
        let (mut value, mut start) = (String::new(), 0);
        let special = if quote == '"' { &DOUBLE_QUOTED } else { &SINGLE_QUOTED };
        for found in special.captures_iter(text) {
            let whole = found.get(0)?;
            value.push_str(&text[start..whole.start()]);
            start = whole.end();
            match whole.as_str() {
                "\\n" => value.push('\n'),
                "\\t" => value.push('\t'),
                "\\r" => value.push('\r'),
                escaped if escaped.starts_with('\\') => value.push_str(&escaped[1..]),
                reference if reference.starts_with('$') => value.push_str(&self.expand(reference)),
                _ => return Some((value, &text[start..])),
            }
        }
        None
    }

    fn expand(&self, text: &str) -> String {
        let value = |reference: &Captures<'_>| {
            let value = match (self.variables.get(&reference[1]), self.others) {
                (Some(value), _) => Some(value.clone()),
                (None, Others::Kept) => return reference[0].to_owned(),
                (None, Others::Environment) => env_vars::text(&reference[1]),
            };
            let default = || reference.get(2).map_or("", |default| default.as_str()).to_owned();
            value.filter(|value| !value.is_empty()).unwrap_or_else(default)
        };
        REFERENCE.replace_all(text, value).into_owned()
    }
}

/// Removes a comment, which begins with a `#` after a blank. The value before the comment may be empty.
fn strip_comment(value: &str) -> &str {
    let follows_blank = |index: &usize| value[..*index].ends_with([' ', '\t']);
    value.match_indices('#').map(|(index, _)| index).find(follows_blank).map_or(value, |index| &value[..index])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses the same cases as tests/python.
    #[test]
    fn values_are_as_python_reads_them() {
        let cases: serde_json::Value = serde_json::from_str(include_str!("../../tests/python/env_files.json")).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() > 10, "{}", cases.len());
        for case in cases {
            let text = case["text"].as_str().unwrap().trim_start_matches('\u{feff}');
            let variables =
                Reader { others: Others::Environment, variables: HashMap::new(), lines: text.lines().collect() }.read();
            assert_eq!(serde_json::json!(variables), case["variables"], "{text}");
        }
    }

    #[test]
    fn the_nearest_folder_takes_precedence() {
        let folder = tempfile::tempdir().unwrap();
        let (near, far) = (folder.path().join("near"), folder.path().to_owned());
        std::fs::create_dir(&near).unwrap();
        std::fs::write(far.join(".env"), "ONE=far\nTWO=far\n").unwrap();
        std::fs::write(near.join(".env"), "ONE=near\nTHREE=${TWO}/${ONE}\n").unwrap();
        let folders = [near, far];
        assert_eq!(variable(&folders, "ONE").as_deref(), Some("near"));
        assert_eq!(variable(&folders, "TWO").as_deref(), Some("far"));
        assert_eq!(variable(&folders, "THREE").as_deref(), Some("far/near"));
        assert_eq!(variable(&folders, "LEOFLOW_NO_SUCH_VARIABLE"), None);
        // The file beside the project's folder.
        std::fs::write(folder.path().join("near.env"), "ONE=beside\n").unwrap();
        assert_eq!(variable(&folders, "ONE").as_deref(), Some("beside"));
        assert_eq!(variable(&folders[..1], "ONE").as_deref(), Some("near"), "only in a workspace");
    }

    #[test]
    fn flags_are_spelled_as_airflow_allows() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".env"), "A=True\nB= 0\nC=yes\nD=\n").unwrap();
        let folders = [folder.path().to_owned()];
        let flag = |name| flag(&folders, name);
        assert_eq!((flag("A"), flag("B"), flag("D")), (Ok(Some(true)), Ok(Some(false)), Ok(None)));
        assert_eq!(flag("LEOFLOW_NO_SUCH_VARIABLE"), Ok(None));
        assert_eq!(flag("C").unwrap_err().to_string(), "C: \"yes\" is neither true nor false");
    }
}
