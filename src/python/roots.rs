//! To which project a DAG file belongs, where DAG files are looked for, and where their modules are.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Where a project has this folder, it is Airflow's folder of DAGs, and there are none beside it.
const DAGS: &str = "dags";
/// Airflow's folder of plugins, of a project or of the workspace.
const PLUGINS: &str = "plugins";
/// Tests import DAGs, and make some to test with; these are nobody's to run.
const TESTS: &str = "tests";

/// The folder of its project, which is the one directly below the workspace; none for a bare file.
pub fn project_of(workspace: &Path, file: &Path) -> Option<PathBuf> {
    let below = file.strip_prefix(workspace).ok()?.parent()?;
    below.iter().next().map(|project| workspace.join(project))
}

/// The folder of its project, then the workspace: where its settings are, and where it is run.
pub fn folders(workspace: &Path, file: &Path) -> Vec<PathBuf> {
    project_of(workspace, file).into_iter().chain([workspace.to_owned()]).collect()
}

/// Where its modules are looked for: the outermost folder `dags` of its project that it lies in, then those folders.
pub fn roots(workspace: &Path, file: &Path) -> Vec<PathBuf> {
    let project = project_of(workspace, file);
    let inside =
        |folder: &&Path| project.as_ref().is_some_and(|project| folder.starts_with(project) && folder != project);
    let dags = file.ancestors().skip(1).take_while(inside).filter(|folder| folder.ends_with(DAGS)).last();
    dags.map(Path::to_owned).into_iter().chain(folders(workspace, file)).collect()
}

/// Which files of a workspace may be DAG files, by their places alone. What is asked for by name may stand anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DagPlaces {
    workspace: PathBuf,
    /// Projects that have a folder for their DAGs.
    with_dags: BTreeSet<PathBuf>,
}

impl DagPlaces {
    /// Of a workspace with these folders, among others.
    pub fn new(workspace: &Path, folders: &[PathBuf]) -> Self {
        let is_one = |folder: &&PathBuf| folder.ends_with(DAGS);
        let projects = folders.iter().filter(is_one).filter_map(|folder| folder.parent());
        let is_project = |folder: &&Path| folder.parent() == Some(workspace);
        let with_dags = projects.filter(is_project).map(Path::to_owned).collect();
        Self { workspace: workspace.to_owned(), with_dags }
    }

    /// Of the workspace that holds a folder, or of the folder's parent: a folder elsewhere is a project of its own.
    pub fn around(folder: &Path, workspace: Option<&Path>, folders: &[PathBuf]) -> Self {
        let holds = |workspace: &&Path| folder.starts_with(workspace);
        let top = workspace.filter(holds).or_else(|| folder.parent()).unwrap_or(folder);
        let mut places = Self::new(top, folders);
        // A folder below `dags` or beside it does not show that.
        let project = project_of(top, &folder.join("any"));
        places.with_dags.extend(project.filter(|project| project.join(DAGS).is_dir()));
        places
    }

    /// What could not be seen this time is as it was.
    pub fn or_as_before(mut self, before: &Self, unseen: &BTreeMap<PathBuf, String>) -> Self {
        let is_unseen =
            |project: &&PathBuf| unseen.keys().any(|path| project.starts_with(path) || path.starts_with(project));
        self.with_dags.extend(before.with_dags.iter().filter(is_unseen).cloned());
        self
    }

    pub fn hold(&self, file: &Path) -> bool {
        let Some(below) = file.strip_prefix(&self.workspace).ok().and_then(Path::parent) else { return true };
        let folders: Vec<&str> = below.components().filter_map(name_of).collect();
        if folders.contains(&TESTS) || folders.iter().take(2).any(|folder| *folder == PLUGINS) {
            return false;
        }
        match project_of(&self.workspace, file) {
            Some(project) if self.with_dags.contains(&project) => file.starts_with(project.join(DAGS)),
            _ => true,
        }
    }
}

fn name_of(part: Component<'_>) -> Option<&str> {
    match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    }
}

/// The code of a DAG's version at the place where it was read, as the Python package is told of it.
pub struct VersionCode {
    pub file: PathBuf,
    pub roots: Vec<PathBuf>,
    /// Where its settings are, and where it is run: its project's folder first.
    pub folders: Vec<PathBuf>,
    /// Texts by absolute path. They count, whatever is on the disk by now.
    pub sources: Map<String, Value>,
}

impl VersionCode {
    /// `relative_fileloc` and the names in `sources` are paths below the workspace.
    pub fn of(workspace: &Path, relative_fileloc: &str, sources: &Map<String, Value>) -> Self {
        let file = workspace.join(relative_fileloc);
        let placed =
            |(path, text): (&String, &Value)| (workspace.join(path).to_string_lossy().into_owned(), text.clone());
        Self {
            roots: roots(workspace, &file),
            folders: folders(workspace, &file),
            file,
            sources: sources.iter().map(placed).collect(),
        }
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
        let of_dags = Path::new("/w/p/dags/x/dag.py");
        assert_eq!(roots(workspace, of_dags), ["/w/p/dags", "/w/p", "/w"].map(PathBuf::from));
        assert_eq!(folders(workspace, of_dags), ["/w/p", "/w"].map(PathBuf::from));
        assert_eq!(roots(workspace, Path::new("/w/dags/dag.py")), ["/w/dags", "/w"].map(PathBuf::from));
        let of_a_part = Path::new("/w/mono/airflow/dags/x/dags/dag.py");
        assert_eq!(roots(workspace, of_a_part), ["/w/mono/airflow/dags", "/w/mono", "/w"].map(PathBuf::from));
    }

    #[test]
    fn dags_are_looked_for_where_airflow_has_them() {
        let places =
            DagPlaces::new(Path::new("/w"), &["/w", "/w/p", "/w/p/dags", "/w/q", "/w/q/x/dags"].map(PathBuf::from));
        for (file, may_be) in [
            ("/w/a.py", true),
            ("/w/p/dags/a.py", true),
            ("/w/p/dags/x/plugins/a.py", true),
            ("/w/p/a.py", false),
            ("/w/p/include/a.py", false),
            ("/w/p/dags/tests/a.py", false),
            ("/w/p/plugins/a.py", false),
            ("/w/q/a.py", true),
            ("/w/q/x/dags/a.py", true),
            ("/w/q/plugins/x/a.py", false),
            ("/w/q/x/tests/y/a.py", false),
            ("/w/q/tests.py", true),
            ("/w/plugins/a.py", false),
            ("/w/tests/a.py", false),
            ("/elsewhere/tests/a.py", true),
        ] {
            assert_eq!(places.hold(Path::new(file)), may_be, "{file}");
        }
        let unseen = BTreeMap::from([(PathBuf::from("/w/p"), String::new())]);
        let later = DagPlaces::new(Path::new("/w"), &[]);
        assert_eq!(later.clone().or_as_before(&places, &unseen), places);
        assert_eq!(later.clone().or_as_before(&places, &BTreeMap::new()), later);
    }
}
