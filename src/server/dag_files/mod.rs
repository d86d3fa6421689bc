//! The DAG files of the workspace: found, parsed when they or what they import change, and kept in
//! the datastore.

pub mod asked;
mod file_index;
mod one_file;
mod packages;
mod tries;
mod watch;

use super::child_slots::ChildSlots;
use super::state::AppState;
use crate::engine::dag_check;
use crate::engine::store::StoreError;
use crate::engine::store::dags::{self, ParsedDags, ParsedFile, Saved};
use crate::python::{Children, Found, LIMITS, NO_ANSWER, NoResult, Scan, Syntax, is_dag_file, scan};
use crate::sys::{blocking, clock};
use file_index::{FileIndex, Read, stamps};
use one_file::{Parsed, Shared, parse_one};
use packages::{Change, Packages};
use serde_json::Map;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;
use tracing::{debug, warn};
use tries::Tries;
use watch::{Folders, watch};

/// The longest that anybody waits for the files that are there at the start.
const FIRST_LOOK: Duration = Duration::from_millis(1500);
/// Until what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Until what could not be looked at is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub async fn run(state: Arc<AppState>, workspace: PathBuf, children: Rc<Children>, slots: Rc<ChildSlots>) {
    let (sender, results) = unbounded_channel();
    let shared = Shared { state: state.clone(), workspace, children, slots, results: sender };
    DagFileLoop {
        state,
        shared: Rc::new(shared),
        results,
        index: FileIndex::default(),
        tries: Tries::default(),
        hanging: BTreeMap::new(),
        unsaved: Vec::new(),
        swept: false,
        first: HashSet::new(),
        waiting: HashSet::new(),
    }
    .run()
    .await;
}

struct DagFileLoop {
    state: Arc<AppState>,
    shared: Rc<Shared>,
    results: UnboundedReceiver<Parsed>,
    index: FileIndex,
    tries: Tries,
    /// Projects that did not answer when they were last looked at.
    hanging: BTreeMap<PathBuf, String>,
    unsaved: Vec<Parsed>,
    /// Whether the datastore has been told which files there are.
    swept: bool,
    /// Files that were there at the start and have not been parsed yet.
    first: HashSet<PathBuf>,
    /// Files whose environment is being built.
    waiting: HashSet<PathBuf>,
}

impl DagFileLoop {
    async fn run(mut self) {
        let state = self.state.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(FIRST_LOOK).await;
            state.first_look.send_replace(true);
        });
        let mut packages = Packages::new(self.state.clone());
        let (mut folders, mut changes) = watch();
        let mut look = true;
        let mut look_again = Instant::now() + LOOK_AGAIN;
        loop {
            if look {
                let (then, again) = self.look(folders).await;
                folders = then;
                if again {
                    changes.expect_one();
                }
            }
            look = false;
            let again = !self.unsaved.is_empty() || !self.swept;
            let is_partly_unseen = !self.index.unseen().is_empty();
            let next_try = self.tries.next();
            tokio::select! {
                () = changes.next(folders.are_complete()) => look = true,
                () = self.state.store_changed.notified() => {
                    for path in self.index.askers() {
                        self.parse(path);
                    }
                }
                () = self.state.environments.changed.notified() => {
                    self.waiting.extend(self.state.environments.take_outdated());
                    for path in std::mem::take(&mut self.waiting) {
                        self.parse(path);
                    }
                }
                files = self.state.asked_files.take() => files.into_iter().for_each(|file| self.parse(file)),
                () = self.state.dag_deleted.notified() => {
                    self.index.forget();
                    look = true;
                }
                // What could not be imported without them may be now.
                change = packages.changed(self.index.failed_since()) => match change {
                    Change::Ours => {
                        self.index.forget();
                        look = true;
                    }
                    Change::Theirs => self.index.failed().into_iter().for_each(|path| self.parse(path)),
                },
                Some(parsed) = self.results.recv() => self.save(parsed).await,
                () = tokio::time::sleep(RETRY), if again => self.save_again().await,
                () = tokio::time::sleep_until(next_try.unwrap_or_else(Instant::now)), if next_try.is_some() => {
                    self.tries.due(Instant::now()).into_iter().for_each(|path| self.parse(path));
                }
                // Nobody tells when a mount answers again.
                () = tokio::time::sleep_until(look_again), if is_partly_unseen => {
                    look_again = Instant::now() + LOOK_AGAIN;
                    self.hanging.clear();
                    look = true;
                }
            }
        }
    }

    /// Looks through the workspace and begins to parse what is not as it was. Gives the folders back, and whether
    /// it has to look again at once, because it looked into one that nobody told about yet.
    async fn look(&mut self, mut folders: Folders) -> (Folders, bool) {
        let workspace = self.shared.workspace.clone();
        let avoid = self.hanging.clone();
        let looked = blocking::run(move || {
            let scan = scan(&workspace, Syntax::from_environment(), LIMITS, &avoid);
            // Watched before the files are read: what changes from here on is seen.
            let has_new = folders.set(scan.as_ref().map_or(&[], |scan| &scan.folders));
            (folders, scan, has_new)
        });
        match looked.await {
            Ok((folders, Ok(scan), has_new)) => {
                let before = self.hanging.len();
                self.take(scan).await;
                // Without what hangs the next look may see all.
                (folders, has_new || self.hanging.len() > before)
            }
            Ok((folders, Err(error), _)) => {
                if !self.index.workspace_is_missing {
                    warn!("the workspace {} cannot be read: {error}", self.shared.workspace.display());
                }
                // What it had stays as it is until it can be read again.
                self.index.workspace_is_missing = true;
                (folders, false)
            }
            // Looking has panicked: from now on it looks again and again.
            Err(error) => {
                warn!("the workspace could not be looked through: {error}");
                (Folders::none(), false)
            }
        }
    }

    /// Begins to parse what is not as it was.
    async fn take(&mut self, scan: Scan) {
        self.index.workspace_is_missing = false;
        for (path, reason) in scan.unseen.iter().filter(|(path, _)| !self.index.unseen().contains_key(*path)) {
            warn!("{} was not looked through whole: {reason}", path.display());
        }
        let hangs = |(_, reason): &(&PathBuf, &String)| reason.starts_with(NO_ANSWER);
        let hanging: BTreeMap<_, _> =
            scan.unseen.iter().filter(hangs).map(|(path, why)| (path.clone(), why.clone())).collect();
        self.hanging = hanging;
        let (changed, outside) = (self.index.changed(&scan), self.index.outside(&scan));
        let places = self.index.dag_places(&scan);
        let read = move || {
            let may_be = |path: &PathBuf| places.hold(path) && is_dag_file(path);
            let dag_files: HashSet<PathBuf> = changed.into_iter().filter(may_be).collect();
            (dag_files, stamps(outside))
        };
        let Ok((dag_files, outside)) = blocking::run(read).await else { return };
        let change = self.index.compare(scan, &dag_files, &outside);
        self.swept &= !change.removed;
        if change.removed {
            self.state.environments.keep_only(|file| self.index.knows(file));
            self.waiting.retain(|file| self.index.knows(file));
            self.tries.keep_only(|file| self.index.knows(file));
        }
        if !*self.state.first_look.borrow() {
            self.first.extend(change.to_parse.iter().cloned());
            if self.first.is_empty() {
                self.state.first_look.send_replace(true);
            }
        }
        for path in change.to_parse {
            self.parse(path);
        }
        if !self.swept {
            self.sweep().await;
        }
    }

    /// Tells the datastore which files there are.
    async fn sweep(&mut self) {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let placed = |path: &Path| (text(path), relative_to(&self.shared.workspace, path));
        let files: Vec<(String, String)> = self.index.dag_files().map(|path| placed(path)).collect();
        let unseen: Vec<(String, String)> =
            self.index.unseen().iter().map(|(path, reason)| (text(path), reason.clone())).collect();
        let swept = async {
            let mut client = self.state.database.get().await.map_err(|error| error.message())?;
            let transaction = client.transaction().await.map_err(|error| error.to_string())?;
            dags::keep_only(&transaction, &files, &unseen).await.map_err(|error| error.to_string())?;
            transaction.commit().await.map_err(|error| error.to_string())
        };
        match swept.await {
            Ok(()) => self.swept = true,
            Err(error) => warn!("which DAG files there are cannot be written: {error}; trying again"),
        }
    }

    async fn save_again(&mut self) {
        if !self.swept {
            self.sweep().await;
        }
        for parsed in std::mem::take(&mut self.unsaved) {
            self.save(parsed).await;
        }
    }

    fn parse(&mut self, path: PathBuf) {
        self.tries.begins(&path);
        let Some(pause) = self.index.pause_for(&path) else { return };
        let (shared, file, socket) = (self.shared.clone(), path.clone(), self.state.own_socket());
        let pace = self.tries.pace(&path);
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            parse_one(shared, file, pace, socket).await;
        });
        self.index.is_being_parsed(path, task);
    }

    async fn save(&mut self, mut parsed: Parsed) {
        // What could not be written before is older than this.
        self.unsaved.retain(|other| other.path != parsed.path);
        if !self.index.knows(&parsed.path) {
            // Gone, or no DAG file any more, since it was parsed.
            return self.state.environments.wants_none(&parsed.path);
        }
        let mut sources: Vec<PathBuf> =
            parsed.found.iter().flat_map(|found| found.sources.keys().map(PathBuf::from)).collect();
        sources.extend(parsed.found.iter().flat_map(|found| found.reads.iter().cloned()));
        // There or not: both may change.
        sources.extend(parsed.beside.keys().cloned());
        let asks = parsed.found.as_ref().is_ok_and(|found| found.asks);
        let absent = parsed.found.iter().flat_map(|found| found.absent.iter().cloned()).collect();
        let has_failed = parsed.found.as_ref().map_or(true, |found| found.error.is_some());
        let failed = has_failed.then_some(parsed.began);
        let unlisted = self.index.unlisted(&sources);
        let mut outside = blocking::run(move || stamps(unlisted)).await.unwrap_or_default();
        outside.extend(parsed.beside.iter().map(|(path, stamp)| (path.clone(), *stamp)));
        if !self.index.was_parsed(&parsed.path, Read { sources, absent, asks }, failed, &outside) {
            return self.parse(parsed.path);
        }
        // What failed for want of an environment is looked at again when there is another.
        if parsed.waits || has_failed && parsed.environment.is_none() {
            self.waiting.insert(parsed.path.clone());
        }
        if parsed.waits {
            // What it had stays as it is.
            self.is_done_at_first(&parsed.path);
            if !self.state.environments.will_tell(&parsed.path) {
                // It was done before this was heard, and nobody tells again.
                self.parse(parsed.path);
            }
            return;
        }
        self.note_try(&mut parsed);
        match self.try_save(&parsed).await {
            Ok(saved) => {
                debug!(
                    "{} was parsed in {} ms: {}",
                    parsed.path.display(),
                    parsed.took.as_millis(),
                    match &parsed.found {
                        Ok(Found { error: None, structures, .. }) => format!("{} DAG(s)", structures.len()),
                        Ok(_) | Err(_) => "it cannot be imported".to_owned(),
                    }
                );
                self.is_done_at_first(&parsed.path);
                self.index.set_conflicts(&parsed.path, saved.conflicts);
                if saved.released {
                    for path in self.index.conflicting(&parsed.path) {
                        self.parse(path);
                    }
                }
            }
            Err(error) => {
                warn!("what {} gave cannot be written: {error}; trying again", parsed.path.display());
                self.unsaved.push(parsed);
            }
        }
    }

    /// Notes what came out for the next parse, and adds to a failure when that is.
    fn note_try(&mut self, parsed: &mut Parsed) {
        let Parsed { path, pace, found, .. } = parsed;
        let Err(NoResult::Passing(reason)) = found else { return self.tries.ended(path, *pace) };
        let pause = self.tries.failed(path, *pace, self.index.stamp(path), Instant::now());
        let what = format!("\n\nIt is tried again at {}, or when a file changes.", clock::rfc3339_in(pause));
        reason.push_str(&what);
    }

    /// Nobody waits for it at the start any more.
    fn is_done_at_first(&mut self, path: &Path) {
        if self.first.remove(path) && self.first.is_empty() {
            self.state.first_look.send_replace(true);
        }
    }

    async fn try_save(&self, parsed: &Parsed) -> Result<Saved, String> {
        let mut file = self.describe(parsed);
        let mut client = self.state.database.get().await.map_err(|error| error.message())?;
        loop {
            let transaction = client.transaction().await.map_err(|error| error.to_string())?;
            match dags::save_file(&transaction, &file).await {
                Ok(saved) => {
                    transaction.commit().await.map_err(|error| error.to_string())?;
                    return Ok(saved);
                }
                // What the datastore refuses to keep is the file's fault, and no better the next time.
                Err(StoreError::Invalid(reason)) if file.result.is_ok() => {
                    file.result = Err(format!("What it describes cannot be kept: {reason}"));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn describe(&self, parsed: &Parsed) -> ParsedFile {
        let relative = relative_to(&self.shared.workspace, &parsed.path);
        ParsedFile {
            fileloc: parsed.path.to_string_lossy().into_owned(),
            duration: parsed.took.as_secs_f64(),
            result: match &parsed.found {
                Err(none) => Err(none.to_string()),
                Ok(Found { error: Some(text), .. }) => Err(text.clone()),
                Ok(found) => understand(found, &self.shared.workspace, parsed),
            },
            relative_fileloc: relative,
        }
    }
}

fn relative_to(workspace: &Path, path: &Path) -> String {
    path.strip_prefix(workspace).unwrap_or(path).to_string_lossy().into_owned()
}

fn understand(found: &Found, workspace: &Path, parsed: &Parsed) -> Result<ParsedDags, String> {
    let mut dags = dag_check::read(&found.structures)?;
    dags.iter_mut().for_each(|dag| dag.settings = found.settings.clone());
    let mut sources = Map::new();
    for (name, text) in &found.sources {
        sources.insert(relative_to(workspace, Path::new(name)), text.clone());
    }
    let source = found.sources.get(&*parsed.path.to_string_lossy()).and_then(|text| text.as_str()).unwrap_or_default();
    Ok(ParsedDags { dags, source: source.to_owned(), sources, environment: parsed.environment.clone() })
}
