//! What keeps environments in order: built again for versions of before, brought up to date, removed.

use super::{Environment, Environments, Known};
use crate::engine::store::environments as store;
use crate::home::progress::Progress;
use crate::python::environments::{self, Declared, Lock};
use crate::python::{Interpreter, Python};
use crate::sys::blocking;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;
use tracing::{info, warn};

/// How long one that nothing needs is kept: somebody may go back to it.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);
/// When it is looked for such, and how often from then on.
const FIRST_LOOK: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_secs(12 * 3600);

impl Environments {
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
            // Whatever ranges it was wanted with: it is for this one.
            let declared = Declared { python: vec![lock.python.clone()], ..lock.declared.clone() };
            let python = environments::choose_or_get(&home, &declared, &of_plain.python()?, &|_: Progress| {})?;
            environments::of_lock(&home, &lock, &python, &|_: Progress| {})
        };
        let folder = blocking::run(work).await.map_err(|error| error.to_string())??;
        Ok(Environment { hash: Some(hash.to_owned()), interpreter: plain.in_environment(&folder) })
    }

    /// Works out anew what is installed for the files that are meant, and installs it; they are parsed with that. What
    /// failed before is tried again. Returns locks of before and after, and what could not be done.
    pub async fn update(&self, is_meant: impl Fn(&Path) -> bool) -> Result<(Vec<(Lock, Lock)>, Vec<String>), String> {
        let plain = self.interpreter.get().await?;
        self.forget_failed_pythons();
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        for (inputs, declared, python, files) in self.meant(is_meant) {
            self.outdated.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
            if python == Python::default() {
                // Its Python is being got, or looked for again.
                continue;
            }
            let before = self.look_for(&inputs, &plain).await?.0;
            match self.renew(&inputs, &declared, &python, &plain).await {
                Ok(lock) => changes.extend(before.map(|before| (before, lock))),
                Err(reason) => problems.push(reason),
            }
        }
        self.changed.notify_one();
        Ok((changes, problems))
    }

    /// What those files want, each once.
    fn meant(&self, is_meant: impl Fn(&Path) -> bool) -> Vec<(String, Declared, Python, Vec<PathBuf>)> {
        let mut by_inputs: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for (file, inputs) in &*self.wanted_by.lock().unwrap_or_else(PoisonError::into_inner) {
            by_inputs.entry(inputs.clone()).or_default().push(file.clone());
        }
        by_inputs.retain(|_, files| files.iter().any(|file| is_meant(file)));
        let known = self.known();
        let whole = |(inputs, files): (String, Vec<PathBuf>)| {
            let (declared, python, _) = known.get(&inputs)?;
            Some((inputs, declared.clone(), python.clone(), files))
        };
        by_inputs.into_iter().filter_map(whole).collect()
    }

    async fn renew(
        &self,
        inputs: &str,
        declared: &Declared,
        python: &Python,
        plain: &Interpreter,
    ) -> Result<Lock, String> {
        let _turn = self.turn.lock().await;
        let (home, of_python, of_declared) = (self.home.clone(), python.clone(), declared.clone());
        let work = move || environments::renew(&home, &of_declared, &of_python, &|_: Progress| {});
        let (lock, folder) = blocking::run(work).await.map_err(|error| error.to_string())??;
        let client = self.database.get().await.map_err(|error| error.message())?;
        store::choose(&*client, inputs, &lock).await.map_err(|error| error.to_string())?;
        let one = Environment { hash: Some(lock.hash()), interpreter: plain.in_environment(&folder) };
        self.set(inputs, declared, python, Known::Ready(one));
        Ok(lock)
    }

    /// Removes those that nothing needs and nobody has used for so long; with `dry_run` says which. Returns their folders.
    pub async fn prune(&self, unused_for: Duration, dry_run: bool) -> Result<Vec<PathBuf>, String> {
        let _turn = self.turn.lock().await;
        let in_use = self.in_use().await?;
        let home = self.home.clone();
        let work = move || environments::prune(&home, &in_use, unused_for, dry_run);
        blocking::run(work).await.map_err(|error| error.to_string())?
    }

    /// Hashes of the locks that something needs.
    async fn in_use(&self) -> Result<Vec<String>, String> {
        let client = self.database.get().await.map_err(|error| error.message())?;
        let mut in_use = store::in_use(&*client).await.map_err(|error| error.to_string())?;
        // What a file is about to be parsed with.
        in_use.extend(self.wanted().into_iter().filter_map(|one| one.hash));
        Ok(in_use)
    }

    /// Builds environments again whose Python is Leoflow's own where there is a newer patch of it, as after an upgrade that
    /// brings a newer uv; their files are parsed with that.
    async fn renew_managed(&self) {
        let _turn = self.turn.lock().await;
        let in_use = match self.in_use().await {
            Ok(in_use) => in_use,
            Err(reason) => return warn!("whether Pythons are up to date cannot be seen: {reason}"),
        };
        let home = self.home.clone();
        let work = move || environments::renew_managed(&home, &in_use, &|_: Progress| {});
        let Ok((renewed, problems)) = blocking::run(work).await else { return };
        for reason in problems {
            warn!("an environment could not be built again with a newer Python: {reason}");
        }
        if renewed == 0 {
            return;
        }
        info!("{renewed} environments have a newer patch of their Python");
        self.known().retain(|_, (_, _, known)| !matches!(known, Known::Ready(_)));
        let files: Vec<PathBuf> =
            self.wanted_by.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        self.outdated.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
        self.changed.notify_one();
    }

    /// Removes what has not been used for a week and brings Pythons up to date, again and again. Never returns.
    pub async fn keep_in_order(&self) {
        // A laptop may never be awake for long.
        let mut pause = FIRST_LOOK;
        loop {
            tokio::time::sleep(std::mem::replace(&mut pause, LOOK)).await;
            match self.prune(UNUSED, false).await {
                Ok(removed) => removed.iter().for_each(|folder| info!("{} was not used any more", folder.display())),
                Err(reason) => warn!("environments that are not used could not be removed: {reason}"),
            }
            self.renew_managed().await;
        }
    }
}
