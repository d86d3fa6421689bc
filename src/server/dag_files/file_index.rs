//! Index of the workspace's Python files: their state when last parsed, and their dependencies.

use super::dag_file::{DagFile, DagOwner, Outcome, Work};
use super::parse_file::Parsed;
use super::stamps::Stamps;
use crate::dag_code::slot_policy::{Priority, Recency};
use leoflow_python::{DagPlaces, Scan, Stamp, Unscanned, is_data};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

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
    /// Folders that the last scan could not read.
    unscanned: BTreeMap<PathBuf, Unscanned>,
    /// Number of the last parse of any file.
    parse_number: u64,
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

/// How many of the DAG files wait for their import or are being imported.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportProgress {
    pub remaining: usize,
    pub total: usize,
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
    fn keep_unseen(&mut self, old_files: &BTreeMap<PathBuf, Stamp>, unscanned: &BTreeMap<PathBuf, Unscanned>) {
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
                self.dag_files.entry((*path).clone()).or_default().changed_in = self.scan_number;
                change.to_parse.push((*path).clone());
            } else {
                change.removed |= self.dag_files.remove(*path).is_some();
            }
        }
        let count_before = self.dag_files.len();
        self.dag_files.retain(|path, _| self.files.contains_key(path));
        change.removed |= self.dag_files.len() < count_before;
        let matters =
            |path: &&PathBuf| !is_data(path) || self.dag_files.contains_key(*path) || dag_files.contains(*path);
        let any_change = changed.iter().any(matters) || any_removed;
        for (path, file) in &mut self.dag_files {
            let current_stamp = |import: &PathBuf| {
                let listed = self.files.get(import).map(|stamp| Some(*stamp));
                listed.or_else(|| outside.get(import).copied())
            };
            let imports_changed = file
                .imports
                .iter()
                .any(|(import, old_stamp)| current_stamp(import).is_some_and(|current| current != *old_stamp));
            if imports_changed {
                file.changed_in = self.scan_number;
            }
            let may_succeed =
                any_change && (file.failed_since().is_some() || (file.has_other_owner() && change.removed));
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

    /// Gives the files the priority of a change that a scan notices now.
    pub fn set_changed(&mut self, paths: &[PathBuf]) {
        self.scan_number += 1;
        for path in paths {
            self.dag_files.get_mut(path).into_iter().for_each(|file| file.changed_in = self.scan_number);
        }
    }

    /// Returns the priority of the file's next parse and how long to wait before it; `None` for an unknown file, and if
    /// the current parse must complete first. A retry has the priority of the last change, not of one made now: a user
    /// who saves one file does not wait for all those that failed.
    pub fn next_parse(&mut self, path: &Path) -> Option<(Priority, Duration)> {
        let stamp = self.stamp(path);
        let file = self.dag_files.get_mut(path)?;
        let recency =
            Recency { scan: file.changed_in, modified: stamp.map(|stamp| stamp.modified()).unwrap_or_default() };
        Some((Priority { pace: file.pace(), recency }, file.pause_before_parse(stamp)?))
    }

    /// Returns the number of a new parse.
    pub fn next_parse_number(&mut self) -> u64 {
        self.parse_number += 1;
        self.parse_number
    }

    /// Registers a parse and aborts an older one of the same file.
    pub fn set_parsing(&mut self, path: &Path, number: u64, task: JoinHandle<()>) {
        let stamp = self.stamp(path);
        if let Some(file) = self.dag_files.get_mut(path) {
            file.start(number, task, self.scan_number, stamp);
        }
    }

    /// Ends a parse and records its inputs. Returns `false` when the parse must be repeated, because a source changed
    /// after it started or because it was requested again.
    pub fn end_parse(&mut self, path: &Path, inputs: ParseInputs, outside: &Stamps) -> bool {
        let ParseInputs { sources, absent, uses_store, have_changed } = inputs;
        let Some(file) = self.dag_files.get_mut(path) else { return true };
        let is_unchanged_since =
            |scan: u64| sources.iter().all(|source| self.changed_in.get(source).is_none_or(|changed| *changed <= scan));
        let is_current = file.end_parse(|scan| !have_changed && is_unchanged_since(scan), Instant::now());
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
        is_current
    }

    /// Records the result of a parse that ended. Returns the delay until the retry of a transient failure.
    pub fn record(&mut self, parsed: &Parsed) -> Option<Duration> {
        let stamp = self.stamp(&parsed.path);
        self.dag_files.get_mut(&parsed.path)?.record(parsed, stamp, Instant::now())
    }

    /// Records that a result is in the datastore, and who owns the file's DAGs if it was imported.
    pub fn set_owner(&mut self, path: &Path, owner: DagOwner) {
        if let Some(file) = self.dag_files.get_mut(path)
            && let Outcome::Imported(current) = &mut file.outcome
        {
            *current = owner;
        }
    }

    /// Keeps a result that could not be written to the datastore.
    pub fn set_unsaved(&mut self, parsed: Parsed) {
        if let Some(file) = self.dag_files.get_mut(&parsed.path) {
            file.work = Work::Unsaved(Box::new(parsed));
        }
    }

    pub fn has_unsaved(&self) -> bool {
        self.dag_files.values().any(|file| matches!(file.work, Work::Unsaved(_)))
    }

    /// Takes the results that could not be written, in the order of the parses: the first file that defines a DAG owns it.
    pub fn take_unsaved(&mut self) -> Vec<Parsed> {
        let mut unsaved: Vec<_> =
            self.dag_files.values_mut().filter_map(DagFile::take_unsaved).map(|parsed| *parsed).collect();
        unsaved.sort_by_key(|parsed| parsed.number);
        unsaved
    }

    /// Returns the file if it exists.
    pub fn get(&self, path: &Path) -> Option<&DagFile> {
        self.dag_files.get(path)
    }

    /// Returns the files for which `is_selected` returns true.
    pub fn select(&self, is_selected: impl Fn(&DagFile) -> bool) -> Vec<PathBuf> {
        self.dag_files.iter().filter(|(_, file)| is_selected(file)).map(|(path, _)| path.clone()).collect()
    }

    /// Returns the files, apart from `except`, that define a DAG which another file owns.
    pub fn conflicting(&self, except: &Path) -> Vec<PathBuf> {
        let mut paths = self.select(DagFile::has_other_owner);
        paths.retain(|path| path != except);
        paths
    }

    /// Returns when the oldest of the failed parses started; `None` when none failed.
    pub fn failed_since(&self) -> Option<SystemTime> {
        self.dag_files.values().filter_map(DagFile::failed_since).min()
    }

    /// Returns when the next retry is due; `None` when none is waiting.
    pub fn next_retry(&self) -> Option<Instant> {
        self.dag_files.values().filter_map(DagFile::retry_due).min()
    }

    /// Adds files to those of the server's start.
    pub fn add_initial(&mut self, paths: &[PathBuf]) {
        for path in paths {
            self.dag_files.get_mut(path).into_iter().for_each(|file| file.is_initial = true);
        }
    }

    /// Removes a file from those of the server's start. Returns false if it was none of them.
    pub fn finish_initial(&mut self, path: &Path) -> bool {
        self.dag_files.get_mut(path).is_some_and(|file| std::mem::take(&mut file.is_initial))
    }

    /// Returns the number of files of the server's start that are not parsed yet.
    pub fn initial_count(&self) -> usize {
        self.dag_files.values().filter(|file| file.is_initial).count()
    }

    pub fn progress(&self) -> ImportProgress {
        let is_parsing = |file: &&DagFile| matches!(file.work, Work::Parsing(_));
        ImportProgress { remaining: self.dag_files.values().filter(is_parsing).count(), total: self.dag_files.len() }
    }

    pub fn unscanned(&self) -> &BTreeMap<PathBuf, Unscanned> {
        &self.unscanned
    }

    /// Returns the folders that did not answer in the last scan.
    pub fn hanging(&self) -> BTreeMap<PathBuf, Unscanned> {
        let hangs = |(_, reason): &(&PathBuf, &Unscanned)| matches!(reason, Unscanned::NoAnswer(_));
        self.unscanned.iter().filter(hangs).map(|(path, reason)| (path.clone(), reason.clone())).collect()
    }

    pub fn dag_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.dag_files.keys()
    }
}

fn is_below(path: &Path, folders: &BTreeMap<PathBuf, Unscanned>) -> bool {
    path.ancestors().any(|above| folders.contains_key(above))
}

#[cfg(test)]
#[path = "file_index_tests.rs"]
mod tests;
