//! Finds the Python of a project, or downloads one.

use super::{BuildState, Environments, retry_delay};
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::blocking;
use leoflow_base::sys::mutex::lock;
use leoflow_python::environments::{self, Declared, MissingPython};
use leoflow_python::{Interpreter, Python};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Interval for checking whether a Python has been installed.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Downloads by the version ranges they must satisfy.
#[derive(Default)]
pub struct PythonDownloads(Mutex<HashMap<Vec<String>, State>>);

enum State {
    /// Holds the current step.
    UnderWay(String),
    /// Holds the number of consecutive failures.
    Failed { reason: String, failed_at: Instant, failures: u32 },
}

/// Why there is no Python; the texts are for users.
pub enum NoPython {
    /// It is being downloaded.
    Downloading(String),
    Unavailable(String),
}

impl Environments {
    /// Returns a Python that satisfies the declaration; starts downloading one if there is none.
    pub(super) async fn python_for(
        self: &Arc<Self>,
        declared: &Declared,
        plain: &Interpreter,
    ) -> Result<Python, NoPython> {
        let is_same =
            |(known, python, _): &&(Declared, Python, BuildState)| known.is_equal_to(declared) && python.path.is_file();
        if let Some((_, python, _)) = lock(&self.states).values().find(is_same) {
            return Ok(python.clone());
        }
        if let Some(State::UnderWay(progress)) = lock(&self.python_downloads.0).get(&declared.python) {
            return Err(NoPython::Downloading(progress.clone()));
        }
        let (home, declared, plain) = (self.core.home.clone(), declared.clone(), plain.clone());
        let find_python = move || plain.python().map(|plain| environments::choose(&home, &declared, &plain));
        match blocking::run(find_python).await {
            Ok(Ok(Ok(python))) => Ok(python),
            Ok(Ok(Err(missing))) => Err(self.start_download(missing)),
            Ok(Err(missing)) => Err(NoPython::Unavailable(missing.reason)),
            Err(error) => Err(NoPython::Unavailable(error.to_string())),
        }
    }

    /// Starts a download, unless it is under way or failed recently.
    fn start_download(self: &Arc<Self>, missing: MissingPython) -> NoPython {
        let mut states = lock(&self.python_downloads.0);
        let failures = match states.get(&missing.ranges) {
            Some(State::UnderWay(progress)) => return NoPython::Downloading(progress.clone()),
            Some(State::Failed { reason, failed_at, failures }) => {
                if failed_at.elapsed() < retry_delay(*failures) {
                    return NoPython::Unavailable(reason.clone());
                }
                *failures
            }
            None => 0,
        };
        let progress = missing.progress_text();
        states.insert(missing.ranges.clone(), State::UnderWay(progress.clone()));
        drop(states);
        tokio::spawn(self.clone().download_python(missing, failures));
        NoPython::Downloading(progress)
    }

    /// Downloads a Python if this machine has none and none is configured. Returns when one exists or is configured.
    pub async fn ensure_plain_python(self: Arc<Self>) {
        while let Err(missing) = self.interpreter.get().await {
            if self.interpreter.is_configured() {
                return;
            }
            let message = missing.reason.lines().next().unwrap_or_default().to_owned();
            self.start_download(MissingPython { ranges: Vec::new(), message });
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    async fn download_python(self: Arc<Self>, missing: MissingPython, failures: u32) {
        let (this, ranges, waited_for) = (self.clone(), missing.ranges.clone(), missing.ranges.clone());
        let get = move || {
            let report = |progress: Progress| {
                let (Progress::Started(step) | Progress::Detail(step)) = progress else { return };
                lock(&this.python_downloads.0).insert(missing.ranges.clone(), State::UnderWay(step));
            };
            missing.install(&this.core.home, &report).map_err(|error| error.to_string())
        };
        let downloaded = blocking::run(get).await.unwrap_or_else(|error| Err(error.to_string()));
        match downloaded {
            Ok(python) => {
                info!("Python {} is installed", python.version);
                lock(&self.python_downloads.0).remove(&ranges);
            }
            Err(reason) => {
                warn!("{reason}");
                let failed = State::Failed { reason, failed_at: Instant::now(), failures: failures + 1 };
                lock(&self.python_downloads.0).insert(ranges, failed);
            }
        }
        // Removes the environments that wait for this Python, so that their files request it again. A file whose parse
        // is saved later is parsed again too, because `will_notify` is false without the state.
        lock(&self.states)
            .retain(|_, (declared, python, _)| *python != Python::default() || declared.python != waited_for);
        self.changed.notify_one();
    }

    /// Allows failed downloads to be retried at once.
    pub(super) fn clear_failed_downloads(&self) {
        lock(&self.python_downloads.0).retain(|_, state| matches!(state, State::UnderWay(_)));
    }
}
