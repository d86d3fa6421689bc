//! Sends questions to child processes, which run code of DAG files to answer them, such as a custom timetable's dates.

use super::child_slots::ChildSlots;
use super::slot_policy::Priority;
use crate::environments::CodeError;
use leoflow_python::{ChildOutput, Children, Interpreter, Job, NoResult};
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
    answer: oneshot::Sender<Result<ChildOutput, NoResult>>,
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

    /// Runs a child with these options and returns its output.
    pub async fn ask(&self, interpreter: Interpreter, options: Value) -> Result<ChildOutput, CodeError> {
        let (answer, answered) = oneshot::channel();
        let question = PendingQuestion { interpreter, options, answer };
        self.sender.send(question).map_err(|_| CodeError::ShuttingDown)?;
        Ok(answered.await.map_err(|_| CodeError::ShuttingDown)??)
    }
}

/// Starts a child per question. Returns when no handle is left.
async fn answer(children: Rc<Children>, slots: Rc<ChildSlots>, mut questions: UnboundedReceiver<PendingQuestion>) {
    while let Some(PendingQuestion { interpreter, options, mut answer }) = questions.recv().await {
        let (children, slots) = (children.clone(), slots.clone());
        tokio::task::spawn_local(async move {
            let (children, interpreter) = (&children, &interpreter);
            let run = slots.run(Priority::question(), |used| {
                let options = options.clone();
                async move { children.run(interpreter, Job::Ask, options, &used).await }
            });
            tokio::select! {
                (result, _) = run => drop(answer.send(result)),
                // The caller no longer waits.
                () = answer.closed() => {}
            }
        });
    }
}
