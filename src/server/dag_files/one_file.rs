//! One DAG file: what stands beside it, the environment that it wants, and its parse.

use super::super::child_slots::ChildSlots;
use super::super::environments::{Asked, Environment};
use super::super::state::AppState;
use super::file_index::{Stamps, stamps};
use crate::python::{Beside, Children, Found, Request, Said, look_beside, parse};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedSender;

/// What every parse needs.
pub struct Shared {
    pub state: Arc<AppState>,
    pub workspace: PathBuf,
    pub children: Rc<Children>,
    pub slots: ChildSlots,
    pub results: UnboundedSender<Parsed>,
}

/// A parse that is done.
pub struct Parsed {
    pub path: PathBuf,
    pub began: SystemTime,
    pub took: Duration,
    pub found: Result<Found, String>,
    /// What its code ran with; `None` for the plain interpreter.
    pub environment: Option<String>,
    /// Files beside it that decided how it is run, there or not, as they were then.
    pub beside: Stamps,
    /// It could not be parsed yet: its environment is being built.
    pub waits: bool,
}

/// Parses a file with what stands beside it, and tells the loop.
pub async fn parse_one(shared: Rc<Shared>, path: PathBuf, socket: PathBuf) {
    let work = async {
        let (began, clock) = (SystemTime::now(), Instant::now());
        let request = Request::new(path.clone(), Some(&shared.workspace), socket);
        let Beside { said, read } = look_beside(&request).await;
        // As they are now: one that is written while the file is parsed has changed since.
        let beside = tokio::task::spawn_blocking(move || stamps(read)).await.unwrap_or_default();
        let (found, environment, waits) = match prepare(&shared, &path, said).await {
            Prepared::Ready(Environment { hash, interpreter }, settings) => {
                (parse(&shared.children, &interpreter, &request, settings).await, hash, false)
            }
            Prepared::Waits(what) => (Err(what), None, true),
            Prepared::Impossible(reason) => (Err(reason), None, false),
        };
        Parsed { path, began, took: clock.elapsed(), found, environment, beside, waits }
    };
    // The loop lives as long as its tasks.
    let _ = shared.results.send(shared.slots.run(work).await);
}

/// What a file is parsed with.
enum Prepared {
    /// With the settings of its project.
    Ready(Environment, Option<Value>),
    Waits(String),
    Impossible(String),
}

async fn prepare(shared: &Shared, path: &Path, said: Result<Said, String>) -> Prepared {
    let environments = &shared.state.environments;
    let Said { settings, declared } = match said {
        Ok(said) => said,
        Err(reason) => {
            environments.wants_none(path);
            return Prepared::Impossible(reason);
        }
    };
    let Some(declared) = declared else {
        environments.wants_none(path);
        return match shared.state.interpreter.get().await {
            Ok(interpreter) => Prepared::Ready(Environment { hash: None, interpreter }, settings),
            Err(reason) => Prepared::Impossible(reason),
        };
    };
    match environments.of(&declared, path).await {
        Asked::Ready(environment) => Prepared::Ready(environment, settings),
        Asked::Waits(what) => Prepared::Waits(what),
        Asked::Failed(reason) => {
            Prepared::Impossible(format!("The environment of this project could not be made.\n{reason}"))
        }
    }
}
