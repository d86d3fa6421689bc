//! Finds the projects of a repository: folders with a folder `dags`.

use crate::airflow::import::SHADOWING_NAMES;
use crate::error::Error;
use leoflow_base::sys::fs::files;
use leoflow_python::{LIMITS, Syntax, is_dag_file, is_zip, scan};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Folder of DAG files, as Airflow's images have it.
pub const DAGS: &str = "dags";

#[derive(Debug)]
pub struct Repository {
    /// The folder that is brought, without links.
    pub folder: PathBuf,
    /// The top of its git repository, or the folder itself.
    pub top: PathBuf,
    pub projects: Vec<Project>,
    /// DAG files outside of the projects' `dags` folders.
    pub outside: Vec<PathBuf>,
    /// Folders that could not be read completely, with reasons.
    pub unscanned: Vec<String>,
    /// The folders that were scanned, and the zip files in them.
    pub scanned: Vec<PathBuf>,
    pub zips: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its name in the workspace.
    pub name: String,
    pub folder: PathBuf,
    pub dag_files: Vec<PathBuf>,
}

impl Project {
    /// The folder of its DAG files.
    pub fn dags(&self) -> PathBuf {
        let dags = self.folder.join(DAGS);
        if dags.is_dir() { dags } else { self.folder.clone() }
    }
}

impl Repository {
    /// Reads the folder. `name` names the project, or starts the names of several.
    pub fn find(folder: &Path, name: Option<&str>) -> Result<Self, Error> {
        let scan = scan(folder, Syntax::from_environment(), LIMITS, &BTreeMap::new());
        let scan = scan.map_err(Error::cannot("read", folder))?;
        let top = folder.ancestors().find(|parent| parent.join(".git").exists()).unwrap_or(folder);
        let zips: Vec<PathBuf> = scan.files.keys().filter(|file| is_zip(file)).cloned().collect();
        let dag_files: Vec<PathBuf> =
            scan.files.into_keys().filter(|file| may_be_dag_file(folder, file) && is_dag_file(file)).collect();
        let folders: BTreeSet<&Path> = dag_files.iter().filter_map(|file| project_folder(folder, file)).collect();
        // Without any `dags` folder, the whole folder is one project, wherever its DAG files are.
        let folders = if folders.is_empty() && !dag_files.is_empty() { BTreeSet::from([folder]) } else { folders };
        let is_in = |project: &Path, file: &Path| {
            project_folder(folder, file).map_or(project == folder && !folder.join(DAGS).is_dir(), |of| of == project)
        };
        let base = name.map_or_else(|| project_name(folder.file_name().unwrap_or_default().as_ref()), str::to_owned);
        let projects: Vec<Project> = folders
            .iter()
            .map(|project| {
                let inner = project_name(project.strip_prefix(folder).unwrap_or(project));
                Project {
                    name: if folders.len() == 1 || inner.is_empty() { base.clone() } else { format!("{base}-{inner}") },
                    folder: (*project).to_owned(),
                    dag_files: dag_files.iter().filter(|file| is_in(project, file)).cloned().collect(),
                }
            })
            .collect();
        let outside = dag_files.iter().filter(|file| !folders.iter().any(|project| is_in(project, file))).cloned();
        Ok(Self {
            folder: folder.to_owned(),
            top: top.to_owned(),
            outside: outside.collect(),
            projects,
            unscanned: scan.unscanned.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect(),
            scanned: scan.folders,
            zips,
        })
    }

    /// The folders from the top of the repository down to a project's.
    pub fn folders_down_to<'a>(&self, project: &'a Project) -> Vec<&'a Path> {
        let mut folders: Vec<&Path> =
            project.folder.ancestors().take_while(|folder| folder.starts_with(&self.top)).collect();
        folders.reverse();
        folders
    }

    /// The JSON files in a project's folder and in those above it that hold an object, each with the object's keys.
    pub fn json_files(&self, project: &Project) -> Vec<(PathBuf, BTreeSet<String>)> {
        const SIZE_LIMIT: u64 = 1024 * 1024;
        let folders = self.folders_down_to(project).into_iter();
        let entries = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
        let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
        let keys = |file: PathBuf| {
            let text = files::read_text(&file, SIZE_LIMIT).ok()??;
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).ok()?;
            Some((file, object.into_iter().map(|(key, _)| key).collect()))
        };
        let mut found: Vec<_> = files.filter_map(keys).collect();
        found.sort();
        found
    }

    /// The place of a text in a file, with its line.
    pub fn place(&self, file: impl AsRef<Path>, text: &str) -> String {
        let file = file.as_ref();
        let lines = std::fs::read_to_string(file).unwrap_or_default();
        let line = lines.lines().position(|line| line.contains(text)).map_or(1, |index| index + 1);
        format!("{}:{line}", self.shown(file))
    }

    /// A path as messages show it: below the folder that is brought, if it is.
    pub fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder).unwrap_or(path).display().to_string()
    }
}

/// The folder to bring for a folder that the user names: `repository` for its folder `repository/dags`.
pub fn top_folder(folder: &Path) -> &Path {
    let is_inner = folder.ends_with(DAGS) && !folder.join(".git").exists();
    folder.parent().filter(|_| is_inner).unwrap_or(folder)
}

/// The folder that contains the outermost `dags` folder of a file.
fn project_folder<'a>(top: &Path, file: &'a Path) -> Option<&'a Path> {
    let parents = file.ancestors().skip(1).take_while(|parent| parent.starts_with(top) && *parent != top);
    parents.filter(|parent| parent.ends_with(DAGS)).last()?.parent()
}

/// False for a file of tests or plugins.
fn may_be_dag_file(top: &Path, file: &Path) -> bool {
    let relative = file.strip_prefix(top).unwrap_or(file);
    let is_test = relative.parent().is_some_and(|parent| parent.iter().any(|folder| folder == "tests"));
    !is_test && relative.iter().next().is_none_or(|folder| folder != "plugins")
}

/// A name for a folder in the workspace: `airflow/etl` becomes `airflow-etl`.
fn project_name(path: &Path) -> String {
    let text = path.to_string_lossy();
    let name: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' }).collect();
    let name = name.trim_matches('-').to_owned();
    if SHADOWING_NAMES.contains(&name.as_str()) { format!("{name}-project") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const DAG: &str = "from airflow.sdk import DAG\n";

    fn found(files: &[&str], folder: &str) -> (Vec<(String, String, usize)>, usize) {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("Sales data");
        for file in files {
            fs::create_dir_all(top.join(file).parent().unwrap()).unwrap();
            fs::write(top.join(file), DAG).unwrap();
        }
        let found = Repository::find(top_folder(&top.join(folder)), None).unwrap();
        let relative = |path: &Path| path.strip_prefix(&top).unwrap().display().to_string();
        let projects = found.projects.iter();
        let projects =
            projects.map(|project| (project.name.clone(), relative(&project.folder), project.dag_files.len()));
        (projects.collect(), found.outside.len())
    }

    #[test]
    fn each_folder_with_dags_is_a_project() {
        let project = |name: &str, folder: &str, count| (name.to_owned(), folder.to_owned(), count);
        assert_eq!(
            found(&["dags/a.py", "dags/x/dags/b.py", "include/c.py", "tests/dags/d.py"], ""),
            (vec![project("Sales-data", "", 2)], 1)
        );
        assert_eq!(found(&["dags/a.py"], "dags"), (vec![project("Sales-data", "", 1)], 0));
        assert_eq!(
            found(&["etl/dags/a.py", "ml/jobs/dags/b.py", "c.py"], ""),
            (vec![project("Sales-data-etl", "etl", 1), project("Sales-data-ml-jobs", "ml/jobs", 1)], 1)
        );
        assert_eq!(
            found(&["airflow/dags/a.py", "airflow/plugins/b.py"], ""),
            (vec![project("Sales-data", "airflow", 1)], 1)
        );
        assert_eq!(found(&["flows/a.py", "b.py", "plugins/c.py"], ""), (vec![project("Sales-data", "", 2)], 0));
        assert_eq!(found(&["tests/a.py"], ""), (Vec::new(), 0));
    }
}
