//! Finds the settings of Airflow that are set here and have no effect. Values may be secrets, so they are not reported.

use crate::airflow_keys::{Meaning, is_default, meaning};
use crate::{Request, dotenv, environments, parse, scan};
use leoflow_base::home::Home;
use leoflow_base::sys::{blocking, env_vars};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time limit for reading all files; one may be on a hanging mount.
const READ_LIMIT: Duration = Duration::from_secs(3);

/// A setting of Airflow that would change what DAGs do, and has no effect where it is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithoutEffect {
    /// `AIRFLOW__SECTION__KEY`.
    pub variable: String,
    /// The file that sets it; `None` for our own environment.
    pub file: Option<PathBuf>,
    /// True if the setting has an effect with Airflow's own SDK, which is missing there.
    pub needs_sdk: bool,
}

impl Display for WithoutEffect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{} ({})", self.variable, file.display()),
            None => write!(f, "{} (environment)", self.variable),
        }
    }
}

/// The files were not read within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the .env files could not be read within {} s, so the settings of Airflow are not checked", READ_LIMIT.as_secs())]
pub struct SettingsUnread;

/// The settings without effect in our own environment, in the workspace's `.env`, and in the `.env` of each project and
/// the file beside it. Settings with Airflow's default values are left out.
pub fn settings_without_effect(home: &Home, workspace: Option<&Path>) -> Result<Vec<WithoutEffect>, SettingsUnread> {
    let (home, workspace) = (home.clone(), workspace.map(Path::to_owned));
    blocking::within(READ_LIMIT, move || find(&home, workspace.as_deref())).ok_or(SettingsUnread)
}

fn find(home: &Home, workspace: Option<&Path>) -> Vec<WithoutEffect> {
    let projects = workspace.map(projects).unwrap_or_default();
    let in_environment: Vec<(String, String)> = env_vars::all()
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let any_has_sdk = || projects.iter().any(|project| has_sdk(home, workspace, project));
    let mut found = of_source(&in_environment, None, any_has_sdk);
    if let Some(workspace) = workspace {
        let file = workspace.join(".env");
        found.extend(of_source(&dotenv::variables_of(&file), Some(&file), any_has_sdk));
    }
    for project in &projects {
        for file in dotenv::path_beside(project).into_iter().chain([project.join(".env")]) {
            let has_sdk = || has_sdk(home, workspace, project);
            found.extend(of_source(&dotenv::variables_of(&file), Some(&file), has_sdk));
        }
    }
    found
}

/// The settings without effect of one file or of the environment. `has_sdk` is slow, and is called only when needed.
fn of_source(variables: &[(String, String)], file: Option<&PathBuf>, has_sdk: impl Fn() -> bool) -> Vec<WithoutEffect> {
    let mut found: Vec<WithoutEffect> = variables
        .iter()
        .filter(|(name, value)| !value.trim().is_empty() && !is_default(name, value))
        .filter_map(|(name, _)| match meaning(name)? {
            Meaning::Ignored => Some((name, false)),
            Meaning::OnlySdk => Some((name, true)),
            Meaning::Honoured | Meaning::NoPart => None,
        })
        .map(|(name, needs_sdk)| WithoutEffect { variable: name.clone(), file: file.cloned(), needs_sdk })
        .collect();
    if found.iter().any(|setting| setting.needs_sdk) && has_sdk() {
        found.retain(|setting| !setting.needs_sdk);
    }
    found.sort_by(|a, b| a.variable.cmp(&b.variable));
    found
}

/// The folders directly below the workspace, or links to folders.
fn projects(workspace: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace).into_iter().flatten().flatten();
    let is_visible = |path: &PathBuf| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_visible).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

/// True if the environment of a project's DAG file has Airflow's own SDK; before it is built, if it requires a package
/// of Airflow.
fn has_sdk(home: &Home, workspace: Option<&Path>, project: &Path) -> bool {
    let built = environments::newest_of_each(home);
    scan::dag_files(project, workspace).unwrap_or_default().into_iter().any(|file| {
        let context = parse::file_context(&Request::new(file, workspace, home.api_socket()));
        let Some(declared) = context.settings.ok().and_then(|settings| settings.declared) else { return false };
        match built.iter().find(|(_, stamp)| stamp.lock.declared.requirements == declared.requirements) {
            Some((folder, _)) => environments::has_airflow(folder),
            None => declared.requirements.iter().any(|line| environments::name_of(line).starts_with("apache-airflow")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_settings_without_effect_per_file() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = folder.path().join("workspace");
        for (path, text) in [
            (".env", "AIRFLOW__SENSORS__DEFAULT_TIMEOUT=60\nAIRFLOW__CORE__PARALLELISM=32\n"),
            ("sales/.env", "AIRFLOW__CORE__PARALLELISM=4\nAIRFLOW__CELERY__BROKER_URL=x\n"),
            ("sales.env", "AIRFLOW__OPERATORS__DEFAULT_QUEUE=big\nAIRFLOW__CORE__DEFAULT_TIMEZONE=CET\n"),
            ("real/.env", "AIRFLOW__SENSORS__DEFAULT_TIMEOUT=60\n"),
            ("real/requirements.txt", "apache-airflow-providers-http\n"),
            ("real/dags/a.py", "from airflow.sdk import DAG\n"),
        ] {
            fs::create_dir_all(workspace.join(path).parent().unwrap()).unwrap();
            fs::write(workspace.join(path), text).unwrap();
        }
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        let of_files = |found: Vec<WithoutEffect>| {
            let of_file = |setting: WithoutEffect| {
                let file = setting.file?.strip_prefix(&workspace).unwrap().display().to_string();
                Some((setting.variable, file, setting.needs_sdk))
            };
            found.into_iter().filter_map(of_file).collect::<Vec<_>>()
        };
        let row = |name: &str, file: &str, needs_sdk| (format!("AIRFLOW__{name}"), file.to_owned(), needs_sdk);
        let (queue, parallelism) =
            (row("OPERATORS__DEFAULT_QUEUE", "sales.env", false), row("CORE__PARALLELISM", "sales/.env", false));
        assert_eq!(of_files(find(&home, Some(&workspace))), [queue.clone(), parallelism.clone()]);
        fs::remove_file(workspace.join("real/requirements.txt")).unwrap();
        let timeout = |file| row("SENSORS__DEFAULT_TIMEOUT", file, true);
        let expected = [timeout(".env"), timeout("real/.env"), queue, parallelism];
        assert_eq!(of_files(find(&home, Some(&workspace))), expected);
    }
}
