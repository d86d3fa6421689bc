//! Finds a second home that uses the same workspace: both would run its schedules.

use leoflow_base::config;
use leoflow_base::home::Home;
use std::path::{Path, PathBuf};

/// True when the home was set up, even if not completely.
pub fn is_set_up(home: &Home) -> bool {
    home.receipt().exists() || home.config().exists()
}

/// Returns the first of these homes that uses the workspace.
pub fn user_of_workspace<'a>(workspace: &Path, others: &'a [Home]) -> Option<&'a Home> {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let workspace = canonical(workspace);
    others.iter().find(|other| workspace_of(other).is_some_and(|used| canonical(&used) == workspace))
}

/// The workspace in a home's configuration; `None` if it cannot be read.
fn workspace_of(home: &Home) -> Option<PathBuf> {
    config::load_files(&home.config()).ok().flatten()?.config.workspace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_home_with_the_same_workspace_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let home = |name: &str, config: &str| {
            let home = leoflow_base::home::resolve(Some(&folder.path().join(name))).unwrap();
            home.create().unwrap();
            assert!(!is_set_up(&home));
            std::fs::write(home.config(), config).unwrap();
            home
        };
        let workspace = folder.path().join("w");
        std::fs::create_dir(&workspace).unwrap();
        std::os::unix::fs::symlink(&workspace, folder.path().join("link")).unwrap();
        let others = [
            home("a", &format!("workspace: {}/other\n", folder.path().display())),
            home("b", "not: [valid"),
            home("c", &format!("workspace: {}/link\n", folder.path().display())),
        ];
        assert_eq!(user_of_workspace(&workspace, &others), Some(&others[2]));
        assert_eq!(user_of_workspace(&workspace, &others[..2]), None);
        assert!(is_set_up(&others[0]));
    }
}
