//! What is known about each file: how it was when it was parsed, and on what it depends.

use crate::python::{DagPlaces, Scan, Stamp};
use crate::sys::blocking;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinHandle;

/// So often is a parse ended because something that it reads has changed.
const MOST_RESTARTS: u32 = 3;
/// Parsed again after this, a file is as good as any other.
const CALM: Duration = Duration::from_secs(5);

/// None for the first few times, then longer and longer, up to eight seconds.
fn pause(repeats: u32) -> Duration {
    match repeats {
        0..=3 => Duration::ZERO,
        more => Duration::from_secs(1 << (more - 3).min(3)),
    }
}

/// How files are, by path; `None` is not there.
pub type Stamps = HashMap<PathBuf, Option<Stamp>>;

/// Asks for each, in a thread that is left when it does not answer: it may lie on a mount that hangs.
pub fn stamps(paths: Vec<PathBuf>) -> Stamps {
    if paths.is_empty() {
        return Stamps::new();
    }
    let (sender, found) = mpsc::channel();
    blocking::thread(move || {
        for path in paths {
            let stamp = Stamp::of_path(&path);
            if sender.send((path, stamp)).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + STAMPS_LIMIT;
    let mut stamps = Stamps::new();
    while let Ok((path, stamp)) = found.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        stamps.insert(path, stamp);
    }
    stamps
}

const STAMPS_LIMIT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct FileIndex {
    /// Every Python file of the last look.
    files: BTreeMap<PathBuf, Stamp>,
    /// Which of them may be DAG files.
    places: DagPlaces,
    /// Counts the looks, and tells in which each file was last found changed.
    look: u64,
    changed_in: HashMap<PathBuf, u64>,
    dag_files: HashMap<PathBuf, DagFile>,
    pub workspace_is_missing: bool,
    /// What the last look could not see, and why.
    unseen: BTreeMap<PathBuf, String>,
}

#[derive(Default)]
struct DagFile {
    /// Local modules that it imported and other files that it read, as they were.
    imports: Vec<(PathBuf, Option<Stamp>)>,
    /// Variables or Connections decided about its DAGs.
    asks: bool,
    /// When the parse began that failed, if the last one did: it may succeed when any other file changes.
    failed: Option<SystemTime>,
    /// One of its DAGs belongs to another file.
    conflicts: bool,
    parsing: Option<JoinHandle<()>>,
    /// The look after which that began.
    since: u64,
    /// How the file was when that began.
    stamp: Option<Stamp>,
    /// How often one was ended for another that began, since one has ended by itself.
    restarts: u32,
    /// It was asked for again while one was under way that goes on.
    again: bool,
    /// How the file was when it was last parsed, when that ended, and how often in a row it was parsed
    /// without having changed itself.
    last: Option<(Option<Stamp>, Instant)>,
    repeats: u32,
}

impl Drop for DagFile {
    fn drop(&mut self) {
        if let Some(task) = &self.parsing {
            task.abort();
        }
    }
}

/// What decided about a file's DAGs.
pub struct Read {
    /// The file itself, local modules, other files.
    pub sources: Vec<PathBuf>,
    /// Those of them that it looked for in vain.
    pub absent: Vec<PathBuf>,
    /// Variables or Connections too.
    pub asks: bool,
}

/// What a look has found.
pub struct Change {
    pub to_parse: Vec<PathBuf>,
    /// Whether a file is gone, makes no DAGs any more, or cannot be seen as it could.
    pub removed: bool,
}

impl FileIndex {
    /// Which files may be DAG files, by what a look has seen and what is known of the rest.
    pub fn dag_places(&self, scan: &Scan) -> DagPlaces {
        scan.dag_places.clone().or_as_before(&self.places, &scan.unseen)
    }

    /// The files that are not as they were when they were last looked at, or whose place is another one now.
    pub fn changed(&self, scan: &Scan) -> Vec<PathBuf> {
        let places = self.dag_places(scan);
        let is_new = |(path, stamp): &(&PathBuf, &Stamp)| {
            self.files.get(*path) != Some(*stamp) || places.hold(path) != self.places.hold(path)
        };
        scan.files.iter().filter(is_new).map(|(path, _)| path.clone()).collect()
    }

    /// What files read that no look lists: data, modules elsewhere.
    pub fn outside(&self, scan: &Scan) -> Vec<PathBuf> {
        let imports = self.dag_files.values().flat_map(|file| &file.imports).map(|(path, _)| path);
        let all: HashSet<&PathBuf> = imports.filter(|path| !scan.files.contains_key(*path)).collect();
        all.into_iter().cloned().collect()
    }

    /// Takes a new look for the truth, of which these are the changed files that may have DAGs, and the stamps of
    /// what it does not list. What is in neither did not answer, and is as it was.
    pub fn compare(&mut self, scan: Scan, dag_files: &HashSet<PathBuf>, outside: &Stamps) -> Change {
        let places = self.dag_places(&scan);
        let before_places = std::mem::replace(&mut self.places, places);
        let before = std::mem::replace(&mut self.files, scan.files);
        // What could not be looked at is as it was: nothing is gone that was not seen to be.
        for (path, stamp) in &before {
            if !self.files.contains_key(path) && is_below(path, &scan.unseen) {
                self.files.insert(path.clone(), *stamp);
            }
        }
        let told_otherwise = self.unseen != scan.unseen;
        self.unseen = scan.unseen;
        let is_changed = |(path, stamp): &(&PathBuf, &Stamp)| {
            before.get(*path) != Some(*stamp) || before_places.hold(path) != self.places.hold(path)
        };
        let changed: Vec<&PathBuf> = self.files.iter().filter(is_changed).map(|(path, _)| path).collect();
        self.look += 1;
        for path in &changed {
            self.changed_in.insert((*path).clone(), self.look);
        }
        let gone = before.keys().any(|path| !self.files.contains_key(path));
        let mut change = Change { to_parse: Vec::new(), removed: told_otherwise };
        for path in &changed {
            if dag_files.contains(*path) {
                self.dag_files.entry((*path).clone()).or_default();
                change.to_parse.push((*path).clone());
            } else {
                change.removed |= self.dag_files.remove(*path).is_some();
            }
        }
        let known = self.dag_files.len();
        self.dag_files.retain(|path, _| self.files.contains_key(path));
        change.removed |= self.dag_files.len() < known;
        let something = !changed.is_empty() || gone;
        for (path, file) in &self.dag_files {
            let now = |import: &PathBuf| {
                let listed = self.files.get(import).map(|stamp| Some(*stamp));
                listed.or_else(|| outside.get(import).copied())
            };
            let imports_changed = file.imports.iter().any(|(import, was)| now(import).is_some_and(|now| now != *was));
            let may_heal = something && (file.failed.is_some() || (file.conflicts && change.removed));
            if (imports_changed || may_heal) && !change.to_parse.contains(path) {
                change.to_parse.push(path.clone());
            }
        }
        change.to_parse.sort();
        change
    }

    /// Everything is parsed again at the next look.
    pub fn forget(&mut self) {
        self.files.clear();
    }

    /// Those of them that the last look did not list.
    pub fn unlisted(&self, sources: &[PathBuf]) -> Vec<PathBuf> {
        sources.iter().filter(|source| !self.files.contains_key(*source)).cloned().collect()
    }

    pub fn knows(&self, path: &Path) -> bool {
        self.dag_files.contains_key(path)
    }

    /// How it was at the last look.
    pub fn stamp(&self, path: &Path) -> Option<Stamp> {
        self.files.get(path).copied()
    }

    /// How long to wait before it is parsed: no time, unless it is parsed again and again without
    /// being changed, as one is that itself writes what it imports. `None` when a parse is under way
    /// that should go on: it is done again after it. Ended for every change around it, it would never end.
    pub fn pause_for(&mut self, path: &Path) -> Option<Duration> {
        let stamp = self.files.get(path).copied();
        let Some(file) = self.dag_files.get_mut(path) else { return Some(Duration::ZERO) };
        let is_running = file.parsing.as_ref().is_some_and(|task| !task.is_finished());
        if is_running && file.stamp == stamp {
            if file.restarts >= MOST_RESTARTS || file.repeats > 0 {
                file.again = true;
                return None;
            }
            file.restarts += 1;
        }
        file.stamp = stamp;
        Some(pause(file.repeats))
    }

    /// Since when some file could not be imported, if any could not.
    pub fn failed_since(&self) -> Option<SystemTime> {
        self.dag_files.values().filter_map(|file| file.failed).min()
    }

    /// Those files.
    pub fn failed(&self) -> Vec<PathBuf> {
        self.dag_files.iter().filter(|(_, file)| file.failed.is_some()).map(|(path, _)| path.clone()).collect()
    }

    pub fn unseen(&self) -> &BTreeMap<PathBuf, String> {
        &self.unseen
    }

    pub fn dag_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.dag_files.keys()
    }

    /// An older parse of the same file is ended: it read what is not there any more.
    pub fn is_being_parsed(&mut self, path: PathBuf, task: JoinHandle<()>) {
        if let Some(file) = self.dag_files.get_mut(&path) {
            file.since = self.look;
            if let Some(older) = file.parsing.replace(task) {
                older.abort();
            }
        }
    }

    /// Notes what came out, and of what failed when it began. `false` when a file that it read has changed since it began: then it has
    /// to be done again.
    pub fn was_parsed(&mut self, path: &Path, read: Read, failed: Option<SystemTime>, outside: &Stamps) -> bool {
        let Read { sources, absent, asks } = read;
        let Some(file) = self.dag_files.get_mut(path) else { return true };
        let since = file.since;
        let stamp = file.stamp;
        let repeats = file.last.is_some_and(|(last, at)| last == stamp && at.elapsed() < CALM + pause(file.repeats));
        file.repeats = if repeats { file.repeats + 1 } else { 0 };
        file.last = Some((stamp, Instant::now()));
        file.restarts = 0;
        let asked_again = std::mem::take(&mut file.again);
        let is_fresh = sources.iter().all(|source| self.changed_in.get(source).is_none_or(|look| *look <= since));
        file.failed = failed;
        file.asks = asks;
        file.imports = sources
            .into_iter()
            .filter(|source| source != path)
            .map(|source| {
                let listed = || self.files.get(&source).or(outside.get(&source).and_then(Option::as_ref)).copied();
                let stamp = if absent.contains(&source) { None } else { listed() };
                (source, stamp)
            })
            .collect();
        is_fresh && !asked_again
    }

    /// Files whose DAGs may be others now that a Variable or Connection is.
    pub fn askers(&self) -> Vec<PathBuf> {
        self.dag_files.iter().filter(|(_, file)| file.asks).map(|(path, _)| path.clone()).collect()
    }

    pub fn set_conflicts(&mut self, path: &Path, conflicts: bool) {
        if let Some(file) = self.dag_files.get_mut(path) {
            file.conflicts = conflicts;
        }
    }

    /// Files that were refused a DAG because another file has it.
    pub fn conflicting(&self, but: &Path) -> Vec<PathBuf> {
        self.dag_files
            .iter()
            .filter(|(path, file)| file.conflicts && *path != but)
            .map(|(path, _)| path.clone())
            .collect()
    }
}

fn is_below(path: &Path, folders: &BTreeMap<PathBuf, String>) -> bool {
    path.ancestors().any(|above| folders.contains_key(above))
}

#[cfg(test)]
#[path = "file_index_tests.rs"]
mod tests;
