//! A warm Python as long as it is of use: there while tries or parses begin, gone when none has for a while. After failures
//! it is made without libraries, or after a pause; see `warm_outlook.rs`.

use super::interpreter::Interpreter;
use super::notes::{Note, Notes};
use super::warm_outlook::{Outlook, Trouble};
use super::zygote::Zygote;
use crate::home::Home;
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::warn;

/// So long after it was last used it is gone: idle memory counts.
fn idle_limit() -> Duration {
    crate::sys::limit("LEOFLOW_IDLE_LIMIT", Duration::from_secs(10))
}
/// A message takes no more. What is larger starts cold.
const LARGEST_REQUEST: usize = 100 * 1024;

/// Libraries that take so long to fork that only those start with them that use them.
const LARGE: &[&str] = &["numpy", "pandas"];

/// Of zygotes at once, of all environments.
const MOST: usize = 3;

/// Keeps zygotes: of each interpreter one for most, and one for those that use large libraries.
pub struct Warm {
    home: PathBuf,
    slots: Vec<Slot>,
    /// Who has used a large library.
    users: HashSet<String>,
    /// How many there may be at once. With one, once there are users of large libraries, it is the large one.
    most: usize,
    /// What it is for, in words.
    starts: &'static str,
    notes: Notes,
}

/// A zygote that is there or not, and what it loads ahead.
struct Slot {
    interpreter: Interpreter,
    is_large: bool,
    kept: Option<Kept>,
    libraries: BTreeSet<String>,
    outlook: Outlook,
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
    /// What was loaded before, and will be again.
    libraries: BTreeSet<String>,
}

impl Warm {
    /// For tasks.
    pub fn new(home: &Home) -> Self {
        Self::with(home, MOST, "tasks")
    }

    /// For DAG files, with one zygote at a time.
    pub fn alone(home: &Home) -> Self {
        Self::with(home, 1, "DAG files")
    }

    fn with(home: &Home, most: usize, starts: &'static str) -> Self {
        let notes = Notes::new(home, "warm");
        Self { home: home.root().to_owned(), slots: Vec::new(), users: HashSet::new(), most, starts, notes }
    }

    /// Has one made before it is needed. What our package needs is compiled by that, so that the first run after an
    /// installation or an upgrade does not wait for it. A failure is found by the first that needs it.
    pub fn prepare(&mut self, interpreter: &Interpreter) {
        self.prepare_slot(interpreter, false);
    }

    /// The same as `prepare`, for those that use large libraries.
    pub fn prepare_large(&mut self, interpreter: &Interpreter) {
        self.prepare_slot(interpreter, true);
    }

    fn prepare_slot(&mut self, interpreter: &Interpreter, is_large: bool) {
        let at = self.slot(interpreter, is_large);
        self.make_room(at);
        self.slots[at].prepare(&self.home);
    }

    /// Starts what is asked for and returns its pid; `None` when it is to be started cold. A zygote that there is not
    /// yet is made, for those after this one; it is waited for no longer than `patience`. `user` is the task or the file.
    pub async fn fork(
        &mut self,
        interpreter: &Interpreter,
        user: &str,
        request: &Value,
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Option<i32> {
        // With Airflow's own SDK a fork copies so much that what a library adds is little.
        let is_large = !interpreter.is_airflows && (self.uses_large(user) || self.most == 1 && !self.users.is_empty());
        let mut at = self.slot(interpreter, is_large);
        if is_large && !self.slots[at].has_large() {
            at = self.slot(interpreter, false);
        }
        self.make_room(at);
        let pid = self.slots[at].fork(&self.home, request, descriptors, patience).await;
        self.notes.set(self.slots.iter().flat_map(|slot| slot.notes(self.starts)).collect());
        pid
    }

    /// Where a cold start would take as long as a warm Python does to begin, which is with Airflow's own SDK: completes
    /// when there is one, or there cannot be one. `None` when `fork` need not wait for it.
    pub fn worth_waiting_for(&mut self, interpreter: &Interpreter) -> Option<impl Future<Output = ()> + use<>> {
        if !interpreter.is_airflows {
            return None;
        }
        let at = self.slot(interpreter, false);
        self.make_room(at);
        self.slots[at].begins(&self.home)
    }

    fn slot(&mut self, interpreter: &Interpreter, is_large: bool) -> usize {
        let is_it = |slot: &Slot| slot.is_large == is_large && slot.interpreter == *interpreter;
        self.slots.iter().position(is_it).unwrap_or_else(|| {
            self.slots.push(Slot::new(interpreter, is_large));
            self.slots.len() - 1
        })
    }

    /// Lets those go that were used the longest ago, until there may be one for this slot.
    fn make_room(&mut self, at: usize) {
        while self.slots[at].kept.is_none() && self.slots.iter().filter(|slot| slot.kept.is_some()).count() >= self.most
        {
            let begun = self.slots.iter_mut().filter(|slot| slot.idle_at().is_some());
            match begun.min_by_key(|slot| slot.idle_at()) {
                Some(oldest) => oldest.kept = None,
                // They all begin: nobody takes one from those who wait for it.
                None => return,
            }
        }
    }

    /// Whether this task or file has used a large library. What a fork has from its zygote looks as if it used it, so
    /// it remains one that does.
    pub fn uses_large(&self, user: &str) -> bool {
        self.users.contains(user)
    }

    /// What one has loaded is loaded ahead for those after it. `true` when it is the first time that this user has used
    /// a large one.
    pub fn learn(&mut self, interpreter: &Interpreter, user: &str, libraries: &[String]) -> bool {
        let (large, small): (Vec<&String>, Vec<&String>) =
            libraries.iter().partition(|name| LARGE.contains(&name.as_str()));
        if interpreter.is_airflows {
            // It has loaded the small ones itself.
            let at = self.slot(interpreter, false);
            self.slots[at].libraries.extend(large.into_iter().cloned());
            return false;
        }
        if !small.is_empty() {
            let at = self.slot(interpreter, false);
            self.slots[at].libraries.extend(small.iter().copied().cloned());
        }
        if large.is_empty() {
            return false;
        }
        let at = self.slot(interpreter, true);
        self.slots[at].libraries.extend(libraries.iter().cloned());
        self.users.insert(user.to_owned())
    }

    /// Completes when one has not been used for a while; then it is to be let go.
    pub async fn idle(&self) {
        match self.idle_at() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// When the first is to be let go, if it is not used before; `None` when there is none.
    pub fn idle_at(&self) -> Option<Instant> {
        self.slots.iter().filter_map(Slot::idle_at).min()
    }

    /// Those that have not been used for a while; what they have started goes on.
    pub fn let_go(&mut self) {
        for slot in &mut self.slots {
            if slot.idle_at().is_some_and(|at| at <= Instant::now()) {
                slot.kept = None;
            }
        }
    }
}

impl Slot {
    fn new(interpreter: &Interpreter, is_large: bool) -> Self {
        let libraries = BTreeSet::new();
        Self { interpreter: interpreter.clone(), is_large, kept: None, libraries, outlook: Outlook::default() }
    }

    fn prepare(&mut self, home: &Path) {
        if cfg!(target_os = "linux") && self.kept.is_none() && !self.rests() {
            self.kept = Kept::begin(self.source(), home).ok();
        }
    }

    /// Begins it, unless it is there or cannot be. `None` when nothing is to be waited for.
    fn begins(&mut self, home: &Path) -> Option<impl Future<Output = ()> + use<>> {
        if self.rests() {
            return None;
        }
        self.drop_outdated();
        self.prepare(home);
        let kept = self.kept.as_mut().filter(|kept| kept.path.is_none())?;
        kept.used = Instant::now();
        kept.zygote.begins()
    }

    fn source(&self) -> Source {
        let libraries = self.outlook.usable(&self.libraries, Instant::now());
        Source { interpreter: self.interpreter.clone(), libraries }
    }

    fn rests(&self) -> bool {
        self.outlook.rests(Instant::now())
    }

    /// Whether there is, or is to be, one with a large library.
    fn has_large(&self) -> bool {
        self.source().libraries.iter().any(|name| LARGE.contains(&name.as_str()))
    }

    /// Lets go one that would be made otherwise now.
    fn drop_outdated(&mut self) {
        if self.kept.as_ref().is_some_and(Kept::is_out_of_date) {
            // What failed may work with other packages.
            (self.kept, self.outlook) = (None, Outlook::default());
        }
        let source = self.source();
        self.kept = self.kept.take().filter(|kept| kept.source == source);
    }

    /// What `doctor` says of it; `starts` is what it is for.
    fn notes(&self, starts: &str) -> Vec<Note> {
        let note = |effect: String, trouble: &Trouble| Note {
            subject: format!("the warm Python for {starts}"),
            program: self.interpreter.program.clone(),
            effect,
            reason: trouble.reason.clone(),
            since: trouble.since,
            next_try: Some(trouble.next_try),
        };
        let none = self.outlook.trouble().map(|trouble| note(format!("{starts} start cold"), trouble));
        let without = self.outlook.missing().map(|(name, trouble)| note(format!("is without {name}"), trouble));
        none.into_iter().chain(without).collect()
    }

    fn idle_at(&self) -> Option<Instant> {
        // One that begins is waited for.
        let kept = self.kept.as_ref()?;
        kept.zygote.spoken_at().map(|at| at.max(kept.used) + idle_limit())
    }

    async fn fork(
        &mut self,
        home: &Path,
        request: &Value,
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Option<i32> {
        if !cfg!(target_os = "linux") || self.rests() || request.to_string().len() > LARGEST_REQUEST {
            return None;
        }
        self.drop_outdated();
        match self.try_fork(home, request, descriptors, patience).await {
            Ok(pid) => {
                if let Some(kept) = self.kept.as_ref().filter(|_| pid.is_some()) {
                    self.outlook.worked(&kept.source.libraries);
                }
                pid
            }
            Err(error) => {
                let had = self.kept.take().map_or_else(|| self.source(), |kept| kept.source).libraries;
                self.outlook.failed(&had, &error.to_string(), Instant::now());
                warn!("the warm Python of {}: {error}; this one starts cold", self.interpreter.program.display());
                None
            }
        }
    }

    async fn try_fork(
        &mut self,
        home: &Path,
        request: &Value,
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> io::Result<Option<i32>> {
        let source = self.source();
        let kept = match &mut self.kept {
            Some(kept) => kept,
            none => none.insert(Kept::begin(source, home)?),
        };
        kept.used = Instant::now();
        if kept.path.is_none() {
            let Some(ready) = kept.zygote.ready(patience).await? else { return Ok(None) };
            for (name, reason) in &ready.left_out {
                self.outlook.left_out(name, reason, Instant::now());
                kept.source.libraries.remove(name);
            }
            let with_time = |folder: PathBuf| {
                let at = changed(&folder);
                (folder, at)
            };
            kept.path = Some(ready.path.into_iter().map(with_time).collect());
        }
        kept.zygote.fork(request, descriptors).await
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
