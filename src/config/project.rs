//! `leoflow.yaml`, a project's own settings: what they may say, and what is wrong with them. What they say
//! about tasks is applied where the DAG file is run, because only there is known which tasks there are.

use super::document::{Problem, line_of, show, to_mapping};
pub use super::project_edit::add_dependencies;
pub use super::wanted::{Wanted, take_wanted};
use crate::sys::files;
use serde_json::{Map, json};
use serde_yaml::{Mapping, Value};
use std::io;
use std::path::{Path, PathBuf};

/// Its name in a project's folder.
pub const FILE: &str = "leoflow.yaml";

const SCHEMA_VERSION: &str = "1.0";
const KEYS: &[&str] = &[
    "schema_version",
    "dag_id",
    "description",
    "owner",
    "tags",
    "python_version",
    "airflow",
    "dependencies",
    "requirements",
    "constraints",
    "index",
    "extra_index",
    "exclude_newer",
    "dag_source",
    "defaults",
    "tasks",
];
const DEFAULTS: &[&str] = &["retries", "retry_delay_seconds", "execution_timeout_seconds", "resources"];
const TASK: &[&str] = &["retries", "retry_delay_seconds", "execution_timeout_seconds", "resources", "env"];

/// Bytes; settings have a few hundred.
pub const SIZE_LIMIT: u64 = 256 * 1024;

/// Why the settings of a project cannot be used.
#[derive(Debug)]
pub enum Unusable {
    Unreadable(io::Error),
    Wrong(Vec<Problem>),
}

/// What is wrong with the settings in `folder`; nothing when there are none.
pub fn check(folder: &Path) -> io::Result<Vec<Problem>> {
    match load(folder) {
        Ok(_) => Ok(Vec::new()),
        Err(Unusable::Wrong(problems)) => Ok(problems),
        Err(Unusable::Unreadable(error)) => Err(error),
    }
}

/// The settings in `folder` as JSON, with the name of their file; `None` where there are none.
pub fn load(folder: &Path) -> Result<Option<serde_json::Value>, Unusable> {
    let file = folder.join(FILE);
    let Some(text) = files::read_text(&file, SIZE_LIMIT).map_err(Unusable::Unreadable)? else { return Ok(None) };
    let mut settings = read(&text, folder).map_err(Unusable::Wrong)?;
    settings.insert("file".to_owned(), file.to_string_lossy().into());
    Ok(Some(settings.into()))
}

struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

fn read(text: &str, folder: &Path) -> Result<Map<String, serde_json::Value>, Vec<Problem>> {
    let mapping = to_mapping(text)?;
    let mut reader = Reader { text, problems: Vec::new() };
    let mut settings = Map::new();
    for (key, value) in &mapping {
        let Some(name) = reader.known(key, KEYS, "") else { continue };
        if let Some(value) = reader.top(name, value, folder) {
            settings.insert(name.to_owned(), value);
        }
    }
    reader.problems.sort_by_key(|problem| problem.line);
    if reader.problems.is_empty() { Ok(settings) } else { Err(reader.problems) }
}

impl<'a> Reader<'a> {
    fn problem(&mut self, key: &str, message: String) {
        self.problems.push(Problem { line: line_of(self.text, key), message });
    }

    /// The line of a key that may be further in.
    fn problem_inside(&mut self, key: &str, message: String) {
        let starts = |line: &str| {
            let line = line.trim_start().trim_start_matches(['"', '\'']);
            line.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
        };
        let line = self.text.lines().position(starts).map_or(0, |at| at + 1);
        self.problems.push(Problem { line, message });
    }

    /// The name of a key, if there is such a key.
    fn known<'b>(&mut self, key: &'b Value, keys: &[&str], place: &str) -> Option<&'b str> {
        let name = key.as_str().filter(|name| keys.contains(name));
        if name.is_none() {
            let shown = show(key);
            let near = key.as_str().and_then(|name| nearest(name, keys)).map(|near| format!("; did you mean {near}?"));
            let message =
                format!("unknown key {shown}{place}; the keys are {}{}", keys.join(", "), near.unwrap_or_default());
            self.problem_inside(key.as_str().unwrap_or_default(), message);
        }
        name
    }

    fn top(&mut self, name: &str, value: &Value, folder: &Path) -> Option<serde_json::Value> {
        match name {
            "schema_version" if is_version(value) => None,
            "schema_version" => {
                self.problem(name, format!("schema_version: {} is not {SCHEMA_VERSION:?}", show(value)));
                None
            }
            "python_version" => self.python_version(name, value),
            "airflow" => self.airflow(name, value),
            "exclude_newer" => self.moment(name, value),
            "tags" | "dependencies" | "constraints" | "extra_index" => self.texts(name, value),
            "defaults" => self.task(name, value, DEFAULTS, &format!(" in {name}")),
            "tasks" => self.tasks(value),
            "dag_source" => {
                let path = self.text_of(name, value)?;
                if !folder.join(path.as_str()?).is_file() {
                    self.problem(name, format!("dag_source: there is no file {} here", show(value)));
                }
                Some(path)
            }
            _ => self.text_of(name, value),
        }
    }

    fn text_of(&mut self, name: &str, value: &Value) -> Option<serde_json::Value> {
        match value.as_str().filter(|text| !text.trim().is_empty()) {
            Some(text) => Some(text.into()),
            None => {
                self.problem_inside(name, format!("{name}: {} is no text", show(value)));
                None
            }
        }
    }

    fn texts(&mut self, name: &str, value: &Value) -> Option<serde_json::Value> {
        let list = value.as_sequence().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        match list.flatten() {
            Some(list) => Some(json!(list)),
            None => {
                self.problem_inside(name, format!("{name}: {} is no list of texts", show(value)));
                None
            }
        }
    }

    /// A version or a range, which is read where it is used. Without quotes 3.10 is the number 3.1.
    fn python_version(&mut self, name: &str, value: &Value) -> Option<serde_json::Value> {
        let text = match value {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()).filter(|text| text != "3.1"),
            _ => None,
        };
        let text = text.filter(|text| !text.is_empty());
        if text.is_none() {
            let message = format!("{name}: write the version in quotes, as in \"3.12\"; {} is none", show(value));
            self.problem(name, message);
        }
        text.map(Into::into)
    }

    /// A version of Apache Airflow: all of it, or its first two numbers.
    fn airflow(&mut self, name: &str, value: &Value) -> Option<serde_json::Value> {
        let text = value.as_str().map(str::to_owned).or_else(|| value.as_f64().map(|number| number.to_string()));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_version = |text: &String| matches!(text.split('.').count(), 2 | 3) && text.split('.').all(is_number);
        let found = text.filter(is_version);
        if found.is_none() {
            let message = format!("{name}: {} is no version of Apache Airflow, as 3.3.2 or 3.3 is", show(value));
            self.problem(name, message);
        }
        found.map(Into::into)
    }

    /// A date, or a moment of RFC 3339.
    fn moment(&mut self, name: &str, value: &Value) -> Option<serde_json::Value> {
        let is_one = |text: &&str| text.parse::<jiff::civil::Date>().is_ok() || text.parse::<jiff::Timestamp>().is_ok();
        let found = value.as_str().map(str::trim).filter(is_one);
        if found.is_none() {
            let message = format!("{name}: {} is no date, as 2026-01-31 or 2026-01-31T08:00:00Z is", show(value));
            self.problem(name, message);
        }
        found.map(Into::into)
    }

    fn tasks(&mut self, value: &Value) -> Option<serde_json::Value> {
        let mapping = self.mapping("tasks", value)?;
        let mut tasks = Map::new();
        for (key, value) in &mapping {
            let Some(task_id) = key.as_str() else {
                self.problem("tasks", format!("tasks: {} is no task_id", show(key)));
                continue;
            };
            if let Some(task) = self.task(task_id, value, TASK, &format!(" in tasks.{task_id}")) {
                tasks.insert(task_id.to_owned(), task);
            }
        }
        Some(tasks.into())
    }

    fn mapping(&mut self, name: &str, value: &Value) -> Option<Mapping> {
        match value {
            Value::Mapping(mapping) => Some(mapping.clone()),
            Value::Null => None,
            other => {
                self.problem_inside(name, format!("{name}: expected lines of `key: value`, found {}", show(other)));
                None
            }
        }
    }

    fn task(&mut self, name: &str, value: &Value, keys: &[&str], place: &str) -> Option<serde_json::Value> {
        let mapping = self.mapping(name, value)?;
        let mut found = Map::new();
        for (key, value) in &mapping {
            let Some(key) = self.known(key, keys, place) else { continue };
            let value = match key {
                "retries" => self.number(key, place, value, true),
                "retry_delay_seconds" | "execution_timeout_seconds" => self.number(key, place, value, false),
                "env" => self.environment(place, value),
                _ => self.resources(place, value),
            };
            if let Some(value) = value {
                found.insert(key.to_owned(), value);
            }
        }
        Some(found.into())
    }

    fn number(&mut self, key: &str, place: &str, value: &Value, whole: bool) -> Option<serde_json::Value> {
        let found = match value.as_u64() {
            Some(number) => Some(json!(number)),
            None if whole => None,
            None => value.as_f64().filter(|number| number.is_finite() && *number >= 0.0).map(|number| json!(number)),
        };
        if found.is_none() {
            let what = if whole { "a whole number" } else { "a number" };
            self.problem_inside(key, format!("{key}{place}: {} is not {what} from 0", show(value)));
        }
        found
    }

    fn environment(&mut self, place: &str, value: &Value) -> Option<serde_json::Value> {
        let mapping = self.mapping("env", value)?;
        let mut found = Map::new();
        for (key, value) in &mapping {
            let text = match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(flag) => Some(flag.to_string()),
                _ => None,
            };
            let name = key.as_str().filter(|name| !name.is_empty() && !name.contains(['=', '\0']));
            match (name, text) {
                (Some(name), Some(text)) => drop(found.insert(name.to_owned(), text.into())),
                _ => self.problem_inside("env", format!("env{place}: {}: {} is no variable", show(key), show(value))),
            }
        }
        Some(found.into())
    }

    /// A laptop has one machine: they are checked, and are there for where the project goes next.
    fn resources(&mut self, place: &str, value: &Value) -> Option<serde_json::Value> {
        let mapping = self.mapping("resources", value)?;
        for (key, _) in &mapping {
            self.known(key, &["cpu", "memory", "disk", "gpu"], &format!(" in resources{place}"));
        }
        None
    }
}

/// A text of settings as JSON, for the project in `folder`.
pub fn parse(text: &str, folder: &Path) -> Result<serde_json::Value, Vec<Problem>> {
    read(text, folder).map(Into::into)
}

/// The one that was probably meant.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let similar = |other: &&&str| strsim::jaro_winkler(name, other);
    known.iter().max_by(|a, b| similar(a).total_cmp(&similar(b))).filter(|best| similar(best) > 0.8).copied()
}

/// Also without the quotes, as people write it.
fn is_version(value: &Value) -> bool {
    value.as_str() == Some(SCHEMA_VERSION) || value.as_f64() == Some(1.0)
}

/// The projects of a workspace that have settings, in order, and the workspace itself where it has some for all.
pub fn with_settings(workspace: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(workspace)?
        .flatten()
        .map(|entry| entry.path())
        .chain([workspace.to_owned()])
        .filter(|path| path.join(FILE).exists())
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(usize, String)> {
        let found = read(text, Path::new("/nowhere")).err().unwrap_or_default();
        found.into_iter().map(|problem| (problem.line, problem.message)).collect()
    }

    #[test]
    fn what_it_says_is_read() {
        assert_eq!(problems("# nothing\n"), []);
        assert_eq!(problems("schema_version: 1.0\n"), []);
        let text = "schema_version: \"1.0\"\ndag_id: d\ntags: [a, b]\ndefaults: {retries: 2, retry_delay_seconds: 0.5}\n\
                    tasks:\n  t: {execution_timeout_seconds: 3, env: {A: 1, B: x}}\n";
        let settings = read(text, Path::new("/nowhere")).unwrap();
        let wanted = json!({
            "dag_id": "d", "tags": ["a", "b"], "defaults": {"retries": 2, "retry_delay_seconds": 0.5},
            "tasks": {"t": {"execution_timeout_seconds": 3, "env": {"A": "1", "B": "x"}}},
        });
        assert_eq!(serde_json::Value::from(settings), wanted);
        assert_eq!(load(Path::new("/nowhere")).unwrap(), None);
    }

    #[test]
    fn what_is_wanted_of_the_environment_is_taken_out() {
        let text = "dag_id: d\npython_version: 3.12\ndependencies: [pandas]\nextra_index: ['https://i.example']\n";
        let mut settings = serde_json::Value::from(read(text, Path::new("/nowhere")).unwrap());
        let wanted = take_wanted(&mut settings);
        assert_eq!(wanted.python_version.as_deref(), Some("3.12"));
        assert_eq!(wanted.dependencies.as_deref(), Some(["pandas".to_owned()].as_slice()));
        assert_eq!((wanted.requirements, wanted.extra_index.len()), (None, 1));
        assert_eq!(settings, json!({"dag_id": "d"}));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_the_nearest_right_name() {
        let text = "schema_version: '2'\n\npython_version: 3.10\ndag_idd: x\ndefaults:\n  retires: 3\n  retries: -1\n";
        let told = problems(text);
        assert_eq!(told[0], (1, "schema_version: \"2\" is not \"1.0\"".to_owned()));
        assert!(told[1].0 == 3 && told[1].1.starts_with("python_version: write the version in quotes"), "{told:?}");
        assert!(told[2].0 == 4 && told[2].1.ends_with("did you mean dag_id?"), "{told:?}");
        assert!(told[3].0 == 6 && told[3].1.contains("in defaults") && told[3].1.ends_with("did you mean retries?"));
        assert!(told[4].0 == 7 && told[4].1.contains("whole number"), "{told:?}");
        for bad in [
            "a: [",
            "- a\n",
            "dag_id: a\ndag_id: b\n",
            "tags: x\n",
            "python_version: [3]\n",
            "tasks: [a]\n",
            &"[".repeat(200_000),
            &"[\n".repeat(100_000),
            &format!("a: {}b\n", "- ".repeat(100_000)),
        ] {
            assert_eq!(problems(bad).len(), 1, "{}", &bad[..bad.len().min(40)]);
        }
    }
}
