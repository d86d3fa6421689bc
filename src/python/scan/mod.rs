//! Scans a workspace, or another folder with DAGs, for Python files and folders to watch.

mod dag_file;
mod ignore;

pub use self::ignore::Syntax;
use dag_file::is_yaml;
pub use dag_file::{is_dag_file, is_python, is_zip};

use self::ignore::{IGNORE_FILE, PathKind, Rules};
use super::roots::DagPlaces;
use leoflow_base::config::leoflow_yaml;
use leoflow_base::home::LOST_AND_FOUND;
use leoflow_base::sys::blocking;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::fs::{self, DirEntry, FileType, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Identifies the state of a file, to detect changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

impl Stamp {
    /// The stamp of an existing file.
    pub fn of_path(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self::of(&meta))
    }

    /// True if the file was modified at or after `time`, in spite of `CLOCK_GRAIN`.
    pub fn is_since(&self, time: SystemTime) -> bool {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.modified.0.saturating_add(CLOCK_GRAIN) >= since.cast_signed()
    }

    /// The modification time in seconds and nanoseconds.
    pub fn modified(&self) -> (i64, i64) {
        self.modified
    }

    fn of(meta: &Metadata) -> Self {
        Self { modified: (meta.mtime(), meta.mtime_nsec()), size: meta.size(), inode: meta.ino() }
    }
}

/// Seconds by which a file system's clock may be behind ours.
const CLOCK_GRAIN: i64 = 1;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// All Python and zip files, with DAGs or not, and the settings files of projects.
    pub files: BTreeMap<PathBuf, Stamp>,
    /// Decides which of the files may be DAG files.
    pub dag_places: DagPlaces,
    /// Folders to watch: those scanned, and those that contain the targets of linked files.
    pub folders: Vec<PathBuf>,
    /// Folders and files that could not be scanned completely. Results of earlier scans stay valid for files at or below
    /// these paths.
    pub unscanned: BTreeMap<PathBuf, Unscanned>,
}

/// Why a folder or file could not be scanned completely. Shown to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unscanned {
    /// A project or a link on a hanging mount.
    NoAnswer(Duration),
    TooSlow(Duration),
    TooManyFolders {
        limit: usize,
        ignore_file: PathBuf,
    },
    /// Holds the system's message.
    Unreadable(String),
}

impl fmt::Display for Unscanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(limit) => write!(f, "It did not answer within {} s.", limit.as_secs()),
            Self::TooSlow(limit) => write!(f, "It was not scanned completely within {} s.", limit.as_secs()),
            Self::TooManyFolders { limit, ignore_file } => write!(
                f,
                "It has more than {limit} folders, and only those nearest to its top were scanned. DAG files further \
                 down are not found: list the folders with data in {}, one per line.",
                ignore_file.display()
            ),
            Self::Unreadable(message) => write!(f, "Failed to read it: {message}"),
        }
    }
}

impl Scan {
    fn add(&mut self, other: Scan) {
        self.files.extend(other.files);
        self.folders.extend(other.folders);
        self.unscanned.extend(other.unscanned);
    }
}

/// Limits of a scan.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Folders of one project. If it has more, only those nearest to its top are scanned.
    pub folders: usize,
    /// Time for one project. When it expires, as on a hanging mount, the scan goes on with the next project.
    pub time: Duration,
}

/// Default limits. Projects have dozens of folders; partitioned data has thousands.
pub const LIMITS: Limits = Limits { folders: 5_000, time: Duration::from_secs(5) };

/// A folder to scan, with its ignore rules.
struct PendingFolder {
    folder: PathBuf,
    rules: Rules,
}

/// Scans a workspace project by project, so that no project blocks another. Scans any other folder in the same way: its
/// subfolders count as projects. Skips hidden folders, virtual environments, installed packages, caches, and paths that
/// `.airflowignore` and `.leoflowignore` exclude. Follows symbolic links, but scans each folder once. `avoid` has the
/// paths to skip this time, each with the reason. The error is that of reading the top folder.
pub fn scan(
    workspace: &Path,
    syntax: Syntax,
    limits: Limits,
    avoid: &BTreeMap<PathBuf, Unscanned>,
) -> io::Result<Scan> {
    let visited = Arc::new(Visited { avoid: avoid.clone(), ..Visited::default() });
    let mut scan = Scan::default();
    visited.is_first(&fs::metadata(workspace)?);
    let top = PendingFolder { folder: workspace.to_owned(), rules: Rules::new(workspace, syntax) };
    let mut projects = Vec::new();
    match scan_folder(top, &mut scan, &visited, Instant::now() + limits.time, &mut projects) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            scan.unscanned.insert(workspace.to_owned(), Unscanned::TooSlow(limits.time));
        }
        result => result?,
    }
    // Each folder is scanned once, as part of the project whose link leads deepest: `leoflow bring` makes links to a
    // repository and to projects inside it.
    projects.sort_by_key(|project| Reverse(depth_outside(workspace, &project.folder)));
    for project in projects {
        let folder = project.folder.clone();
        if let Some(reason) = avoid.get(&folder) {
            scan.unscanned.insert(folder, reason.clone());
            continue;
        }
        let shared = visited.clone();
        match blocking::within(limits.time + GRACE, move || walk(project, limits, &shared)) {
            Some(project_scan) => scan.add(project_scan),
            None => drop(scan.unscanned.insert(folder, Unscanned::NoAnswer(limits.time))),
        }
    }
    let linked = std::mem::take(&mut *visited.linked.lock().unwrap_or_else(PoisonError::into_inner));
    scan.dag_places = DagPlaces::new(workspace, &scan.folders);
    let scanned: HashSet<PathBuf> = scan.folders.iter().cloned().collect();
    scan.folders.extend(linked.into_iter().filter(|folder| !scanned.contains(folder)));
    Ok(scan)
}

/// The depth of the folder outside of the workspace to which a link leads; 0 for other folders. Does not touch that
/// folder, which may be on a hanging mount.
fn depth_outside(workspace: &Path, folder: &Path) -> usize {
    let target = fs::read_link(folder).ok().filter(|target| target.is_absolute() && !target.starts_with(workspace));
    target.map_or(0, |target| target.components().count())
}

/// Extra time for a walk to notice its own time limit; only a blocked walk takes longer.
const GRACE: Duration = Duration::from_secs(1);

/// State that the walks of all projects share.
#[derive(Debug, Default)]
struct Visited {
    /// Device and inode of the folders already scanned: symbolic links may lead to a folder several times.
    folders: Mutex<HashSet<(u64, u64)>>,
    /// Paths to skip this time, each with the reason.
    avoid: BTreeMap<PathBuf, Unscanned>,
    /// Folders that contain the targets of linked files: a change of a linked file shows there.
    linked: Mutex<BTreeSet<PathBuf>>,
}

impl Visited {
    /// Marks a folder as scanned; `false` if it was already.
    fn is_first(&self, meta: &Metadata) -> bool {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).insert((meta.dev(), meta.ino()))
    }
}

/// Scans one project, breadth first.
fn walk(project: PendingFolder, limits: Limits, visited: &Visited) -> Scan {
    let mut scan = Scan::default();
    let root = project.folder.clone();
    let until = Instant::now() + limits.time;
    let mut pending = VecDeque::from([project]);
    while let Some(next) = pending.pop_front() {
        let folder = next.folder.clone();
        match fs::metadata(&folder) {
            Ok(meta) if !visited.is_first(&meta) => continue,
            Ok(_) if folder.join("pyvenv.cfg").exists() => continue,
            Ok(_) => {}
            Err(error) => {
                note_error(&mut scan, folder, &error);
                continue;
            }
        }
        if scan.folders.len() >= limits.folders {
            let ignore_file = root.join(IGNORE_FILE);
            scan.unscanned.insert(root, Unscanned::TooManyFolders { limit: limits.folders, ignore_file });
            break;
        }
        let mut subfolders = Vec::new();
        match scan_folder(next, &mut scan, visited, until, &mut subfolders) {
            Ok(()) => pending.extend(subfolders),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                scan.unscanned.insert(root, Unscanned::TooSlow(limits.time));
                break;
            }
            Err(error) => note_error(&mut scan, folder, &error),
        }
    }
    scan
}

/// Records an error, unless the path has been removed in the meantime.
fn note_error(scan: &mut Scan, path: PathBuf, error: &io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        scan.unscanned.insert(path, Unscanned::Unreadable(error.to_string()));
    }
}

/// Scans the files of a folder and adds its folders to `subfolders`. After an error, the results so far stay.
fn scan_folder(
    pending: PendingFolder,
    scan: &mut Scan,
    visited: &Visited,
    until: Instant,
    subfolders: &mut Vec<PendingFolder>,
) -> io::Result<()> {
    let PendingFolder { folder, rules } = pending;
    let entries = fs::read_dir(&folder)?;
    let rules = rules.with_folder(&folder);
    let scanned = folder.clone();
    scan.folders.push(folder);
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // The entries after an error are unknown.
            Err(error) => {
                note_error(scan, scanned.clone(), &error);
                break;
            }
        };
        if Instant::now() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        scan_entry(&entry, &rules, scan, visited, subfolders);
    }
    subfolders.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(())
}

/// Handles one entry of a folder: a relevant file, or a folder to scan.
fn scan_entry(
    entry: &DirEntry,
    rules: &Rules,
    scan: &mut Scan,
    visited: &Visited,
    subfolders: &mut Vec<PendingFolder>,
) {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    let path = entry.path();
    let kind = entry.file_type();
    let mut descend = |path: PathBuf| {
        if !is_skipped(&name) && !rules.excludes(&path, PathKind::Folder) {
            subfolders.push(PendingFolder { folder: path, rules: rules.clone() });
        }
    };
    if kind.as_ref().is_ok_and(FileType::is_dir) {
        // No stat here: the folder may be a hanging mount, which must block only the walk of its own project.
        return descend(path);
    }
    let is_link = kind.as_ref().is_ok_and(FileType::is_symlink);
    // Most entries are neither a symbolic link nor relevant, and need no stat.
    if !is_link && kind.is_ok() && !is_of_interest(&name) {
        return;
    }
    if is_link && let Some(reason) = visited.avoid.get(&path) {
        scan.unscanned.insert(path, reason.clone());
        return;
    }
    match if is_link { link_target(&path) } else { fs::metadata(&path) } {
        Ok(meta) if meta.is_dir() => descend(path),
        Ok(meta) if meta.is_file() && is_of_interest(&name) && !rules.excludes(&path, PathKind::File) => {
            if is_link
                && let Some(folder) = path.canonicalize().ok().and_then(|target| target.parent().map(Path::to_owned))
            {
                visited.linked.lock().unwrap_or_else(PoisonError::into_inner).insert(folder);
            }
            scan.files.insert(path, Stamp::of(&meta));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            scan.unscanned.insert(path, Unscanned::NoAnswer(LINK_LIMIT));
        }
        Err(error) => {
            if is_of_interest(&name) {
                note_error(scan, path, &error);
            }
        }
    }
}

/// True for Python, YAML and zip files and the settings files of projects.
fn is_of_interest(name: &str) -> bool {
    let path = Path::new(name);
    (is_python(path) || is_yaml(path) || is_zip(path)) && !name.starts_with('.') || name.ends_with(leoflow_yaml::FILE)
}

/// True for the name of a file that is data unless it defines DAGs: a YAML file that is not the settings of a project.
pub fn is_data(path: &Path) -> bool {
    is_yaml(path) && !path.to_string_lossy().ends_with(leoflow_yaml::FILE)
}

fn is_skipped(name: &str) -> bool {
    name.starts_with('.') || ["__pycache__", "node_modules", "site-packages", LOST_AND_FOUND].contains(&name)
}

/// Metadata of a symbolic link's target; an error of kind `TimedOut` after `LINK_LIMIT`.
fn link_target(path: &Path) -> io::Result<Metadata> {
    let target = path.to_owned();
    blocking::within(LINK_LIMIT, move || fs::metadata(target)).unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// Time limit for reading the target of a link, which may be on a hanging mount.
const LINK_LIMIT: Duration = Duration::from_secs(2);

/// The DAG files in a folder and below it, by the rules that the server applies to its workspace.
pub fn dag_files(folder: &Path, workspace: Option<&Path>) -> io::Result<Vec<PathBuf>> {
    let scan = scan(folder, Syntax::from_environment(), LIMITS, &BTreeMap::new())?;
    let places = DagPlaces::around(folder, workspace, &scan.folders);
    Ok(scan.files.into_keys().filter(|path| places.allows(path) && is_dag_file(path)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_python_files_and_skips_foreign_folders() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in ["a.py", "p/dag.py", "p/lib/x.py", "p/.git/y.py", "p/venv/lib/z.py", "p/notes.txt", "p/.hidden.py"]
        {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "").unwrap();
        }
        fs::write(root.join("p/venv/pyvenv.cfg"), "").unwrap();
        std::os::unix::fs::symlink(root, root.join("p/loop")).unwrap();
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("dangling.py")).unwrap();
        let scan = super::scan(root, Syntax::Glob, LIMITS, &BTreeMap::new()).unwrap();
        let found: Vec<_> = scan.files.keys().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap()).collect();
        assert_eq!(found, ["a.py", "p/dag.py", "p/lib/x.py"]);
        assert_eq!(scan.folders.len(), 3);
        assert!(super::scan(&root.join("nowhere"), Syntax::Glob, LIMITS, &BTreeMap::new()).is_err());
    }

    #[test]
    fn a_project_inside_another_has_its_own_files() {
        let folder = tempfile::tempdir().unwrap();
        let (workspace, repository) = (folder.path().join("w"), folder.path().join("repository"));
        fs::create_dir_all(&workspace).unwrap();
        for file in ["dags/a.py", "etl/dags/b.py"] {
            fs::create_dir_all(repository.join(file).parent().unwrap()).unwrap();
            fs::write(repository.join(file), "").unwrap();
        }
        std::os::unix::fs::symlink(&repository, workspace.join("sales")).unwrap();
        std::os::unix::fs::symlink(repository.join("etl"), workspace.join("sales-etl")).unwrap();
        let scan = super::scan(&workspace, Syntax::Glob, LIMITS, &BTreeMap::new()).unwrap();
        let files = ["sales/dags/a.py", "sales-etl/dags/b.py"].map(|file| workspace.join(file));
        assert_eq!(scan.files.into_keys().collect::<Vec<_>>(), files);
    }

    #[test]
    fn scans_only_the_top_of_a_project_with_many_folders() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in ["a_data/dag.py", "a_data/y=1/m=1/d=1/deep.py", "b/dag.py"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "").unwrap();
        }
        for number in 0..20 {
            fs::create_dir_all(root.join(format!("a_data/y={number}/m=1"))).unwrap();
        }
        let limits = Limits { folders: 10, ..LIMITS };
        let names = |scan: &Scan| -> Vec<String> {
            let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            scan.files.keys().map(relative).collect()
        };
        let scan = super::scan(root, Syntax::Glob, limits, &BTreeMap::new()).unwrap();
        assert_eq!(names(&scan), ["a_data/dag.py", "b/dag.py"]);
        let reason = scan.unscanned[&root.join("a_data")].to_string();
        assert!(reason.contains("more than 10 folders") && reason.contains("a_data/.leoflowignore, one"), "{reason}");
        fs::write(root.join("a_data/.airflowignore"), "# data\ny=*\n!y=1\n").unwrap();
        let scan = super::scan(root, Syntax::Glob, limits, &BTreeMap::new()).unwrap();
        assert_eq!((names(&scan).len(), scan.unscanned.len()), (3, 0));
        fs::write(root.join(".airflowignore"), "a_da.a/y\n").unwrap();
        fs::remove_file(root.join("a_data/.airflowignore")).unwrap();
        let scan = super::scan(root, Syntax::Regexp, limits, &BTreeMap::new()).unwrap();
        assert_eq!((names(&scan).len(), scan.unscanned.len()), (2, 0));
    }
}
