//! What the server does without being asked: it parses DAG files, schedules, and calls callbacks.

use super::child_slots::ChildSlots;
use super::dag_code::{Asker, DagCode};
use super::dag_files;
use super::later_migrations;
use super::questions::Questions;
use super::state::AppState;
use super::ui_component;
use super::upkeep;
use crate::engine::scheduler;
use crate::postgres::Endpoint;
use crate::python::Children;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::{JoinError, JoinHandle, spawn_local};

pub struct Background {
    questions: Option<Questions>,
    files: Option<JoinHandle<()>>,
    scheduler: Option<JoinHandle<()>>,
    /// What may be cut off at any moment.
    helpers: Vec<JoinHandle<()>>,
}

impl Background {
    /// Watches and parses the workspace, where there is one.
    pub fn parsing(state: &Arc<AppState>, workspace: Option<PathBuf>) -> Self {
        let children = Children::new(&state.home);
        // Shared: together they are as many as there are processors.
        let slots = ChildSlots::new();
        let ask = |workspace| Questions::new(workspace, children.clone(), slots.clone());
        let questions = workspace.clone().map(ask);
        let files = workspace
            .map(|workspace| spawn_local(dag_files::run(state.clone(), workspace, children.clone(), slots.clone())));
        if files.is_none() {
            state.first_look.send_replace(true);
        }
        Self { questions, files, scheduler: None, helpers: Vec::new() }
    }

    /// From here on runs go on.
    pub fn schedule(&mut self, state: &Arc<AppState>, endpoint: Endpoint, application: tokio_postgres::Config) {
        if let Some(questions) = self.questions.clone() {
            // Set once, here.
            let _ = state.questions.set(questions);
        }
        let code = DagCode::of(state);
        if let Some(code) = code.clone() {
            self.helpers.push(spawn_local(async move { code.call_back().await }));
        }
        let state = state.clone();
        self.helpers.push(spawn_local({
            let state = state.clone();
            async move { state.database.give_back().await }
        }));
        self.helpers.push(spawn_local({
            let state = state.clone();
            async move { state.environments.keep_in_order().await }
        }));
        self.helpers.push(spawn_local(state.environments.clone().get_plain_python()));
        self.helpers.push(spawn_local(upkeep::keep(state.clone())));
        self.helpers.push(spawn_local(later_migrations::keep(state.clone())));
        self.helpers.push(spawn_local(ui_component::keep(state.home.clone(), state.ui.clone())));
        self.scheduler = Some(spawn_local(async move {
            let (told, beat) = (|event: Option<&_>| state.changes.tell(event), || state.scheduler_beat.beat());
            scheduler::run::run(&endpoint, &application, told, beat, Asker(code)).await;
        }));
    }

    /// Completes when a part of it has ended, with the reason; none does so by itself.
    pub async fn failed(&mut self) -> String {
        let ended: Result<(), JoinError> = tokio::select! {
            ended = until_end(self.scheduler.as_mut()) => ended,
            ended = until_end(self.files.as_mut()) => ended,
        };
        ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string())
    }

    /// What it does is in transactions: cut off, it has not happened.
    pub fn stop(self) {
        let tasks = self.scheduler.into_iter().chain(self.files).chain(self.helpers);
        tasks.for_each(|task| task.abort());
    }
}

/// Never, where nothing runs.
async fn until_end(task: Option<&mut JoinHandle<()>>) -> Result<(), JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
