//! What is in a workspace: its Python files, and the folders to watch.

use super::ignore::{IGNORE_FILE, Rules, Syntax};
use super::roots::DagPlaces;
use crate::config::project;
use crate::sys::blocking;
use crate::sys::files;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fs::{self, DirEntry, FileType, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

/// Tells whether a file is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

impl Stamp {
    /// Of a file that is there.
    pub fn of_path(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self::of(&meta))
    }

    /// Whether it was written since, as far as its file system's clock tells.
    pub fn is_since(&self, time: SystemTime) -> bool {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.modified.0.saturating_add(CLOCK_GRAIN) >= since.cast_signed()
    }

    fn of(meta: &Metadata) -> Self {
        Self { modified: (meta.mtime(), meta.mtime_nsec()), size: meta.size(), inode: meta.ino() }
    }
}

/// Seconds by which a file system's clock may be behind ours.
const CLOCK_GRAIN: i64 = 1;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Every Python file, DAGs or not, and the settings of projects.
    pub files: BTreeMap<PathBuf, Stamp>,
    /// Which of them may be DAG files.
    pub dag_places: DagPlaces,
    /// Those to watch: the ones looked into, and those that linked files are in.
    pub folders: Vec<PathBuf>,
    /// Folders and files that could not be looked through whole, and why, for people. What is known of files
    /// at or below them may still be so.
    pub unseen: BTreeMap<PathBuf, String>,
}

impl Scan {
    fn add(&mut self, other: Scan) {
        self.files.extend(other.files);
        self.folders.extend(other.folders);
        self.unseen.extend(other.unseen);
    }
}

/// How much of a workspace is looked through.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Folders of one project. Where there are more, those nearest to its top are looked into.
    pub folders: usize,
    /// For one project to be looked through. One that does not answer is left, and the others go on.
    pub time: Duration,
}

/// Partitioned data has thousands of folders, projects have dozens.
pub const LIMITS: Limits = Limits { folders: 5_000, time: Duration::from_secs(5) };

/// A folder that waits to be looked into, with what says which of its entries are left out.
struct Waiting {
    folder: PathBuf,
    rules: Rules,
}

/// Looks through the workspace, project by project, so that none costs another. Hidden folders, virtual
/// environments, installed packages and caches are nobody's DAGs, nor is what the workspace's own
/// `.airflowignore` and `.leoflowignore` name. Links are followed, each folder is looked into once.
/// `avoid` names projects that are not looked into this time, with the reason.
pub fn scan(workspace: &Path, syntax: Syntax, limits: Limits, avoid: &BTreeMap<PathBuf, String>) -> io::Result<Scan> {
    let seen = Arc::new(Seen { avoid: avoid.clone(), ..Seen::default() });
    let mut scan = Scan::default();
    seen.is_first(&fs::metadata(workspace)?);
    let top = Waiting { folder: workspace.to_owned(), rules: Rules::new(workspace, syntax) };
    let mut projects = Vec::new();
    match look_into(top, &mut scan, &seen, Instant::now() + limits.time, &mut projects) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            scan.unseen.insert(workspace.to_owned(), too_slow(limits));
        }
        looked => looked?,
    }
    let mut walker = None;
    for project in projects {
        let folder = project.folder.clone();
        if let Some(reason) = avoid.get(&folder) {
            scan.unseen.insert(folder, reason.clone());
            continue;
        }
        let walks = walker.get_or_insert_with(|| Walker::start(limits, seen.clone()));
        match walks.walk(project, limits.time + GRACE) {
            Some(found) => scan.add(found),
            None => {
                scan.unseen.insert(folder, format!("{NO_ANSWER} within {} s.", limits.time.as_secs()));
                walker = None;
            }
        }
    }
    let linked = std::mem::take(&mut *seen.linked.lock().unwrap_or_else(PoisonError::into_inner));
    scan.dag_places = DagPlaces::new(workspace, &scan.folders);
    let known: HashSet<PathBuf> = scan.folders.iter().cloned().collect();
    scan.folders.extend(linked.into_iter().filter(|folder| !known.contains(folder)));
    Ok(scan)
}

/// What is said of a project on a mount that hangs.
pub const NO_ANSWER: &str = "It did not answer";

/// A walk that keeps to its time notices itself when that is over.
const GRACE: Duration = Duration::from_secs(1);

/// Walks projects in a thread of its own: one that waits for a mount that hangs cannot be called back, only left.
struct Walker {
    projects: mpsc::Sender<Waiting>,
    found: mpsc::Receiver<Scan>,
}

impl Walker {
    fn start(limits: Limits, seen: Arc<Seen>) -> Self {
        let (projects, waiting) = mpsc::channel::<Waiting>();
        let (answer, found) = mpsc::channel();
        blocking::thread(move || {
            for project in waiting {
                if answer.send(walk(project, limits, &seen)).is_err() {
                    return;
                }
            }
        });
        Self { projects, found }
    }

    fn walk(&self, project: Waiting, limit: Duration) -> Option<Scan> {
        self.projects.send(project).ok()?;
        self.found.recv_timeout(limit).ok()
    }
}

/// What has been looked into, so that links lead nowhere twice.
#[derive(Debug, Default)]
struct Seen {
    folders: Mutex<HashSet<(u64, u64)>>,
    /// Links that are not followed this time.
    avoid: BTreeMap<PathBuf, String>,
    /// Folders that linked files are in: what a link leads to changes where it is.
    linked: Mutex<BTreeSet<PathBuf>>,
}

impl Seen {
    fn is_first(&self, meta: &Metadata) -> bool {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).insert((meta.dev(), meta.ino()))
    }
}

/// One project, breadth first.
fn walk(project: Waiting, limits: Limits, seen: &Seen) -> Scan {
    let mut scan = Scan::default();
    let root = project.folder.clone();
    let until = Instant::now() + limits.time;
    let mut waiting = VecDeque::from([project]);
    while let Some(next) = waiting.pop_front() {
        let folder = next.folder.clone();
        match fs::metadata(&folder) {
            Ok(meta) if !seen.is_first(&meta) => continue,
            Ok(_) if folder.join("pyvenv.cfg").exists() => continue,
            Ok(_) => {}
            Err(error) => {
                note(&mut scan, folder, &error);
                continue;
            }
        }
        if scan.folders.len() >= limits.folders {
            let text = format!(
                "It has more than {} folders, and only those nearest to its top were looked into. DAG files further \
                 down are not found: name the folders that hold data in {}/{IGNORE_FILE}, a line each.",
                limits.folders,
                root.display()
            );
            scan.unseen.insert(root, text);
            break;
        }
        let mut below = Vec::new();
        match look_into(next, &mut scan, seen, until, &mut below) {
            Ok(()) => waiting.extend(below),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                scan.unseen.insert(root, too_slow(limits));
                break;
            }
            Err(error) => note(&mut scan, folder, &error),
        }
    }
    scan
}

fn too_slow(limits: Limits) -> String {
    format!("It was not looked through whole within {} s.", limits.time.as_secs())
}

/// What is not there any more is no problem; what may not be read is.
fn note(scan: &mut Scan, path: PathBuf, error: &io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        scan.unseen.insert(path, format!("It cannot be read: {error}"));
    }
}

/// The files of a folder; the folders in it go to `below`. What was found before an error stays.
fn look_into(
    waiting: Waiting,
    scan: &mut Scan,
    seen: &Seen,
    until: Instant,
    below: &mut Vec<Waiting>,
) -> io::Result<()> {
    let Waiting { folder, rules } = waiting;
    let entries = fs::read_dir(&folder)?;
    let rules = rules.with_those_of(&folder);
    let looked = folder.clone();
    scan.folders.push(folder);
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // What comes after it is not seen.
            Err(error) => {
                note(scan, looked.clone(), &error);
                break;
            }
        };
        if Instant::now() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        look_at(&entry, &rules, scan, seen, below);
    }
    below.sort_by(|one, other| one.folder.cmp(&other.folder));
    Ok(())
}

/// One entry of a folder: a file that is of interest, or a folder to look into.
fn look_at(entry: &DirEntry, rules: &Rules, scan: &mut Scan, seen: &Seen, below: &mut Vec<Waiting>) {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    let path = entry.path();
    let kind = entry.file_type();
    let mut go_below = |path: PathBuf| {
        if !is_skipped(&name) && !rules.leave_out(&path, true) {
            below.push(Waiting { folder: path, rules: rules.clone() });
        }
    };
    if kind.as_ref().is_ok_and(FileType::is_dir) {
        // Asked for nothing here: it may be a mount that hangs, which is its own walk's trouble.
        return go_below(path);
    }
    let is_link = kind.as_ref().is_ok_and(FileType::is_symlink);
    // Most of what lies about is neither, and need not be asked.
    if !is_link && kind.is_ok() && !is_of_interest(&name) {
        return;
    }
    if is_link && let Some(reason) = seen.avoid.get(&path) {
        scan.unseen.insert(path, reason.clone());
        return;
    }
    match if is_link { behind_link(&path) } else { fs::metadata(&path) } {
        Ok(meta) if meta.is_dir() => go_below(path),
        Ok(meta) if meta.is_file() && is_of_interest(&name) && !rules.leave_out(&path, false) => {
            if is_link
                && let Some(folder) = path.canonicalize().ok().and_then(|target| target.parent().map(Path::to_owned))
            {
                seen.linked.lock().unwrap_or_else(PoisonError::into_inner).insert(folder);
            }
            scan.files.insert(path, Stamp::of(&meta));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            scan.unseen.insert(path, format!("{NO_ANSWER} within {} s.", LINK_LIMIT.as_secs()));
        }
        Err(error) => {
            if is_of_interest(&name) {
                note(scan, path, &error);
            }
        }
    }
}

/// Python files, and the settings of projects.
fn is_of_interest(name: &str) -> bool {
    name.ends_with(".py") && !name.starts_with('.') || name == project::FILE
}

fn is_skipped(name: &str) -> bool {
    name.starts_with('.') || ["__pycache__", "node_modules", "site-packages"].contains(&name)
}

/// What a link leads to, unless that does not answer.
fn behind_link(path: &Path) -> io::Result<Metadata> {
    let (sender, answer) = mpsc::channel();
    let asked = path.to_owned();
    blocking::thread(move || {
        // Nobody may wait for it any more.
        let _ = sender.send(fs::metadata(asked));
    });
    answer.recv_timeout(LINK_LIMIT).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

const LINK_LIMIT: Duration = Duration::from_secs(2);

/// The DAG files of a folder and of those below it, as the server would find them in its workspace.
pub fn dag_files(folder: &Path, workspace: Option<&Path>) -> io::Result<Vec<PathBuf>> {
    let found = scan(folder, Syntax::from_environment(), LIMITS, &BTreeMap::new())?;
    let places = DagPlaces::around(folder, workspace, &found.folders);
    Ok(found.files.into_keys().filter(|path| places.hold(path) && is_dag_file(path)).collect())
}

/// Larger files are data, whatever they are called.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// Whether a file is worth importing: it speaks of DAGs, or cannot be read, which its import will say. A large one
/// is data, whatever it is called.
pub fn is_dag_file(path: &Path) -> bool {
    if path.extension().is_none_or(|end| end != "py") {
        return false;
    }
    match files::read_regular(path, LARGEST_FILE) {
        Ok(text) => text.is_some_and(|text| might_have_dags(&text)),
        Err(error) => error.kind() != io::ErrorKind::InvalidData,
    }
}

/// Airflow's own quick look, with our name beside its: most Python files are no DAGs and are not run.
fn might_have_dags(text: &[u8]) -> bool {
    let has = |word: &[u8]| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    (has(b"dag") || has(b"asset")) && (has(b"airflow") || has(b"leoflow"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_python_files_and_stays_out_of_what_is_nobodys() {
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
    fn a_project_of_too_many_folders_costs_only_what_is_deep_in_it() {
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
        assert!(scan.unseen[&root.join("a_data")].contains("more than 10 folders"), "{:?}", scan.unseen);
        fs::write(root.join("a_data/.airflowignore"), "# data\ny=*\n!y=1\n").unwrap();
        let scan = super::scan(root, Syntax::Glob, limits, &BTreeMap::new()).unwrap();
        assert_eq!((names(&scan).len(), scan.unseen.len()), (3, 0));
        fs::write(root.join(".airflowignore"), "a_da.a/y\n").unwrap();
        fs::remove_file(root.join("a_data/.airflowignore")).unwrap();
        let scan = super::scan(root, Syntax::Regexp, limits, &BTreeMap::new()).unwrap();
        assert_eq!((names(&scan).len(), scan.unseen.len()), (2, 0));
    }

    #[test]
    fn looks_for_the_two_words() {
        assert!(might_have_dags(b"from airflow.sdk import DAG"));
        assert!(might_have_dags(b"from leoflow import dag"));
        assert!(might_have_dags(b"from airflow.sdk import asset"));
        assert!(!might_have_dags(b"import airflow"));
        assert!(!might_have_dags(b"dag = 1"));
    }
}
