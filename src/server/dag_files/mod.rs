//! DAG files of the workspace: finds them, parses them when they or their imports change, and stores the results.

mod file_index;
mod history;
mod packages;
mod parse_file;
pub mod parse_requests;
mod refresh;
mod save;
mod state;
mod watch;

pub use state::{DagFiles, after_initial_parse, notify_store_changed};

use crate::dag_code::child_slots::ChildSlots;
use crate::environments::Environments;
use crate::state::Core;
use file_index::{FileIndex, stamps};
use futures_util::FutureExt;
use history::ParseHistory;
use leoflow_base::sys::blocking;
use leoflow_engine::store::dag::parsed_files;
use leoflow_python::{Children, LIMITS, NO_ANSWER, Scan, Syntax, is_dag_file, scan};
use packages::{Change, Packages};
use parse_file::{ParseContext, Parsed, parse_file, relative_to};
use refresh::Refresh;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;
use tracing::warn;
use watch::{Changes, Coverage, Folders, watch};

/// Longest time that requests wait for the initial parses.
const INITIAL_PARSE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Delay before a failed write is retried.
const SAVE_RETRY: Duration = Duration::from_secs(1);
/// Delay before unreadable folders are scanned again.
const RESCAN_DELAY: Duration = Duration::from_secs(60);

/// Scans and parses the workspace. Runs until dropped.
pub async fn run(
    (core, environments, dag_files): (Arc<Core>, Arc<Environments>, Arc<DagFiles>),
    workspace: PathBuf,
    children: Rc<Children>,
    slots: Rc<ChildSlots>,
) {
    let (sender, results) = unbounded_channel();
    let context = ParseContext { environments: environments.clone(), workspace, children, slots, results: sender };
    DagFileLoop {
        core,
        environments,
        dag_files,
        context: Rc::new(context),
        results,
        index: FileIndex::default(),
        history: ParseHistory::default(),
        hanging: BTreeMap::new(),
        unsaved: Vec::new(),
        is_list_stored: false,
        initial: HashSet::new(),
        waiting: HashSet::new(),
        without_environment: HashSet::new(),
        refreshes: Vec::new(),
        rescan_at: Instant::now() + RESCAN_DELAY,
    }
    .run()
    .await;
}

/// The loop that owns the index and reacts to changes.
struct DagFileLoop {
    core: Arc<Core>,
    environments: Arc<Environments>,
    dag_files: Arc<DagFiles>,
    context: Rc<ParseContext>,
    results: UnboundedReceiver<Parsed>,
    index: FileIndex,
    history: ParseHistory,
    /// Folders of projects that did not answer in the last scan, with reasons; the next scan skips them.
    hanging: BTreeMap<PathBuf, String>,
    /// Results that could not be written to the datastore yet.
    unsaved: Vec<Parsed>,
    /// True while the stored list of existing files is current.
    is_list_stored: bool,
    /// Files found at the start that are not parsed yet.
    initial: HashSet<PathBuf>,
    /// Files to parse again when an environment changes: theirs is being built, or their parse failed without one.
    waiting: HashSet<PathBuf>,
    /// Files whose last parse did not run because their environment is not available yet.
    without_environment: HashSet<PathBuf>,
    /// Commands that wait for a scan and its parses.
    refreshes: Vec<Refresh>,
    /// When unreadable folders are scanned again.
    rescan_at: Instant,
}

/// What the loop waits for.
enum LoopEvent {
    FoldersChanged,
    /// The datastore has values that DAG files read.
    StoreChanged,
    EnvironmentsChanged,
    ParseRequested(Vec<PathBuf>),
    RefreshRequested(Vec<Refresh>),
    DagDeleted,
    PackagesChanged(Change),
    Parsed(Box<Parsed>),
    SaveRetryDue,
    ParseRetryDue,
    RescanDue,
}

/// Whether the workspace must be scanned before the next event.
#[derive(PartialEq, Eq)]
enum Rescan {
    Yes,
    No,
}

impl DagFileLoop {
    async fn run(mut self) {
        self.limit_initial_parse();
        let mut packages = Packages::new(self.core.home.clone(), self.environments.clone());
        let (mut folders, mut changes) = watch();
        let mut rescan = Rescan::Yes;
        loop {
            if rescan == Rescan::Yes {
                let (watched, scan_again) = self.rescan(folders).await;
                folders = watched;
                if scan_again {
                    changes.set_changed();
                }
            }
            self.answer_refreshes();
            let event = self.next_event(&mut changes, folders.coverage(), &mut packages).await;
            if matches!(event, LoopEvent::RefreshRequested(_)) {
                // The command is answered after the parses that earlier changes require.
                for change in self.waiting_changes() {
                    self.handle(change).await;
                }
            }
            rescan = self.handle(event).await;
        }
    }

    /// Waits for the next event.
    async fn next_event(&mut self, changes: &mut Changes, coverage: Coverage, packages: &mut Packages) -> LoopEvent {
        let must_save_again = !self.unsaved.is_empty() || !self.is_list_stored;
        let is_partly_unseen = !self.index.unscanned().is_empty();
        let next_retry = self.history.next_due();
        let (dag_files, environments) = (&self.dag_files, &self.environments);
        tokio::select! {
            () = changes.next(coverage) => LoopEvent::FoldersChanged,
            () = dag_files.store_changed.notified() => LoopEvent::StoreChanged,
            () = environments.changed.notified() => LoopEvent::EnvironmentsChanged,
            files = dag_files.parse_requests.take() => LoopEvent::ParseRequested(files),
            refreshes = dag_files.parse_requests.take_refreshes() => LoopEvent::RefreshRequested(refreshes),
            () = dag_files.dag_deleted.notified() => LoopEvent::DagDeleted,
            change = packages.changed(self.index.failed_since()) => LoopEvent::PackagesChanged(change),
            Some(parsed) = self.results.recv() => LoopEvent::Parsed(Box::new(parsed)),
            () = tokio::time::sleep(SAVE_RETRY), if must_save_again => LoopEvent::SaveRetryDue,
            () = tokio::time::sleep_until(next_retry.unwrap_or_else(Instant::now)), if next_retry.is_some() => {
                LoopEvent::ParseRetryDue
            }
            // No event announces that a mount answers again.
            () = tokio::time::sleep_until(self.rescan_at), if is_partly_unseen => LoopEvent::RescanDue,
        }
    }

    /// Reacts to an event. Returns whether the workspace must be scanned.
    async fn handle(&mut self, event: LoopEvent) -> Rescan {
        if !matches!(event, LoopEvent::Parsed(_)) {
            // A parse that the event starts replaces the results that have not been saved.
            self.save_results().await;
        }
        match event {
            LoopEvent::FoldersChanged => return Rescan::Yes,
            LoopEvent::StoreChanged => self.parse_all(self.index.files_using_store()),
            LoopEvent::EnvironmentsChanged => self.parse_waiting(),
            LoopEvent::ParseRequested(files) => self.parse_all(files),
            LoopEvent::RefreshRequested(refreshes) => {
                self.refreshes.extend(refreshes);
                return Rescan::Yes;
            }
            // New packages may fix failed imports.
            LoopEvent::DagDeleted | LoopEvent::PackagesChanged(Change::Bundled) => {
                self.index.forget();
                return Rescan::Yes;
            }
            LoopEvent::PackagesChanged(Change::UserPackages) => self.parse_all(self.index.failed()),
            LoopEvent::Parsed(parsed) => self.save(*parsed).await,
            LoopEvent::SaveRetryDue => self.save_again().await,
            LoopEvent::ParseRetryDue => {
                let files = self.history.due(Instant::now());
                self.parse_all(files);
            }
            LoopEvent::RescanDue => {
                self.rescan_at = Instant::now() + RESCAN_DELAY;
                self.hanging.clear();
                return Rescan::Yes;
            }
        }
        Rescan::No
    }

    /// Returns the changes that have been announced and not handled.
    fn waiting_changes(&self) -> Vec<LoopEvent> {
        let dag_files = &self.dag_files;
        let store = dag_files.store_changed.notified().now_or_never().map(|()| LoopEvent::StoreChanged);
        let environments = self.environments.changed.notified().now_or_never().map(|()| LoopEvent::EnvironmentsChanged);
        let requests = dag_files.parse_requests.take().now_or_never().map(LoopEvent::ParseRequested);
        let deleted = dag_files.dag_deleted.notified().now_or_never().map(|()| LoopEvent::DagDeleted);
        [store, environments, requests, deleted].into_iter().flatten().collect()
    }

    /// Saves the results that have arrived, but not those that arrive meanwhile: there may be thousands.
    async fn save_results(&mut self) {
        for _ in 0..self.results.len() {
            let Ok(parsed) = self.results.try_recv() else { return };
            self.save(parsed).await;
        }
    }

    fn answer_refreshes(&mut self) {
        let environments = &self.environments;
        let is_unfinished = |file: &Path| {
            let is_unsaved = self.unsaved.iter().any(|parsed| parsed.path == file);
            // If the environment is no longer being built, another parse of the file follows.
            is_unsaved || self.without_environment.contains(file) && !environments.is_building(file)
        };
        refresh::answer(&mut self.refreshes, &self.index, is_unfinished, &self.without_environment);
    }

    /// Stops requests from waiting for the initial parses after a while.
    fn limit_initial_parse(&self) {
        let dag_files = self.dag_files.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(INITIAL_PARSE_TIMEOUT).await;
            dag_files.initial_parse.send_replace(true);
        });
    }

    /// Scans the workspace and starts parsing changed files. Returns the folders, and whether another scan is needed at
    /// once: the scan entered a folder that was not watched yet, or found a hanging project that the next one skips.
    async fn rescan(&mut self, mut folders: Folders) -> (Folders, bool) {
        let workspace = self.context.workspace.clone();
        let avoid = self.hanging.clone();
        let scanned = blocking::run(move || {
            let scan = scan(&workspace, Syntax::from_environment(), LIMITS, &avoid);
            // Watches the folders before the files are read, so that later changes are noticed.
            let has_new = folders.set(scan.as_ref().map_or(&[], |scan| &scan.folders));
            (folders, scan, has_new)
        });
        match scanned.await {
            Ok((folders, Ok(scan), has_new)) => {
                let hanging_before = self.hanging.len();
                self.apply_scan(scan).await;
                // Without the hanging projects the next scan may be complete.
                (folders, has_new || self.hanging.len() > hanging_before)
            }
            Ok((folders, Err(error), _)) => {
                if !self.index.workspace_is_missing {
                    warn!("cannot read the workspace {}: {error}", self.context.workspace.display());
                }
                // Stored DAGs stay until the workspace can be read again.
                self.index.workspace_is_missing = true;
                self.publish_initial();
                (folders, false)
            }
            // The scan panicked; scan periodically from now on.
            Err(error) => {
                warn!("failed to scan the workspace: {error}");
                (Folders::none(), false)
            }
        }
    }

    /// Updates the index from a scan and starts parsing changed files.
    async fn apply_scan(&mut self, scan: Scan) {
        self.index.workspace_is_missing = false;
        for (path, reason) in scan.unscanned.iter().filter(|(path, _)| !self.index.unscanned().contains_key(*path)) {
            warn!("{} was only partly scanned: {reason}", path.display());
        }
        let hangs = |(_, reason): &(&PathBuf, &String)| reason.starts_with(NO_ANSWER);
        let hanging: BTreeMap<_, _> =
            scan.unscanned.iter().filter(hangs).map(|(path, why)| (path.clone(), why.clone())).collect();
        self.hanging = hanging;
        let (changed, outside) = (self.index.changed(&scan), self.index.outside(&scan));
        let places = self.index.dag_places(&scan);
        let read = move || {
            let may_define_dags = |path: &PathBuf| places.allows(path) && is_dag_file(path);
            let dag_files: HashSet<PathBuf> = changed.into_iter().filter(may_define_dags).collect();
            (dag_files, stamps(outside))
        };
        let Ok((dag_files, outside)) = blocking::run(read).await else { return };
        // As in `handle`.
        self.save_results().await;
        let change = self.index.apply(scan, &dag_files, &outside);
        self.is_list_stored &= !change.removed;
        if change.removed {
            self.environments.keep_only(|file| self.index.knows(file));
            self.waiting.retain(|file| self.index.knows(file));
            self.without_environment.retain(|file| self.index.knows(file));
            self.history.keep_only(|file| self.index.knows(file));
            self.initial.retain(|file| self.index.knows(file));
        }
        // The scans before the last initial parse.
        if *self.dag_files.initial_files.borrow() != Some(0) {
            self.initial.extend(change.to_parse.iter().cloned());
            self.publish_initial();
        }
        self.parse_all(change.to_parse);
        if !self.is_list_stored {
            self.store_file_list().await;
        }
    }

    /// Stores the list of existing DAG files; DAGs of other files become inactive.
    async fn store_file_list(&mut self) {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let path_and_relative = |path: &Path| (text(path), relative_to(&self.context.workspace, path));
        let files: Vec<(String, String)> = self.index.dag_files().map(|path| path_and_relative(path)).collect();
        let unscanned: Vec<(String, String)> =
            self.index.unscanned().iter().map(|(path, reason)| (text(path), reason.clone())).collect();
        let stored = async {
            let mut client = self.core.database.get().await.map_err(|error| error.to_string())?;
            let transaction = client.transaction().await.map_err(|error| error.to_string())?;
            parsed_files::keep_only(&transaction, &files, &unscanned).await.map_err(|error| error.to_string())?;
            transaction.commit().await.map_err(|error| error.to_string())
        };
        match stored.await {
            Ok(()) => self.is_list_stored = true,
            Err(error) => warn!("failed to store the list of DAG files: {error}; retrying"),
        }
    }

    /// Retries failed writes.
    async fn save_again(&mut self) {
        if !self.is_list_stored {
            self.store_file_list().await;
        }
        for parsed in std::mem::take(&mut self.unsaved) {
            self.save(parsed).await;
        }
    }

    /// Parses the files that wait for any environment, and those whose environment changed.
    fn parse_waiting(&mut self) {
        self.waiting.extend(self.environments.take_outdated());
        let files = std::mem::take(&mut self.waiting);
        self.parse_all(files);
    }

    fn parse_all(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        paths.into_iter().for_each(|path| self.parse(path));
    }

    /// Starts a parse, unless the current one must complete first.
    fn parse(&mut self, path: PathBuf) {
        if !self.index.knows(&path) {
            return;
        }
        self.history.started(&path);
        let Some(pause) = self.index.pause_for(&path) else { return };
        let (context, file, socket) = (self.context.clone(), path.clone(), self.core.own_socket());
        let (pace, number) = (self.history.pace(&path), self.index.next_parse_number());
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            parse_file(context, file, number, pace, socket).await;
        });
        self.index.set_parsing(path, number, task);
    }
}
