//! Where modules of a DAG file are looked for.

use std::path::{Path, PathBuf};

/// The folder of its project, which is the one directly below the workspace, then the workspace.
pub fn roots(workspace: &Path, file: &Path) -> Vec<PathBuf> {
    let below = file.strip_prefix(workspace).ok().and_then(|path| path.parent()).and_then(|path| path.iter().next());
    below.map(|project| workspace.join(project)).into_iter().chain([workspace.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_sees_its_project_and_the_workspace() {
        let workspace = Path::new("/w");
        assert_eq!(roots(workspace, Path::new("/w/a.py")), [PathBuf::from("/w")]);
        assert_eq!(roots(workspace, Path::new("/w/p/x/dag.py")), [PathBuf::from("/w/p"), PathBuf::from("/w")]);
    }
}
