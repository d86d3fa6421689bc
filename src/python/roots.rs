//! Maps a DAG file to its project, decides where DAG files may be, and builds their module search path.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// If a project has this folder, only files in it are DAG files, as in Airflow.
const DAGS: &str = "dags";
/// Airflow's plugins folder, in a project or in the workspace; it contains no DAG files.
const PLUGINS: &str = "plugins";
/// Folder of tests, which may define DAGs that must not run.
const TESTS: &str = "tests";

/// The file's project: the folder directly below the workspace; `None` for a file directly in the workspace.
pub(crate) fn project_of(workspace: &Path, file: &Path) -> Option<PathBuf> {
    let relative = file.strip_prefix(workspace).ok()?.parent()?;
    relative.iter().next().map(|project| workspace.join(project))
}

/// The folders with the file's settings: its project's folder, then the workspace. The first is its working directory.
pub fn folders(workspace: &Path, file: &Path) -> Vec<PathBuf> {
    project_of(workspace, file).into_iter().chain([workspace.to_owned()]).collect()
}

/// The file's module search path: the outermost `dags` folder of its project that contains it, then `folders`.
pub fn roots(workspace: &Path, file: &Path) -> Vec<PathBuf> {
    let project = project_of(workspace, file);
    let is_in_project =
        |folder: &&Path| project.as_ref().is_some_and(|project| folder.starts_with(project) && folder != project);
    let dags = file.ancestors().skip(1).take_while(is_in_project).filter(|folder| folder.ends_with(DAGS)).last();
    dags.map(Path::to_owned).into_iter().chain(folders(workspace, file)).collect()
}

/// A DAG file, and where its settings are.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: PathBuf,
    /// Folders on the file's module search path, nearest first.
    pub roots: Vec<PathBuf>,
    /// Folders with the file's settings, nearest first. The first is the working directory of its import and its tasks.
    pub folders: Vec<PathBuf>,
    /// The project folder; `None` for a file outside of projects.
    pub project: Option<PathBuf>,
    /// The workspace, whose settings apply to projects that have none.
    pub workspace: Option<PathBuf>,
    /// Socket of the server that provides the Variables and Connections that the import reads.
    pub api_socket: PathBuf,
    /// True to warn also of plugins of Airflow's own SDK that fail, and of e-mail that cannot be sent, which takes seconds.
    pub is_validation: bool,
}

impl Request {
    /// Derives the folders from the path: a file of the workspace belongs to its project. Any other file belongs to the
    /// folder that contains the nearest `dags` around it, or to its own folder.
    pub fn new(path: PathBuf, workspace: Option<&Path>, api_socket: PathBuf) -> Self {
        let workspace = workspace.filter(|workspace| path.starts_with(workspace));
        let (roots, folders, project) = match workspace {
            Some(workspace) => (roots(workspace, &path), folders(workspace, &path), project_of(workspace, &path)),
            None => {
                let dags = path.ancestors().skip(1).find(|folder| folder.ends_with(DAGS));
                let project = dags.or(Some(path.as_path())).and_then(Path::parent).map(Path::to_owned);
                let folders: Vec<PathBuf> = project.iter().cloned().collect();
                (dags.map(Path::to_owned).into_iter().chain(folders.clone()).collect(), folders, project)
            }
        };
        let workspace = workspace.map(Path::to_owned);
        Self { path, roots, folders, project, workspace, api_socket, is_validation: false }
    }
}

/// Decides by path alone which files of a workspace may be DAG files. It does not apply to a file that a command names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DagPlaces {
    workspace: PathBuf,
    /// Projects that have a `dags` folder.
    with_dags: BTreeSet<PathBuf>,
}

impl DagPlaces {
    /// The rules for a workspace that contains these folders.
    pub fn new(workspace: &Path, folders: &[PathBuf]) -> Self {
        let is_dags_folder = |folder: &&PathBuf| folder.ends_with(DAGS);
        let projects = folders.iter().filter(is_dags_folder).filter_map(|folder| folder.parent());
        let is_project = |folder: &&Path| folder.parent() == Some(workspace);
        let with_dags = projects.filter(is_project).map(Path::to_owned).collect();
        Self { workspace: workspace.to_owned(), with_dags }
    }

    /// The rules for scanning `folder`: those of the workspace if it contains the folder. Any other folder counts as a
    /// project, in a workspace that is its parent.
    pub fn around(folder: &Path, workspace: Option<&Path>, folders: &[PathBuf]) -> Self {
        let contains_folder = |workspace: &&Path| folder.starts_with(workspace);
        let top = workspace.filter(contains_folder).or_else(|| folder.parent()).unwrap_or(folder);
        let mut places = Self::new(top, folders);
        // `folders` lacks the project's `dags` if only a folder below or beside it was scanned.
        let project = project_of(top, &folder.join("any"));
        places.with_dags.extend(project.filter(|project| project.join(DAGS).is_dir()));
        places
    }

    /// Copies from `before` the projects that could not be scanned this time.
    pub fn keep_unseen<T>(mut self, before: &Self, unscanned: &BTreeMap<PathBuf, T>) -> Self {
        let is_unseen =
            |project: &&PathBuf| unscanned.keys().any(|path| project.starts_with(path) || path.starts_with(project));
        self.with_dags.extend(before.with_dags.iter().filter(is_unseen).cloned());
        self
    }

    /// True if a DAG file may be at this path; always true outside of the workspace.
    pub fn allows(&self, file: &Path) -> bool {
        let Some(relative) = file.strip_prefix(&self.workspace).ok().and_then(Path::parent) else { return true };
        if relative.iter().any(|folder| folder == TESTS) || relative.iter().take(2).any(|folder| folder == PLUGINS) {
            return false;
        }
        match project_of(&self.workspace, file) {
            Some(project) if self.with_dags.contains(&project) => file.starts_with(project.join(DAGS)),
            _ => true,
        }
    }
}

/// The code of a DAG version at its original paths, as passed to the Python package.
pub struct VersionCode {
    pub file: PathBuf,
    pub roots: Vec<PathBuf>,
    /// Folders with the file's settings: its project's folder, which is its working directory, then the workspace.
    pub folders: Vec<PathBuf>,
    /// Texts by absolute path. They take precedence over the files on disk, which may have changed since.
    pub sources: Map<String, Value>,
}

impl VersionCode {
    /// `relative_fileloc` and the names in `sources` are paths below the workspace.
    pub fn of(workspace: &Path, relative_fileloc: &str, sources: &Map<String, Value>) -> Self {
        let file = workspace.join(relative_fileloc);
        let in_workspace =
            |(path, text): (&String, &Value)| (workspace.join(path).to_string_lossy().into_owned(), text.clone());
        Self {
            roots: roots(workspace, &file),
            folders: folders(workspace, &file),
            file,
            sources: sources.iter().map(in_workspace).collect(),
        }
    }
}

/// Maps a path that a user gave to the path that the server uses: one below the workspace if the path leads there, also
/// through symbolic links. A path that does not exist stays as is.
pub fn path_in_workspace(workspace: Option<&Path>, path: &Path) -> PathBuf {
    let has_dots = path.components().any(|part| part == Component::ParentDir);
    let resolved = path.canonicalize();
    let Some(workspace) = workspace else { return resolved.unwrap_or_else(|_| path.to_owned()) };
    if path.starts_with(workspace) && !has_dots {
        return path.to_owned();
    }
    let Ok(resolved) = resolved else { return path.to_owned() };
    let relative = workspace.canonicalize().ok().and_then(|root| resolved.strip_prefix(root).ok().map(Path::to_owned));
    relative.map_or(resolved, |relative| workspace.join(relative))
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
        let found = |path: &str| path_in_workspace(Some(&linked), &root.join(path));
        assert_eq!(found("linked/p/dag.py"), linked.join("p/dag.py"));
        assert_eq!(found("real/p/dag.py"), linked.join("p/dag.py"));
        assert_eq!(found("linked/p/../p/dag.py"), linked.join("p/dag.py"));
        assert_eq!(path_in_workspace(None, &root.join("linked/p/dag.py")), root.join("real/p/dag.py"));
    }

    #[test]
    fn roots_are_the_project_and_the_workspace() {
        let workspace = Path::new("/w");
        assert_eq!(roots(workspace, Path::new("/w/a.py")), [PathBuf::from("/w")]);
        assert_eq!(roots(workspace, Path::new("/w/p/x/dag.py")), [PathBuf::from("/w/p"), PathBuf::from("/w")]);
        let in_dags = Path::new("/w/p/dags/x/dag.py");
        assert_eq!(roots(workspace, in_dags), ["/w/p/dags", "/w/p", "/w"].map(PathBuf::from));
        assert_eq!(folders(workspace, in_dags), ["/w/p", "/w"].map(PathBuf::from));
        assert_eq!(roots(workspace, Path::new("/w/dags/dag.py")), ["/w/dags", "/w"].map(PathBuf::from));
        let in_nested_dags = Path::new("/w/mono/airflow/dags/x/dags/dag.py");
        assert_eq!(roots(workspace, in_nested_dags), ["/w/mono/airflow/dags", "/w/mono", "/w"].map(PathBuf::from));
    }

    #[test]
    fn a_file_elsewhere_has_the_folders_of_its_project() {
        for (file, roots, project) in
            [("/e/p/dags/x/dag.py", &["/e/p/dags", "/e/p"][..], "/e/p"), ("/e/p/dag.py", &["/e/p"], "/e/p")]
        {
            let request = Request::new(file.into(), Some(Path::new("/w")), PathBuf::new());
            assert_eq!(request.roots, roots.iter().map(PathBuf::from).collect::<Vec<_>>());
            assert_eq!((request.folders, request.project), (vec![project.into()], Some(project.into())));
        }
    }

    #[test]
    fn dag_files_are_in_the_folders_that_airflow_uses() {
        let places =
            DagPlaces::new(Path::new("/w"), &["/w", "/w/p", "/w/p/dags", "/w/q", "/w/q/x/dags"].map(PathBuf::from));
        for (file, is_allowed) in [
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
            assert_eq!(places.allows(Path::new(file)), is_allowed, "{file}");
        }
        let unscanned = BTreeMap::from([(PathBuf::from("/w/p"), String::new())]);
        let later = DagPlaces::new(Path::new("/w"), &[]);
        assert_eq!(later.clone().keep_unseen(&places, &unscanned), places);
        assert_eq!(later.clone().keep_unseen(&places, &BTreeMap::<_, ()>::new()), later);
    }
}
