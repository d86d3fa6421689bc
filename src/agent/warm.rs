//! The agent's warm Python: there while tasks begin, gone when none has for a while.

use super::folder::TaskFolder;
use crate::home::Home;
use crate::python::{Interpreter, Zygote};
use crate::sys::process::ProcessId;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::warn;

/// So long after the last try it is gone: idle memory counts.
const IDLE: Duration = Duration::from_secs(10);
/// In a row; from then on every try has a Python of its own, until the interpreter is another one.
const MOST_FAILURES: u32 = 2;
/// How long several tries wait for one that is being made; loading our package takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Variables that Python's and other libraries read when they are imported, which was before the try: a try that sets
/// one starts cold.
const READ_AT_START: &[&str] = &["LANG", "LC_", "LD_", "MALLOC_", "MKL_", "OMP_", "OPENBLAS_", "PYTHON"];

/// Those that are as good after a fork as before: none starts a thread, or reads variables when it is imported.
const LIBRARIES: &[&str] = &["jinja2", "pendulum", "requests"];

/// What a try is started with.
pub struct Request {
    pub folder: TaskFolder,
    /// For `leoflow.entry.task`.
    pub options: Value,
    /// The names of the variables that its task sets.
    pub sets: Vec<String>,
}

/// Keeps a zygote of one interpreter.
pub struct Warm {
    home: PathBuf,
    kept: Option<Kept>,
    libraries: BTreeSet<String>,
    failures: u32,
    failed: Option<Source>,
}

struct Kept {
    zygote: Zygote,
    /// Once it is ready: the folders that it finds modules in, and when they were changed.
    path: Option<Vec<(PathBuf, Option<SystemTime>)>>,
    source: Source,
    used: Instant,
}

/// What it is made of: another of it asks for another zygote.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    interpreter: Interpreter,
    /// What tasks have loaded, of which many will again.
    libraries: BTreeSet<String>,
}

impl Warm {
    pub fn new(home: &Home) -> Self {
        Self { home: home.root().to_owned(), kept: None, libraries: BTreeSet::new(), failures: 0, failed: None }
    }

    /// Has one made before it is needed. What our package needs is compiled by that, so that the first run after an
    /// installation or an upgrade does not wait for it. A failure is found by the first try.
    pub fn prepare(&mut self, interpreter: &Interpreter) {
        if cfg!(target_os = "linux") && self.kept.is_none() {
            self.kept = Kept::begin(self.source(interpreter), &self.home).ok();
        }
    }

    fn source(&self, interpreter: &Interpreter) -> Source {
        Source { interpreter: interpreter.clone(), libraries: self.libraries.clone() }
    }

    /// Starts a try and returns its keeper; `None` when it is to be started cold. One alone does not wait for a
    /// zygote to be ready; it has it made for those after it. Several wait a moment.
    pub async fn start(&mut self, interpreter: &Interpreter, request: &Request, is_of_many: bool) -> Option<ProcessId> {
        if !cfg!(target_os = "linux") || starts_cold(&request.sets) {
            return None;
        }
        let source = self.source(interpreter);
        let has_failed = self.failed.as_ref() == Some(&source);
        if has_failed && self.failures >= MOST_FAILURES {
            return None;
        }
        match self.fork(&source, request, is_of_many).await {
            Ok(keeper) => {
                if keeper.is_some() {
                    (self.failures, self.failed) = (0, None);
                }
                keeper
            }
            Err(error) => {
                self.failures = if has_failed { self.failures + 1 } else { 1 };
                let outlook = if self.failures >= MOST_FAILURES { " from now on" } else { "" };
                warn!("the warm Python: {error}; each task has its own{outlook}");
                (self.kept, self.failed) = (None, Some(source));
                None
            }
        }
    }

    async fn fork(&mut self, source: &Source, request: &Request, is_of_many: bool) -> io::Result<Option<ProcessId>> {
        self.kept = self.kept.take().filter(|kept| kept.source == *source && !kept.is_out_of_date());
        let kept = match &mut self.kept {
            Some(kept) => kept,
            none => none.insert(Kept::begin(source.clone(), &self.home)?),
        };
        kept.used = Instant::now();
        if kept.path.is_none() {
            let patience = if is_of_many { PATIENCE } else { Duration::ZERO };
            let Some(path) = kept.zygote.ready(patience).await? else { return Ok(None) };
            let with_time = |folder: PathBuf| {
                let at = changed(&folder);
                (folder, at)
            };
            kept.path = Some(path.into_iter().map(with_time).collect());
        }
        let asked = json!({"folder": request.folder.path(), "options": request.options});
        let pid = kept.zygote.fork(&asked).await?;
        // One that has ended already has said who it was.
        let keeper = ProcessId::of(pid).or_else(|| request.folder.keeper().ok().flatten());
        keeper.map(Some).ok_or_else(|| io::Error::other("what it has forked is gone"))
    }

    /// What a task has loaded is loaded ahead for those after it.
    pub fn learn(&mut self, libraries: &[String]) {
        let known = libraries.iter().filter(|name| LIBRARIES.contains(&name.as_str()));
        self.libraries.extend(known.cloned());
    }

    /// Completes when it has not been used for a while; then it is to be let go.
    pub async fn idle(&self) {
        match &self.kept {
            Some(kept) => tokio::time::sleep_until(kept.used + IDLE).await,
            None => std::future::pending().await,
        }
    }

    /// What it has started goes on.
    pub fn let_go(&mut self) {
        self.kept = None;
    }
}

impl Kept {
    fn begin(source: Source, home: &Path) -> io::Result<Self> {
        let zygote = Zygote::start(&source.interpreter, &source.libraries, home)?;
        Ok(Self { zygote, path: None, source, used: Instant::now() })
    }

    /// Whether packages were installed or removed since: it has those of before.
    fn is_out_of_date(&self) -> bool {
        self.path.iter().flatten().any(|(folder, at)| changed(folder) != *at)
    }
}

fn changed(folder: &Path) -> Option<SystemTime> {
    folder.metadata().and_then(|meta| meta.modified()).ok()
}

fn starts_cold(sets: &[String]) -> bool {
    sets.iter().any(|name| READ_AT_START.iter().any(|start| name.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_sets_what_is_read_at_the_start_has_a_python_of_its_own() {
        let sets = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(!starts_cold(&sets(&["REGION", "MY_PYTHON"])));
        assert!(starts_cold(&sets(&["REGION", "LD_PRELOAD"])));
        assert!(starts_cold(&sets(&["PYTHONHASHSEED"])));
        assert!(starts_cold(&sets(&["OMP_NUM_THREADS"])));
    }
}
