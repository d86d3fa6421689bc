//! Questions to the code of DAG files, on their way to the children that answer them.

use super::child_slots::ChildSlots;
use super::slot_policy::Pace;
use crate::python::{Children, Interpreter, Job, Left};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// Where questions about a workspace's DAGs are asked.
#[derive(Clone)]
pub struct Questions {
    workspace: PathBuf,
    asked: UnboundedSender<Asked>,
}

/// Only the main task of the process may start children.
struct Asked {
    interpreter: Interpreter,
    options: Value,
    answer: oneshot::Sender<Result<Left, String>>,
}

impl Questions {
    /// They are answered by these children as long as anybody may ask.
    pub fn new(workspace: PathBuf, children: Rc<Children>, slots: Rc<ChildSlots>) -> Self {
        let (asked, questions) = unbounded_channel();
        tokio::task::spawn_local(answer(children, slots, questions));
        Self { workspace, asked }
    }

    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// What the child that answered has left. The error is for people.
    pub async fn ask(&self, interpreter: Interpreter, options: Value) -> Result<Left, String> {
        let (answer, answered) = oneshot::channel();
        let gone = "the server leaves".to_owned();
        self.asked.send(Asked { interpreter, options, answer }).map_err(|_| gone.clone())?;
        answered.await.map_err(|_| gone)?
    }
}

/// Starts a child for each question. Never returns while anybody may ask.
async fn answer(children: Rc<Children>, slots: Rc<ChildSlots>, mut questions: UnboundedReceiver<Asked>) {
    while let Some(Asked { interpreter, options, mut answer }) = questions.recv().await {
        let (children, slots) = (children.clone(), slots.clone());
        tokio::task::spawn_local(async move {
            let (children, interpreter) = (&children, &interpreter);
            let run = slots.run(Pace::Question, |used| {
                let options = options.clone();
                async move { children.run(interpreter, Job::Ask, options, &used).await }
            });
            tokio::select! {
                ran = run => drop(answer.send(ran.result.map_err(|none| none.to_string()))),
                // Nobody wants to know any more.
                () = answer.closed() => {}
            }
        });
    }
}
