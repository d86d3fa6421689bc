//! Records the results of parses and writes them to the datastore.

use super::DagFileLoop;
use super::file_index::{DagOwner, ParseInputs, stamps};
use super::parse_file::{Parsed, parsed_dags, relative_to};
use leoflow_base::sys::{blocking, clock};
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::parsed_files::{self, ParsedFile, Saved};
use leoflow_python::{NoResult, ParseOutput};
use std::path::{Path, PathBuf};
use tokio::time::Instant;
use tracing::{debug, warn};

impl DagFileLoop {
    /// Records the result of a parse and writes it to the datastore; starts another parse when it is outdated.
    pub(super) async fn save(&mut self, parsed: Parsed) {
        let path = parsed.path.clone();
        if !self.index.knows(&path) {
            // Removed, or no longer a DAG file, since the parse started.
            self.unsaved.retain(|other| other.path != path);
            return self.environments.clear_requirement(&path);
        }
        if !self.index.is_newest_parse(&path, parsed.number) {
            // The result of the newer parse follows.
            return;
        }
        // An older result that could not be written is superseded.
        self.unsaved.retain(|other| other.path != path);
        let has_failed = parsed.output.as_ref().map_or(true, |output| output.error.is_some());
        let is_current = self.record_inputs(&parsed, has_failed).await;
        // One outdated result is not stored. If the inputs change during each parse, the file has no other results.
        let must_store = is_current || self.index.is_always_outdated(&path);
        let must_repeat = must_store && self.store(parsed, has_failed).await;
        if !is_current || must_repeat {
            self.parse(path);
        }
    }

    /// Writes the result of a parse to the datastore, unless the file waits for its environment. Returns true if the
    /// file must be parsed again.
    async fn store(&mut self, mut parsed: Parsed, has_failed: bool) -> bool {
        // The parse may have failed because packages were missing, so a new environment may fix it.
        if parsed.awaits_environment || has_failed && parsed.environment.is_none() {
            self.waiting.insert(parsed.path.clone());
        }
        if parsed.awaits_environment {
            self.without_environment.insert(parsed.path.clone());
            // The DAGs of the last successful parse stay.
            self.finish_initial(&parsed.path);
            // The build may have ended in the meantime and will not notify again.
            return !self.environments.will_notify(&parsed.path);
        }
        self.without_environment.remove(&parsed.path);
        self.record_outcome(&mut parsed);
        match self.try_save(&parsed).await {
            Ok(saved) => self.saved(&parsed, &saved),
            Err(error) => {
                warn!("failed to store the DAGs of {}: {error}; retrying", parsed.path.display());
                self.unsaved.push(parsed);
            }
        }
        false
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
        // Scans notice a change of these files only once they are recorded here.
        let have_changed =
            parsed.adjacent_files.iter().any(|(path, stamp)| outside.get(path).is_some_and(|now| now != stamp));
        outside.extend(parsed.adjacent_files.iter().map(|(path, stamp)| (path.clone(), *stamp)));
        self.index.record_parse(
            &parsed.path,
            ParseInputs { sources, absent, uses_store, have_changed },
            failed,
            &outside,
        )
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

    /// Removes a file from the initial parses.
    fn finish_initial(&mut self, path: &Path) {
        if self.initial.remove(path) {
            self.publish_initial();
        }
    }

    /// Publishes the number of initial parses that are not done. After the last one, requests no longer wait.
    pub(super) fn publish_initial(&self) {
        self.dag_files.initial_files.send_replace(Some(self.initial.len()));
        if self.initial.is_empty() {
            self.dag_files.initial_parse.send_replace(true);
        }
    }

    /// Writes the result of a parse to the datastore.
    async fn try_save(&self, parsed: &Parsed) -> Result<Saved, String> {
        let mut file = self.to_parsed_file(parsed);
        let mut client = self.core.database.get().await.map_err(|error| error.to_string())?;
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
