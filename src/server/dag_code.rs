//! What only a DAG file's own code can answer: when it is due by a timetable of the user's own, and what its
//! callbacks do.

use super::questions::Questions;
use super::state::AppState;
use crate::engine::schedule::timetable::{Info, Interval, Restriction};
use crate::engine::scheduler::due_runs::{Oracle, Question};
use crate::engine::store::callbacks::{self, Callback};
use crate::engine::store::events::Event;
use crate::engine::store::new_run::isoformat;
use crate::engine::store::versions;
use crate::python::VersionCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tracing::warn;

/// Runs DAG files' code.
#[derive(Clone)]
pub struct DagCode {
    state: Arc<AppState>,
    questions: Questions,
}

/// DAGs whose callbacks are called at once: one that hangs holds up no other's.
const CALLS_AT_ONCE: usize = 4;

/// How often callbacks are looked for without having been told of any.
const BACKSTOP: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Infos {
    infos: Vec<AnsweredInfo>,
}

#[derive(Deserialize)]
struct AnsweredInfo {
    run_after: Timestamp,
    interval: Option<(Timestamp, Timestamp)>,
    run_id: Option<String>,
}

impl From<AnsweredInfo> for Info {
    fn from(answered: AnsweredInfo) -> Self {
        let AnsweredInfo { run_after, interval, run_id } = answered;
        // The ids that everybody has are worked out where they are needed.
        let run_id = run_id.filter(|run_id| *run_id != format!("scheduled__{}", isoformat(run_after)));
        Self { run_after, interval: interval.map(|(start, end)| Interval { start, end }), run_id, partition: None }
    }
}

impl DagCode {
    pub fn new(state: Arc<AppState>, questions: Questions) -> Self {
        Self { state, questions }
    }

    /// For requests: there is none without a workspace, and none before runs go on.
    pub fn of(state: &Arc<AppState>) -> Option<Self> {
        Some(Self::new(state.clone(), state.questions.get()?.clone()))
    }

    /// Asks the code of a version. The error is for people.
    pub async fn ask(&self, version_id: i64, dag_id: &str, question: Value, spec: Value) -> Result<Value, String> {
        let version = {
            let client = self.state.database.get().await.map_err(|error| error.message())?;
            versions::version(&*client, version_id).await.map_err(|error| error.to_string())?
        };
        let VersionCode { file, roots, folders, sources } =
            VersionCode::of(self.questions.workspace(), &version.relative_fileloc, &version.sources);
        let options = json!({
            "path": file, "roots": roots, "work_in": folders, "sources": sources, "settings": version.structure.settings,
            "dag_id": dag_id, "question": question, "spec": spec, "socket": self.state.own_socket(),
        });
        let interpreter = match &version.environment {
            None => self.state.interpreter.get().await?,
            Some(hash) => self.state.environments.with_hash(hash).await?.interpreter,
        };
        self.questions.ask(interpreter, options).await?.answer()
    }

    /// The next `count` runs by a timetable of the user's own.
    pub async fn next_runs(
        &self,
        version_id: i64,
        dag_id: &str,
        last: Option<Interval>,
        restriction: Restriction,
        count: usize,
    ) -> Result<Vec<Info>, String> {
        let question = json!({
            "kind": "next", "last": last.map(|last| [last.start, last.end]), "earliest": restriction.earliest,
            "latest": restriction.latest, "catchup": restriction.catchup, "count": count,
        });
        let answer = self.ask(version_id, dag_id, question, Value::Null).await?;
        let infos: Infos = serde_json::from_value(answer).map_err(|error| error.to_string())?;
        Ok(infos.infos.into_iter().map(Info::from).collect())
    }

    /// The interval of a run that is started by hand for a date.
    pub async fn manual(&self, version_id: i64, dag_id: &str, run_after: Timestamp) -> Result<Interval, String> {
        #[derive(Deserialize)]
        struct Answer {
            interval: (Timestamp, Timestamp),
        }
        let question = json!({"kind": "manual", "run_after": run_after});
        let answer = self.ask(version_id, dag_id, question, Value::Null).await?;
        let Answer { interval: (start, end) } = serde_json::from_value(answer).map_err(|error| error.to_string())?;
        Ok(Interval { start, end })
    }

    /// Calls the callbacks that are to be called, now and whenever there are new ones. Never returns.
    pub async fn call_back(self) {
        let mut events = self.state.changes.events.subscribe();
        let mut calls = JoinSet::new();
        let mut under_way: Vec<(Id, String)> = Vec::new();
        loop {
            while calls.len() < CALLS_AT_ONCE
                && let Some(callback) = self.take_callback(&under_way).await
            {
                let (code, dag_id) = (self.clone(), callback.run.dag_id.clone());
                let call = calls.spawn_local(async move { code.call(callback).await });
                under_way.push((call.id(), dag_id));
            }
            loop {
                tokio::select! {
                    Some(called) = calls.join_next_with_id() => {
                        let id = called.map_or_else(|error| error.id(), |(id, ())| id);
                        under_way.retain(|(other, _)| *other != id);
                        break;
                    }
                    // One that was missed may have been a callback.
                    event = events.recv() => if !matches!(event, Ok(event) if !matches!(event, Event::Callback | Event::Dags)) {
                        break;
                    },
                    // Whatever became of a notification, or of the last attempt to read.
                    () = tokio::time::sleep(BACKSTOP) => break,
                }
            }
        }
    }

    /// The oldest of a DAG that has none under way, which from then on is ours: it is called at most once.
    async fn take_callback(&self, under_way: &[(Id, String)]) -> Option<Callback> {
        let busy: Vec<&str> = under_way.iter().map(|(_, dag_id)| dag_id.as_str()).collect();
        let client = self.state.database.get().await.ok()?;
        match callbacks::take(&*client, &busy).await {
            Ok(callback) => callback,
            Err(error) => {
                warn!("the callbacks of DAGs cannot be read: {error}");
                None
            }
        }
    }

    async fn call(&self, callback: Callback) {
        let Callback { run, version_id, spec } = callback;
        let Some(version_id) = version_id else { return };
        let name = format!("the callback of {} for {}", run.dag_id, run.run_id);
        match self.ask(version_id, &run.dag_id, json!({"kind": "callback"}), spec).await {
            Err(error) => warn!("{name}: {error}"),
            Ok(answer) => {
                let problems = answer.get("problems").and_then(Value::as_array);
                for problem in problems.into_iter().flatten().filter_map(Value::as_str) {
                    warn!("{name}: {problem}");
                }
            }
        }
    }
}

/// Asks the code of DAGs, where there is a workspace with some.
#[derive(Clone)]
pub struct Asker(pub Option<DagCode>);

impl Oracle for Asker {
    async fn next(&self, question: Question) -> Result<Option<Info>, String> {
        let Some(code) = &self.0 else { return Err("there is no workspace".to_owned()) };
        let Question { dag_id, version_id, last, restriction } = question;
        let infos = code.next_runs(version_id, &dag_id, last, restriction, 1).await?;
        Ok(infos.into_iter().next())
    }
}
