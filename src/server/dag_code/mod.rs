//! Runs code of DAG files in child processes: custom timetables, which compute dates, and callbacks.

mod callback_report;
pub(crate) mod child_slots;
mod deadline_report;
pub(crate) mod provider_cache;
pub(crate) mod providers;
pub(crate) mod questions;
mod reach;
pub(crate) mod slot_policy;

use crate::environments::{CodeError, Environments};
use crate::state::Core;
use crate::state::database::DatastoreError;
use jiff::Timestamp;
use leoflow_engine::schedule::timetable::{Info, Interval, Restriction};
use leoflow_engine::scheduler::due_runs::{TimetableEvaluator, TimetableQuery};
use leoflow_engine::store::dag::callbacks::{self, Callback, Subject};
use leoflow_engine::store::dag::versions;
use leoflow_engine::store::events::Event;
use leoflow_engine::store::run::deadlines;
use leoflow_engine::store::run::new_run::isoformat;
use leoflow_python::{ChildOutput, VersionCode};
use provider_cache::ProviderCache;
use questions::Questions;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tracing::warn;

/// Runs code of DAG files, as stored with a DAG version, and code of environments.
pub struct DagCode {
    core: Arc<Core>,
    environments: Arc<Environments>,
    /// Set when the scheduler starts, if there is a workspace.
    questions: OnceLock<Questions>,
    providers: ProviderCache,
}

/// Maximum number of callbacks at the same time, one per DAG; a hanging callback does not block those of other DAGs.
const MAX_CALLBACKS: usize = 4;

/// Maximum number of attempts to start the callback of a deadline, one each minute: an hour, in which the datastore or
/// the package index may come back.
const MAX_ATTEMPTS: u32 = 60;

/// Poll interval for callbacks; catches missed notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(60);

/// A custom timetable's answer: its next runs.
#[derive(Deserialize)]
struct Infos {
    infos: Vec<InfoAnswer>,
}

#[derive(Deserialize)]
struct InfoAnswer {
    run_after: Timestamp,
    interval: Option<(Timestamp, Timestamp)>,
    run_id: Option<String>,
}

impl From<InfoAnswer> for Info {
    fn from(answered: InfoAnswer) -> Self {
        let InfoAnswer { run_after, interval, run_id } = answered;
        // The default run id is not kept, because the scheduler derives it from `run_after`.
        let run_id = run_id.filter(|run_id| *run_id != format!("scheduled__{}", isoformat(run_after)));
        Self { run_after, interval: interval.map(|(start, end)| Interval { start, end }), run_id, partition: None }
    }
}

/// Reads a child's answer.
fn answer_of<T: DeserializeOwned>(output: ChildOutput) -> Result<T, CodeError> {
    Ok(serde_json::from_value(output.answer()?)?)
}

impl DagCode {
    pub fn new(core: Arc<Core>, environments: Arc<Environments>) -> Self {
        Self { core, environments, questions: OnceLock::new(), providers: ProviderCache::default() }
    }

    /// Runs code from now on.
    pub fn start(&self, questions: Questions) {
        // Called once, so the cell is empty.
        let _ = self.questions.set(questions);
    }

    fn questions(&self) -> Result<&Questions, CodeError> {
        self.questions.get().ok_or(CodeError::NoWorkspace)
    }

    /// Returns the workspace; `None` without one, and before the scheduler starts. Then no code runs.
    pub fn workspace(&self) -> Option<&Path> {
        self.questions.get().map(Questions::workspace)
    }

    /// Runs the code of a DAG version to answer `question`, which holds its kind and parameters.
    async fn ask<T: DeserializeOwned>(&self, version_id: i64, dag_id: &str, question: Value) -> Result<T, CodeError> {
        answer_of(self.run(version_id, dag_id, question, Value::Null, None).await?)
    }

    /// Like `ask`, but returns the output of the process. `spec` is the callback to run, or null; `token` is that of the
    /// callback.
    async fn run(
        &self,
        version_id: i64,
        dag_id: &str,
        question: Value,
        spec: Value,
        token: Option<&str>,
    ) -> Result<ChildOutput, CodeError> {
        let questions = self.questions()?;
        let version = {
            let client = self.core.database.get().await?;
            versions::version(&*client, version_id).await?
        };
        let VersionCode { file, roots, folders, sources } =
            VersionCode::of(questions.workspace(), &version.relative_fileloc, &version.sources);
        let options = json!({
            "path": file, "roots": roots, "work_in": folders, "sources": sources, "settings": version.structure.settings,
            "dag_id": dag_id, "question": question, "spec": spec, "token": token, "socket": self.core.own_socket(),
        });
        let interpreter = match &version.environment {
            None => self.environments.interpreter.get().await?,
            Some(hash) => self.environments.with_hash(hash).await?.interpreter,
        };
        questions.ask(interpreter, options).await
    }

    /// Asks a custom timetable for the next `count` runs.
    pub async fn next_runs(
        &self,
        version_id: i64,
        dag_id: &str,
        last: Option<Interval>,
        restriction: Restriction,
        count: usize,
    ) -> Result<Vec<Info>, CodeError> {
        let question = json!({
            "kind": "next", "last": last.map(|last| [last.start, last.end]), "earliest": restriction.earliest,
            "latest": restriction.latest, "catchup": restriction.catchup, "count": count,
        });
        let Infos { infos } = self.ask(version_id, dag_id, question).await?;
        Ok(infos.into_iter().map(Info::from).collect())
    }

    /// Asks a custom timetable for the data interval of a manual run.
    pub async fn manual_interval(
        &self,
        version_id: i64,
        dag_id: &str,
        run_after: Timestamp,
    ) -> Result<Interval, CodeError> {
        #[derive(Deserialize)]
        struct Answer {
            interval: (Timestamp, Timestamp),
        }
        let question = json!({"kind": "manual", "run_after": run_after});
        let Answer { interval: (start, end) } = self.ask(version_id, dag_id, question).await?;
        Ok(Interval { start, end })
    }

    /// Runs pending callbacks, now and whenever new ones arrive. Never returns.
    pub async fn run_callbacks(self: Arc<Self>) {
        let mut events = self.core.changes.events.subscribe();
        // Catches missed notifications and failed reads.
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        let mut calls = JoinSet::new();
        let mut running: Vec<Running> = Vec::new();
        // Number of attempts to start the callback of a deadline, by the id of the deadline.
        let mut attempts: HashMap<String, u32> = HashMap::new();
        let mut may_be_interrupted = true;
        loop {
            if std::mem::take(&mut may_be_interrupted) {
                self.queue_interrupted(&running).await;
            }
            while calls.len() < MAX_CALLBACKS
                && let Some(callback) = self.take_callback(&running).await
            {
                let (code, dag_id) = (self.clone(), callback.key.instance.run.dag_id.clone());
                let deadline = if let Subject::Deadline(id) = &callback.subject { Some(id.clone()) } else { None };
                let attempt = deadline.as_ref().map_or(1, |id| *attempts.get(id).unwrap_or(&0) + 1);
                let call = calls.spawn_local(async move { code.run_callback(callback, attempt < MAX_ATTEMPTS).await });
                attempts.extend(deadline.clone().map(|id| (id, attempt)));
                running.push(Running { call: call.id(), dag_id, deadline });
            }
            loop {
                tokio::select! {
                    Some(finished) = calls.join_next_with_id() => {
                        let (id, has_ended) = finished.unwrap_or_else(|error| (error.id(), false));
                        for ended in running.extract_if(.., |running| running.call == id) {
                            if let Some(deadline) = ended.deadline.filter(|_| has_ended) {
                                attempts.remove(&deadline);
                            }
                        }
                        break;
                    }
                    // An error means that events were missed, one of which may have announced a callback.
                    event = events.recv() => if matches!(event, Ok(Event::Callback) | Err(_)) {
                        break;
                    },
                    _ = poll.tick() => {
                        may_be_interrupted = true;
                        break;
                    }
                }
            }
        }
    }

    /// Queues the callbacks of deadlines again that have not ended and do not run here: the server was killed, the datastore
    /// was lost, or the callback could not start.
    async fn queue_interrupted(&self, running: &[Running]) {
        let ids: Vec<&str> = running.iter().filter_map(|running| running.deadline.as_deref()).collect();
        let queued = async {
            let client = self.core.database.get().await?;
            Ok::<_, DatastoreError>(deadlines::queue_interrupted(&*client, &ids).await?)
        };
        if let Err(error) = queued.await {
            warn!("cannot queue callbacks of deadlines: {error}");
        }
    }

    /// Takes the oldest callback of a DAG without a running one. Taking removes it from the queue, so it runs at most
    /// once, except that of a deadline.
    async fn take_callback(&self, running: &[Running]) -> Option<Callback> {
        let busy: Vec<&str> = running.iter().map(|running| running.dag_id.as_str()).collect();
        let client = self.core.database.get().await.ok()?;
        let callback = callbacks::take(&*client, &busy).await;
        callback.inspect_err(|error| warn!("cannot read DAG callbacks: {error}")).ok().flatten()
    }

    /// Returns false if the callback of a deadline could not start and is queued again: it stays running in the datastore
    /// until the next poll. `may_retry` is false for the last attempt.
    async fn run_callback(&self, callback: Callback, may_retry: bool) -> bool {
        let Callback { key, subject, version_id, spec } = callback;
        let Some(version_id) = version_id else { return true };
        let token = self.core.callback_tokens.issue(key.clone());
        let question = json!({"kind": "callback"});
        let output = self.run(version_id, &key.instance.run.dag_id, question, spec, Some(token.text.as_str())).await;
        drop(token);
        if let Err(error) = &output
            && matches!(subject, Subject::Deadline(_))
            && may_retry
            && !error.may_have_run()
        {
            warn!("the callback of a deadline of {} cannot start: {error}; retrying", key.instance.run.dag_id);
            return false;
        }
        callback_report::record(&self.core, (&key, &subject), output).await;
        true
    }
}

/// A callback that runs.
struct Running {
    call: Id,
    dag_id: String,
    /// Id of the deadline, if it is one's.
    deadline: Option<String>,
}

/// Answers the scheduler's questions about custom timetables, if there is a workspace.
#[derive(Clone)]
pub struct DagCodeEvaluator(pub Arc<DagCode>);

impl TimetableEvaluator for DagCodeEvaluator {
    async fn next(&self, question: TimetableQuery) -> Result<Option<Info>, Box<dyn Error>> {
        let TimetableQuery { dag_id, version_id, last, restriction } = question;
        let infos = self.0.next_runs(version_id, &dag_id, last, restriction, 1).await?;
        Ok(infos.into_iter().next())
    }
}
