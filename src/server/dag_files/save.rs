//! Records the results of parses and writes them to the datastore.

use super::DagFileLoop;
use super::dag_file::{DagFile, DagOwner};
use super::file_index::ParseInputs;
use super::parse_file::{NoOutput, Parsed, relative_to};
use super::stamps::stamps;
use crate::state::database::DatastoreError;
use leoflow_base::sys::{blocking, clock};
use leoflow_engine::model::dag::Structure;
use leoflow_engine::model::dag_check;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::parsed_files::{self, ParsedDags, ParsedFile, Saved};
use leoflow_python::{NoResult, ParseOutput};
use serde_json::Map;
use std::path::{Path, PathBuf};
use tracing::{debug, warn};

impl DagFileLoop {
    /// Records the result of a parse and writes it to the datastore; starts another parse when it is outdated.
    pub(super) async fn save(&mut self, parsed: Parsed) {
        let path = parsed.path.clone();
        let Some(file) = self.index.get(&path) else {
            // Removed, or no longer a DAG file, since the parse started.
            return self.environments.clear_requirement(&path);
        };
        if !file.is_newest_parse(parsed.number) {
            // The result of the newer parse follows.
            return;
        }
        let is_current = self.record_inputs(&parsed).await;
        // One outdated result is not stored. If the inputs change during each parse, the file has no other results.
        let must_store = is_current || self.index.get(&path).is_some_and(DagFile::is_always_outdated);
        let must_repeat = must_store && self.store(parsed).await;
        if !is_current || must_repeat {
            self.parse(path);
        }
    }

    /// Records the result of a parse, and writes it to the datastore unless the file waits for its environment. Returns
    /// true if the file must be parsed again.
    async fn store(&mut self, mut parsed: Parsed) -> bool {
        let retry_delay = self.index.record(&parsed);
        match &mut parsed.output {
            Err(NoOutput::AwaitsEnvironment) => {
                // The DAGs of the last successful parse stay.
                self.finish_initial(&parsed.path);
                // The build may have ended in the meantime and will not notify again.
                return !self.environments.will_notify(&parsed.path);
            }
            Err(NoOutput::NoResult(NoResult::Transient(reason) | NoResult::TimedOut(reason))) => {
                let next_attempt = clock::rfc3339_in(retry_delay.unwrap_or_default());
                reason.push_str(&format!("\n\nThe next attempt is at {next_attempt}, or when a file changes."));
            }
            Err(NoOutput::NoResult(NoResult::Permanent(_))) | Ok(_) => {}
        }
        self.write(parsed).await;
        false
    }

    /// Writes the result of a parse to the datastore, or keeps it until the next attempt.
    pub(super) async fn write(&mut self, parsed: Parsed) {
        match self.try_save(&parsed).await {
            Ok(saved) => self.saved(&parsed, &saved),
            Err(error) => {
                warn!("failed to store the DAGs of {}: {error}; retrying", parsed.path.display());
                self.index.set_unsaved(parsed);
            }
        }
    }

    /// Records the files that the parse read. Returns false if the parse is outdated.
    async fn record_inputs(&mut self, parsed: &Parsed) -> bool {
        let output = &parsed.output;
        let mut sources: Vec<PathBuf> =
            output.iter().flat_map(|output| output.sources.keys().map(PathBuf::from)).collect();
        sources.extend(output.iter().flat_map(|output| output.reads.iter().cloned()));
        // Including missing files, which may be created.
        sources.extend(parsed.adjacent_files.keys().cloned());
        let uses_store = output.as_ref().is_ok_and(|output| output.asks);
        let absent = output.iter().flat_map(|output| output.absent.iter().cloned()).collect();
        let unlisted = self.index.unlisted(&sources);
        let mut outside = blocking::run(move || stamps(unlisted)).await.unwrap_or_default();
        // Scans notice a change of these files only once they are recorded here.
        let have_changed =
            parsed.adjacent_files.iter().any(|(path, stamp)| outside.get(path).is_some_and(|now| now != stamp));
        outside.extend(parsed.adjacent_files.iter().map(|(path, stamp)| (path.clone(), *stamp)));
        self.index.end_parse(&parsed.path, ParseInputs { sources, absent, uses_store, have_changed }, &outside)
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
        self.index.set_owner(&parsed.path, owner);
        if saved.released {
            self.parse_all(self.index.conflicting(&parsed.path));
        }
    }

    /// Removes a file from the initial parses.
    fn finish_initial(&mut self, path: &Path) {
        if self.index.finish_initial(path) {
            self.publish_initial();
        }
    }

    /// Publishes the number of initial parses that are not done. After the last one, requests no longer wait.
    pub(super) fn publish_initial(&self) {
        let count = self.index.initial_count();
        self.dag_files.initial_files.send_replace(Some(count));
        if count == 0 {
            self.dag_files.initial_parse.send_replace(true);
        }
    }

    /// Writes the result of a parse to the datastore.
    async fn try_save(&self, parsed: &Parsed) -> Result<Saved, DatastoreError> {
        let mut file = self.to_parsed_file(parsed);
        let mut client = self.core.database.get().await?;
        loop {
            let transaction = client.transaction().await?;
            match parsed_files::save(&transaction, &file).await {
                Ok(saved) => {
                    transaction.commit().await?;
                    return Ok(saved);
                }
                // The file's content is invalid; a retry would fail too.
                Err(StoreError::Invalid(reason)) if file.result.is_ok() => {
                    file.result = Err(format!("The DAG definition cannot be stored: {reason}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn to_parsed_file(&self, parsed: &Parsed) -> ParsedFile {
        let workspace = &self.context.workspace;
        ParsedFile {
            fileloc: parsed.path.to_string_lossy().into_owned(),
            duration: parsed.duration.as_secs_f64(),
            result: match &parsed.output {
                Err(no_output) => Err(no_output.to_string()),
                Ok(ParseOutput { error: Some(text), .. }) => Err(text.clone()),
                Ok(output) => dag_check::read(&output.structures)
                    .map(|dags| dags_to_store(dags, output, workspace, parsed))
                    .map_err(|error| error.to_string()),
            },
            relative_fileloc: relative_to(workspace, &parsed.path),
        }
    }
}

/// Adds the settings and sources of a file to its DAGs.
fn dags_to_store(mut dags: Vec<Structure>, output: &ParseOutput, workspace: &Path, parsed: &Parsed) -> ParsedDags {
    dags.iter_mut().for_each(|dag| dag.settings = output.settings.clone());
    let mut sources = Map::new();
    for (name, text) in &output.sources {
        sources.insert(relative_to(workspace, Path::new(name)), text.clone());
    }
    let source = output.sources.get(&*parsed.path.to_string_lossy()).and_then(|text| text.as_str()).unwrap_or_default();
    ParsedDags { dags, source: source.to_owned(), sources, environment: parsed.environment.clone() }
}
