//! Background tasks of the server: DAG parsing, scheduling, callbacks and upkeep.

use super::{copies, later_migrations, upkeep};
use crate::app_state::AppState;
use crate::dag_code::DagCodeEvaluator;
use crate::dag_code::child_slots::ChildSlots;
use crate::dag_code::questions::Questions;
use crate::dag_files;
use crate::history::deleted_logs;
use crate::notify;
use crate::release::ui_component;
use crate::telemetry;
use leoflow_engine::scheduler;
use leoflow_postgres::Endpoint;
use leoflow_python::Children;
use std::path::PathBuf;
use tokio::task::{JoinError, JoinHandle, spawn_local};

/// The tasks. Some helpers end by themselves; `stop` aborts the others.
pub struct Background {
    workspace: Option<PathBuf>,
    /// Asks the code of DAG files; `None` without a workspace, like `files`.
    questions: Option<Questions>,
    /// Parses DAG files.
    files: Option<JoinHandle<()>>,
    scheduler: Option<JoinHandle<()>>,
    /// Tasks that may be aborted at any time.
    helpers: Vec<JoinHandle<()>>,
}

impl Background {
    /// Watches and parses the workspace, if there is one.
    pub fn start_parsing(state: &AppState, workspace: Option<PathBuf>) -> Self {
        let children = Children::new(&state.core.home);
        // Shared by parses and questions, so that together they use at most one child per processor.
        let slots = ChildSlots::new();
        let new_questions = |workspace| Questions::new(workspace, children.clone(), slots.clone());
        let questions = workspace.clone().map(new_questions);
        let parts = (state.core.clone(), state.environments.clone(), state.dag_files.clone());
        let files = workspace
            .clone()
            .map(|workspace| spawn_local(dag_files::run(parts, workspace, children.clone(), slots.clone())));
        if files.is_none() {
            state.dag_files.close();
        }
        Self { workspace, questions, files, scheduler: None, helpers: Vec::new() }
    }

    /// Starts the scheduler and the other background tasks.
    pub fn start_scheduling(&mut self, state: &AppState, endpoint: Endpoint, application: tokio_postgres::Config) {
        if let Some(questions) = self.questions.clone() {
            state.dag_code.start(questions);
            self.helpers.push(spawn_local(state.dag_code.clone().run_callbacks()));
        }
        let (core, environments) = (state.core.clone(), state.environments.clone());
        self.helpers.push(spawn_local(async move { core.database.close_idle().await }));
        self.helpers.push(spawn_local(async move { environments.maintain().await }));
        self.helpers.push(spawn_local(state.environments.clone().ensure_plain_python()));
        self.helpers.push(spawn_local(upkeep::run(state.clone())));
        self.helpers.push(spawn_local(copies::run(state.clone())));
        self.helpers.push(spawn_local(deleted_logs::settle_leftovers(state.core.clone())));
        self.helpers.push(spawn_local(notify::run(state.core.clone())));
        let folders: Vec<PathBuf> = self.workspace.clone().into_iter().collect();
        let variable = move |name: &str| leoflow_python::variable(&folders, name);
        self.helpers.push(spawn_local(telemetry::run(state.core.clone(), state.release.version, variable)));
        self.helpers.push(spawn_local(later_migrations::run(state.clone())));
        self.helpers.push(spawn_local(ui_component::install(state.core.home.clone(), state.release.clone())));
        let state = state.clone();
        self.scheduler = Some(spawn_local(async move {
            let (on_event, on_beat) =
                (|event: Option<&_>| state.core.changes.publish(event), || state.core.phase.scheduler_beat.beat());
            let (totals, evaluator) = (&state.core.totals, DagCodeEvaluator(state.dag_code.clone()));
            scheduler::run::run(&endpoint, &application, totals, on_event, on_beat, evaluator).await;
        }));
    }

    /// Completes with the reason when the scheduler or the parser ends; neither ends in normal operation.
    pub async fn wait_for_failure(&mut self) -> String {
        let ended: Result<(), JoinError> = tokio::select! {
            ended = wait_for_end(self.scheduler.as_mut()) => ended,
            ended = wait_for_end(self.files.as_mut()) => ended,
        };
        ended.err().map_or_else(|| "it ended unexpectedly".to_owned(), |error| error.to_string())
    }

    /// Aborts all tasks. Open transactions are rolled back; operations in processes of their own continue.
    pub fn stop(self) {
        let tasks = self.scheduler.into_iter().chain(self.files).chain(self.helpers);
        tasks.for_each(|task| task.abort());
    }
}

/// Pends for ever when there is no task.
async fn wait_for_end(task: Option<&mut JoinHandle<()>>) -> Result<(), JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
