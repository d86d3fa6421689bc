//! One DAG file: what stands beside it, the environment that it wants, and its parse.

use super::super::child_slots::{ChildSlots, Ran};
use super::super::environments::{Asked, Environment};
use super::super::slot_policy::Pace;
use super::super::state::AppState;
use super::file_index::{Stamps, stamps};
use crate::python::{Beside, Children, Found, NoResult, Request, Said, look_beside, parse};
use crate::sys::blocking;
use serde_json::Value;
use std::cell::Cell;
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
    pub slots: Rc<ChildSlots>,
    pub results: UnboundedSender<Parsed>,
}

/// A parse that is done.
pub struct Parsed {
    pub path: PathBuf,
    pub began: SystemTime,
    pub took: Duration,
    pub found: Result<Found, NoResult>,
    /// What its code ran with; `None` for the plain interpreter.
    pub environment: Option<String>,
    /// Files beside it that decided how it is run, there or not, as they were then.
    pub beside: Stamps,
    /// It could not be parsed yet: its environment is being built.
    pub waits: bool,
    /// A slow one goes behind quick ones the next time.
    pub pace: Pace,
}

/// Parses a file with what stands beside it, and tells the loop.
pub async fn parse_one(shared: Rc<Shared>, path: PathBuf, pace: Pace, socket: PathBuf) {
    let request = Request::new(path, Some(&shared.workspace), socket);
    let work = |used: Rc<Cell<Duration>>| {
        let (shared, request) = (&shared, &request);
        async move { parse_with_slot(shared, request, &used).await }
    };
    let Ran { result, pace } = shared.slots.run(pace, work).await;
    // The loop lives as long as its tasks.
    let _ = shared.results.send(Parsed { pace, ..result });
}

async fn parse_with_slot(shared: &Shared, request: &Request, used: &Cell<Duration>) -> Parsed {
    let (began, clock, path) = (SystemTime::now(), Instant::now(), request.path.clone());
    let Beside { said, read } = look_beside(request).await;
    // As they are now: one that is written while the file is parsed has changed since.
    let beside = blocking::run(move || stamps(read)).await.unwrap_or_default();
    let (found, environment, waits) = match prepare(shared, &path, said).await {
        Prepared::Ready(Environment { hash, interpreter }, settings) => {
            (parse(&shared.children, &interpreter, request, settings, used).await, hash, false)
        }
        Prepared::Waits(what) => (Err(NoResult::Lasting(what)), None, true),
        Prepared::Impossible(none) => (Err(none), None, false),
    };
    Parsed { path, began, took: clock.elapsed(), found, environment, beside, waits, pace: Pace::Quick }
}

/// What a file is parsed with.
enum Prepared {
    /// With the settings of its project.
    Ready(Environment, Option<Value>),
    Waits(String),
    Impossible(NoResult),
}

async fn prepare(shared: &Shared, path: &Path, said: Result<Said, NoResult>) -> Prepared {
    let environments = &shared.state.environments;
    let Said { settings, declared } = match said {
        Ok(said) => said,
        Err(none) => {
            environments.wants_none(path);
            return Prepared::Impossible(none);
        }
    };
    let Some(declared) = declared else {
        environments.wants_none(path);
        return match shared.state.interpreter.get().await {
            Ok(interpreter) => Prepared::Ready(Environment { hash: None, interpreter }, settings),
            Err(missing) if missing.is_transient => Prepared::Impossible(NoResult::Passing(missing.reason)),
            Err(missing) => Prepared::Impossible(NoResult::Lasting(missing.reason)),
        };
    };
    match environments.of(&declared, path).await {
        Asked::Ready(environment) => Prepared::Ready(environment, settings),
        Asked::Waits(what) => Prepared::Waits(what),
        Asked::Failed(reason) => {
            let reason = format!("The environment of this project could not be made.\n{reason}");
            Prepared::Impossible(NoResult::Lasting(reason))
        }
    }
}
