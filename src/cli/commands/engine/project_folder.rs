//! Finds the project that a command names.

use crate::context::Context;
use crate::error::Error;
use leoflow_base::sys::fs::folders;
use leoflow_base::sys::shell;
use leoflow_python::{FileSettings, Request, dag_files, file_context, path_in_workspace};
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
        return Some(path_through_links(workspace, &path));
    }
    workspace.map(|workspace| workspace.join(project)).filter(|folder| folder.is_dir())
}

/// The path that the server uses: one below the workspace if the path is in it, or in the target of a link in it, as
/// `leoflow bring` makes them.
fn path_through_links(workspace: Option<&Path>, path: &Path) -> PathBuf {
    let path = path_in_workspace(workspace, path);
    let Some(workspace) = workspace.filter(|workspace| !path.starts_with(workspace)) else { return path };
    let links = folders::entries(workspace).unwrap_or_default().into_iter().filter(|entry| entry.is_symlink());
    let through = |link: PathBuf| {
        let rest = path.strip_prefix(link.canonicalize().ok()?).ok()?;
        Some((rest.components().count(), link.join(rest).components().collect()))
    };
    // The nearest project comes first.
    links.filter_map(through).min().map_or(path.clone(), |(_, path)| path)
}

/// The request for a DAG file at this path, and the settings of its project.
pub fn file_request(
    context: &Context<'_>,
    workspace: Option<&Path>,
    file: &Path,
) -> Result<(Request, FileSettings), Error> {
    let request = Request::new(path_through_links(workspace, file), workspace, context.home.api_socket());
    let file_settings = file_context(&request).settings.map_err(|problem| {
        Error::failed("the project's settings are invalid").cause(problem).hint("leoflow verify-config")
    })?;
    Ok((request, file_settings))
}

/// The error for a folder with projects in it; `file` is a DAG file of one.
pub fn not_a_project(workspace: Option<&Path>, folder: &Path, file: &Path) -> Error {
    let names = workspace.filter(|workspace| folder.starts_with(workspace)).map(project_names).unwrap_or_default();
    Error::failed(format!("{} is not a project", folder.display())).hint(match names.is_empty() {
        true => format!("name the folder of its DAG files: {}", file.parent().unwrap_or(folder).display()),
        false => format!("name a project in the command: {}", names.join(", ")),
    })
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
