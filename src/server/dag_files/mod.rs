//! DAG files of the workspace: finds them, parses them when they or their imports change, and stores the results.

mod file_index;
mod history;
mod packages;
mod parse_file;
pub mod parse_requests;
mod refresh;
mod watch;

use super::dag_code::child_slots::ChildSlots;
use super::process::state::AppState;
use file_index::{DagOwner, FileIndex, ParseInputs, stamps};
use history::ParseHistory;
use leoflow_base::sys::{blocking, clock};
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::parsed_files::{self, ParsedFile, Saved};
use leoflow_python::{Children, LIMITS, NO_ANSWER, NoResult, ParseOutput, Scan, Syntax, is_dag_file, scan};
use packages::{Change, Packages};
use parse_file::{ParseContext, Parsed, parse_file, parsed_dags, relative_to};
use refresh::Refresh;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;
use tracing::{debug, warn};
use watch::{Folders, watch};

/// Longest time that requests wait for the initial parses.
const INITIAL_PARSE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Delay before a failed write is retried.
const SAVE_RETRY: Duration = Duration::from_secs(1);
/// Delay before unreadable folders are scanned again.
const RESCAN_DELAY: Duration = Duration::from_secs(60);

/// Scans and parses the workspace. Runs until dropped.
pub async fn run(state: Arc<AppState>, workspace: PathBuf, children: Rc<Children>, slots: Rc<ChildSlots>) {
    let (sender, results) = unbounded_channel();
    let context = ParseContext { state: state.clone(), workspace, children, slots, results: sender };
    DagFileLoop {
        state,
        context: Rc::new(context),
        results,
        index: FileIndex::default(),
        history: ParseHistory::default(),
        hanging: BTreeMap::new(),
        unsaved: Vec::new(),
        is_list_stored: false,
        initial: HashSet::new(),
        waiting: HashSet::new(),
        refreshes: Vec::new(),
    }
    .run()
    .await;
}

/// The loop that owns the index and reacts to changes.
struct DagFileLoop {
    state: Arc<AppState>,
    context: Rc<ParseContext>,
    results: UnboundedReceiver<Parsed>,
    index: FileIndex,
    history: ParseHistory,
    /// Folders of projects that did not answer in the last scan, with reasons; the next scan skips them.
    hanging: BTreeMap<PathBuf, String>,
    /// Results that could not be written to the datastore yet.
    unsaved: Vec<Parsed>,
    /// True once the list of existing files is stored.
    is_list_stored: bool,
    /// Files found at the start that are not parsed yet.
    initial: HashSet<PathBuf>,
    /// Files to parse again when an environment changes: theirs is being built, or their parse failed without one.
    waiting: HashSet<PathBuf>,
    /// Commands that wait for a scan and its parses.
    refreshes: Vec<Refresh>,
}

impl DagFileLoop {
    async fn run(mut self) {
        self.limit_initial_parse();
        let mut packages = Packages::new(self.state.clone());
        let (mut folders, mut changes) = watch();
        let mut rescan = true;
        let mut rescan_at = Instant::now() + RESCAN_DELAY;
        loop {
            if rescan {
                let (watched, scan_again) = self.rescan(folders).await;
                folders = watched;
                if scan_again {
                    changes.set_changed();
                }
            }
            rescan = false;
            self.answer_refreshes();
            let must_save_again = !self.unsaved.is_empty() || !self.is_list_stored;
            let is_partly_unseen = !self.index.unscanned().is_empty();
            let next_retry = self.history.next_due();
            tokio::select! {
                () = changes.next(folders.coverage()) => rescan = true,
                () = self.state.dag_files.store_changed.notified() => self.parse_all(self.index.files_using_store()),
                () = self.state.dag_files.environments.changed.notified() => self.parse_waiting(),
                files = self.state.dag_files.parse_requests.take() => self.parse_all(files),
                refreshes = self.state.dag_files.parse_requests.take_refreshes() => {
                    self.refreshes.extend(refreshes);
                    rescan = true;
                }
                () = self.state.dag_files.dag_deleted.notified() => {
                    self.index.forget();
                    rescan = true;
                }
                // New packages may fix failed imports.
                change = packages.changed(self.index.failed_since()) => match change {
                    Change::Bundled => {
                        self.index.forget();
                        rescan = true;
                    }
                    Change::UserPackages => self.parse_all(self.index.failed()),
                },
                Some(parsed) = self.results.recv() => self.save(parsed).await,
                () = tokio::time::sleep(SAVE_RETRY), if must_save_again => self.save_again().await,
                () = tokio::time::sleep_until(next_retry.unwrap_or_else(Instant::now)), if next_retry.is_some() => {
                    let files = self.history.due(Instant::now());
                    self.parse_all(files);
                }
                // No event announces that a mount answers again.
                () = tokio::time::sleep_until(rescan_at), if is_partly_unseen => {
                    rescan_at = Instant::now() + RESCAN_DELAY;
                    self.hanging.clear();
                    rescan = true;
                }
            }
        }
    }

    fn answer_refreshes(&mut self) {
        let is_unsaved = |file: &Path| self.unsaved.iter().any(|parsed| parsed.path == file);
        refresh::answer(&mut self.refreshes, &self.index, is_unsaved);
    }

    /// Stops requests from waiting for the initial parses after a while.
    fn limit_initial_parse(&self) {
        let state = self.state.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(INITIAL_PARSE_TIMEOUT).await;
            state.dag_files.initial_parse.send_replace(true);
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
        let change = self.index.apply(scan, &dag_files, &outside);
        self.is_list_stored &= !change.removed;
        if change.removed {
            self.state.dag_files.environments.keep_only(|file| self.index.knows(file));
            self.waiting.retain(|file| self.index.knows(file));
            self.history.keep_only(|file| self.index.knows(file));
        }
        if !*self.state.dag_files.initial_parse.borrow() {
            self.initial.extend(change.to_parse.iter().cloned());
            if self.initial.is_empty() {
                self.state.dag_files.initial_parse.send_replace(true);
            }
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
            let mut client = self.state.database.get().await.map_err(|error| error.message())?;
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

    /// Parses the files whose environments changed.
    fn parse_waiting(&mut self) {
        self.waiting.extend(self.state.dag_files.environments.take_outdated());
        let files = std::mem::take(&mut self.waiting);
        self.parse_all(files);
    }

    fn parse_all(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        paths.into_iter().for_each(|path| self.parse(path));
    }

    /// Starts a parse, unless the current one must complete first.
    fn parse(&mut self, path: PathBuf) {
        self.history.started(&path);
        let Some(pause) = self.index.pause_for(&path) else { return };
        let (context, file, socket) = (self.context.clone(), path.clone(), self.state.own_socket());
        let pace = self.history.pace(&path);
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            parse_file(context, file, pace, socket).await;
        });
        self.index.set_parsing(path, task);
    }

    /// Records the result of a parse and writes it to the datastore; starts another parse when it is outdated.
    async fn save(&mut self, mut parsed: Parsed) {
        // An older result that could not be written is superseded.
        self.unsaved.retain(|other| other.path != parsed.path);
        if !self.index.knows(&parsed.path) {
            // Removed, or no longer a DAG file, since the parse started.
            return self.state.dag_files.environments.clear_requirement(&parsed.path);
        }
        let has_failed = parsed.output.as_ref().map_or(true, |output| output.error.is_some());
        if !self.record_inputs(&parsed, has_failed).await {
            return self.parse(parsed.path);
        }
        // The parse may have failed because packages were missing, so a new environment may fix it.
        if parsed.awaits_environment || has_failed && parsed.environment.is_none() {
            self.waiting.insert(parsed.path.clone());
        }
        if parsed.awaits_environment {
            // The DAGs of the last successful parse stay.
            self.finish_initial(&parsed.path);
            if !self.state.dag_files.environments.will_notify(&parsed.path) {
                // The build ended in the meantime and will not notify again.
                self.parse(parsed.path);
            }
            return;
        }
        self.record_outcome(&mut parsed);
        match self.try_save(&parsed).await {
            Ok(saved) => self.saved(&parsed, &saved),
            Err(error) => {
                warn!("failed to store the DAGs of {}: {error}; retrying", parsed.path.display());
                self.unsaved.push(parsed);
            }
        }
    }

    /// Records the files that the parse read. Returns false if the parse is outdated.
    async fn record_inputs(&mut self, parsed: &Parsed, has_failed: bool) -> bool {
        let mut sources: Vec<PathBuf> =
            parsed.output.iter().flat_map(|output| output.sources.keys().map(PathBuf::from)).collect();
        sources.extend(parsed.output.iter().flat_map(|output| output.reads.iter().cloned()));
        // Including missing files, which may be created.
        sources.extend(parsed.adjacent_files.keys().cloned());
        let uses_store = parsed.output.as_ref().is_ok_and(|output| output.asks);
        let absent = parsed.output.iter().flat_map(|output| output.absent.iter().cloned()).collect();
        let failed = has_failed.then_some(parsed.began);
        let unlisted = self.index.unlisted(&sources);
        let mut outside = blocking::run(move || stamps(unlisted)).await.unwrap_or_default();
        outside.extend(parsed.adjacent_files.iter().map(|(path, stamp)| (path.clone(), *stamp)));
        self.index.record_parse(&parsed.path, ParseInputs { sources, absent, uses_store }, failed, &outside)
    }

    /// Records that the result is in the datastore. If the file no longer defines one of its DAGs, parses the files
    /// again that conflicted with another file, since they may define the DAG.
    fn saved(&mut self, parsed: &Parsed, saved: &Saved) {
        debug!(
            "parsed {} in {} ms: {}",
            parsed.path.display(),
            parsed.duration.as_millis(),
            match &parsed.output {
                Ok(ParseOutput { error: None, structures, .. }) => format!("{} DAG(s)", structures.len()),
                Ok(_) | Err(_) => "import failed".to_owned(),
            }
        );
        self.finish_initial(&parsed.path);
        let owner = if saved.conflicts { DagOwner::OtherFile } else { DagOwner::ThisFile };
        self.index.set_dag_owner(&parsed.path, owner);
        if saved.released {
            self.parse_all(self.index.conflicting(&parsed.path));
        }
    }

    /// Records the outcome in the history; adds the time of the retry to the text of a transient failure.
    fn record_outcome(&mut self, parsed: &mut Parsed) {
        let Parsed { path, pace, output, .. } = parsed;
        let Err(NoResult::Transient(reason)) = output else { return self.history.finished(path, *pace) };
        let pause = self.history.failed(path, *pace, self.index.stamp(path), Instant::now());
        let next_attempt = format!("\n\nThe next attempt is at {}, or when a file changes.", clock::rfc3339_in(pause));
        reason.push_str(&next_attempt);
    }

    /// Removes a file from the initial parses. After the last one, requests no longer wait.
    fn finish_initial(&mut self, path: &Path) {
        if self.initial.remove(path) && self.initial.is_empty() {
            self.state.dag_files.initial_parse.send_replace(true);
        }
    }

    /// Writes the result of a parse to the datastore.
    async fn try_save(&self, parsed: &Parsed) -> Result<Saved, String> {
        let mut file = self.to_parsed_file(parsed);
        let mut client = self.state.database.get().await.map_err(|error| error.message())?;
        loop {
            let transaction = client.transaction().await.map_err(|error| error.to_string())?;
            match parsed_files::save(&transaction, &file).await {
                Ok(saved) => {
                    transaction.commit().await.map_err(|error| error.to_string())?;
                    return Ok(saved);
                }
                // The file's content is invalid; a retry would fail too.
                Err(StoreError::Invalid(reason)) if file.result.is_ok() => {
                    file.result = Err(format!("The DAG definition cannot be stored: {reason}"));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn to_parsed_file(&self, parsed: &Parsed) -> ParsedFile {
        let relative = relative_to(&self.context.workspace, &parsed.path);
        ParsedFile {
            fileloc: parsed.path.to_string_lossy().into_owned(),
            duration: parsed.duration.as_secs_f64(),
            result: match &parsed.output {
                Err(no_result) => Err(no_result.to_string()),
                Ok(ParseOutput { error: Some(text), .. }) => Err(text.clone()),
                Ok(output) => parsed_dags(output, &self.context.workspace, parsed),
            },
            relative_fileloc: relative,
        }
    }
}
