//! Files around a project that are meant for a container image: `Dockerfile`, compose files, `airflow.cfg`,
//! `packages.txt`.

use leoflow_base::sys::fs::files;
use regex::Regex;
use serde_yaml::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Size limit of each file, in bytes.
const LIMIT: u64 = 4 * 1024 * 1024;
const COMPOSE_FILES: [&str; 6] = [
    "docker-compose.yml",
    "docker-compose.yaml",
    "compose.yml",
    "compose.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// A variable in a value of `airflow.cfg`.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{\{|\{[A-Z_]+\}").expect("a valid expression"));

/// Names and values of variables.
type Pairs = Vec<(String, String)>;

/// A variable that one of the files sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: String,
    /// The file.
    pub file: PathBuf,
    /// The line; 0 if it is not known.
    pub line: usize,
}

/// What the files around a project say.
#[derive(Debug, Default)]
pub struct Image {
    /// Later ones take precedence.
    pub settings: Vec<Setting>,
    /// Folders of the image, each with the one of this machine that compose mounts there.
    pub mounts: Vec<(String, PathBuf)>,
    /// What the image starts from, such as `apache/airflow:2.9.2-python3.11`.
    pub base: Option<(String, PathBuf)>,
    /// System packages of `packages.txt`.
    pub packages: Vec<String>,
    /// Scripts that are not run, and do more than set variables.
    pub scripts: Vec<PathBuf>,
    /// Files that cannot be read, with reasons.
    pub unreadable: Vec<String>,
}

impl Image {
    /// Reads the files in these folders, the project's last.
    pub fn read(folders: &[&Path]) -> Self {
        let mut image = Self::default();
        for folder in folders {
            for name in ["airflow.cfg", "config/airflow.cfg"] {
                image.read_file(&folder.join(name), Self::add_configuration);
            }
        }
        for folder in folders {
            image.read_file(&folder.join("Dockerfile"), Self::add_dockerfile);
            image.read_file(&folder.join("packages.txt"), |image, _, text| {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                image.packages = lines.map(str::to_owned).collect();
            });
            // Amazon MWAA runs it before Airflow.
            image.read_file(&folder.join("startup_script/startup.sh"), Self::add_startup_script);
            for name in COMPOSE_FILES {
                image.read_file(&folder.join(name), Self::add_compose);
            }
        }
        image
    }

    fn read_file(&mut self, path: &Path, add: fn(&mut Self, &Path, &str)) {
        match files::read_text(path, LIMIT) {
            Ok(Some(text)) => add(self, path, &text),
            Ok(None) => {}
            Err(error) => self.unreadable.push(format!("{}: {error}", path.display())),
        }
    }

    /// Adds the keys of an `airflow.cfg` as variables. Values that refer to others are left to Airflow.
    fn add_configuration(&mut self, file: &Path, text: &str) {
        let mut section = String::new();
        for (index, line) in text.lines().enumerate() {
            if let Some(name) = line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                name.trim().clone_into(&mut section);
            } else if !line.starts_with(['#', ';', ' ', '\t'])
                && let Some((key, value)) = line.split_once('=')
            {
                let name = leoflow_python::airflow_keys::variable(&section, key.trim());
                let value = value.trim().replace("%%", "%");
                let is_default = leoflow_python::airflow_keys::is_default(&name, &value);
                // `{AIRFLOW_HOME}` and references to other keys are left to Airflow; JSON is not.
                let is_reference = value.contains('$') || value.contains("%(") || REFERENCE.is_match(&value);
                if !value.is_empty() && !is_default && !is_reference {
                    self.settings.push(Setting { name, value, file: file.to_owned(), line: index + 1 });
                }
            }
        }
    }

    /// Adds the base and the `ENV` lines of the last stage of a `Dockerfile`.
    fn add_dockerfile(&mut self, file: &Path, text: &str) {
        let before = self.settings.clone();
        let mut stages: HashMap<String, (String, Vec<Setting>)> = HashMap::new();
        let (mut joined, mut start, mut current) = (String::new(), 0, String::new());
        for (index, line) in text.lines().enumerate() {
            if joined.is_empty() {
                start = index + 1;
            }
            match line.strip_suffix('\\') {
                Some(part) => {
                    joined.push_str(part);
                    joined.push(' ');
                    continue;
                }
                None => joined.push_str(line),
            }
            let instruction = std::mem::take(&mut joined);
            let (word, rest) = instruction.trim().split_once(char::is_whitespace).unwrap_or_default();
            if word.eq_ignore_ascii_case("FROM") {
                let mut words = rest.split_whitespace().filter(|word| !word.starts_with("--"));
                let (image, stage) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
                // A stage that starts from another one has its variables.
                let inherited = stages.get(image).cloned();
                let (base, settings) = inherited.unwrap_or_else(|| (image.to_owned(), before.clone()));
                self.settings = settings;
                self.base = Some((base, file.to_owned()));
                stage.clone_into(&mut current);
            } else if word.eq_ignore_ascii_case("ENV") {
                let pairs = match rest.trim().split_once(char::is_whitespace) {
                    Some((name, value)) if !name.contains('=') => vec![(name.to_owned(), value.trim().to_owned())],
                    _ => {
                        let words = shlex::split(rest).unwrap_or_default();
                        words.iter().filter_map(|word| word.split_once('=')).map(owned).collect()
                    }
                };
                self.add_settings(file, start, pairs);
            }
            if let (Some((base, _)), false) = (&self.base, current.is_empty()) {
                stages.insert(current.clone(), (base.clone(), self.settings.clone()));
            }
        }
    }

    /// Adds the `export` lines of a shell script. Values that refer to others are left out.
    fn add_startup_script(&mut self, file: &Path, text: &str) {
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (exports, others): (Vec<_>, Vec<_>) =
            lines.partition(|(_, line)| line.starts_with("export ") && !line.contains(['$', '`']));
        for (index, line) in exports {
            let words = shlex::split(line).unwrap_or_default();
            self.add_settings(
                file,
                index + 1,
                words.iter().filter_map(|word| word.split_once('=')).map(owned).collect(),
            );
        }
        if !others.is_empty() {
            self.scripts.push(file.to_owned());
        }
    }

    /// Adds the environment and the mounts of Airflow's services in a compose file.
    fn add_compose(&mut self, file: &Path, text: &str) {
        let mut document: Value = match serde_yaml::from_str(text) {
            Ok(document) => document,
            Err(error) => {
                let reason = error.to_string();
                self.unreadable.push(format!("{}: {}", file.display(), reason.lines().next().unwrap_or_default()));
                return;
            }
        };
        if let Err(error) = document.apply_merge() {
            self.unreadable.push(format!("{}: {error}", file.display()));
        }
        let folder = file.parent().unwrap_or(Path::new("/"));
        let services = document["services"].as_mapping().into_iter().flatten();
        let airflows: Vec<(&str, &Value, Pairs)> = services
            .map(|(name, service)| {
                (name.as_str().unwrap_or_default(), service, environment_of(&service["environment"]))
            })
            .filter(|(_, _, pairs)| pairs.iter().any(|(name, _)| name.starts_with("AIRFLOW")))
            .collect();
        // The services that run tasks say what DAGs get.
        let runs_tasks = |name: &str| ["worker", "scheduler"].iter().any(|part| name.contains(part));
        let has_workers = airflows.iter().any(|(name, ..)| runs_tasks(name));
        for (_, service, mut pairs) in airflows.into_iter().filter(|(name, ..)| !has_workers || runs_tasks(name)) {
            for name in texts(&service["env_file"]) {
                let variables = leoflow_python::variables_of(&folder.join(name));
                pairs.splice(0..0, variables);
            }
            for (name, value) in pairs {
                let line = text.lines().position(|line| line.contains(&name)).map_or(0, |index| index + 1);
                self.add_settings(file, line, vec![(name, value)]);
            }
            for mount in service["volumes"].as_sequence().into_iter().flatten().filter_map(Value::as_str) {
                static VARIABLE: LazyLock<Regex> =
                    LazyLock::new(|| Regex::new(r"\$\{\w+:-([^}]*)\}").expect("a valid expression"));
                let mount = VARIABLE.replace_all(mount, "$1");
                let mut parts = mount.split(':');
                let (Some(from), Some(to)) = (parts.next(), parts.next()) else { continue };
                if from.starts_with('.') && to.starts_with('/') && folder.join(from).exists() {
                    let from = folder.join(from.trim_start_matches("./"));
                    self.mounts.push((to.trim_end_matches('/').to_owned(), from));
                }
            }
        }
        self.mounts.sort_by_key(|(to, _)| std::cmp::Reverse(to.len()));
        self.mounts.dedup();
    }

    fn add_settings(&mut self, file: &Path, line: usize, pairs: Pairs) {
        for (name, value) in pairs {
            self.settings.retain(|setting| setting.name != name);
            self.settings.push(Setting { name, value, file: file.to_owned(), line });
        }
    }

    /// The version of Airflow in the image's tag, if it is known.
    pub fn airflow_version(&self) -> Option<String> {
        let (name, tag) = self.base.as_ref()?.0.split('@').next()?.rsplit_once(':')?;
        let number: String = tag.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let major: u32 = number.split('.').next()?.parse().ok()?;
        match name {
            // Astro Runtime 4 to 13 has Airflow 2; since Airflow 3 its versions start with Airflow's.
            _ if name.ends_with("astro-runtime") && major > 3 => Some("2".to_owned()),
            _ if name.ends_with("runtime") || name.ends_with("airflow") => Some(number.trim_matches('.').to_owned()),
            _ => None,
        }
    }

    /// The Python version in the image's tag, such as `3.11`.
    pub fn python_version(&self) -> Option<&str> {
        let tag = self.base.as_ref()?.0.rsplit_once(':')?.1;
        let version = tag.split("python").nth(1)?.trim_start_matches('-');
        Some(&version[..version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len())])
            .filter(|version| version.starts_with("3."))
    }
}

/// The variables of `environment` in a compose file: a mapping, or a list of `NAME=VALUE`. One without a value is left
/// out: compose takes it from its own environment.
fn environment_of(value: &Value) -> Pairs {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    let pairs = match value {
        Value::Mapping(mapping) => {
            mapping.iter().filter_map(|(name, value)| Some((name.as_str()?.to_owned(), scalar(value)?))).collect()
        }
        Value::Sequence(list) => {
            list.iter().filter_map(|entry| entry.as_str()?.split_once('=')).map(owned).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    pairs.into_iter().map(|(name, value)| (name, value.replace("$$", "$"))).collect()
}

/// A text, or a list of texts or of mappings with `path`.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Sequence(list) => {
            list.iter().filter_map(|entry| entry.as_str().or(entry["path"].as_str())).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read(files: &[(&str, &str)]) -> (Image, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), text).unwrap();
        }
        (Image::read(&[folder.path()]), folder)
    }

    fn variables(image: &Image) -> Vec<(&str, &str, usize)> {
        image.settings.iter().map(|setting| (&*setting.name, &*setting.value, setting.line)).collect()
    }

    #[test]
    fn a_startup_script_sets_variables_and_is_not_run() {
        let read = |text: &str| read(&[("startup_script/startup.sh", text)]).0;
        let image = read("#!/bin/sh\nexport STAGE='dev 1' B=2\nexport PATH=$PATH:/x\nyum install -y libpq\n");
        let settings: Vec<_> = image.settings.iter().map(|setting| (&*setting.name, &*setting.value)).collect();
        assert_eq!(settings, [("STAGE", "dev 1"), ("B", "2")]);
        assert_eq!((image.scripts.len(), read("# nothing\nexport A=1\n").scripts.len()), (1, 0));
    }

    #[test]
    fn compose_files_have_anchors_lists_and_other_services() {
        let text = "x-common: &common\n  image: apache/airflow:2.9.2\n  environment:\n    &env\n    \
                    AIRFLOW__CORE__LOAD_EXAMPLES: false\n    API: ${API:-none}\n  env_file: [own.env]\n  volumes:\n    \
                    - ${AIRFLOW_PROJ_DIR:-.}/dags:/opt/airflow/dags\n    - /abs:/x\n    - named:/y\nservices:\n  \
                    worker:\n    <<: *common\n    environment:\n      <<: *env\n      PRICE: 5$$\n  postgres:\n    \
                    environment: {POSTGRES_PASSWORD: x}\n  other:\n    environment: [AIRFLOW_X=1, EMPTY]\n";
        let (image, folder) =
            read(&[("docker-compose.yaml", text), ("own.env", "FROM_FILE=1\nAPI=2\n"), ("dags/a.py", "")]);
        let names: Vec<_> = variables(&image).into_iter().map(|(name, value, _)| (name, value)).collect();
        assert_eq!(
            names,
            [("FROM_FILE", "1"), ("PRICE", "5$"), ("AIRFLOW__CORE__LOAD_EXAMPLES", "false"), ("API", "${API:-none}")]
        );
        assert_eq!(image.mounts, [("/opt/airflow/dags".to_owned(), folder.path().join("dags"))]);
        assert!(image.unreadable.is_empty());
        let (image, _folder) = read(&[("compose.yml", "services: [\n")]);
        assert_eq!(image.unreadable.len(), 1);
    }

    #[test]
    fn without_workers_all_services_of_airflow_count() {
        let text =
            "services:\n  airflow:\n    environment: [AIRFLOW_X=1, EMPTY]\n  postgres:\n    environment: {A: 1}\n";
        let (image, _folder) = read(&[("compose.yaml", text)]);
        assert_eq!(variables(&image), [("AIRFLOW_X", "1", 3)]);
    }

    #[test]
    fn dockerfiles_have_stages_and_two_forms_of_variables() {
        let text = "FROM python:3.12 AS build\nENV LOST=1\nFROM quay.io/astronomer/astro-runtime:12.1.0 AS run\n\
                    ENV A=1 B=\"two words\" \\\n    C=3\nENV LEGACY some text\nRUN x\n";
        let (image, _folder) = read(&[("Dockerfile", text)]);
        assert_eq!(
            variables(&image),
            [("A", "1", 4), ("B", "two words", 4), ("C", "3", 4), ("LEGACY", "some text", 6)]
        );
        assert_eq!(image.airflow_version().as_deref(), Some("2"));
        let text = "FROM apache/airflow:2.9.2 AS base\nENV A=1\nFROM node AS ui\nENV B=2\nFROM base\nENV C=3\n";
        let (image, _folder) = read(&[("Dockerfile", text)]);
        assert_eq!(variables(&image), [("A", "1", 2), ("C", "3", 6)]);
        assert_eq!(image.airflow_version().as_deref(), Some("2.9.2"));
        for (tag, airflow, python) in [
            ("apache/airflow:2.9.2-python3.11", Some("2.9.2"), Some("3.11")),
            ("apache/airflow:slim-3.0.2", None, None),
            ("apache/airflow:2.9.2@sha256:abc", Some("2.9.2"), None),
            ("astrocrpublic.azurecr.io/runtime:3.0-4", Some("3.0"), None),
            ("python:3.12", None, None),
        ] {
            let image = Image { base: Some((tag.to_owned(), PathBuf::new())), ..Image::default() };
            assert_eq!((image.airflow_version().as_deref(), image.python_version()), (airflow, python), "{tag}");
        }
    }

    #[test]
    fn configurations_become_variables() {
        let text = "[core]\n# a comment = 1\ndefault_timezone = Europe/Berlin\nplugins_folder = %(x)s\ndags_folder = {AIRFLOW_HOME}/dags\n\n[smtp]\n\
                    smtp_password = 5%%\nempty =\n";
        let (image, _folder) = read(&[("airflow.cfg", text)]);
        assert_eq!(
            variables(&image),
            [("AIRFLOW__CORE__DEFAULT_TIMEZONE", "Europe/Berlin", 3), ("AIRFLOW__SMTP__SMTP_PASSWORD", "5%", 8)]
        );
    }
}
