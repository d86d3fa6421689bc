//! What is in a workspace: its Python files, and the folders to watch.

use crate::config::project;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

    fn of(meta: &Metadata) -> Self {
        Self { modified: (meta.mtime(), meta.mtime_nsec()), size: meta.size(), inode: meta.ino() }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Every Python file, DAGs or not, and the settings of projects.
    pub files: BTreeMap<PathBuf, Stamp>,
    /// Those to watch: the ones looked into, and those that linked files are in.
    pub folders: Vec<PathBuf>,
}

/// More are not looked into: something that is no project got into the workspace.
const MOST_FOLDERS: usize = 5_000;

/// Looks through the workspace. Hidden folders, virtual environments, installed packages and caches
/// are nobody's DAGs. Links are followed, each folder is looked into once.
pub fn scan(workspace: &Path) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut seen = HashSet::new();
    let mut waiting = vec![workspace.to_owned()];
    let mut linked = BTreeSet::new();
    while let Some(folder) = waiting.pop() {
        let is_root = folder == workspace;
        let meta = match fs::metadata(&folder) {
            Ok(meta) => meta,
            Err(error) if is_root => return Err(error),
            Err(_) => continue,
        };
        if !seen.insert((meta.dev(), meta.ino())) || scan.folders.len() >= MOST_FOLDERS {
            continue;
        }
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if is_root => return Err(error),
            // One that may not be read, or that is gone by now.
            Err(_) => continue,
        };
        scan.folders.push(folder);
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = entry.path();
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_dir() {
                if !is_skipped(&name, &path) {
                    waiting.push(path);
                }
            } else if meta.is_file() && is_of_interest(&name) {
                // What a link leads to changes where it is.
                if entry.file_type().is_ok_and(|kind| kind.is_symlink())
                    && let Some(folder) =
                        path.canonicalize().ok().and_then(|target| target.parent().map(Path::to_owned))
                {
                    linked.insert(folder);
                }
                scan.files.insert(path, Stamp::of(&meta));
            }
        }
    }
    let known: HashSet<PathBuf> = scan.folders.iter().cloned().collect();
    scan.folders.extend(linked.into_iter().filter(|folder| !known.contains(folder)));
    Ok(scan)
}

/// Python files, and the settings of projects.
fn is_of_interest(name: &str) -> bool {
    name.ends_with(".py") && !name.starts_with('.') || name == project::FILE
}

fn is_skipped(name: &str, path: &Path) -> bool {
    name.starts_with('.')
        || ["__pycache__", "node_modules", "site-packages"].contains(&name)
        || path.join("pyvenv.cfg").exists()
}

/// The Python files of a folder and of those below it.
pub fn python_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(scan(folder)?.files.into_keys().filter(|path| path.extension().is_some_and(|end| end == "py")).collect())
}

/// Larger files are data, whatever they are called.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// Whether a file is worth importing: it can be read, and speaks of DAGs.
pub fn is_dag_file(path: &Path) -> bool {
    let small = path.extension().is_some_and(|end| end == "py")
        && fs::metadata(path).is_ok_and(|meta| meta.len() <= LARGEST_FILE);
    small && fs::read(path).is_ok_and(|text| might_have_dags(&text))
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
        let scan = scan(root).unwrap();
        let found: Vec<_> = scan.files.keys().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap()).collect();
        assert_eq!(found, ["a.py", "p/dag.py", "p/lib/x.py"]);
        assert_eq!(scan.folders.len(), 3);
        assert!(super::scan(&root.join("nowhere")).is_err());
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
