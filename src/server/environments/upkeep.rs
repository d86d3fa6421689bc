//! Maintains environments: rebuilds them for older DAG versions, updates them, and removes unused ones.

use super::{BuildState, CodeError, Environment, Environments};
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::blocking;
use leoflow_base::sys::mutex;
use leoflow_engine::store::dag::environments as store;
use leoflow_python::environments::{self, Cleanup, Declared, InUse, Lock, Pruned, Pruning};
use leoflow_python::{Interpreter, Python, linked_venv};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{info, warn};

/// How long an unused environment is kept, in case the user goes back to an earlier declaration.
const MAX_UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Delay before the first clean-up, and the interval afterwards.
const FIRST_CLEANUP: Duration = Duration::from_secs(600);
const CLEANUP_INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// Which package versions an update installs in an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The newest that the declaration allows.
    Resolve,
    /// The same ones, fetched and installed again.
    Reinstall,
}

/// Returns the step that a build has reached, for the UI; logs a warning instead of returning it.
pub(super) fn step_or_log(progress: Progress) -> Option<String> {
    match progress {
        Progress::Started(step) | Progress::Detail(step) => return Some(step),
        Progress::Warning(text) => warn!("{text}"),
        _ => {}
    }
    None
}

/// Logs the warnings of a build whose steps are shown nowhere.
fn log_warnings(progress: Progress) {
    step_or_log(progress);
}

impl Environments {
    /// Returns the environment that a DAG version runs with; rebuilds a missing one and waits for it.
    pub async fn with_hash(&self, hash: &str) -> Result<Environment, CodeError> {
        let plain = self.interpreter.get().await?;
        if let Some(environment) = self.find_on_disk(hash.to_owned(), &plain).await {
            return Ok(environment);
        }
        let lock = {
            let client = self.core.database.get().await?;
            store::get(&*client, hash).await?
        };
        let _building = self.builds.acquire().await;
        let (home, plain_interpreter, lock) = (self.core.home.clone(), plain.clone(), self.with_variables(lock));
        let work = move || {
            // Requires the Python of the lock, not any of the declared range.
            let declared = Declared { python: vec![lock.python.clone()], ..lock.declared.clone() };
            let python =
                environments::choose_or_install(&home, &declared, &plain_interpreter.python()?, &log_warnings)?;
            environments::environment_of_lock(&home, &lock, &python, &log_warnings)
        };
        let folder = blocking::run(work).await??;
        Ok(Environment { hash: Some(hash.to_owned()), interpreter: plain.in_environment(&folder) })
    }

    /// Adds the values of environment variables, which are not stored with locks, from a project with the same
    /// declaration.
    fn with_variables(&self, mut lock: Lock) -> Lock {
        let states = mutex::lock(&self.states);
        let same = states.values().find_map(|(declared, _, _)| lock.declared.with_variables_of(declared));
        lock.declared = same.unwrap_or(lock.declared);
        lock
    }

    /// Installs the environments of the selected files again, with the versions that `renewal` chooses, and parses the
    /// files with them; retries earlier failures. Returns the locks before and after, and the failures.
    pub async fn update(
        &self,
        is_selected: impl Fn(&Path) -> bool,
        renewal: Renewal,
    ) -> Result<(Vec<(Lock, Lock)>, Vec<String>), CodeError> {
        let plain = self.interpreter.get().await?;
        self.clear_failed_downloads();
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        for (inputs, declared, python, files) in self.selected(is_selected) {
            mutex::lock(&self.outdated).extend(files);
            if python == Python::default() {
                // There is no Python yet; the next request looks for one again.
                continue;
            }
            let before = self.find_built(&inputs, &plain).await?.0;
            let kept = before.clone().filter(|_| renewal == Renewal::Reinstall);
            match self.renew(&inputs, (&declared, &python), kept, &plain).await {
                Ok(lock) => changes.extend(before.map(|before| (before, lock))),
                Err(error) => problems.push(error.to_string()),
            }
        }
        self.changed.notify_one();
        Ok((changes, problems))
    }

    /// Returns the environments that the selected files require, each with all of its files: inputs, declaration,
    /// Python, files.
    fn selected(&self, is_selected: impl Fn(&Path) -> bool) -> Vec<(String, Declared, Python, Vec<PathBuf>)> {
        let mut by_inputs: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for (file, inputs) in &*mutex::lock(&self.inputs_by_file) {
            by_inputs.entry(inputs.clone()).or_default().push(file.clone());
        }
        by_inputs.retain(|_, files| files.iter().any(|file| is_selected(file)));
        let states = mutex::lock(&self.states);
        let complete = |(inputs, files): (String, Vec<PathBuf>)| {
            let (declared, python, _) = states.get(&inputs)?;
            Some((inputs, declared.clone(), python.clone(), files))
        };
        by_inputs.into_iter().filter_map(complete).collect()
    }

    /// Installs an environment again, with this lock or a new one; returns its lock.
    async fn renew(
        &self,
        inputs: &str,
        (declared, python): (&Declared, &Python),
        kept: Option<Lock>,
        plain: &Interpreter,
    ) -> Result<Lock, CodeError> {
        let _building = self.builds.acquire().await;
        let (home, python_copy, declared_copy) = (self.core.home.clone(), python.clone(), declared.clone());
        let work = move || match kept {
            Some(mut lock) => {
                lock.declared.variables = declared_copy.variables;
                let folder = environments::reinstall(&home, &lock, &python_copy, &log_warnings)?;
                Ok((lock, folder))
            }
            None => environments::renew(&home, &declared_copy, &python_copy, &log_warnings),
        };
        let (lock, folder) = blocking::run(work).await??;
        let client = self.core.database.get().await?;
        store::choose(&*client, inputs, &lock).await?;
        let environment = Environment { hash: Some(lock.hash()), interpreter: plain.in_environment(&folder) };
        self.set(inputs, declared, python, BuildState::Ready(environment));
        Ok(lock)
    }

    /// Removes, or with `Pruning::ListOnly` lists, the environments that no file requires, no unfinished run needs, and
    /// that were unused for `unused_for`.
    pub async fn prune(&self, unused_for: Duration, pruning: Pruning) -> Result<Pruned, CodeError> {
        let home = self.core.home.clone();
        let begin = move || Cleanup::begin(&home, pruning);
        let cleanup = blocking::run(begin).await??;
        // Read after `Cleanup::begin`, because a build that ended before it may have changed which environments are in
        // use.
        let mut in_use = InUse { locks: self.locks_in_use().await?, pythons: self.pythons_in_use().await };
        let home = self.core.home.clone();
        let work = move || {
            in_use.locks.extend(linked_venv::locks(&home));
            cleanup.prune(&home, &in_use, unused_for)
        };
        Ok(blocking::run(work).await??)
    }

    /// Returns the hashes of the locks in use, with their Python versions.
    async fn locks_in_use(&self) -> Result<HashMap<String, String>, CodeError> {
        let client = self.core.database.get().await?;
        let mut in_use = store::in_use(&*client).await?;
        for required in self.required() {
            // No stored DAG uses these yet: files are about to be parsed with them.
            if let Some(hash) = required.hash {
                in_use.entry(hash).or_insert(required.python);
            }
        }
        Ok(in_use)
    }

    /// Returns the programs of the Pythons in use: that of DAGs without an environment, and those chosen for required
    /// environments, which may wait for their build, be under construction or wait for a retry.
    async fn pythons_in_use(&self) -> Vec<PathBuf> {
        let plain = self.interpreter.get().await.ok().map(|plain| plain.program);
        let chosen: Vec<PathBuf> =
            mutex::lock(&self.states).values().map(|(_, python, _)| python.path.clone()).collect();
        plain.into_iter().chain(chosen).collect()
    }

    /// Rebuilds environments on a managed Python that has a newer patch release, such as after an upgrade with a newer
    /// uv, and parses their files again.
    async fn renew_managed(&self) {
        let _building = self.builds.acquire().await;
        let in_use: Vec<String> = match self.locks_in_use().await {
            Ok(locks) => locks.into_keys().collect(),
            Err(reason) => return warn!("cannot check Pythons for updates: {reason}"),
        };
        let home = self.core.home.clone();
        let work = move || environments::renew_managed(&home, &in_use, &log_warnings);
        let Ok((renewed, problems)) = blocking::run(work).await else { return };
        for reason in problems {
            warn!("failed to rebuild an environment with a newer Python: {reason}");
        }
        if renewed == 0 {
            return;
        }
        info!("rebuilt {renewed} environments with a newer patch release of Python");
        mutex::lock(&self.states).retain(|_, (_, _, state)| !matches!(state, BuildState::Ready(_)));
        let files: Vec<PathBuf> = mutex::lock(&self.inputs_by_file).keys().cloned().collect();
        mutex::lock(&self.outdated).extend(files);
        self.changed.notify_one();
    }

    /// Removes environments unused for a week and updates Pythons, periodically. Never returns.
    pub async fn maintain(&self) {
        // The first pause is short, since a laptop may not stay awake for long.
        let mut pause = FIRST_CLEANUP;
        loop {
            tokio::time::sleep(std::mem::replace(&mut pause, CLEANUP_INTERVAL)).await;
            match self.prune(MAX_UNUSED, Pruning::Remove).await {
                Ok(pruned) => pruned.removed.iter().for_each(|folder| info!("removed the unused {}", folder.display())),
                Err(reason) => warn!("failed to remove unused environments: {reason}"),
            }
            self.renew_managed().await;
        }
    }
}
