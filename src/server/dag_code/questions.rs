//! Sends questions to child processes, which run code of DAG files to answer them, such as a custom timetable's dates.

use super::child_slots::ChildSlots;
use super::slot_policy::Pace;
use leoflow_python::{ChildOutput, Children, Interpreter, Job};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// A handle for sending questions from any thread.
#[derive(Clone)]
pub struct Questions {
    workspace: PathBuf,
    sender: UnboundedSender<PendingQuestion>,
}

/// A question with the channel for its answer. It is sent to the main thread, the only one that starts children.
struct PendingQuestion {
    interpreter: Interpreter,
    options: Value,
    answer: oneshot::Sender<Result<ChildOutput, String>>,
}

impl Questions {
    /// Starts a task that answers questions with `children` until the last handle is dropped.
    pub fn new(workspace: PathBuf, children: Rc<Children>, slots: Rc<ChildSlots>) -> Self {
        let (sender, questions) = unbounded_channel();
        tokio::task::spawn_local(answer(children, slots, questions));
        Self { workspace, sender }
    }

    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Runs a child with these options and returns its output. The error is a text for users.
    pub async fn ask(&self, interpreter: Interpreter, options: Value) -> Result<ChildOutput, String> {
        let (answer, answered) = oneshot::channel();
        let shutting_down = "the server is shutting down".to_owned();
        self.sender.send(PendingQuestion { interpreter, options, answer }).map_err(|_| shutting_down.clone())?;
        answered.await.map_err(|_| shutting_down)?
    }
}

/// Starts a child per question. Returns when no handle is left.
async fn answer(children: Rc<Children>, slots: Rc<ChildSlots>, mut questions: UnboundedReceiver<PendingQuestion>) {
    while let Some(PendingQuestion { interpreter, options, mut answer }) = questions.recv().await {
        let (children, slots) = (children.clone(), slots.clone());
        tokio::task::spawn_local(async move {
            let (children, interpreter) = (&children, &interpreter);
            let run = slots.run(Pace::Question, |used| {
                let options = options.clone();
                async move { children.run(interpreter, Job::Ask, options, &used).await }
            });
            tokio::select! {
                outcome = run => drop(answer.send(outcome.result.map_err(|error| error.to_string()))),
                // The caller no longer waits.
                () = answer.closed() => {}
            }
        });
    }
}
