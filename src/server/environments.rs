//! The environments that projects ask for: found, or built one at a time beside everything else.

use super::database::Database;
use crate::engine::store::environments as store;
use crate::home::Home;
use crate::home::progress::Progress;
use crate::python::environments::{self, Declared, Lock};
use crate::python::{Interpreter, Python, SharedInterpreter};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{info, warn};

/// Until what failed is tried again; then longer and longer.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_LONGEST: Duration = Duration::from_secs(3600);
/// How long one that nothing needs is kept: somebody may go back to it.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often it is looked for such.
const LOOK: Duration = Duration::from_secs(12 * 3600);

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
    /// By inputs.
    known: Mutex<HashMap<String, (Declared, Python, Known)>>,
    /// What each DAG file wants, as inputs.
    wanted_by: Mutex<HashMap<PathBuf, String>>,
    /// Held by the one that is built.
    turn: tokio::sync::Mutex<()>,
    /// One that was waited for is there, or is not to be had.
    pub changed: Notify,
}

impl Environments {
    pub fn new(home: Home, interpreter: Arc<SharedInterpreter>, database: Arc<Database>) -> Self {
        let (known, wanted_by, turn) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        Self { home, interpreter, database, known, wanted_by, turn, changed: Notify::new() }
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

    /// A file that is gone, or is enough with the plain interpreter.
    pub fn wants_none(&self, file: &Path) {
        self.wants(file, None);
    }

    /// The environment of what stands beside a DAG file. Where there is none yet, it is begun.
    pub async fn of(self: &Arc<Self>, declared: &Declared, file: &Path) -> Asked {
        match self.look(declared, file).await {
            Ok(asked) => asked,
            Err(reason) => Asked::Failed(reason),
        }
    }

    async fn look(self: &Arc<Self>, declared: &Declared, file: &Path) -> Result<Asked, String> {
        let plain = self.interpreter.get().await?;
        let python = self.python_for(declared, &plain).await?;
        if declared.requirements.is_empty() && python.path == plain.program {
            // It only says which Python it takes, and that is the plain one.
            self.wants_none(file);
            return Ok(Asked::Ready(Environment { hash: None, interpreter: plain }));
        }
        let inputs = declared.inputs(&python.minor());
        self.wants(file, Some(&inputs));
        let mut times = 0;
        match self.known().get(&inputs).map(|(_, _, known)| known.clone()) {
            Some(Known::Ready(one)) if one.interpreter.program.is_file() => return Ok(Asked::Ready(one)),
            Some(Known::Building(what)) => return Ok(Asked::Waits(what)),
            Some(Known::Failed { reason, .. }) => return Ok(Asked::Failed(reason)),
            Some(Known::Again { times: before }) => times = before,
            Some(Known::Ready(_)) | None => {}
        }
        let lock = self.chosen(&inputs).await?;
        if let Some(lock) = &lock
            && let Some(one) = self.built(lock.hash(), &plain).await
        {
            self.set(&inputs, declared, &python, Known::Ready(one.clone()));
            return Ok(Asked::Ready(one));
        }
        let what = "Waiting for its turn".to_owned();
        self.set(&inputs, declared, &python, Known::Building(what.clone()));
        tokio::spawn(self.clone().make(inputs, (declared.clone(), python, lock), plain, times));
        Ok(Asked::Waits(what))
    }

    async fn python_for(&self, declared: &Declared, plain: &Interpreter) -> Result<Python, String> {
        let same = |(known, python, _): &(Declared, Python, Known)| (known == declared).then(|| python.clone());
        if let Some(python) = self.known().values().find_map(same).filter(|python| python.path.is_file()) {
            return Ok(python);
        }
        let (declared, plain) = (declared.clone(), plain.clone());
        let chosen = tokio::task::spawn_blocking(move || environments::choose(&declared, &plain.python()?)).await;
        chosen.map_err(|error| error.to_string())?
    }

    async fn chosen(&self, inputs: &str) -> Result<Option<Lock>, String> {
        let client = self.database.get().await.map_err(|error| error.message())?;
        store::chosen(&*client, inputs).await.map_err(|error| error.to_string())
    }

    /// The one with this lock, if it is there.
    async fn built(&self, hash: String, plain: &Interpreter) -> Option<Environment> {
        let (home, asked) = (self.home.clone(), hash.clone());
        let find = move || environments::find(&home, &asked).inspect(|folder| environments::note_use(folder));
        let found = tokio::task::spawn_blocking(find).await.ok()??;
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
        let times = times + 1;
        self.set(&inputs, &declared, &python, Known::Failed { reason, times });
        self.changed.notify_one();
        tokio::time::sleep((AGAIN * 4u32.saturating_pow(times - 1)).min(AGAIN_LONGEST)).await;
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
        let (this, inputs) = (self.clone(), inputs.to_owned());
        let (declared, python) = (declared.clone(), python.clone());
        let work = move || {
            let report = |progress: Progress| {
                let (Progress::Started(what) | Progress::Detail(what)) = progress else { return };
                this.set(&inputs, &declared, &python, Known::Building(what));
            };
            environments::ensure(&this.home, &declared, &python, lock, &report)
        };
        let (lock, folder) = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())??;
        let client = self.database.get().await.map_err(|error| error.message())?;
        store::choose(&*client, &lock).await.map_err(|error| error.to_string())?;
        Ok(Environment { hash: Some(lock.hash()), interpreter: plain.in_environment(&folder) })
    }

    /// The one that a version of a DAG runs with, built again where it is not there. Waits for that.
    pub async fn with_hash(&self, hash: &str) -> Result<Environment, String> {
        let plain = self.interpreter.get().await?;
        if let Some(one) = self.built(hash.to_owned(), &plain).await {
            return Ok(one);
        }
        let lock = {
            let client = self.database.get().await.map_err(|error| error.message())?;
            store::get(&*client, hash).await.map_err(|error| error.to_string())?
        };
        let _turn = self.turn.lock().await;
        let (home, of_plain) = (self.home.clone(), plain.clone());
        let work = move || -> Result<PathBuf, String> {
            let mut declared = lock.declared.clone();
            declared.python.push(lock.python.clone());
            let python = environments::choose(&declared, &of_plain.python()?)?;
            environments::ensure(&home, &declared, &python, Some(lock), &|_: Progress| {}).map(|(_, folder)| folder)
        };
        let folder = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())??;
        Ok(Environment { hash: Some(hash.to_owned()), interpreter: plain.in_environment(&folder) })
    }

    /// Whether what a file wants is being built, so that `changed` will tell.
    pub fn is_being_built_for(&self, file: &Path) -> bool {
        let wanted_by = self.wanted_by.lock().unwrap_or_else(PoisonError::into_inner);
        let inputs = wanted_by.get(file).cloned();
        drop(wanted_by);
        inputs.is_some_and(|inputs| matches!(self.known().get(&inputs), Some((_, _, Known::Building(_)))))
    }

    /// Works out anew what is installed for the same, and installs it: new versions of DAGs run with that.
    pub async fn update(&self, before: &Lock) -> Result<Lock, String> {
        let plain = self.interpreter.get().await?;
        let python = self.python_for(&before.declared, &plain).await?;
        let new = {
            let _turn = self.turn.lock().await;
            let (home, declared) = (self.home.clone(), before.declared.clone());
            let work = move || environments::renew(&home, &declared, &python, &|_: Progress| {});
            tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())??
        };
        let client = self.database.get().await.map_err(|error| error.message())?;
        store::choose(&*client, &new).await.map_err(|error| error.to_string())?;
        self.known().remove(&new.inputs());
        Ok(new)
    }

    /// Removes those that nothing needs and nobody has used for so long; with `dry_run` says which. Returns their folders.
    pub async fn prune(&self, unused_for: Duration, dry_run: bool) -> Result<Vec<PathBuf>, String> {
        let client = self.database.get().await.map_err(|error| error.message())?;
        let in_use = store::in_use(&*client).await.map_err(|error| error.to_string())?;
        drop(client);
        let _turn = self.turn.lock().await;
        let home = self.home.clone();
        let work = move || environments::prune(&home, &in_use, unused_for, dry_run);
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
    }

    /// Removes what has not been used for a week, again and again. Never returns.
    pub async fn remove_unused(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.prune(UNUSED, false).await {
                Ok(removed) => removed.iter().for_each(|folder| info!("{} was not used any more", folder.display())),
                Err(reason) => warn!("environments that are not used could not be removed: {reason}"),
            }
        }
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

    /// Forgets what failed, so that it is tried again at once when it is asked for.
    pub fn forget_failed(&self) {
        self.known().retain(|_, (_, _, known)| !matches!(known, Known::Failed { .. }));
        self.changed.notify_one();
    }
}
