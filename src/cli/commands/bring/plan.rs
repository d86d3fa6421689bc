//! Decides what a project of a repository gets: pure, from what was read.

use super::image::Image;
use super::repository::{Project, Repository};
use super::requirements::{Release, Requirements, quoted};
use super::survey::{Fact, IMAGE_FOLDERS, Survey};
use leoflow_base::config::leoflow_yaml;
use leoflow_base::sys::shell;
use leoflow_python::airflow_keys::{Meaning, meaning};
use leoflow_python::environments::name_of;
use leoflow_python::{is_zip, unzip_command};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Packages that DAG files have without an environment.
const SUPPLIED: [&str; 6] = ["jinja2", "markupsafe", "pendulum", "python-dateutil", "six", "tzdata"];
/// Variables of an image that say nothing about DAGs, and beginnings of such names.
const OF_IMAGE: [&str; 13] = [
    "AIRFLOW_GID",
    "AIRFLOW_HOME",
    "AIRFLOW_IMAGE_NAME",
    "AIRFLOW_UID",
    "DEBIAN_FRONTEND",
    "DUMB_INIT_SETSID",
    "HOME",
    "LANG",
    "LC_ALL",
    "PATH",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "TERM",
];
const OF_IMAGE_PREFIXES: [&str; 5] = ["_AIRFLOW_", "_PIP_", "FLOWER_", "PIP_", "UV_"];

/// A file that the plan writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewFile {
    pub path: PathBuf,
    /// May contain secrets, so it is not printed.
    #[serde(skip)]
    pub text: String,
}

/// What the plan does for one project.
#[derive(Debug, Serialize)]
pub struct ProjectPlan {
    pub name: String,
    pub folder: PathBuf,
    pub dag_files: usize,
    /// The link in the workspace; `None` for a folder that is in the workspace already.
    pub link: Option<PathBuf>,
    pub settings: Option<NewFile>,
    pub variables: Option<NewFile>,
    /// Packages that are added, each with the imports that need it.
    pub packages: Vec<Fact>,
    /// Number of packages that the project lists.
    pub listed: usize,
    /// Lines of the project's lists that are left out, with reasons.
    pub left_out: Vec<Fact>,
    /// Settings that are taken over from files of an image.
    pub taken_over: Vec<Fact>,
    /// Names of Airflow 2 that are translated when the files are loaded.
    pub translated: Vec<Fact>,
    /// The folder of an image at which the project's folder is shown.
    pub image_folder: Option<Fact>,
    /// What only a person can decide.
    pub decisions: Vec<Decision>,
    /// Settings that have no effect here.
    pub ignored_settings: Vec<Fact>,
    /// Number of settings about parts of Airflow that Leoflow does not have.
    pub other_settings: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    #[serde(flatten)]
    pub fact: Fact,
    pub remedy: String,
}

/// What was read about one project.
pub struct Sources<'a> {
    pub places: Places<'a>,
    pub survey: &'a Survey,
    pub requirements: &'a Requirements,
    /// Names of the variables that `.env` of the project sets.
    pub in_env: &'a BTreeSet<String>,
    /// Variables and connections that exist or that the plan imports.
    pub known_variables: &'a BTreeSet<String>,
    pub known_connections: &'a BTreeSet<String>,
    /// False if Leoflow does not run: then nothing is known of its variables and connections.
    pub is_running: bool,
    /// The link in the workspace; `None` for a folder that is in the workspace already.
    pub link: Option<PathBuf>,
    /// The program uv.
    pub uv: &'a Path,
    /// Keys of JSON files beside the project and above it, which may be values of variables.
    pub json_files: &'a [(PathBuf, BTreeSet<String>)],
    /// Variables of an `.env` above the project, which is not read by itself.
    pub env_above: &'a [(String, String, String)],
}

pub fn plan(facts: Sources<'_>) -> ProjectPlan {
    let Sources { places: Places { project, .. }, survey, requirements, .. } = &facts;
    let settings = Settings::sort(&facts);
    let needed = missing_packages(survey, &requirements.listed);
    let left_out = requirements.left_out.iter().map(|left_out| {
        let what = if left_out.why.starts_with(&left_out.entry) || left_out.instead.is_some() {
            left_out.why.clone()
        } else {
            format!("{}: {}", left_out.entry, left_out.why)
        };
        Fact::at(what, &left_out.place)
    });
    let place = facts.link.clone().unwrap_or_else(|| project.folder.clone());
    let text = settings_text(survey, facts.places.image, requirements);
    let has_own_settings = project.folder.join(leoflow_yaml::FILE).exists();
    let beside =
        |path: Option<PathBuf>, text: String| path.filter(|_| !text.is_empty()).map(|path| NewFile { path, text });
    ProjectPlan {
        name: project.name.clone(),
        folder: project.folder.clone(),
        dag_files: project.dag_files.len(),
        settings: beside(
            leoflow_yaml::path_beside(&place).filter(|_| !has_own_settings),
            with_heading(&facts, text.clone()),
        ),
        variables: beside(leoflow_python::variables_beside(&place), with_heading(&facts, settings.text())),
        link: facts.link.clone(),
        listed: requirements.listed.len(),
        left_out: left_out.collect(),
        translated: translated(survey, requirements).to_vec(),
        image_folder: survey.shown_image_folder().filter(|_| !has_own_settings),
        decisions: decisions(&facts, &settings, if has_own_settings { &text } else { "" }),
        packages: needed,
        taken_over: settings.taken_over.iter().map(|entry| Fact::at(&entry.name, &entry.place)).collect(),
        ignored_settings: settings.ignored,
        other_settings: settings.without_part,
    }
}

/// The packages that provide the missing modules, each with the imports that need it.
fn missing_packages(survey: &Survey, listed: &BTreeSet<String>) -> Vec<Fact> {
    let mut packages: BTreeMap<String, Fact> = BTreeMap::new();
    for module in &survey.modules {
        let Some(package) = &module.package else { continue };
        let name = name_of(package);
        // The package of a driver has several names: psycopg2 and psycopg2-binary.
        let is_listed = |other: &String| *other == name || *other == name.trim_end_matches("-binary");
        if listed.iter().any(is_listed) || SUPPLIED.contains(&&*name) {
            continue;
        }
        packages.entry(name).or_insert_with(|| Fact { what: package.clone(), ..Fact::default() }).merge(module);
    }
    packages.into_values().collect()
}

/// The modules whose package is not known and that no listed package is named after, by their first name.
fn unknown_modules(survey: &Survey, listed: &BTreeSet<String>) -> Vec<Fact> {
    let mut unknown: BTreeMap<&str, Fact> = BTreeMap::new();
    for module in survey.modules.iter().filter(|module| module.package.is_none()) {
        let top = module.what.split('.').next().unwrap_or_default();
        let name = name_of(top);
        // `airflow_client` is in apache-airflow-client, `mlflow_provider` in airflow-provider-mlflow.
        let mut words: Vec<&str> = name.split('-').collect();
        words.sort_unstable();
        let is_like = |other: &String| {
            let other: Vec<&str> = other.split('-').collect();
            // `ethereumetl` is in ethereum-etl.
            words.iter().all(|word| other.contains(word)) || other.concat() == name
        };
        if listed.iter().any(is_like) {
            continue;
        }
        unknown.entry(top).or_insert_with(|| Fact { what: top.to_owned(), ..Fact::default() }).merge(module);
    }
    unknown.into_values().collect()
}

/// The names of Airflow 2 that are translated; in a project for Airflow 3 they do not work either.
fn translated<'a>(survey: &'a Survey, requirements: &Requirements) -> &'a [Fact] {
    if requirements.release == Release::Airflow3 { &[] } else { &survey.translated }
}

/// The settings of the project's environment.
pub fn settings_text(survey: &Survey, image: &Image, requirements: &Requirements) -> String {
    let needed = missing_packages(survey, &requirements.listed);
    let mut text = requirements.settings_text();
    text.push_str(&dependencies_text(requirements, &needed));
    if !requirements.limits.is_empty() {
        text.push_str("# The newest versions have no wheels for this machine.\nconstraints:\n");
        requirements.limits.iter().for_each(|limit| text.push_str(&format!("- {}\n", quoted(limit))));
    }
    let mut names = requirements.listed.iter().chain(needed.iter().map(|fact| &fact.what));
    let has_airflow = names.any(|name| name.starts_with("apache-airflow"));
    if let (Some(module), false) = (survey.only_sdk.first(), has_airflow) {
        text.push_str(&format!("airflow: \"3.3\" # {} imports {}\n", module.places[0], module.what));
    }
    // Airflow 3 needs Python 3.10.
    let minor = |version: &str| version.split('.').nth(1)?.parse::<u32>().ok();
    let version = image.python_version().filter(|version| minor(version).is_some_and(|minor| minor >= 10));
    let has_environment = has_airflow || !text.is_empty() || !requirements.listed.is_empty();
    if let (Some(version), true) = (version, has_environment) {
        text.push_str(&format!("python_version: \"{version}\"\n"));
    }
    let first = translated(survey, requirements).first();
    if first.is_some() || requirements.release == Release::Airflow2 {
        let why =
            first.map(|first| format!(" # {}: {}", first.places[0], first.what.lines().next().unwrap_or_default()));
        text.push_str(&format!("airflow_2: true{}\n", why.unwrap_or_default()));
    }
    if let Some(folder) = survey.shown_image_folder() {
        text.push_str(&format!("image_folder: {} # {}\n", folder.what, folder.places[0]));
    }
    text
}

/// The packages that are added.
fn dependencies_text(requirements: &Requirements, needed: &[Fact]) -> String {
    let instead =
        requirements.left_out.iter().filter_map(|left_out| Some((left_out.instead.as_deref()?, &left_out.place)));
    let added = needed.iter().map(|fact| (fact.what.as_str(), &fact.places[0]));
    let listed_elsewhere = requirements.added.iter().map(|(line, place)| (line.as_str(), place));
    let lines: BTreeMap<&str, &String> = instead.chain(listed_elsewhere).chain(added).collect();
    let heading = if lines.is_empty() { "" } else { "additional_dependencies:\n" };
    let lines = lines.iter().map(|(package, place)| format!("- {} # {place}\n", quoted(package)));
    format!("{heading}{}", lines.collect::<String>())
}

fn with_heading(facts: &Sources<'_>, text: String) -> String {
    if text.is_empty() {
        return text;
    }
    let folder = facts.places.repository.folder.display();
    format!("# Written by `leoflow bring {folder}`, which updates it; with --undo it removes it.\n{text}")
}

/// A variable that is taken over.
struct Entry {
    name: String,
    value: String,
    place: String,
}

/// The variables of an image, by what becomes of them.
#[derive(Default)]
struct Settings {
    taken_over: Vec<Entry>,
    ignored: Vec<Fact>,
    without_part: usize,
}

impl Settings {
    fn sort(facts: &Sources<'_>) -> Self {
        let mut settings = Self::default();
        for (name, value, place) in facts.env_above {
            settings.add(facts, name, value, place.clone());
        }
        for setting in &facts.places.image.settings {
            let file = facts.places.repository.shown(&setting.file);
            let place = if setting.line > 0 { format!("{file}:{}", setting.line) } else { file };
            settings.add(facts, &setting.name, &setting.value, place);
        }
        settings
    }

    fn add(&mut self, facts: &Sources<'_>, name: &str, value: &str, place: String) {
        if facts.in_env.contains(name) || OF_IMAGE_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return;
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || !name.chars().all(is_name) {
            return;
        }
        let value = if name == "PYTHONPATH" {
            let folders = facts.places.python_path(value);
            folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":")
        } else {
            facts.places.here(value)
        };
        if value.is_empty() || OF_IMAGE.contains(&name) && name != "PYTHONPATH" {
            return;
        }
        match meaning(name) {
            Some(Meaning::Ignored) => self.ignored.push(Fact::at(name, place)),
            Some(Meaning::NoPart) => self.without_part += 1,
            Some(Meaning::Honoured | Meaning::OnlySdk) | None => {
                self.taken_over.retain(|entry| entry.name != name);
                self.taken_over.push(Entry { name: name.to_owned(), value, place });
            }
        }
    }

    /// The text of the file with variables.
    fn text(&self) -> String {
        let lines = self.taken_over.iter().map(|Entry { name, value, place }| {
            // References stay: they mean variables of the project's `.env`.
            let value = if value.contains("${") {
                format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
            } else {
                format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
            };
            format!("# {place}\n{name}={value}\n")
        });
        lines.collect()
    }
}

/// Finds what stands here for paths of a project's image.
pub struct Places<'a> {
    pub repository: &'a Repository,
    pub project: &'a Project,
    pub image: &'a Image,
}

impl Places<'_> {
    /// A value with a path of this machine in place of one of the image.
    fn here(&self, value: &str) -> String {
        let path = Some(value).filter(|value| value.starts_with('/') && !value.contains([':', ' ']));
        path.and_then(|path| self.place_of(path)).map_or(value.to_owned(), |path| path.display().to_string())
    }

    /// The path of the project that a path of the image stands for, if it exists.
    fn place_of(&self, path: &str) -> Option<PathBuf> {
        let roots = IMAGE_FOLDERS.map(|folder| (folder.to_owned(), self.project.folder.clone()));
        let below = |(to, from): &(String, PathBuf)| {
            let rest = path.strip_prefix(to.as_str())?;
            let rest = rest.strip_prefix('/').or_else(|| rest.is_empty().then_some(""))?;
            Some(if rest.is_empty() { from.clone() } else { from.join(rest) })
        };
        self.image.mounts.iter().chain(&roots).filter_map(below).find(|path| path.exists())
    }

    /// The folders of a `PYTHONPATH` that exist here and are not searched anyway.
    fn python_path(&self, value: &str) -> Vec<PathBuf> {
        let project = &self.project.folder;
        let searched = [project.clone(), self.project.dags(), project.join("plugins"), self.repository.top.clone()];
        let folders = value.split(':').filter(|folder| folder.starts_with('/'));
        let folders = folders.filter_map(|folder| self.place_of(folder.trim_end_matches('/')));
        folders.filter(|path| path.is_dir() && !searched.contains(path)).collect()
    }

    /// The folders of `PYTHONPATH` that the plan sets, to find modules.
    pub fn import_folders(&self) -> Vec<PathBuf> {
        let values = self.image.settings.iter().filter(|setting| setting.name == "PYTHONPATH");
        values.flat_map(|setting| self.python_path(&setting.value)).collect()
    }
}

fn decisions(facts: &Sources<'_>, settings: &Settings, own_settings: &str) -> Vec<Decision> {
    let Sources { places: Places { project, image, .. }, survey, requirements, .. } = facts;
    let project_name = &project.name;
    let mut all = Vec::new();
    let mut decide = |fact: Fact, remedy: String| all.push(Decision { fact, remedy });
    if !own_settings.is_empty() {
        let what = format!("the project has a {} of its own, which lacks:\n{own_settings}", leoflow_yaml::FILE);
        decide(Fact { what, ..Fact::default() }, "add these lines to it".to_owned());
    }
    for zip in project.dag_files.iter().filter(|file| is_zip(file)) {
        let fact = Fact::at("DAGs in a zip file, which are not loaded", facts.places.repository.shown(zip));
        decide(fact, format!("{} && rm {}", unzip_command(zip, &project.dags()), shell::word(&zip.to_string_lossy())));
    }
    for fact in &survey.unreadable {
        decide(fact.clone(), "correct the file; its DAGs cannot be imported".to_owned());
    }
    let untranslated = if requirements.release == Release::Airflow3 { survey.translated.as_slice() } else { &[] };
    for fact in survey.removed.iter().chain(untranslated) {
        let dags = project.dags();
        let remedy = format!(
            "correct it; ruff corrects most: {} tool run ruff check --preview --select AIR3 --fix --unsafe-fixes {}",
            facts.uv.display(),
            dags.display()
        );
        decide(fact.clone(), remedy);
    }
    for fact in unknown_modules(survey, &requirements.listed) {
        let what = format!("the module {}, whose package is not known here", fact.what);
        decide(Fact { what, ..fact }, format!("leoflow add PACKAGE --project {project_name}"));
    }
    let missing_paths = survey.missing_image_paths();
    if !missing_paths.is_empty() {
        let fact = Fact::joined(&missing_paths, "paths of a container image");
        let remedy = "they are not on this machine; AIRFLOW_HOME is the project's folder, here and in the image: write \
                      os.path.join(os.environ[\"AIRFLOW_HOME\"], ...)";
        decide(fact, remedy.to_owned());
    }
    let is_set =
        |name: &String| facts.in_env.contains(name) || settings.taken_over.iter().any(|entry| entry.name == *name);
    let prefixed = |prefix: &str, name: &str| is_set(&format!("{prefix}{}", name.to_uppercase()));
    let unset = |facts: &[Fact], is_known: &dyn Fn(&String) -> bool, heading: &str| {
        let unset: Vec<&Fact> = facts.iter().filter(|fact| !is_known(&fact.what)).collect();
        (!unset.is_empty()).then(|| Fact::joined(&unset, heading))
    };
    let is_known =
        |name: &String| !facts.is_running || facts.known_variables.contains(name) || prefixed("AIRFLOW_VAR_", name);
    if let Some(fact) = unset(&survey.variables, &is_known, "variables without a value") {
        let is_unset = |name: &&String| survey.variables.iter().any(|fact| fact.what == **name && !is_known(name));
        let count = |keys: &BTreeSet<String>| keys.iter().filter(is_unset).count();
        let files = facts.json_files.iter().filter(|(_, keys)| count(keys) > 0).map(|(file, keys)| {
            format!("\n      leoflow variables import {}, which has {} of them", file.display(), count(keys))
        });
        let files: String = files.collect();
        decide(fact, format!("leoflow variables set NAME VALUE, or AIRFLOW_VAR_NAME in .env{files}"));
    }
    let is_known =
        |name: &String| !facts.is_running || facts.known_connections.contains(name) || prefixed("AIRFLOW_CONN_", name);
    if let Some(fact) = unset(&survey.connections, &is_known, "connections that do not exist") {
        decide(fact, "leoflow connections set NAME --uri URI, or AIRFLOW_CONN_NAME in .env".to_owned());
    }
    let is_inherited =
        |name: &String| is_set(name) || ["HOME", "PATH", "USER", "TMPDIR", "AIRFLOW_HOME"].contains(&name.as_str());
    if let Some(fact) = unset(&survey.environment, &is_inherited, "environment variables without a value") {
        decide(fact, "set them in .env".to_owned());
    }
    if let Some(error) = &requirements.error {
        decide(
            Fact { what: error.to_string(), ..Fact::default() },
            "the environment cannot be built before".to_owned(),
        );
    }
    for unread in &requirements.unread {
        let remedy = "packages that the files import are added without these versions".to_owned();
        decide(Fact { what: unread.clone(), ..Fact::default() }, remedy);
    }
    for unreadable in &image.unreadable {
        decide(Fact { what: unreadable.clone(), ..Fact::default() }, "its settings are not taken over".to_owned());
    }
    for script in &image.scripts {
        let fact = Fact::at("a script of the image, which is not run", facts.places.repository.shown(script));
        decide(fact, "do what the DAGs need of it on this machine; its variables are taken over".to_owned());
    }
    if !image.packages.is_empty() {
        let what = format!("system packages of packages.txt: {}", image.packages.join(", "));
        decide(
            Fact { what, ..Fact::default() },
            "install those that the DAGs need with this machine's package manager".to_owned(),
        );
    }
    all
}

/// The variables of each `.env` above the project in the repository, nearest last: name, value and place.
pub fn env_above(repository: &Repository, project: &Project) -> Vec<(String, String, String)> {
    let folders = repository.folders_down_to(project).into_iter().filter(|folder| *folder != project.folder);
    let files = folders.map(|folder| folder.join(".env"));
    files
        .flat_map(|file| {
            let place = repository.shown(&file);
            let mut variables = leoflow_python::variables_of(&file);
            variables.sort();
            variables.into_iter().map(move |(name, value)| (name, value, place.clone()))
        })
        .collect()
}
