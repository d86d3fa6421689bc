//! To which project a DAG file belongs, and where its modules are looked for.

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The folder of its project, which is the one directly below the workspace; none for a bare file.
pub fn project_of(workspace: &Path, file: &Path) -> Option<PathBuf> {
    let below = file.strip_prefix(workspace).ok()?.parent()?;
    below.iter().next().map(|project| workspace.join(project))
}

/// The folder of its project, then the workspace.
pub fn roots(workspace: &Path, file: &Path) -> Vec<PathBuf> {
    project_of(workspace, file).into_iter().chain([workspace.to_owned()]).collect()
}

/// The code of a DAG's version at the place where it was read, as the Python package is told of it.
pub struct VersionCode {
    pub file: PathBuf,
    pub roots: Vec<PathBuf>,
    /// Texts by absolute path. They count, whatever is on the disk by now.
    pub sources: Map<String, Value>,
}

impl VersionCode {
    /// `relative_fileloc` and the names in `sources` are paths below the workspace.
    pub fn of(workspace: &Path, relative_fileloc: &str, sources: &Map<String, Value>) -> Self {
        let file = workspace.join(relative_fileloc);
        let placed =
            |(path, text): (&String, &Value)| (workspace.join(path).to_string_lossy().into_owned(), text.clone());
        Self { roots: roots(workspace, &file), file, sources: sources.iter().map(placed).collect() }
    }
}

/// A path that a user gave, as the server knows it: below the workspace where it leads there, also
/// through links. What is not there keeps its name.
pub fn as_in_workspace(workspace: Option<&Path>, path: &Path) -> PathBuf {
    let has_dots = path.components().any(|part| part == std::path::Component::ParentDir);
    let resolved = path.canonicalize();
    let Some(workspace) = workspace else { return resolved.unwrap_or_else(|_| path.to_owned()) };
    if path.starts_with(workspace) && !has_dots {
        return path.to_owned();
    }
    let Ok(resolved) = resolved else { return path.to_owned() };
    let below = workspace.canonicalize().ok().and_then(|root| resolved.strip_prefix(root).ok().map(Path::to_owned));
    below.map_or(resolved, |below| workspace.join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_dots_lead_to_the_workspace() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/p")).unwrap();
        std::fs::write(root.join("real/p/dag.py"), "").unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("linked")).unwrap();
        let linked = root.join("linked");
        let found = |path: &str| as_in_workspace(Some(&linked), &root.join(path));
        assert_eq!(found("linked/p/dag.py"), linked.join("p/dag.py"));
        assert_eq!(found("real/p/dag.py"), linked.join("p/dag.py"));
        assert_eq!(found("linked/p/../p/dag.py"), linked.join("p/dag.py"));
        assert_eq!(as_in_workspace(None, &root.join("linked/p/dag.py")), root.join("real/p/dag.py"));
    }

    #[test]
    fn a_file_sees_its_project_and_the_workspace() {
        let workspace = Path::new("/w");
        assert_eq!(roots(workspace, Path::new("/w/a.py")), [PathBuf::from("/w")]);
        assert_eq!(roots(workspace, Path::new("/w/p/x/dag.py")), [PathBuf::from("/w/p"), PathBuf::from("/w")]);
    }
}
