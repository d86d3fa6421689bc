//! What the lists of requirements around a project say, and what of it has to be left out here.

use super::repository::{Project, Repository};
use leoflow_python::environments::{
    DeclarationError, EnvironmentError, Line, LineError, check_requirement, excludes_supported, lines_of, name_of,
    requirements_of_other_tool, supported_range, without_versions,
};
use leoflow_python::{Request, declared_with, file_context};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The packages of Airflow itself.
const AIRFLOW: [&str; 3] = ["apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk"];
const PROVIDERS: &str = "apache-airflow-providers-";
/// Names of lists for other purposes than running DAGs.
const OTHER_PURPOSES: [&str; 9] = ["build", "ci", "dev", "doc", "docs", "lint", "local", "test", "tests"];

/// A line that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The entry of `ignored_requirements`.
    pub entry: String,
    pub place: String,
    pub why: String,
    /// The package without its version, which is added instead.
    pub instead: Option<String>,
}

/// The major release of Airflow that a project is for, by its image and its lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Release {
    #[default]
    Unknown,
    Airflow3,
    /// Takes precedence where both are named.
    Airflow2,
}

impl Release {
    /// Notes the release that a requirement of Airflow names.
    fn note(&mut self, line: &str) {
        if !AIRFLOW.contains(&&*name_of(line)) {
            return;
        }
        let is_3 = ["=3", "> 3", ">3"].iter().any(|version| line.contains(version));
        match (is_3, excludes_supported(line)) {
            (true, _) if *self == Self::Unknown => *self = Self::Airflow3,
            (false, true) => *self = Self::Airflow2,
            _ => {}
        }
    }
}

/// Why an environment cannot be made of the lists.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The line may contain a password, so it can neither be shown nor left out by its text.
    #[error("{place}: {source}")]
    Line { place: String, source: LineError },
    #[error(transparent)]
    Declaration(#[from] DeclarationError),
    #[error(transparent)]
    Fit(#[from] EnvironmentError),
}

#[derive(Debug, Default)]
pub struct Requirements {
    /// The list that `requirements` in leoflow.yaml names, relative to the project's folder.
    pub named: Option<String>,
    pub left_out: Vec<LeftOut>,
    /// Names of the packages that are listed.
    pub listed: BTreeSet<String>,
    /// Requirements that are added, each with its place: those of Poetry and Pipenv.
    pub added: Vec<(String, String)>,
    /// Constraints to versions that can be installed here.
    pub limits: Vec<String>,
    /// Declarations that only another tool can read, as texts.
    pub unread: Vec<String>,
    /// Why the lists cannot be read.
    pub error: Option<ListError>,
    pub release: Release,
}

/// The request for the project's settings, from the point of view of its least nested DAG file.
pub fn request(project: &Project) -> Request {
    let file = project.dag_files.iter().min_by_key(|file| file.components().count());
    let path = file.cloned().unwrap_or_else(|| project.folder.join("dag.py"));
    let folders = vec![project.folder.clone()];
    Request { project: Some(project.folder.clone()), folders, ..Request::new(path, None, PathBuf::new()) }
}

/// Reads the lists. `airflow` is the version in the project's image.
pub fn read(repository: &Repository, project: &Project, airflow: Option<&str>) -> Requirements {
    let release = match airflow.and_then(|version| version.chars().next()) {
        Some('3') => Release::Airflow3,
        Some('2') => Release::Airflow2,
        _ => Release::Unknown,
    };
    let mut requirements = Requirements { release, ..Requirements::default() };
    let request = request(project);
    let context = file_context(&request);
    let mut lists: Vec<PathBuf> = context.read.into_iter().filter(|path| is_list(path) && path.is_file()).collect();
    if let Ok(settings) = &context.settings {
        requirements.unread = settings
            .unread
            .iter()
            .filter(|unread| unread.is_certain && !is_read_here(unread.part))
            .map(ToString::to_string)
            .collect();
    }
    // Constraints are judged where they are included.
    let constraints: BTreeSet<PathBuf> = lists.iter().flat_map(|list| constraint_files(list)).collect();
    lists.retain(|list| !constraints.contains(list));
    let declares = lists.iter().any(|list| !lines_of(list).unwrap_or_default().is_empty())
        || matches!(&context.settings, Ok(settings) if settings.declared.is_some());
    if !declares && let Some(list) = other_list(repository, project) {
        requirements.named = relative(&list, &project.folder);
        requirements.unread.clear();
        lists = vec![list];
    }
    let mut seen = BTreeSet::new();
    while let Some(list) = lists.pop() {
        if !seen.insert(list.clone()) {
            continue;
        }
        let place = |text: &str| repository.place(&list, text);
        for line in lines_of(&list).unwrap_or_default() {
            match line {
                Line::Requirement(line) => {
                    let start = line.split(" --hash").next().unwrap_or_default();
                    requirements.judge(&line, place(start));
                }
                Line::Options(options) => {
                    for (name, value) in options {
                        lists.extend(requirements.judge_option(name, value, &list, &place));
                    }
                }
            }
        }
    }
    // Lists in `pyproject.toml`.
    if let Ok(settings) = &context.settings
        && let Some(declared) = &settings.declared
    {
        for line in &declared.requirements {
            let place = declared.origins.get(line).map(|file| repository.place(file, line));
            requirements.judge(line, place.unwrap_or_default());
        }
    }
    // Lists of Poetry and Pipenv, in the project or above it.
    let parents = repository.folders_down_to(project).into_iter().rev();
    for file in parents.flat_map(|folder| ["pyproject.toml", "Pipfile"].map(|name| folder.join(name))) {
        for line in requirements_of_other_tool(&file) {
            let place = repository.place(&file, &name_of(&line));
            requirements.judge_added(line, place);
        }
    }
    requirements.finish(&request);
    requirements
}

impl Requirements {
    fn leave_out(&mut self, entry: &str, place: String, why: impl Into<String>) {
        if !self.left_out.iter().any(|left_out| left_out.entry == entry) {
            self.left_out.push(LeftOut { entry: entry.to_owned(), place, why: why.into(), instead: None });
        }
    }

    fn judge(&mut self, line: &str, place: String) {
        let name = name_of(line);
        self.release.note(line);
        if let Err(reason) = check_requirement(line) {
            // A line with a name is left out by that, because the line may contain a password.
            let entry = if line.contains(" @ ") { &name } else { line };
            match entry.contains('@') {
                true => self.error = Some(ListError::Line { place, source: reason }),
                false => self.leave_out(entry, place, reason.to_string()),
            }
        } else if AIRFLOW.contains(&&*name) {
            if excludes_supported(line) {
                self.leave_out(&name, place, format!("{line}: this release runs Airflow {}", supported_range()));
            }
        } else if name.starts_with(PROVIDERS)
            && is_limited(line)
            && !self.left_out.iter().any(|left_out| left_out.entry == name)
        {
            let package = without_versions(line);
            self.left_out.push(LeftOut {
                entry: name,
                place,
                why: format!("{line}: its newest version is taken"),
                instead: Some(package),
            });
        }
    }

    /// Adds a requirement of Poetry or Pipenv, unless it is of an Airflow that is not supported.
    fn judge_added(&mut self, line: String, place: String) {
        self.release.note(&line);
        let is_known = self.added.iter().any(|(other, _)| name_of(other) == name_of(&line));
        match check_requirement(&line) {
            _ if excludes_supported(&line) || is_known => {}
            Ok(()) => self.added.push((line, place)),
            Err(reason) => self.unread.push(format!("{place}: {reason}")),
        }
    }

    /// Judges an option; returns the list that it includes.
    fn judge_option(
        &mut self,
        name: &str,
        value: String,
        list: &Path,
        place: &dyn Fn(&str) -> String,
    ) -> Option<PathBuf> {
        let file = list.with_file_name(value.trim_start_matches("file:"));
        match name {
            "--requirement" if file.is_file() => return Some(file),
            "--editable" if value.starts_with("git+") => {}
            "--editable" => {
                let why = "a folder: its modules are imported from where they are, if that is the project's folder";
                self.leave_out(&value, place(&value), why);
            }
            "--constraint" if value.contains("constraints-2") => {
                self.leave_out(&value, place(&value), "the constraints of an Airflow 2");
            }
            "--constraint" if file.is_file() => {
                let lines = lines_of(&file).unwrap_or_default();
                let is_obstacle = |line: &Line| matches!(line, Line::Requirement(line) if excludes_supported(line));
                if lines.iter().any(is_obstacle) {
                    self.leave_out(&value, place(&value), "the constraints of an Airflow 2");
                }
            }
            "--requirement" | "--constraint" if !value.contains("://") && !value.contains("${") => {
                self.leave_out(&value, place(&value), "no such file");
            }
            _ => {}
        }
        None
    }

    /// Keeps the limits of providers if the project is for Airflow 3, and lists what is declared.
    fn finish(&mut self, request: &Request) {
        if self.release == Release::Airflow3 {
            self.left_out.retain(|left_out| left_out.instead.is_none());
        } else {
            for (line, _) in self.added.iter_mut().filter(|(line, _)| name_of(line).starts_with(PROVIDERS)) {
                *line = without_versions(line);
            }
        }
        let declared = declared_with(request, &self.settings_text());
        match declared {
            Ok(declared) => {
                let lines = declared.into_iter().flat_map(|declared| declared.requirements);
                self.listed = lines.map(|line| name_of(&line)).collect();
            }
            Err(error) => self.error = Some(error.into()),
        }
        self.listed.extend(self.left_out.iter().filter_map(|left_out| left_out.instead.as_deref()).map(name_of));
        // What is listed already is not added again.
        self.added.retain(|(line, _)| !self.listed.contains(&name_of(line)));
        self.listed.extend(self.added.iter().map(|(line, _)| name_of(line)));
    }

    /// The lines of leoflow.yaml about the lists.
    pub fn settings_text(&self) -> String {
        let named = self.named.as_ref().map(|list| format!("requirements: {}\n", quoted(list)));
        let ignored = self.left_out.iter().map(|left_out| {
            format!("- {} # {}, {}\n", quoted(&left_out.entry), left_out.place, without_breaks(&left_out.why))
        });
        let ignored: String = ignored.collect();
        let heading = if ignored.is_empty() { "" } else { "ignored_requirements:\n" };
        format!("{}{heading}{ignored}", named.unwrap_or_default())
    }
}

/// A text as YAML, in quotes where it needs them.
pub fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty()
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=<>~!@+".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// The files that a list includes as constraints.
fn constraint_files(list: &Path) -> Vec<PathBuf> {
    let options = lines_of(list).unwrap_or_default().into_iter().filter_map(|line| match line {
        Line::Options(options) => Some(options),
        Line::Requirement(_) => None,
    });
    let is_constraint = |(name, _): &(&str, String)| *name == "--constraint";
    options.flatten().filter(is_constraint).map(|(_, value)| list.with_file_name(value)).collect()
}

fn without_breaks(text: &str) -> String {
    text.replace('\n', " ")
}

/// True for the parts of files that `requirements_of_other_tool` reads.
fn is_read_here(part: &str) -> bool {
    ["[tool.poetry.dependencies]", "[packages]"].contains(&part)
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "txt" || end == "in")
}

/// A list that is not read by itself: in `requirements/` of the project, or above the project in its repository.
fn other_list(repository: &Repository, project: &Project) -> Option<PathBuf> {
    let parents = repository.folders_down_to(project).into_iter().rev();
    parents.flat_map(|folder| [folder.to_owned(), folder.join("requirements")]).find_map(|folder| {
        let entries = std::fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path());
        let is_in_requirements = folder.ends_with("requirements");
        let is_candidate = |path: &PathBuf| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
            let mut words = name.split(['-', '_', '.']);
            is_list(path)
                && (is_in_requirements || name.starts_with("requirements"))
                && !words.any(|word| OTHER_PURPOSES.contains(&word))
                && lines_of(path).is_some_and(|lines| !lines.is_empty())
        };
        let mut candidates: Vec<PathBuf> = entries.filter(is_candidate).collect();
        // `requirements.txt` before `requirements-airflow.txt`, and that before others.
        candidates.sort_by_key(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name != "requirements.txt", !name.contains("airflow") && !name.contains("composer"), name)
        });
        candidates.into_iter().next()
    })
}

/// The path of a file above or below a folder, relative to the folder.
fn relative(file: &Path, folder: &Path) -> Option<String> {
    let shared = folder.ancestors().find(|parent| file.starts_with(parent))?;
    let up = "../".repeat(folder.strip_prefix(shared).ok()?.components().count());
    Some(format!("{up}{}", file.strip_prefix(shared).ok()?.display()))
}

/// True for a requirement that excludes newer versions.
fn is_limited(line: &str) -> bool {
    let specifiers = line.split(';').next().unwrap_or_default();
    ["==", "<", "~="].iter().any(|operator| specifiers.contains(operator))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read_all(files: &[(&str, &str)], folder: &str) -> (Requirements, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(".git")).unwrap();
        for (name, text) in files.iter().chain([&("flows/dags/a.py", "from airflow.sdk import DAG\n")]) {
            fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
            fs::write(root.path().join(name), text).unwrap();
        }
        let repository = Repository::find(&root.path().join(folder), Some("x")).unwrap();
        let requirements = read(&repository, &repository.projects[0], None);
        let left_out = requirements.left_out.iter().map(|left_out| format!("{} {}", left_out.place, left_out.entry));
        let left_out = left_out.collect();
        (requirements, left_out)
    }

    #[test]
    fn lines_that_cannot_be_met_are_left_out() {
        let text = "# ours\n-c https://e.example/constraints-2.9.2/constraints-3.11.txt\n-c old.txt\n-c good.txt\n-r gone.txt\n\
                    apache-airflow[s3]==2.9.2\napache-airflow-providers-google[x]==10.1\n-e ./pkg\n./wheels/x.whl\n\
                    pandas==2.2\n";
        let files = [
            ("flows/requirements.txt", text),
            ("flows/old.txt", "apache-airflow==2.9.2\nsix==1\n"),
            ("flows/good.txt", "six==1\n"),
        ];
        let (requirements, left_out) = read_all(&files, "");
        assert_eq!(
            left_out,
            [
                "flows/requirements.txt:2 https://e.example/constraints-2.9.2/constraints-3.11.txt",
                "flows/requirements.txt:3 old.txt",
                "flows/requirements.txt:5 gone.txt",
                "flows/requirements.txt:6 apache-airflow",
                "flows/requirements.txt:7 apache-airflow-providers-google",
                "flows/requirements.txt:8 ./pkg",
                "flows/requirements.txt:9 ./wheels/x.whl",
            ]
        );
        assert!(requirements.error.is_none(), "{:?}", requirements.error);
        let listed: Vec<_> = requirements.listed.iter().map(String::as_str).collect();
        assert_eq!(listed, ["apache-airflow-providers-google", "pandas"]);
        assert_eq!(requirements.left_out[4].instead.as_deref(), Some("apache-airflow-providers-google[x]"));
    }

    #[test]
    fn providers_for_airflow_3_keep_their_versions() {
        let text = "apache-airflow==3.0.2\napache-airflow-providers-http==5.0\n";
        assert_eq!(read_all(&[("flows/requirements.txt", text)], "").1, Vec::<String>::new());
    }

    #[test]
    fn a_list_elsewhere_in_the_repository_is_named() {
        let named = |files: &[(&str, &str)]| read_all(files, "flows").0.named;
        assert_eq!(named(&[("requirements.txt", "six\n")]).as_deref(), Some("../requirements.txt"));
        assert_eq!(named(&[("flows/requirements/base.txt", "six\n")]).as_deref(), Some("requirements/base.txt"));
        assert_eq!(
            named(&[("requirements-dev.txt", "six\n"), ("requirements_airflow.txt", "six\n")]).as_deref(),
            Some("../requirements_airflow.txt")
        );
        assert_eq!(named(&[("flows/requirements.txt", "six\n"), ("requirements.txt", "x\n")]), None);
    }
}
