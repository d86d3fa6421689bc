//! The Python of a project: one that is there, or one that is got for it.

use super::{Environments, Known, pause_after};
use crate::home::progress::Progress;
use crate::python::environments::{self, Declared, Missing};
use crate::python::{Interpreter, Python};
use crate::sys::blocking;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Until it is looked whether there is a Python now.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// By the ranges that it has to hold to.
#[derive(Default)]
pub struct Getting(Mutex<HashMap<Vec<String>, State>>);

enum State {
    /// What is done now.
    UnderWay(String),
    /// So often in a row.
    Failed { reason: String, at: Instant, times: u32 },
}

impl Getting {
    fn states(&self) -> MutexGuard<'_, HashMap<Vec<String>, State>> {
        // Nothing that holds it can panic half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is no Python, and this is what is said of it.
pub enum Without {
    /// It is being got.
    Yet(String),
    Any(String),
}

impl Environments {
    pub(super) async fn python_for(
        self: &Arc<Self>,
        declared: &Declared,
        plain: &Interpreter,
    ) -> Result<Python, Without> {
        let same = |(known, python, _): &&(Declared, Python, Known)| known == declared && python.path.is_file();
        if let Some((_, python, _)) = self.known().values().find(same) {
            return Ok(python.clone());
        }
        if let Some(State::UnderWay(what)) = self.getting_python.states().get(&declared.python) {
            return Err(Without::Yet(what.clone()));
        }
        let (home, declared, plain) = (self.home.clone(), declared.clone(), plain.clone());
        let look = move || plain.python().map(|plain| environments::choose(&home, &declared, &plain));
        match blocking::run(look).await {
            Ok(Ok(Ok(python))) => Ok(python),
            Ok(Ok(Err(missing))) => Err(self.begin_to_get(missing)),
            Ok(Err(missing)) => Err(Without::Any(missing.reason)),
            Err(error) => Err(Without::Any(error.to_string())),
        }
    }

    fn begin_to_get(self: &Arc<Self>, missing: Missing) -> Without {
        let mut states = self.getting_python.states();
        let times = match states.get(&missing.ranges) {
            Some(State::UnderWay(what)) => return Without::Yet(what.clone()),
            Some(State::Failed { reason, at, times }) => {
                if at.elapsed() < pause_after(*times) {
                    return Without::Any(reason.clone());
                }
                *times
            }
            None => 0,
        };
        let what = missing.what_is_done();
        states.insert(missing.ranges.clone(), State::UnderWay(what.clone()));
        drop(states);
        tokio::spawn(self.clone().get_python(missing, times));
        Without::Yet(what)
    }

    /// Where this machine has no Python at all, and nobody has named one, gets one for whatever asks for none. Returns when
    /// there is one.
    pub async fn get_plain_python(self: Arc<Self>) {
        while let Err(missing) = self.interpreter.get().await {
            if self.interpreter.is_configured() {
                return;
            }
            let message = missing.reason.lines().next().unwrap_or_default().to_owned();
            self.begin_to_get(Missing { ranges: Vec::new(), message });
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn get_python(self: Arc<Self>, missing: Missing, times: u32) {
        // An environment that is being built may be getting uv, too.
        let _turn = self.turn.lock().await;
        let (this, ranges, waited_for) = (self.clone(), missing.ranges.clone(), missing.ranges.clone());
        let get = move || {
            let report = |progress: Progress| {
                let (Progress::Started(what) | Progress::Detail(what)) = progress else { return };
                this.getting_python.states().insert(missing.ranges.clone(), State::UnderWay(what));
            };
            missing.get(&this.home, &report)
        };
        let got = blocking::run(get).await.unwrap_or_else(|error| Err(error.to_string()));
        match got {
            Ok(python) => {
                info!("Python {} is there now", python.version);
                self.getting_python.states().remove(&ranges);
            }
            Err(reason) => {
                warn!("{reason}");
                let failed = State::Failed { reason, at: Instant::now(), times: times + 1 };
                self.getting_python.states().insert(ranges, failed);
            }
        }
        // Who was told to wait for it asks again, also one that is told only now.
        self.known().retain(|_, (declared, python, _)| *python != Python::default() || declared.python != waited_for);
        self.changed.notify_one();
    }

    /// What could not be had is tried again at once.
    pub(super) fn forget_failed_pythons(&self) {
        self.getting_python.states().retain(|_, state| matches!(state, State::UnderWay(_)));
    }
}
