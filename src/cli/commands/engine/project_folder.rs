//! Finds the project that a command names.

use crate::error::Error;
use leoflow_base::sys::fs::folders;
use leoflow_base::sys::shell;
use leoflow_python::{dag_files, path_in_workspace};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The folder of a project that is given by a path or by its name. A path that exists relative to `current_folder` comes
/// first, then a folder of this name in the workspace. `None` if neither exists. `current_folder` is empty if it was
/// removed.
pub fn project_folder(workspace: Option<&Path>, current_folder: &Path, project: &Path) -> Option<PathBuf> {
    // Without a trailing slash.
    let path: PathBuf = current_folder.join(project).components().collect();
    if path.is_dir() {
        let path = path_in_workspace(workspace, &path);
        return Some(workspace.and_then(|workspace| link_to(workspace, &path)).unwrap_or(path));
    }
    workspace.map(|workspace| workspace.join(project)).filter(|folder| folder.is_dir())
}

/// The project of the workspace that is a link to this folder, as `leoflow bring` makes them.
fn link_to(workspace: &Path, folder: &Path) -> Option<PathBuf> {
    let is_outside = !folder.starts_with(workspace);
    let mut entries = is_outside.then(|| folders::entries(workspace).ok()).flatten()?.into_iter();
    entries.find(|entry| entry.is_symlink() && entry.canonicalize().is_ok_and(|target| target == folder))
}

/// The error for a project that does not exist; its hints list those that do, and name the command that creates one.
pub fn no_project(workspace: Option<&Path>, project: &Path) -> Error {
    let shown = project.display();
    let Some(workspace) = workspace else {
        return Error::failed(format!("there is no project {:?} here", shown.to_string())).hint("leoflow init DIR");
    };
    let names = project_names(workspace);
    let error = Error::failed(format!(
        "there is no project {:?} here or in the workspace {}",
        shown.to_string(),
        workspace.display()
    ));
    let error = if names.is_empty() { error } else { error.hint(format!("projects: {}", names.join(", "))) };
    error.hint(format!("create it: leoflow init {}", shell::word(&workspace.join(project).to_string_lossy())))
}

/// The folders of the workspace that contain DAG files. Empty if the workspace cannot be read.
fn project_names(workspace: &Path) -> Vec<String> {
    let files = dag_files(workspace, Some(workspace)).unwrap_or_default();
    let project_of = |file: &PathBuf| {
        let relative = file.strip_prefix(workspace).ok()?.parent()?;
        relative.iter().next().map(OsStr::to_string_lossy).map(String::from)
    };
    files.iter().filter_map(project_of).collect::<BTreeSet<String>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_comes_before_a_name_in_the_workspace() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let workspace = root.join("w");
        let sales = workspace.join("sales");
        std::fs::create_dir_all(&sales).unwrap();
        std::fs::create_dir_all(root.join("elsewhere/sales")).unwrap();
        let folder_of = |current_folder: &str, project: &str| {
            project_folder(Some(&workspace), &root.join(current_folder), Path::new(project))
        };
        for (current_folder, project) in
            [("", "sales"), ("", "sales/"), ("", "w/sales"), ("w", "sales"), ("w/sales", ""), ("w/sales", ".")]
        {
            assert_eq!(folder_of(current_folder, project), Some(sales.clone()), "{project:?} in {current_folder:?}");
        }
        assert_eq!(folder_of("elsewhere", "sales"), Some(root.join("elsewhere/sales")));
        assert_eq!(folder_of("", "unknown"), None);
    }

    #[test]
    fn a_missing_project_lists_those_that_exist() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = folder.path().canonicalize().unwrap();
        for name in ["reports", "hello/dags"] {
            std::fs::create_dir_all(workspace.join(name)).unwrap();
            std::fs::write(workspace.join(name).join("dag.py"), "from airflow.sdk import DAG\nDAG('x')\n").unwrap();
        }
        std::fs::create_dir(workspace.join("notes")).unwrap();
        let error = no_project(Some(&workspace), Path::new("nosuch"));
        let root = workspace.display();
        assert_eq!(error.message, format!("there is no project \"nosuch\" here or in the workspace {root}"));
        assert_eq!(
            error.hints,
            ["projects: hello, reports".to_owned(), format!("create it: leoflow init {root}/nosuch")]
        );
    }
}
