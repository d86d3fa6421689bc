//! Index of the workspace's Python files: their state when last parsed, and their dependencies.

use leoflow_base::sys::blocking;
use leoflow_python::{DagPlaces, Scan, Stamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinHandle;

/// Maximum restarts of a running parse, because its inputs changed or another one was requested.
const MAX_RESTARTS: u32 = 3;
/// A file that is parsed again within this time after its last parse counts as parsed repeatedly.
const REPEAT_WINDOW: Duration = Duration::from_secs(5);

/// Returns the delay before the n-th repetition of a parse: none for the first three, then 2, 4 and at most 8 seconds.
fn pause_before_repeat(repeat_count: u32) -> Duration {
    match repeat_count {
        0..=3 => Duration::ZERO,
        count => Duration::from_secs(1 << (count - 3).min(3)),
    }
}

/// Stamps by path; `None` for a missing file.
pub type Stamps = HashMap<PathBuf, Option<Stamp>>;

/// Reads the stamps in a thread that is abandoned when it does not answer: a path may be on a hanging mount.
pub fn stamps(paths: Vec<PathBuf>) -> Stamps {
    if paths.is_empty() {
        return Stamps::new();
    }
    let (sender, receiver) = mpsc::channel();
    blocking::thread(move || {
        for path in paths {
            let stamp = Stamp::of_path(&path);
            if sender.send((path, stamp)).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + STAMPS_TIMEOUT;
    let mut stamps = Stamps::new();
    while let Ok((path, stamp)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        stamps.insert(path, stamp);
    }
    stamps
}

/// Time limit for reading stamps; `stamps` leaves out the files that take longer.
const STAMPS_TIMEOUT: Duration = Duration::from_secs(5);

/// The Python files of the workspace, and the DAG files among them.
#[derive(Default)]
pub struct FileIndex {
    /// Every Python file of the last scan.
    files: BTreeMap<PathBuf, Stamp>,
    /// Where DAG files may be, as of the last scan.
    places: DagPlaces,
    /// Number of the last scan.
    scan_number: u64,
    /// Number of the scan in which each file last changed.
    changed_in: HashMap<PathBuf, u64>,
    dag_files: HashMap<PathBuf, DagFile>,
    pub workspace_is_missing: bool,
    /// Folders that the last scan could not read, with reasons.
    unscanned: BTreeMap<PathBuf, String>,
    /// Number of the last parse of any file.
    parse_number: u64,
}

/// A DAG file, the inputs of its last parse, and its parses.
#[derive(Default)]
struct DagFile {
    /// Imported local modules and other files read by the last parse, with their stamps.
    imports: Vec<(PathBuf, Option<Stamp>)>,
    /// True when Variables or Connections affect its DAGs.
    uses_store: bool,
    /// When the last parse started, if it failed. The next one may succeed after a change of any other file.
    failed: Option<SystemTime>,
    dag_owner: DagOwner,
    /// The current or last parse, and its number.
    parsing: Option<JoinHandle<()>>,
    parse_number: u64,
    /// True from the start of a parse until a current result is recorded.
    is_pending: bool,
    /// Number of the last scan before the current parse started.
    started_in: u64,
    /// Stamp of the file when the current parse started.
    stamp: Option<Stamp>,
    /// Parses replaced by a newer one since the last completed parse.
    restarts: u32,
    /// True when a parse was requested that must wait until the current one is complete.
    must_repeat: bool,
    /// Stamp of the file in the last complete parse, and when that parse ended.
    last_parse: Option<(Option<Stamp>, Instant)>,
    /// Number of consecutive parses without a change of the file itself.
    repeat_count: u32,
    /// Number of consecutive parses whose inputs changed meanwhile.
    outdated_count: u32,
}

/// The file that owns the DAGs which a file defines: the first one that defined them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DagOwner {
    #[default]
    ThisFile,
    /// Another file owns at least one of them.
    OtherFile,
}

impl Drop for DagFile {
    fn drop(&mut self) {
        if let Some(task) = &self.parsing {
            task.abort();
        }
    }
}

/// The inputs of a parse.
pub struct ParseInputs {
    /// The file itself, local modules, and other files.
    pub sources: Vec<PathBuf>,
    /// The sources that do not exist.
    pub absent: Vec<PathBuf>,
    /// True when Variables or Connections were read.
    pub uses_store: bool,
    /// True when an input changed after it was read, as far as the caller knows.
    pub have_changed: bool,
}

/// The changes that a scan found.
pub struct Change {
    pub to_parse: Vec<PathBuf>,
    /// True when a file was removed, no longer defines DAGs, or became unreadable or readable.
    pub removed: bool,
}

impl FileIndex {
    /// Returns where DAG files may be. In folders that the scan could not read, the places of earlier scans remain.
    pub fn dag_places(&self, scan: &Scan) -> DagPlaces {
        scan.dag_places.clone().keep_unseen(&self.places, &scan.unscanned)
    }

    /// Returns files whose stamp changed, or whose status as a possible DAG file changed.
    pub fn changed(&self, scan: &Scan) -> Vec<PathBuf> {
        let places = self.dag_places(scan);
        let is_new = |(path, stamp): &(&PathBuf, &Stamp)| {
            self.files.get(*path) != Some(*stamp) || places.allows(path) != self.places.allows(path)
        };
        scan.files.iter().filter(is_new).map(|(path, _)| path.clone()).collect()
    }

    /// Returns files that DAG files read and the scan does not list, such as data and modules outside the workspace.
    pub fn outside(&self, scan: &Scan) -> Vec<PathBuf> {
        let imports = self.dag_files.values().flat_map(|file| &file.imports).map(|(path, _)| path);
        let all: HashSet<&PathBuf> = imports.filter(|path| !scan.files.contains_key(*path)).collect();
        all.into_iter().cloned().collect()
    }

    /// Keeps the files of unreadable folders, which count as unchanged: a file is gone only if its absence was seen.
    fn keep_unseen(&mut self, old_files: &BTreeMap<PathBuf, Stamp>, unscanned: &BTreeMap<PathBuf, String>) {
        for (path, stamp) in old_files {
            if !self.files.contains_key(path) && is_below(path, unscanned) {
                self.files.insert(path.clone(), *stamp);
            }
        }
    }

    /// Applies a scan. `dag_files` are the changed files that may define DAGs, `outside` the stamps of unlisted files.
    /// An unlisted file without a stamp counts as unchanged, because reading its stamp timed out.
    pub fn apply(&mut self, scan: Scan, dag_files: &HashSet<PathBuf>, outside: &Stamps) -> Change {
        let places = self.dag_places(&scan);
        let before_places = std::mem::replace(&mut self.places, places);
        let old_files = std::mem::replace(&mut self.files, scan.files);
        self.keep_unseen(&old_files, &scan.unscanned);
        let unscanned_changed = self.unscanned != scan.unscanned;
        self.unscanned = scan.unscanned;
        let is_changed = |(path, stamp): &(&PathBuf, &Stamp)| {
            old_files.get(*path) != Some(*stamp) || before_places.allows(path) != self.places.allows(path)
        };
        let changed: Vec<&PathBuf> = self.files.iter().filter(is_changed).map(|(path, _)| path).collect();
        self.scan_number += 1;
        for path in &changed {
            self.changed_in.insert((*path).clone(), self.scan_number);
        }
        let any_removed = old_files.keys().any(|path| !self.files.contains_key(path));
        let mut change = Change { to_parse: Vec::new(), removed: unscanned_changed };
        for path in &changed {
            if dag_files.contains(*path) {
                self.dag_files.entry((*path).clone()).or_default();
                change.to_parse.push((*path).clone());
            } else {
                change.removed |= self.dag_files.remove(*path).is_some();
            }
        }
        let count_before = self.dag_files.len();
        self.dag_files.retain(|path, _| self.files.contains_key(path));
        change.removed |= self.dag_files.len() < count_before;
        let any_change = !changed.is_empty() || any_removed;
        for (path, file) in &self.dag_files {
            let current_stamp = |import: &PathBuf| {
                let listed = self.files.get(import).map(|stamp| Some(*stamp));
                listed.or_else(|| outside.get(import).copied())
            };
            let imports_changed = file
                .imports
                .iter()
                .any(|(import, old_stamp)| current_stamp(import).is_some_and(|current| current != *old_stamp));
            let may_succeed =
                any_change && (file.failed.is_some() || (file.dag_owner == DagOwner::OtherFile && change.removed));
            if (imports_changed || may_succeed) && !change.to_parse.contains(path) {
                change.to_parse.push(path.clone());
            }
        }
        change.to_parse.sort();
        change
    }

    /// Forgets all stamps, so that every DAG file is parsed again after the next scan.
    pub fn forget(&mut self) {
        self.files.clear();
    }

    /// Returns the sources that the last scan did not list.
    pub fn unlisted(&self, sources: &[PathBuf]) -> Vec<PathBuf> {
        sources.iter().filter(|source| !self.files.contains_key(*source)).cloned().collect()
    }

    pub fn knows(&self, path: &Path) -> bool {
        self.dag_files.contains_key(path)
    }

    /// Returns the stamp of the file in the last scan.
    pub fn stamp(&self, path: &Path) -> Option<Stamp> {
        self.files.get(path).copied()
    }

    /// Returns how long to wait before parsing a file. There is no wait unless the file is parsed repeatedly without a
    /// change of its own, such as a file that writes a module that it imports. `None` means that the current parse must
    /// complete first and is then repeated: if every change of an input restarted it, it might never complete.
    pub fn pause_for(&mut self, path: &Path) -> Option<Duration> {
        let stamp = self.files.get(path).copied();
        let Some(file) = self.dag_files.get_mut(path) else { return Some(Duration::ZERO) };
        let is_running = file.parsing.as_ref().is_some_and(|task| !task.is_finished());
        if is_running && file.stamp == stamp {
            if file.restarts >= MAX_RESTARTS || file.repeat_count > 0 {
                file.must_repeat = true;
                return None;
            }
            file.restarts += 1;
        }
        file.stamp = stamp;
        Some(pause_before_repeat(file.repeat_count))
    }

    /// Returns when the oldest of the failed parses started; `None` when none failed.
    pub fn failed_since(&self) -> Option<SystemTime> {
        self.dag_files.values().filter_map(|file| file.failed).min()
    }

    /// Returns the files whose last parse failed.
    pub fn failed(&self) -> Vec<PathBuf> {
        self.dag_files.iter().filter(|(_, file)| file.failed.is_some()).map(|(path, _)| path.clone()).collect()
    }

    pub fn unscanned(&self) -> &BTreeMap<PathBuf, String> {
        &self.unscanned
    }

    pub fn dag_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.dag_files.keys()
    }

    /// Returns the number of a new parse.
    pub fn next_parse_number(&mut self) -> u64 {
        self.parse_number += 1;
        self.parse_number
    }

    /// Registers a parse and aborts an older one of the same file.
    pub fn set_parsing(&mut self, path: PathBuf, number: u64, task: JoinHandle<()>) {
        if let Some(file) = self.dag_files.get_mut(&path) {
            file.started_in = self.scan_number;
            file.parse_number = number;
            file.is_pending = true;
            if let Some(older) = file.parsing.replace(task) {
                older.abort();
            }
        }
    }

    /// True if no newer parse of the file has started. An older one may have sent its result before it was aborted.
    pub fn is_newest_parse(&self, path: &Path, number: u64) -> bool {
        self.dag_files.get(path).is_some_and(|file| file.parse_number == number)
    }

    /// True while the file is being parsed, and until its result is recorded.
    pub fn is_pending(&self, path: &Path) -> bool {
        self.dag_files.get(path).is_some_and(|file| file.is_pending)
    }

    /// Records the result of a parse; `failed` is when it started, if it failed. Returns `false` when the parse must be
    /// repeated, because a source changed after it started or because it was requested again.
    pub fn record_parse(
        &mut self,
        path: &Path,
        inputs: ParseInputs,
        failed: Option<SystemTime>,
        outside: &Stamps,
    ) -> bool {
        let ParseInputs { sources, absent, uses_store, have_changed } = inputs;
        let Some(file) = self.dag_files.get_mut(path) else { return true };
        let started_in = file.started_in;
        let stamp = file.stamp;
        let is_repeat = file.last_parse.is_some_and(|(last_stamp, ended_at)| {
            last_stamp == stamp && ended_at.elapsed() < REPEAT_WINDOW + pause_before_repeat(file.repeat_count)
        });
        file.repeat_count = if is_repeat { file.repeat_count + 1 } else { 0 };
        file.last_parse = Some((stamp, Instant::now()));
        file.restarts = 0;
        let was_requested = std::mem::take(&mut file.must_repeat);
        let is_fresh = sources
            .iter()
            .all(|source| self.changed_in.get(source).is_none_or(|scan_number| *scan_number <= started_in));
        file.failed = failed;
        file.uses_store = uses_store;
        file.imports = sources
            .into_iter()
            .filter(|source| source != path)
            .map(|source| {
                let listed = || self.files.get(&source).or(outside.get(&source).and_then(Option::as_ref)).copied();
                let stamp = if absent.contains(&source) { None } else { listed() };
                (source, stamp)
            })
            .collect();
        let is_current = is_fresh && !have_changed && !was_requested;
        file.is_pending = !is_current;
        file.outdated_count = if is_current { 0 } else { file.outdated_count + 1 };
        is_current
    }

    /// True if the inputs of the last parses changed during each of them.
    pub fn is_always_outdated(&self, path: &Path) -> bool {
        self.dag_files.get(path).is_some_and(|file| file.outdated_count > 1)
    }

    /// Returns the files whose DAGs may depend on Variables or Connections.
    pub fn files_using_store(&self) -> Vec<PathBuf> {
        self.dag_files.iter().filter(|(_, file)| file.uses_store).map(|(path, _)| path.clone()).collect()
    }

    pub fn set_dag_owner(&mut self, path: &Path, owner: DagOwner) {
        if let Some(file) = self.dag_files.get_mut(path) {
            file.dag_owner = owner;
        }
    }

    /// Returns the files, apart from `except`, that define a DAG which another file owns.
    pub fn conflicting(&self, except: &Path) -> Vec<PathBuf> {
        self.dag_files
            .iter()
            .filter(|(path, file)| file.dag_owner == DagOwner::OtherFile && *path != except)
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
