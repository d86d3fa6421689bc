//! The environments that projects ask for: found, or built one at a time beside everything else.

mod python;
mod upkeep;
mod uv;

use self::python::Without;
use super::change_feed::Changes;
use super::database::Database;
use crate::engine::store::environments as store;
use crate::engine::store::events::Event;
use crate::home::Home;
use crate::home::progress::Progress;
use crate::python::environments::{self, Declared, Lock};
use crate::python::{Interpreter, Python, SharedInterpreter};
use crate::sys::blocking;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{info, warn};

/// Until what failed is tried again; then longer and longer.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_LONGEST: Duration = Duration::from_secs(3600);
/// Until a Python that is not here is looked for again, and a datastore that did not answer is asked.
const PYTHON_AGAIN: Duration = Duration::from_secs(60);
const STORE_AGAIN: Duration = Duration::from_secs(2);
/// What is said of one that is not begun yet.
const ITS_TURN: &str = "Waiting for its turn";

/// A Python with the packages that a project asks for.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Of its lock; `None` for the plain interpreter.
    pub hash: Option<String>,
    pub interpreter: Interpreter,
}

/// What is known of what is wanted.
#[derive(Debug, Clone)]
enum Known {
    Ready(Environment),
    /// What is done for it now.
    Building(String),
    /// So often in a row.
    Failed {
        reason: String,
        times: u32,
    },
    /// It failed so often, and is begun again when it is asked for.
    Again {
        times: u32,
    },
}

/// Until what has failed so often in a row is tried again.
fn pause_after(times: u32) -> Duration {
    (AGAIN * 4u32.saturating_pow(times.saturating_sub(1))).min(AGAIN_LONGEST)
}

/// What came of asking for one.
#[derive(Debug)]
pub enum Asked {
    Ready(Environment),
    /// `changed` tells when to ask again. The text is for people.
    Waits(String),
    Failed(String),
}

/// One that is wanted, for those who ask how it is.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Wanted {
    pub declared: Declared,
    pub python: String,
    /// Who wants it.
    pub files: Vec<PathBuf>,
    pub state: &'static str,
    pub detail: Option<String>,
    pub hash: Option<String>,
}

pub struct Environments {
    home: Home,
    interpreter: Arc<SharedInterpreter>,
    database: Arc<Database>,
    /// Pages and commands that show how it goes.
    shown: Arc<Changes>,
    /// By inputs.
    known: Mutex<HashMap<String, (Declared, Python, Known)>>,
    /// What each DAG file wants, as inputs.
    wanted_by: Mutex<HashMap<PathBuf, String>>,
    getting_uv: uv::Getting,
    getting_python: python::Getting,
    /// Held by the one that is built.
    turn: tokio::sync::Mutex<()>,
    /// One that was waited for is there, or is not to be had.
    pub changed: Notify,
    /// `changed` tells after a while, because something passing stood in the way.
    is_timed: AtomicBool,
    /// Files whose environment is another one now.
    outdated: Mutex<Vec<PathBuf>>,
}

impl Environments {
    pub fn new(home: Home, interpreter: Arc<SharedInterpreter>, database: Arc<Database>, shown: Arc<Changes>) -> Self {
        Self {
            home,
            interpreter,
            database,
            shown,
            known: Mutex::default(),
            wanted_by: Mutex::default(),
            getting_uv: uv::Getting::default(),
            getting_python: python::Getting::default(),
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            is_timed: AtomicBool::new(false),
            outdated: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Declared, Python, Known)>> {
        // Nothing that holds it can panic half way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, file: &Path, inputs: Option<&str>) {
        let mut wanted_by = self.wanted_by.lock().unwrap_or_else(PoisonError::into_inner);
        match inputs {
            Some(inputs) => drop(wanted_by.insert(file.to_owned(), inputs.to_owned())),
            None => drop(wanted_by.remove(file)),
        }
    }

    /// A file that is enough with the plain interpreter, or cannot say what it wants.
    pub fn wants_none(&self, file: &Path) {
        self.wants(file, None);
    }

    /// Forgets files that are no DAG files any more, and what nobody wants.
    pub fn keep_only(&self, is_dag_file: impl Fn(&Path) -> bool) {
        let mut wanted_by = self.wanted_by.lock().unwrap_or_else(PoisonError::into_inner);
        wanted_by.retain(|file, _| is_dag_file(file));
        let is_wanted = |inputs: &String| wanted_by.values().any(|wanted| wanted == inputs);
        self.known().retain(|inputs, (_, _, known)| is_wanted(inputs) || matches!(known, Known::Building(_)));
    }

    /// The environment of what stands beside a DAG file. Where there is none yet, it is begun.
    pub async fn of(self: &Arc<Self>, declared: &Declared, file: &Path) -> Asked {
        let plain = match self.interpreter.get().await {
            Ok(plain) => plain,
            Err(missing) => return Asked::Failed(missing.reason),
        };
        // How it is known for as long as there is no Python for it.
        let before = declared.inputs(&format!("none of {}", declared.python.join(" ")));
        let python = match self.python_for(declared, &plain).await {
            Ok(python) => {
                self.known().remove(&before);
                python
            }
            Err(Without::Yet(what)) => {
                self.wants(file, Some(&before));
                self.set(&before, declared, &Python::default(), Known::Building(what.clone()));
                return Asked::Waits(what);
            }
            Err(Without::Any(reason)) => {
                self.known().remove(&before);
                // It may be installed any moment.
                self.ask_again_in(PYTHON_AGAIN);
                return Asked::Failed(reason);
            }
        };
        if declared.is_plain(&python, &plain.program) {
            // It only says which Python it takes, and that is the plain one.
            self.wants_none(file);
            return Asked::Ready(Environment { hash: None, interpreter: plain });
        }
        let inputs = declared.inputs_with(&python);
        self.wants(file, Some(&inputs));
        let times = match self.begin(&inputs, declared, &python) {
            Ok(times) => times,
            Err(known) => return known,
        };
        // From here on others wait for this. In a task of its own: who asks may be cut off at any moment.
        let (this, whole, file) = (self.clone(), (declared.clone(), python), file.to_owned());
        let begun = tokio::spawn(async move { this.find_or_make(inputs, whole, plain, times, file).await });
        begun.await.unwrap_or_else(|error| Asked::Failed(error.to_string()))
    }

    async fn find_or_make(
        self: Arc<Self>,
        inputs: String,
        (declared, python): (Declared, Python),
        plain: Interpreter,
        times: u32,
        file: PathBuf,
    ) -> Asked {
        match self.look_for(&inputs, &plain).await {
            Err(reason) => {
                self.known().remove(&inputs);
                self.ask_again_in(STORE_AGAIN);
                Asked::Waits(reason)
            }
            Ok((_, Some(one))) => {
                self.set(&inputs, &declared, &python, Known::Ready(one.clone()));
                if self.is_wanted_by_others(&inputs, &file) {
                    self.changed.notify_one();
                }
                Asked::Ready(one)
            }
            Ok((lock, None)) => {
                info!("building the environment of {}", file.display());
                self.shown.tell(Some(&Event::Dags));
                tokio::spawn(self.make(inputs, (declared, python, lock), plain, times));
                Asked::Waits(ITS_TURN.to_owned())
            }
        }
    }

    fn is_wanted_by_others(&self, inputs: &str, file: &Path) -> bool {
        let wanted_by = self.wanted_by.lock().unwrap_or_else(PoisonError::into_inner);
        wanted_by.iter().any(|(other, wanted)| wanted == inputs && other != file)
    }

    /// Says that it is being built, where nobody has; how often that has failed in a row. Else what is known.
    fn begin(&self, inputs: &str, declared: &Declared, python: &Python) -> Result<u32, Asked> {
        let mut known = self.known();
        let times = match known.get(inputs).map(|(_, _, known)| known.clone()) {
            Some(Known::Ready(one)) if one.interpreter.program.is_file() => return Err(Asked::Ready(one)),
            Some(Known::Building(what)) => return Err(Asked::Waits(what)),
            Some(Known::Failed { reason, .. }) => return Err(Asked::Failed(reason)),
            Some(Known::Again { times }) => times,
            Some(Known::Ready(_)) | None => 0,
        };
        known.insert(inputs.to_owned(), (declared.clone(), python.clone(), Known::Building(ITS_TURN.to_owned())));
        Ok(times)
    }

    /// The lock that was chosen before, and its environment if that is there and may still be used.
    async fn look_for(&self, inputs: &str, plain: &Interpreter) -> Result<(Option<Lock>, Option<Environment>), String> {
        let lock = {
            let client = self.database.get().await.map_err(|error| error.message())?;
            store::chosen(&*client, inputs).await.map_err(|error| error.to_string())?
        };
        // What is not allowed any more is worked out anew.
        let built = match lock.as_ref().filter(|lock| lock.is_allowed()) {
            Some(lock) => self.built(lock.hash(), plain).await,
            None => None,
        };
        Ok((lock, built))
    }

    /// `changed` tells then, once for all that ask.
    fn ask_again_in(self: &Arc<Self>, pause: Duration) {
        if self.is_timed.swap(true, Ordering::SeqCst) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            this.is_timed.store(false, Ordering::SeqCst);
            this.changed.notify_one();
        });
    }

    /// The one with this lock, if it is there.
    async fn built(&self, hash: String, plain: &Interpreter) -> Option<Environment> {
        let (home, asked) = (self.home.clone(), hash.clone());
        let find = move || environments::find(&home, &asked).inspect(|folder| environments::note_use(folder));
        let found = blocking::run(find).await.ok()??;
        Some(Environment { hash: Some(hash), interpreter: plain.in_environment(&found) })
    }

    fn set(&self, inputs: &str, declared: &Declared, python: &Python, known: Known) {
        self.known().insert(inputs.to_owned(), (declared.clone(), python.clone(), known));
    }

    /// Builds it, and tells. `times` is how often that has failed in a row; after a while it may be begun again.
    async fn make(
        self: Arc<Self>,
        inputs: String,
        (declared, python, lock): (Declared, Python, Option<Lock>),
        plain: Interpreter,
        times: u32,
    ) {
        let reason = match self.try_make(&inputs, &declared, &python, lock, &plain).await {
            Ok(one) => {
                info!("the environment of {} is ready", declared.requirements.join(", "));
                self.set(&inputs, &declared, &python, Known::Ready(one));
                return self.changed.notify_one();
            }
            Err(reason) => reason,
        };
        warn!("the environment of {} could not be made: {reason}", declared.requirements.join(", "));
        self.shown.tell(Some(&Event::Dags));
        let times = times + 1;
        self.set(&inputs, &declared, &python, Known::Failed { reason, times });
        self.changed.notify_one();
        tokio::time::sleep(pause_after(times)).await;
        if matches!(self.known().get(&inputs), Some((_, _, Known::Failed { times: now, .. })) if *now == times) {
            self.set(&inputs, &declared, &python, Known::Again { times });
            self.changed.notify_one();
        }
    }

    async fn try_make(
        self: &Arc<Self>,
        inputs: &str,
        declared: &Declared,
        python: &Python,
        lock: Option<Lock>,
        plain: &Interpreter,
    ) -> Result<Environment, String> {
        let _turn = self.turn.lock().await;
        let (this, of_inputs) = (self.clone(), inputs.to_owned());
        let (declared, python) = (declared.clone(), python.clone());
        let work = move || {
            let report = |progress: Progress| {
                let is_step = matches!(progress, Progress::Started(_));
                let (Progress::Started(what) | Progress::Detail(what)) = progress else { return };
                this.set(&of_inputs, &declared, &python, Known::Building(what));
                if is_step {
                    this.shown.tell(Some(&Event::Dags));
                }
            };
            environments::ensure(&this.home, &declared, &python, lock, &report)
        };
        let (lock, folder) = blocking::run(work).await.map_err(|error| error.to_string())??;
        let client = self.database.get().await.map_err(|error| error.message())?;
        store::choose(&*client, inputs, &lock).await.map_err(|error| error.to_string())?;
        Ok(Environment { hash: Some(lock.hash()), interpreter: plain.in_environment(&folder) })
    }

    /// Whether `changed` will tell about what a file wants.
    pub fn will_tell(&self, file: &Path) -> bool {
        let wanted_by = self.wanted_by.lock().unwrap_or_else(PoisonError::into_inner);
        let inputs = wanted_by.get(file).cloned();
        drop(wanted_by);
        let is_built = |inputs: String| matches!(self.known().get(&inputs), Some((_, _, Known::Building(_))));
        self.is_timed.load(Ordering::SeqCst) || inputs.is_some_and(is_built)
    }

    /// Files that have to be parsed with another environment than before.
    pub fn take_outdated(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.outdated.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those that are wanted now, with how each is.
    pub fn wanted(&self) -> Vec<Wanted> {
        let wanted_by = self.wanted_by.lock().unwrap_or_else(PoisonError::into_inner);
        let files = |inputs: &String| {
            let mut files: Vec<PathBuf> =
                wanted_by.iter().filter(|(_, wanted)| *wanted == inputs).map(|(file, _)| file.clone()).collect();
            files.sort();
            files
        };
        let described = |(inputs, (declared, python, known)): (&String, &(Declared, Python, Known))| {
            let (state, detail, hash) = match known {
                Known::Ready(one) => ("ready", None, one.hash.clone()),
                Known::Building(what) => ("building", Some(what.clone()), None),
                Known::Failed { reason, .. } => ("failed", Some(reason.clone()), None),
                Known::Again { .. } => ("building", None, None),
            };
            let files = files(inputs);
            Wanted { declared: declared.clone(), python: python.version.clone(), files, state, detail, hash }
        };
        self.known().iter().map(described).filter(|wanted| !wanted.files.is_empty()).collect()
    }
}
