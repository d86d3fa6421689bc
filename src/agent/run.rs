//! The agent's loop: claim, start, watch.

use super::ending;
use super::environments::Environments;
use super::folder::TaskFolder;
use super::hindrance::Hindrance;
use super::keepers::{self, Stopped};
use super::start::{self, Surroundings, Versions};
use super::triggers::{self, Triggers};
use super::warm;
use crate::engine::keys::TryKey;
use crate::engine::store::StoreError;
use crate::engine::store::events::{self, Event};
use crate::engine::store::tries::{self, Claimed};
use crate::postgres::{Endpoint, PgError};
use crate::protocol::child::Notifier;
use crate::protocol::task_log::Level;
use crate::python::{Interpreter, NoPython, SharedInterpreter, Warm};
use crate::sys::process::ProcessId;
use crate::sys::transient::is_transient;
use crate::sys::{memory, random};
use deadpool_postgres::ClientWrapper;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

const HEARTBEAT: Duration = Duration::from_secs(10);
/// Between attempts to reach a datastore that restarts.
const RECONNECT: Duration = Duration::from_millis(200);
/// A connection that lasted this long had no fault from the start.
const SETTLED: Duration = Duration::from_secs(5);
/// So many failures in a row are more than a datastore that restarts.
const REPEATED: u32 = 10;
/// Until tasks that somebody else had locked are asked for again, the first time; then twice as long each time.
const LOCKED: Duration = Duration::from_millis(1);
const LOCKED_LONGEST: Duration = Duration::from_millis(100);
/// It looks for queued tasks after so long a silence: whatever became of a notification, nothing waits longer.
const BACKSTOP: Duration = Duration::from_secs(15);
/// Until a warm Python is made ready: a start has enough to do.
const AFTER_START: Duration = Duration::from_secs(2);

pub struct Agent {
    pub surroundings: Surroundings,
    pub boot_id: String,
    interpreter: SharedInterpreter,
    pub(super) environments: Environments,
    pub(super) warm: Warm,
    versions: Versions,
    pub(super) running: HashMap<TryKey, Running>,
    stopped: Stopped,
    triggers: Triggers,
    watchers: JoinSet<TryKey>,
    /// Whether the warm Python of a start has been made ready.
    is_prepared: bool,
    /// True once this connection has claimed a task.
    has_claimed: bool,
    pub(super) hindrance: Hindrance,
    /// Whether some of what the datastore takes for running could not be read.
    pub(super) must_look_again: bool,
}

pub(super) struct Running {
    pub(super) folder: TaskFolder,
    /// The process that keeps it.
    pub(super) keeper: ProcessId,
    /// What it was started with; unknown of one that was taken over.
    pub(super) interpreter: Option<Rc<Interpreter>>,
    told_to_end: bool,
}

/// What came of a look for queued tasks.
struct Filled {
    started: usize,
    /// Some could not be had just now, because another transaction holds them.
    locked: bool,
}

/// What came of the beginning of a try.
enum Beginning {
    Started,
    /// Its environment is being built, or its warm Python begins.
    Waits,
    /// It fails without having run, for this reason.
    Impossible(String),
    /// It cannot begin now, for a reason that passes: it waits in the queue.
    NotNow(String),
}

impl Agent {
    pub fn new(surroundings: Surroundings, python: Option<PathBuf>, boot_id: String, notifier: Notifier) -> Self {
        Self {
            interpreter: SharedInterpreter::new(surroundings.home.clone(), python),
            environments: Environments::new(&surroundings.home),
            warm: Warm::new(&surroundings.home),
            triggers: Triggers::new(&surroundings.home, surroundings.workspace.clone()),
            surroundings,
            boot_id,
            stopped: Stopped::default(),
            versions: Versions::default(),
            running: HashMap::new(),
            watchers: JoinSet::new(),
            is_prepared: false,
            has_claimed: false,
            hindrance: Hindrance::new(notifier),
            must_look_again: false,
        }
    }

    /// Runs until it is dropped; what it started goes on.
    pub async fn run(mut self, endpoint: &Endpoint, config: &tokio_postgres::Config) {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            if let Err(error) = self.session(endpoint, config).await {
                failures = if begun.elapsed() > SETTLED { 1 } else { failures + 1 };
                if failures >= REPEATED {
                    self.hindrance.note(format!("tasks wait in the queue: {error}"), tokio::time::Instant::now());
                } else {
                    warn!("{error}; trying again");
                }
                tokio::time::sleep(RECONNECT).await;
            }
        }
    }

    /// As long as one connection lasts. One that has claimed has grown, and is exchanged for another when it is quiet.
    async fn session(&mut self, endpoint: &Endpoint, config: &tokio_postgres::Config) -> Result<(), StoreError> {
        let (mut client, mut events) = endpoint.listen(config, events::AGENT).await?;
        self.take_over(&client).await?;
        self.look_at_triggers(&mut client).await?;
        self.stop_unwanted(&client).await?;
        let prepare = tokio::time::sleep(AFTER_START);
        tokio::pin!(prepare);
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        // Those of an idle night are not made up for.
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = LOCKED;
        // Set when it was silence that has woken this loop.
        let mut untold = false;
        let mut heard = tokio::time::Instant::now();
        loop {
            let claimed = self.claim(&client).await?;
            if std::mem::take(&mut untold) && claimed.started > 0 {
                warn!("found {} queued task(s) that no notification had told of", claimed.started);
            }
            pause = if claimed.started > 0 || !claimed.locked { LOCKED } else { (pause * 2).min(LOCKED_LONGEST) };
            tokio::select! {
                payload = events.recv() => {
                    heard = tokio::time::Instant::now();
                    match payload.as_deref().map(Event::parse) {
                        None => return Err(StoreError::Postgres(PgError::Cut)),
                        Some(Some(Event::Stop)) => {
                            self.stop_unwanted(&client).await?;
                            self.look_at_triggers(&mut client).await?;
                        }
                        Some(Some(Event::Triggers)) => self.look_at_triggers(&mut client).await?,
                        Some(_) => {}
                    }
                }
                () = tokio::time::sleep(pause), if claimed.locked => {}
                Some(ended) = self.watchers.join_next() => {
                    let mut all = vec![ended];
                    while let Some(more) = self.watchers.try_join_next() {
                        all.push(more);
                    }
                    // All are taken out before the first is told: should the datastore go now, the
                    // next connection finds them by their folders.
                    let ended: Vec<_> = all.into_iter().flatten().filter_map(|key| self.running.remove_entry(&key)).collect();
                    let ended = ended.into_iter().filter_map(|(key, running)| self.settle(key, running)).collect();
                    if self.record(&client, ended).await? {
                        self.look_at_triggers(&mut client).await?;
                    }
                }
                Some((claimed, made)) = self.environments.next() => match made {
                    Ok(()) => self.start(&client, &claimed, false).await?,
                    Err(reason) => self.fail(&client, &claimed.key, reason).await?,
                },
                happened = self.triggers.next() => {
                    if self.triggers.act(&mut client, happened).await? {
                        self.look_at_triggers(&mut client).await?;
                    }
                }
                _ = heartbeat.tick(), if !self.running.is_empty() => {
                    self.beat(&client).await?;
                    self.stopped.wake(self.running.iter().map(|(key, one)| (key, one.folder.path(), &one.keeper)));
                    self.stop_unwanted(&client).await?;
                }
                () = &mut prepare, if !self.is_prepared => {
                    self.is_prepared = true;
                    if let Ok(interpreter) = self.interpreter.get().await {
                        self.warm.prepare(&interpreter);
                    }
                }
                () = self.warm.idle() => self.warm.let_go(),
                () = self.hindrance.due() => {
                    self.hindrance.step(tokio::time::Instant::now());
                    if std::mem::take(&mut self.must_look_again) {
                        self.take_over(&client).await?;
                    }
                }
                () = tokio::time::sleep_until(heard + BACKSTOP) => {
                    heard = tokio::time::Instant::now();
                    untold = true;
                    if self.running.is_empty() && std::mem::take(&mut self.has_claimed) {
                        memory::rest();
                        return Ok(());
                    }
                }
            }
        }
    }

    /// What deferred tasks wait for, as it is now.
    async fn look_at_triggers(&mut self, client: &mut ClientWrapper) -> Result<(), StoreError> {
        if !self.triggers.has_any() && !triggers::is_any(client).await? {
            return Ok(());
        }
        let Ok(plain) = self.interpreter.get().await.map(Rc::new) else { return Ok(()) };
        let find = |hash: Option<&str>| self.environments.find_or_have_built(&plain, hash);
        self.triggers.look(client, &mut self.versions, find).await
    }

    async fn beat(&self, client: &ClientWrapper) -> Result<(), StoreError> {
        let alive: Vec<_> = self.running.iter().map(|(key, one)| (key.clone(), one.keeper.clone())).collect();
        tries::heartbeat(client, &alive).await
    }

    /// Fills the free slots.
    async fn claim(&mut self, client: &ClientWrapper) -> Result<Filled, StoreError> {
        let slots = tries::SLOTS.saturating_sub(self.running.len() + self.environments.slots_taken());
        let room = self.hindrance.room(slots);
        if room == 0 {
            return Ok(Filled { started: 0, locked: false });
        }
        let claimed = tries::claim(client, room, &self.boot_id, random::hex_256).await?;
        let started = claimed.len();
        self.has_claimed |= started > 0;
        for one in claimed {
            self.start(client, &one, started > 1).await?;
        }
        // Who clears or ends a run locks what is queued in it, and a claim passes over what is locked; nobody says when
        // the lock is gone.
        let locked = started < room && tries::is_any_claimable(client).await?;
        Ok(Filled { started, locked })
    }

    /// Starts a try; one that cannot be started has failed. `is_of_many` is whether others are started with it.
    pub(super) async fn start(
        &mut self,
        client: &ClientWrapper,
        claimed: &Claimed,
        is_of_many: bool,
    ) -> Result<(), StoreError> {
        match self.try_start(client, claimed, is_of_many).await? {
            Beginning::Started | Beginning::Waits => Ok(()),
            Beginning::Impossible(reason) => self.fail(client, &claimed.key, reason).await,
            Beginning::NotNow(reason) => self.queue_again(client, &claimed.key, reason).await,
        }
    }

    /// A try that has not begun and never will.
    pub(super) async fn fail(&self, client: &ClientWrapper, key: &TryKey, reason: String) -> Result<(), StoreError> {
        start::say_in_log(&self.surroundings.home, key, |log| log.say(Level::Error, &reason));
        tries::record(client, &ending::never_began(key.clone(), reason)).await?;
        TaskFolder::of(&self.surroundings.home, key).discard();
        Ok(())
    }

    async fn try_start(
        &mut self,
        client: &ClientWrapper,
        claimed: &Claimed,
        is_of_many: bool,
    ) -> Result<Beginning, StoreError> {
        let Some(version) = claimed.version_id else {
            return Ok(Beginning::Impossible("its DAG has no version to run".to_owned()));
        };
        let version = self.versions.get(client, version).await?;
        let plain = match self.interpreter.get().await {
            Ok(interpreter) => interpreter,
            Err(NoPython { reason, is_transient: true }) => return Ok(Beginning::NotNow(reason)),
            Err(NoPython { reason, .. }) => return Ok(Beginning::Impossible(reason)),
        };
        let interpreter = match &version.environment {
            None => Rc::new(plain),
            Some(hash) => match self.environments.find(&plain, hash) {
                Some(interpreter) => interpreter,
                None => {
                    let why = "its environment is not on this machine and is built now; it begins when that is there";
                    self.surroundings.say_that_it_waits(&claimed.key, why);
                    self.environments.wait_for(claimed, hash.clone());
                    return Ok(Beginning::Waits);
                }
            },
        };
        if self.environments.wait_for_warm(claimed, &mut self.warm, &interpreter) {
            return Ok(Beginning::Waits);
        }
        let refused = |error: io::Error| {
            let reason = format!("the task could not be started: {error}");
            Ok(if is_transient(&error) { Beginning::NotNow(reason) } else { Beginning::Impossible(reason) })
        };
        let mut request = match self.surroundings.prepare(claimed, &version, &interpreter) {
            Ok(request) => request,
            Err(error) => return refused(error),
        };
        if self.warm.uses_large(&request.user) && warm::may_set_variables(&version.sources) {
            // It imports the libraries itself.
            request.user.clear();
        }
        let keeper = match warm::start(&mut self.warm, &interpreter, &request, is_of_many).await {
            Some(keeper) => keeper,
            None => match keepers::start_cold(&request.folder) {
                Ok(keeper) => keeper,
                Err(error) => return refused(error),
            },
        };
        debug!("{}: started, keeper {}", claimed.key, keeper.pid);
        self.watch(claimed.key.clone(), request.folder, keeper, Some(interpreter));
        Ok(Beginning::Started)
    }

    pub(super) fn watch(
        &mut self,
        key: TryKey,
        folder: TaskFolder,
        keeper: ProcessId,
        interpreter: Option<Rc<Interpreter>>,
    ) {
        self.watch_after(Duration::ZERO, key, folder, keeper, interpreter);
    }

    /// The same, looking for its end only after a pause.
    pub(super) fn watch_after(
        &mut self,
        pause: Duration,
        key: TryKey,
        folder: TaskFolder,
        keeper: ProcessId,
        interpreter: Option<Rc<Interpreter>>,
    ) {
        let watched = keeper.clone();
        self.running.insert(key.clone(), Running { folder, keeper, interpreter, told_to_end: false });
        self.watchers.spawn_local(async move {
            if pause > Duration::ZERO {
                tokio::time::sleep(pause).await;
            }
            keepers::wait_for(&watched).await;
            key
        });
    }

    /// Ends what is cancelled or cleared; each is told once.
    async fn stop_unwanted(&mut self, client: &ClientWrapper) -> Result<(), StoreError> {
        for key in tries::to_stop(client).await? {
            if self.environments.give_up(&key) {
                self.fail(client, &key, "it was ended before it could begin".to_owned()).await?;
            }
            if let Some(running) = self.running.get_mut(&key).filter(|running| !running.told_to_end) {
                running.told_to_end = true;
                keepers::tell_to_end(&running.keeper);
            }
        }
        Ok(())
    }
}
