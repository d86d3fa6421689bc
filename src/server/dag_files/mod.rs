//! DAG files of the workspace: finds them, parses them when they or their imports change, and stores the results.

mod dag_file;
mod file_index;
mod packages;
mod parse_file;
pub mod parse_requests;
mod refresh;
mod save;
mod stamps;
mod state;
mod watch;

pub use file_index::ImportProgress;
pub use state::{DagFiles, after_initial_parse, notify_store_changed};

use crate::dag_code::child_slots::ChildSlots;
use crate::environments::Environments;
use crate::state::Core;
use crate::state::database::DatastoreError;
use dag_file::DagFile;
use file_index::FileIndex;
use futures_util::FutureExt;
use leoflow_base::sys::blocking;
use leoflow_engine::store::dag::parsed_files;
use leoflow_python::{Children, LIMITS, Scan, Syntax, is_dag_file, scan};
use packages::{Change, Packages};
use parse_file::{ParseContext, Parsed, parse_file, relative_to};
use refresh::Refresh;
use stamps::stamps;
use std::cell::RefCell;
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
    let context = ParseContext {
        environments: environments.clone(),
        workspace,
        children,
        slots,
        results: sender,
        venv_warnings: RefCell::default(),
    };
    DagFileLoop {
        core,
        environments,
        dag_files,
        context: Rc::new(context),
        results,
        index: FileIndex::default(),
        is_list_stored: false,
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
    /// True while the stored list of existing files is current.
    is_list_stored: bool,
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
    No,
    /// Without the projects that did not answer in the last scan.
    Answering,
    All,
}

impl DagFileLoop {
    async fn run(mut self) {
        self.limit_initial_parse();
        let mut packages = Packages::new(self.core.home.clone(), self.environments.clone());
        let (mut folders, mut changes) = watch();
        let mut rescan = Rescan::All;
        loop {
            if rescan != Rescan::No {
                let (watched, scan_again) = self.rescan(folders, rescan).await;
                folders = watched;
                if scan_again {
                    changes.set_changed();
                }
            }
            self.answer_refreshes();
            self.dag_files.progress.send_replace(self.index.progress());
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
        let must_save_again = self.index.has_unsaved() || !self.is_list_stored;
        let is_partly_unseen = !self.index.unscanned().is_empty();
        let next_retry = self.index.next_retry();
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
            LoopEvent::FoldersChanged => return Rescan::Answering,
            LoopEvent::StoreChanged => self.parse_all(self.index.select(|file| file.uses_store)),
            LoopEvent::EnvironmentsChanged => self.parse_waiting(),
            LoopEvent::ParseRequested(files) => {
                self.index.set_changed(&files);
                self.parse_all(files);
            }
            LoopEvent::RefreshRequested(refreshes) => {
                self.refreshes.extend(refreshes);
                return Rescan::Answering;
            }
            // New packages may fix failed imports.
            LoopEvent::DagDeleted | LoopEvent::PackagesChanged(Change::Bundled) => {
                self.index.forget();
                return Rescan::Answering;
            }
            LoopEvent::PackagesChanged(Change::UserPackages) => {
                self.parse_all(self.index.select(|file| file.failed_since().is_some()))
            }
            LoopEvent::Parsed(parsed) => self.save(*parsed).await,
            LoopEvent::SaveRetryDue => self.save_again().await,
            LoopEvent::ParseRetryDue => {
                let now = Instant::now();
                self.parse_all(self.index.select(|file| file.retry_due().is_some_and(|due| due <= now)));
            }
            LoopEvent::RescanDue => {
                self.rescan_at = Instant::now() + RESCAN_DELAY;
                return Rescan::All;
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
        refresh::answer(&mut self.refreshes, &self.index, |file| self.environments.is_building(file));
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
    async fn rescan(&mut self, mut folders: Folders, rescan: Rescan) -> (Folders, bool) {
        let workspace = self.context.workspace.clone();
        let avoid = if rescan == Rescan::All { BTreeMap::new() } else { self.index.hanging() };
        let hanging_before = avoid.len();
        let scanned = blocking::run(move || {
            let scan = scan(&workspace, Syntax::from_environment(), LIMITS, &avoid);
            // Watches the folders before the files are read, so that later changes are noticed.
            let has_new = folders.set(scan.as_ref().map_or(&[], |scan| &scan.folders));
            (folders, scan, has_new)
        });
        match scanned.await {
            Ok((folders, Ok(scan), has_new)) => {
                self.apply_scan(scan).await;
                // Without the hanging projects the next scan may be complete.
                (folders, has_new || self.index.hanging().len() > hanging_before)
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
        }
        // The scans before the last initial parse.
        if *self.dag_files.initial_files.borrow() != Some(0) {
            self.index.add_initial(&change.to_parse);
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
            self.index.unscanned().iter().map(|(path, reason)| (text(path), reason.to_string())).collect();
        let stored = async {
            let mut client = self.core.database.get().await?;
            let transaction = client.transaction().await?;
            parsed_files::keep_only(&transaction, &files, &unscanned).await?;
            Ok::<_, DatastoreError>(transaction.commit().await?)
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
        for parsed in self.index.take_unsaved() {
            self.write(parsed).await;
        }
    }

    /// Parses the files that wait for any environment, and those whose environment changed.
    fn parse_waiting(&mut self) {
        let mut files: HashSet<PathBuf> = self.environments.take_outdated().into_iter().collect();
        files.extend(self.index.select(DagFile::awaits_new_environment));
        self.parse_all(files);
    }

    fn parse_all(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        paths.into_iter().for_each(|path| self.parse(path));
    }

    /// Starts a parse, unless the current one must complete first.
    fn parse(&mut self, path: PathBuf) {
        let Some((priority, pause)) = self.index.next_parse(&path) else { return };
        let (context, file, socket) = (self.context.clone(), path.clone(), self.core.own_socket());
        let number = self.index.next_parse_number();
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            parse_file(context, file, number, priority, socket).await;
        });
        self.index.set_parsing(&path, number, task);
    }
}
