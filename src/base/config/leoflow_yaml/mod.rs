//! `leoflow.yaml`, a project's own settings: allowed keys and checks. Task settings are applied where the DAG file is
//! executed, because only there the tasks are known.

mod edit;
mod environment;
pub mod keys;

pub use edit::{add_dependencies, has_additional_dependencies};
pub use environment::{EnvironmentSettings, take_environment};

use self::keys::{HISTORY, PROJECT, TASK, default_names, names};
use super::document::{Problem, line_of, show, to_mapping};
use super::keys::scalar_text;
use super::{NotifyRule, Retention, read_project_rules};
use crate::sys::fs::files;
use serde_json::{Map, Value as Json};
use serde_yaml::{Mapping, Value};
use std::io;
use std::path::{Component, Path, PathBuf};

/// File name in a project's folder.
pub const FILE: &str = "leoflow.yaml";

/// The settings file of a project: the one in its folder, or else one beside the folder, such as `sales.leoflow.yaml`
/// for the folder `sales`, so that a linked repository need not change.
pub fn path(folder: &Path) -> PathBuf {
    let inside = folder.join(FILE);
    if inside.exists() { inside } else { path_beside(folder).filter(|beside| beside.exists()).unwrap_or(inside) }
}

/// The path of the settings file beside a project's folder; `None` for a path without a name.
pub fn path_beside(folder: &Path) -> Option<PathBuf> {
    files::beside(folder, FILE)
}

const SCHEMA_VERSION: &str = "1.0";

/// Size limit of the file, in bytes; typical files have a few hundred.
pub const SIZE_LIMIT: u64 = 256 * 1024;

/// Reason why a project's settings cannot be used.
#[derive(Debug)]
pub enum Unusable {
    Unreadable(io::Error),
    Invalid(Vec<Problem>),
}

/// Lists the problems of the settings in `folder`; empty when there is no file.
pub fn check(folder: &Path) -> io::Result<Vec<Problem>> {
    match load(folder) {
        Ok(_) => Ok(Vec::new()),
        Err(Unusable::Invalid(problems)) => Ok(problems),
        Err(Unusable::Unreadable(error)) => Err(error),
    }
}

/// Loads the settings in `folder` as JSON, with the path of the file; `None` if there is none.
pub fn load(folder: &Path) -> Result<Option<Json>, Unusable> {
    let file = path(folder);
    let Some(text) = files::read_text(&file, SIZE_LIMIT).map_err(Unusable::Unreadable)? else { return Ok(None) };
    let mut settings = read(&text, folder).map_err(Unusable::Invalid)?;
    settings.insert("file".to_owned(), file.to_string_lossy().into());
    Ok(Some(settings.into()))
}

/// Checks values and collects the problems.
struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

/// Parses and checks the settings. Reports all problems at once, in order of their lines.
fn read(text: &str, folder: &Path) -> Result<Map<String, Json>, Vec<Problem>> {
    let mapping = to_mapping(text)?;
    let mut reader = Reader { text, problems: Vec::new() };
    let mut settings = Map::new();
    let keys = names(PROJECT);
    for (key, value) in &mapping {
        let Some(name) = reader.known(key, &keys, "") else { continue };
        if let Some(value) = reader.top_level(name, value, folder) {
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

    /// Reports a problem at the first line that sets `key`, at any depth.
    fn problem_inside(&mut self, key: &str, message: String) {
        let sets_key = |line: &str| {
            let line = line.trim_start().trim_start_matches(['"', '\'']);
            line.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
        };
        let line = self.text.lines().position(sets_key).map_or(0, |index| index + 1);
        self.problems.push(Problem { line, message });
    }

    /// Returns the name of an allowed key, or reports the unknown one.
    fn known<'b>(&mut self, key: &'b Value, keys: &[&str], context: &str) -> Option<&'b str> {
        let name = key.as_str().filter(|name| keys.contains(name));
        if name.is_none() {
            let nearest = key.as_str().and_then(|name| nearest(name, keys));
            let suggestion = nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
            let (unknown, allowed) = (show(key), keys.join(", "));
            let message = format!("unknown key {unknown}{context}; allowed keys: {allowed}{suggestion}");
            self.problem_inside(key.as_str().unwrap_or_default(), message);
        }
        name
    }

    /// Returns the value of a top-level key, or reports the problem.
    fn or_problem<T: Into<Json>>(&mut self, value: Option<T>, key: &str, message: String) -> Option<Json> {
        if value.is_none() {
            self.problem(key, message);
        }
        value.map(Into::into)
    }

    /// Like `or_problem`, for a key at any depth.
    fn or_problem_inside<T: Into<Json>>(&mut self, value: Option<T>, key: &str, message: String) -> Option<Json> {
        if value.is_none() {
            self.problem_inside(key, message);
        }
        value.map(Into::into)
    }

    /// Checks the value of a top-level key; `None` if it is invalid or has no effect.
    fn top_level(&mut self, name: &str, value: &Value, folder: &Path) -> Option<Json> {
        match name {
            "schema_version" if is_version(value) => None,
            "schema_version" => {
                self.problem(name, format!("schema_version: {} is not {SCHEMA_VERSION:?}", show(value)));
                None
            }
            "python_version" => self.python_version(name, value),
            "airflow" => self.airflow(name, value),
            "airflow_2" => {
                self.or_problem(value.as_bool(), name, format!("{name}: {} is not true or false", show(value)))
            }
            "image_folder" => {
                // A folder directly in `/` cannot be created without root.
                let path = value.as_str().map(Path::new).filter(|path| path.is_absolute());
                let path = path.filter(|path| path.components().all(|part| part != Component::ParentDir));
                let path = path.filter(|path| path.components().count() > 2).and_then(Path::to_str);
                let expected = "an absolute path with at least two parts, such as /opt/airflow";
                self.or_problem(path, name, format!("{name}: {} is not {expected}", show(value)))
            }
            "isolation" => {
                let word = value.as_str().filter(|word| ["shared", "fresh"].contains(word));
                self.or_problem(word, name, format!("{name}: {} is not shared or fresh", show(value)))
            }
            "exclude_newer" => self.date_or_time(name, value),
            "tags"
            | "dependencies"
            | "additional_dependencies"
            | "ignored_requirements"
            | "constraints"
            | "extra_index" => self.string_list(name, value),
            "defaults" => self.task(name, value, &default_names(), &format!(" in {name}")),
            "tasks" => self.tasks(value),
            "history" => self.history(value),
            "notify" => {
                let rules = read_project_rules(value);
                let json = rules.is_ok().then(|| serde_json::to_value(value).ok()).flatten();
                let problem = rules.err().map(|error| error.to_string());
                self.or_problem(json, name, format!("{name}: {}", problem.unwrap_or_default()))
            }
            "dag_source" => {
                let path = self.string(name, value)?;
                if !folder.join(path.as_str()?).is_file() {
                    self.problem(name, format!("dag_source: no file {} in this folder", show(value)));
                }
                Some(path)
            }
            _ => self.string(name, value),
        }
    }

    fn string(&mut self, name: &str, value: &Value) -> Option<Json> {
        let text = value.as_str().filter(|text| !text.trim().is_empty());
        self.or_problem_inside(text, name, format!("{name}: {} is not a string", show(value)))
    }

    fn string_list(&mut self, name: &str, value: &Value) -> Option<Json> {
        let list = value.as_sequence().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        self.or_problem_inside(list, name, format!("{name}: {} is not a list of strings", show(value)))
    }

    /// Accepts a version or a range, which is parsed where it is used. Refuses the number 3.1, which may be an unquoted
    /// 3.10.
    fn python_version(&mut self, name: &str, value: &Value) -> Option<Json> {
        let text = match value {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()).filter(|text| text != "3.1"),
            _ => None,
        };
        let message = format!("{name}: write the version in quotes, as in \"3.12\"; {} is not a version", show(value));
        self.or_problem(text.filter(|text| !text.is_empty()), name, message)
    }

    /// Accepts a version of Apache Airflow, with two or three numbers, or a pre-release.
    fn airflow(&mut self, name: &str, value: &Value) -> Option<Json> {
        let text = Some(scalar_text(value));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_version = |text: &String| {
            let release = text.split_once(['a', 'b', 'r']).map_or(text.as_str(), |(release, pre)| {
                if is_number(pre.strip_prefix('c').unwrap_or(pre)) { release } else { "" }
            });
            matches!(release.split('.').count(), 2 | 3) && release.split('.').all(is_number)
        };
        let message = format!("{name}: {} is not a version of Apache Airflow such as 3.3.2 or 3.3", show(value));
        self.or_problem(text.filter(is_version), name, message)
    }

    /// Accepts a date or an RFC 3339 timestamp.
    fn date_or_time(&mut self, name: &str, value: &Value) -> Option<Json> {
        let is_date_or_time =
            |text: &&str| text.parse::<jiff::civil::Date>().is_ok() || text.parse::<jiff::Timestamp>().is_ok();
        let date_or_time = value.as_str().map(str::trim).filter(is_date_or_time);
        let message = format!("{name}: {} is not a date such as 2026-01-31 or 2026-01-31T08:00:00Z", show(value));
        self.or_problem(date_or_time, name, message)
    }

    fn tasks(&mut self, value: &Value) -> Option<Json> {
        let mapping = self.mapping("tasks", value)?;
        let mut tasks = Map::new();
        for (key, value) in &mapping {
            let Some(task_id) = key.as_str() else {
                self.problem("tasks", format!("tasks: {} is not a task_id", show(key)));
                continue;
            };
            if let Some(task) = self.task(task_id, value, &names(TASK), &format!(" in tasks.{task_id}")) {
                tasks.insert(task_id.to_owned(), task);
            }
        }
        Some(tasks.into())
    }

    fn history(&mut self, value: &Value) -> Option<Json> {
        let mapping = self.mapping("history", value)?;
        let mut limits = Map::new();
        for (key, value) in &mapping {
            let Some(key) = self.known(key, &names(HISTORY), " in history") else { continue };
            let count = value.as_u64().filter(|count| *count >= 1);
            let message = format!("history: {key}: {} is not a whole number of at least 1", show(value));
            limits.extend(self.or_problem_inside(count, key, message).map(|count| (key.to_owned(), count)));
        }
        Some(limits.into())
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

    fn task(&mut self, name: &str, value: &Value, keys: &[&str], context: &str) -> Option<Json> {
        let mapping = self.mapping(name, value)?;
        let mut settings = Map::new();
        for (key, value) in &mapping {
            let Some(key) = self.known(key, keys, context) else { continue };
            let value = match key {
                "retries" => self.number(key, context, value, true),
                "retry_delay_seconds" | "execution_timeout_seconds" => self.number(key, context, value, false),
                "env" => self.environment(context, value),
                _ => self.resources(context, value),
            };
            if let Some(value) = value {
                settings.insert(key.to_owned(), value);
            }
        }
        Some(settings.into())
    }

    fn number(&mut self, key: &str, context: &str, value: &Value, must_be_whole: bool) -> Option<Json> {
        let fraction = || value.as_f64().filter(|number| !must_be_whole && number.is_finite() && *number >= 0.0);
        let number = value.as_u64().map(Json::from).or_else(|| fraction().map(Json::from));
        let kind = if must_be_whole { "a whole number" } else { "a number" };
        self.or_problem_inside(number, key, format!("{key}{context}: {} is not {kind} of at least 0", show(value)))
    }

    fn environment(&mut self, context: &str, value: &Value) -> Option<Json> {
        let mapping = self.mapping("env", value)?;
        let mut variables = Map::new();
        for (key, value) in &mapping {
            let text = match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(flag) => Some(flag.to_string()),
                _ => None,
            };
            let name = key.as_str().filter(|name| !name.is_empty() && !name.contains(['=', '\0']));
            match (name, text) {
                (Some(name), Some(text)) => drop(variables.insert(name.to_owned(), text.into())),
                _ => self.problem_inside(
                    "env",
                    format!("env{context}: {}: {} is not a valid variable", show(key), show(value)),
                ),
            }
        }
        Some(variables.into())
    }

    /// Checks the resource keys and drops the values: Leoflow runs on one machine, other schedulers use them.
    fn resources(&mut self, context: &str, value: &Value) -> Option<Json> {
        let mapping = self.mapping("resources", value)?;
        for (key, _) in &mapping {
            self.known(key, &["cpu", "memory", "disk", "gpu"], &format!(" in resources{context}"));
        }
        None
    }
}

/// How long the runs of a project's DAGs are kept; `None` if its settings do not say.
pub fn retention(settings: &Json) -> Option<Retention> {
    let limits = settings.get("history")?;
    Some(Retention { keep_days: limits["keep_days"].as_u64(), keep_runs: limits["keep_runs"].as_u64() })
}

/// The rules of a project for notifications of its DAGs.
pub fn notify_rules(settings: &Json) -> Vec<NotifyRule> {
    settings.get("notify").and_then(|rules| serde_json::from_value(rules.clone()).ok()).unwrap_or_default()
}

/// Parses a text of settings into JSON, for the project in `folder`.
pub fn parse(text: &str, folder: &Path) -> Result<serde_json::Value, Vec<Problem>> {
    read(text, folder).map(Into::into)
}

/// Returns the most similar known name, if any is similar enough.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let similar = |other: &&&str| strsim::jaro_winkler(name, other);
    known.iter().max_by(|a, b| similar(a).total_cmp(&similar(b))).filter(|best| similar(best) > 0.8).copied()
}

/// True for the supported version, quoted or as a number.
fn is_version(value: &Value) -> bool {
    value.as_str() == Some(SCHEMA_VERSION) || value.as_f64() == Some(1.0)
}

/// Lists the folders of projects that have settings, sorted; also the workspace if it has settings itself.
pub fn with_settings(workspace: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(workspace)?
        .flatten()
        .map(|entry| entry.path())
        .chain([workspace.to_owned()])
        .filter(|folder| folder.is_dir() && path(folder).exists())
        .collect();
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(text: &str) -> Vec<(usize, String)> {
        let problems = read(text, Path::new("/nowhere")).err().unwrap_or_default();
        problems.into_iter().map(|problem| (problem.line, problem.message)).collect()
    }

    #[test]
    fn settings_stand_in_the_folder_or_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("sales");
        std::fs::create_dir(&project).unwrap();
        assert_eq!(path(&project), project.join(FILE));
        std::fs::write(folder.path().join("sales.leoflow.yaml"), "owner: beside\n").unwrap();
        assert_eq!(path(&project), folder.path().join("sales.leoflow.yaml"));
        assert_eq!(load(&project).unwrap().unwrap()["owner"], "beside");
        assert_eq!(with_settings(folder.path()).unwrap(), std::slice::from_ref(&project));
        std::fs::write(project.join(FILE), "owner: inside\n").unwrap();
        assert_eq!(load(&project).unwrap().unwrap()["owner"], "inside");
    }

    #[test]
    fn reads_settings() {
        assert_eq!(problems("# nothing\n"), []);
        assert_eq!(problems("schema_version: 1.0\n"), []);
        let text = "schema_version: \"1.0\"\ndag_id: d\ntags: [a, b]\ndefaults: {retries: 2, retry_delay_seconds: 0.5}\n\
                    tasks:\n  t: {execution_timeout_seconds: 3, env: {A: 1, B: x}}\n";
        let settings = read(text, Path::new("/nowhere")).unwrap();
        let expected = json!({
            "dag_id": "d", "tags": ["a", "b"], "defaults": {"retries": 2, "retry_delay_seconds": 0.5},
            "tasks": {"t": {"execution_timeout_seconds": 3, "env": {"A": "1", "B": "x"}}},
        });
        assert_eq!(serde_json::Value::from(settings), expected);
        assert_eq!(load(Path::new("/nowhere")).unwrap(), None);
    }

    #[test]
    fn separates_the_environment_settings() {
        let text = "dag_id: d\npython_version: 3.12\ndependencies: [pandas]\nextra_index: ['https://i.example']\n";
        let mut settings = serde_json::Value::from(read(text, Path::new("/nowhere")).unwrap());
        let declared = take_environment(&mut settings);
        assert_eq!(declared.python_version.as_deref(), Some("3.12"));
        assert_eq!(declared.dependencies.as_deref(), Some(["pandas".to_owned()].as_slice()));
        assert_eq!((declared.requirements, declared.extra_index.len()), (None, 1));
        assert_eq!(settings, json!({"dag_id": "d"}));
    }

    #[test]
    fn problems_name_the_line_and_the_nearest_key() {
        let text = "schema_version: '2'\n\npython_version: 3.10\ndag_idd: x\ndefaults:\n  retires: 3\n  retries: -1\n";
        let found = problems(text);
        assert_eq!(found[0], (1, "schema_version: \"2\" is not \"1.0\"".to_owned()));
        assert!(found[1].0 == 3 && found[1].1.starts_with("python_version: write the version in quotes"), "{found:?}");
        assert!(found[2].0 == 4 && found[2].1.ends_with("did you mean dag_id?"), "{found:?}");
        assert!(found[3].0 == 6 && found[3].1.contains("in defaults") && found[3].1.ends_with("did you mean retries?"));
        assert!(found[4].0 == 7 && found[4].1.contains("whole number"), "{found:?}");
        assert_eq!(
            problems("history:\n  keep_days: 0\n  keep: 3\n").iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [2, 3]
        );
        let settings = Json::from(read("history: {keep_runs: 5}", Path::new("/nowhere")).unwrap());
        assert_eq!(retention(&settings), Some(Retention { keep_days: None, keep_runs: Some(5) }));
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
