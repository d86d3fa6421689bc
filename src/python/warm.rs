//! A pool of zygotes (warm Pythons, see `zygote/`): starts them when tries or parses start, and ends idle ones. After
//! failures it starts a zygote without libraries or after a pause, see `zygote/retry.rs`. Only on Linux.

use super::interpreter::Interpreter;
use super::notes::{Note, Notes};
use super::zygote::retry::{Failure, RetryState};
use super::zygote::{Forked, Zygote};
use leoflow_base::home::Home;
use leoflow_base::sys::is_portable;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// A zygote ends after this long without a fork, to save memory.
fn idle_limit() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_IDLE_LIMIT", Duration::from_secs(10))
}
/// Size limit of a fork request, bytes; for a larger request a new Python starts.
const LARGEST_REQUEST: usize = 100 * 1024;

/// Libraries that slow down a fork so much that only the tasks that use them fork from a zygote that has them.
const LARGE: &[&str] = &["numpy", "pandas"];

/// Maximum number of running zygotes for tasks, of all environments together.
const MAX_ZYGOTES: usize = 3;

/// Limits of all templates together: their number, and their memory in bytes beyond that of their zygotes.
const MAX_TEMPLATES: usize = 8;
const TEMPLATE_BYTES: u64 = 128 << 20;
/// How long a version gets no template after a reason that may disappear, such as an error of the import.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The pool. For each interpreter it has one zygote for most tasks and one for the tasks that use large libraries.
pub struct Warm {
    slots: Vec<Slot>,
    /// Usage keys of the tasks or files that have ever used a large library. None is removed, because a fork cannot tell
    /// whether it uses a preloaded library.
    large_users: HashSet<String>,
    /// Maximum number of zygotes. If it is 1, the zygote preloads large libraries once any file has used one.
    max_zygotes: usize,
    /// What the zygotes start, in messages: "tasks" or "DAG files".
    purpose: &'static str,
    notes: Notes,
    /// The DAG versions that get no template, some only until a time; and those that `take_refused` has not returned yet.
    refused: HashMap<i64, Option<Instant>>,
    unreported: Vec<i64>,
}

/// A zygote, running or not, and the libraries it preloads.
struct Slot {
    interpreter: Interpreter,
    /// True for the zygote with large libraries.
    is_large: bool,
    /// `None` while no zygote runs.
    live: Option<Zygote>,
    /// Zygotes that have run the DAG file of a version.
    templates: Vec<Template>,
    /// Libraries that earlier processes imported.
    libraries: BTreeSet<String>,
    retry_state: RetryState,
}

struct Template {
    version: i64,
    zygote: Zygote,
    /// Bytes that it has more than the zygote that it was forked from; 0 while it loads.
    own_bytes: u64,
}

impl Warm {
    /// A pool for tasks.
    pub fn new(home: &Home) -> Self {
        Self::with_limit(home, MAX_ZYGOTES, "tasks")
    }

    /// A pool for DAG files, with one zygote at a time.
    pub fn single(home: &Home) -> Self {
        Self::with_limit(home, 1, "DAG files")
    }

    fn with_limit(home: &Home, max_zygotes: usize, purpose: &'static str) -> Self {
        let notes = Notes::new(home, "warm");
        Self {
            slots: Vec::new(),
            large_users: HashSet::new(),
            max_zygotes,
            purpose,
            notes,
            refused: HashMap::new(),
            unreported: Vec::new(),
        }
    }

    /// Forks a process; `None` if the caller must start a new Python. Starts a missing zygote, for later forks.
    /// `usage_key` identifies the task or the file. A task of this DAG version is forked from its template, if there is
    /// one.
    pub async fn fork(
        &mut self,
        interpreter: &Interpreter,
        usage_key: &str,
        version: Option<i64>,
        request: &Value,
        descriptors: [BorrowedFd<'_>; 3],
    ) -> Option<Forked> {
        let index = self.slot_for(interpreter, usage_key);
        let mut forked = None;
        if let Some(version) = version {
            forked = self.fork_from_template(index, version, request, descriptors).await;
        }
        if forked.is_none() {
            forked = self.slots[index].fork(request, descriptors).await;
        }
        self.notes.set(self.slots.iter().flat_map(|slot| slot.notes(self.purpose)).collect());
        forked
    }

    /// Starts the zygote for a task or file if it is missing. The future completes when the zygote is ready or has
    /// failed. `None` if there is nothing to wait for.
    pub fn loading(&mut self, interpreter: &Interpreter, usage_key: &str) -> Option<impl Future<Output = ()> + use<>> {
        let index = self.slot_for(interpreter, usage_key);
        self.slots[index].loading()
    }

    /// Starts the template of a DAG version if it is missing and its zygote runs. `options` are those of a try of the
    /// version. The future completes when the template is ready or has failed. `None` if there is nothing to wait for.
    pub async fn template_loading(
        &mut self,
        interpreter: &Interpreter,
        usage_key: &str,
        version: i64,
        options: &Value,
    ) -> Option<impl Future<Output = ()> + use<>> {
        match self.refused.get(&version) {
            Some(Some(until)) if *until <= Instant::now() => drop(self.refused.remove(&version)),
            Some(_) => return None,
            None => {}
        }
        let index = self.slot_for(interpreter, usage_key);
        let slot = &mut self.slots[index];
        slot.drop_outdated();
        if let Some(template) = slot.templates.iter().find(|template| template.version == version) {
            return template.zygote.loading();
        }
        if !self.make_room(1) {
            return None;
        }
        // The fork of the try, which follows, reports an error.
        let zygote = self.slots[index].zygote()?.fork_template(options).await.ok()??;
        let loading = zygote.loading();
        self.slots[index].templates.push(Template { version, zygote, own_bytes: 0 });
        loading
    }

    /// Ends the least recently used templates until there is room for `more` others; false if those that load take it.
    fn make_room(&mut self, more: usize) -> bool {
        loop {
            let all = || self.slots.iter().flat_map(|slot| &slot.templates);
            let bytes: u64 = all().map(|template| template.own_bytes).sum();
            if all().count() + more <= MAX_TEMPLATES && bytes <= TEMPLATE_BYTES {
                return true;
            }
            let ready = all().filter(|template| template.zygote.is_ready());
            let Some(oldest) = ready.map(|template| template.zygote.last_used).min() else { return false };
            for slot in &mut self.slots {
                slot.templates.retain(|template| !template.zygote.is_ready() || template.zygote.last_used != oldest);
            }
        }
    }

    /// `None` if the version has no template that is ready.
    async fn fork_from_template(
        &mut self,
        index: usize,
        version: i64,
        request: &Value,
        descriptors: [BorrowedFd<'_>; 3],
    ) -> Option<Forked> {
        if !self.is_template_ready(index, version) {
            return None;
        }
        let slot = &mut self.slots[index];
        let at = slot.templates.iter().position(|template| template.version == version)?;
        let template = &mut slot.templates[at];
        template.zygote.last_used = Instant::now();
        match template.zygote.fork(request, descriptors).await {
            Ok(forked) => forked,
            Err(error) => {
                debug!("the template of DAG version {version} ends: {error}");
                slot.templates.remove(at);
                None
            }
        }
    }

    fn is_template_ready(&mut self, index: usize, version: i64) -> bool {
        let slot = &mut self.slots[index];
        let Some(at) = slot.templates.iter().position(|template| template.version == version) else { return false };
        let zygote_bytes = slot.live.as_ref().map(Zygote::resident_bytes);
        let template = &mut slot.templates[at];
        if template.zygote.is_ready() {
            return true;
        }
        match template.zygote.ready() {
            Ok(None) => false,
            Ok(Some(_)) => {
                let own_bytes = |zygote_bytes| template.zygote.resident_bytes().saturating_sub(zygote_bytes);
                template.own_bytes = zygote_bytes.map_or(0, own_bytes);
                template.zygote.last_used = Instant::now();
                self.make_room(0);
                true
            }
            Err(reason) => {
                slot.templates.remove(at);
                let may_disappear = reason.kind() == io::ErrorKind::WouldBlock;
                self.refuse(version, &reason.to_string(), may_disappear.then(|| Instant::now() + REFUSED_FOR));
                false
            }
        }
    }

    /// Remembers that a DAG version gets no template, or none until this time.
    pub fn refuse(&mut self, version: i64, reason: &str, until: Option<Instant>) {
        for slot in &mut self.slots {
            slot.templates.retain(|template| template.version != version);
        }
        if self.refused.insert(version, until).is_none() && until.is_none() {
            self.unreported.push(version);
            info!("each try of DAG version {version} runs its file again: {reason}");
        }
    }

    /// Returns the DAG versions that get no template, each once.
    pub fn take_refused(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.unreported)
    }

    /// Index of the slot that a task or file forks from. Ends other zygotes so that this one may start.
    fn slot_for(&mut self, interpreter: &Interpreter, usage_key: &str) -> usize {
        // Airflow's own SDK makes a fork so slow that a large library adds little.
        let is_large = !interpreter.has_airflow_sdk
            && (self.large_users.contains(usage_key) || self.max_zygotes == 1 && !self.large_users.is_empty());
        let mut index = self.slot_index(interpreter, is_large);
        if is_large && !self.slots[index].has_large() {
            index = self.slot_index(interpreter, false);
        }
        self.evict(index);
        index
    }

    /// Index of the slot for an interpreter; adds the slot if it is missing.
    fn slot_index(&mut self, interpreter: &Interpreter, is_large: bool) -> usize {
        let matches = |slot: &Slot| slot.is_large == is_large && slot.interpreter == *interpreter;
        self.slots.iter().position(matches).unwrap_or_else(|| {
            self.slots.push(Slot::new(interpreter, is_large));
            self.slots.len() - 1
        })
    }

    /// Ends the least recently used zygotes until this slot may start one.
    fn evict(&mut self, index: usize) {
        while self.slots[index].live.is_none() && !self.has_room() {
            let idle_at = |slot: &Slot| slot.live.as_ref().and_then(|zygote| zygote.idle_at(idle_limit()));
            let loaded = self.slots.iter_mut().filter(|slot| idle_at(slot).is_some());
            match loaded.min_by_key(|slot| idle_at(slot)) {
                Some(oldest) => oldest.live = None,
                // All zygotes are still loading and have waiters, so none is ended.
                None => return,
            }
        }
    }

    /// True if a zygote may start without the end of another one.
    pub fn has_room(&self) -> bool {
        self.slots.iter().filter(|slot| slot.live.is_some()).count() < self.max_zygotes
    }

    /// Records the libraries that a process imported; later zygotes preload them.
    pub fn note_libraries(&mut self, interpreter: &Interpreter, usage_key: &str, libraries: &[String]) {
        let (large, small): (Vec<&String>, Vec<&String>) =
            libraries.iter().partition(|name| LARGE.contains(&name.as_str()));
        if interpreter.has_airflow_sdk {
            // The SDK itself imports the small libraries.
            let index = self.slot_index(interpreter, false);
            self.slots[index].libraries.extend(large.into_iter().cloned());
            return;
        }
        if !small.is_empty() {
            let index = self.slot_index(interpreter, false);
            self.slots[index].libraries.extend(small.iter().copied().cloned());
        }
        if large.is_empty() {
            return;
        }
        let index = self.slot_index(interpreter, true);
        self.slots[index].libraries.extend(libraries.iter().cloned());
        self.large_users.insert(usage_key.to_owned());
    }

    /// True while no zygote runs.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.live.is_none() && slot.templates.is_empty())
    }

    /// True while failures of zygotes are remembered, which decide when the next one starts.
    pub fn has_failures(&self) -> bool {
        self.slots.iter().any(|slot| slot.retry_state != RetryState::default())
    }

    /// Completes when one of the zygotes that load has loaded or failed; `None` if none loads.
    pub fn any_loading(&self) -> Option<impl Future<Output = ()> + use<>> {
        self.slots.iter().flat_map(Slot::zygotes).find_map(Zygote::loading)
    }

    /// When the first zygote becomes idle if no process forks from it before; `None` without a loaded zygote.
    pub fn idle_at(&self) -> Option<Instant> {
        self.slots.iter().flat_map(Slot::zygotes).filter_map(|zygote| zygote.idle_at(idle_limit())).min()
    }

    /// Ends idle zygotes. Processes that they forked go on.
    pub fn drop_idle(&mut self) {
        let is_idle = |zygote: &Zygote| zygote.idle_at(idle_limit()).is_some_and(|due| due <= Instant::now());
        for slot in &mut self.slots {
            slot.live.take_if(|zygote| is_idle(zygote));
            slot.templates.retain(|template| !is_idle(&template.zygote));
        }
    }
}

impl Slot {
    fn new(interpreter: &Interpreter, is_large: bool) -> Self {
        Self {
            interpreter: interpreter.clone(),
            is_large,
            live: None,
            templates: Vec::new(),
            libraries: BTreeSet::new(),
            retry_state: RetryState::default(),
        }
    }

    /// Starts the zygote if needed and possible. The future completes when the zygote is ready or has failed; `None` if
    /// it is ready, or cannot start.
    fn loading(&mut self) -> Option<impl Future<Output = ()> + use<>> {
        if self.is_paused() {
            return None;
        }
        self.drop_outdated();
        if !is_portable() && self.live.is_none() {
            // A fork reports an error.
            self.live = Zygote::start(&self.interpreter, self.usable_libraries()).ok();
        }
        let live = self.live.as_mut().filter(|live| !live.is_ready())?;
        live.last_used = Instant::now();
        live.loading()
    }

    /// The libraries that a new zygote would preload now.
    fn usable_libraries(&self) -> BTreeSet<String> {
        self.retry_state.usable(&self.libraries, Instant::now())
    }

    fn is_paused(&self) -> bool {
        self.retry_state.is_paused(Instant::now())
    }

    /// True if this slot's zygote has or will have a large library.
    fn has_large(&self) -> bool {
        self.usable_libraries().iter().any(|name| LARGE.contains(&name.as_str()))
    }

    /// Ends the zygote if its inputs or installed packages have changed.
    fn drop_outdated(&mut self) {
        self.templates.retain(|template| !template.zygote.is_out_of_date());
        if self.live.as_ref().is_some_and(Zygote::is_out_of_date) {
            // Libraries that failed before may work with the changed packages.
            (self.live, self.retry_state) = (None, RetryState::default());
        }
        let libraries = self.usable_libraries();
        self.live = self.live.take().filter(|live| live.libraries == libraries);
    }

    /// Notes for `leoflow doctor`; `purpose` is the pool's.
    fn notes(&self, purpose: &str) -> Vec<Note> {
        let note = |effect: String, failure: &Failure| Note {
            subject: format!("the warm Python for {purpose}"),
            program: self.interpreter.program.clone(),
            effect,
            reason: failure.reason.clone(),
            since: failure.since,
            next_try: Some(failure.next_try),
        };
        let no_zygote = self.retry_state.failure().map(|failure| note(format!("{purpose} start cold"), failure));
        let without_library =
            self.retry_state.missing().map(|(name, failure)| note(format!("is without {name}"), failure));
        no_zygote.into_iter().chain(without_library).collect()
    }

    fn zygotes(&self) -> impl Iterator<Item = &Zygote> {
        self.live.iter().chain(self.templates.iter().map(|template| &template.zygote))
    }

    /// The zygote, if it is ready; starts a missing one.
    fn zygote(&mut self) -> Option<&mut Zygote> {
        if is_portable() || self.is_paused() {
            return None;
        }
        self.drop_outdated();
        if self.live.is_none() {
            match Zygote::start(&self.interpreter, self.usable_libraries()) {
                Ok(zygote) => self.live = Some(zygote),
                Err(error) => self.fail(&error),
            }
        }
        let zygote = self.live.as_mut()?;
        zygote.last_used = Instant::now();
        if !zygote.is_ready() {
            match zygote.ready() {
                Ok(None) => return None,
                Ok(Some(left_out)) => {
                    for (name, reason) in &left_out {
                        self.retry_state.note_left_out(name, reason, Instant::now());
                        zygote.libraries.remove(name);
                    }
                }
                Err(error) => {
                    self.fail(&error);
                    return None;
                }
            }
        }
        self.live.as_mut()
    }

    async fn fork(&mut self, request: &Value, descriptors: [BorrowedFd<'_>; 3]) -> Option<Forked> {
        if request.to_string().len() > LARGEST_REQUEST {
            return None;
        }
        let zygote = self.zygote()?;
        match zygote.fork(request, descriptors).await {
            Ok(forked) => {
                if forked.is_some() {
                    let libraries = zygote.libraries.clone();
                    self.retry_state.succeeded(&libraries);
                }
                forked
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    /// Records that the zygote has failed.
    fn fail(&mut self, error: &io::Error) {
        let libraries = self.live.take().map_or_else(|| self.usable_libraries(), |live| live.libraries.clone());
        self.retry_state.failed(&libraries, &error.to_string(), Instant::now());
        warn!("the warm Python of {} failed: {error}; starting cold", self.interpreter.program.display());
    }
}
