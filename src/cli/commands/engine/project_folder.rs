//! Finds the project that a command names.

use leoflow_python::path_in_workspace;
use std::path::{Path, PathBuf};

/// The folder of a project that is given by a path or by its name. A path that exists relative to `current_folder` comes
/// first, then a folder of this name in the workspace. `None` if neither exists.
pub fn project_folder(workspace: Option<&Path>, current_folder: &Path, project: &Path) -> Option<PathBuf> {
    // Without a trailing slash.
    let path: PathBuf = current_folder.join(project).components().collect();
    if path.is_dir() {
        return Some(path_in_workspace(workspace, &path));
    }
    workspace.map(|workspace| workspace.join(project)).filter(|folder| folder.is_dir())
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
}
