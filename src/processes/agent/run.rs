//! The agent's main loop: claims, starts and watches tries.

use super::environments::Environments;
use super::keepers::{KeeperEvent, Keepers};
use super::running::{EndedTry, Running};
use super::start_backoff::StartBackoff;
use super::task_context::{TaskContext, Versions};
use super::triggers::{self, TriggerEvent, Triggers};
use crate::keeper::Request;
use deadpool_postgres::ClientWrapper;
use leoflow_base::protocol::child::Notifier;
use leoflow_base::sys::process::{ProcessId, exit, memory, processor};
use leoflow_base::sys::random;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::events::{self, Event};
use leoflow_engine::store::instance::tries;
use leoflow_engine::store::session;
use leoflow_postgres::{Endpoint, PgError};
use leoflow_python::SharedInterpreter;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;
use tracing::warn;

const HEARTBEAT: Duration = Duration::from_secs(10);
/// Pause between attempts to reach a datastore that restarts.
const RECONNECT: Duration = Duration::from_millis(200);
/// After a connection that lasted this long, the count of failures starts again.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// This many failures in a row are reported as a problem, not as a restart of the datastore.
const REPORT_AFTER_FAILURES: u32 = 10;
/// First pause before queued tasks that another transaction has locked are claimed again; doubles each time.
const LOCK_RETRY: Duration = Duration::from_millis(1);
const LOCK_RETRY_MAX: Duration = Duration::from_millis(100);
/// How long an outcome waits for others while more than `COMMIT_SIBLINGS` tries run and as many threads are runnable, both
/// for each processor. Named after the settings of PostgreSQL.
const COMMIT_DELAY: Duration = Duration::from_millis(10);
const COMMIT_SIBLINGS: usize = 2;
/// Poll interval for queued tasks; catches missed notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// Delay before the first warm Python is prepared, so that it does not slow down the startup.
fn prepare_delay() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_PREPARE_DELAY", Duration::from_secs(2))
}

pub struct Agent {
    pub context: TaskContext,
    pub boot_id: String,
    pub(super) interpreter: SharedInterpreter,
    pub(super) environments: Environments,
    pub(super) keepers: Keepers,
    pub(super) versions: Versions,
    pub(super) running: HashMap<TryKey, Running>,
    triggers: Triggers,
    /// `COMMIT_SIBLINGS` of all processors.
    commit_siblings: usize,
    /// Wait for keepers of earlier releases, which report no events, and for the time to read a folder again.
    watchers: JoinSet<TryKey>,
    /// True once the first warm Python has been prepared.
    is_prepared: bool,
    /// True once this connection has claimed a task.
    has_claimed: bool,
    /// False after a claim that found fewer tasks than there were slots, until others may be queued.
    pub(super) may_be_queued: bool,
    pub(super) start_backoff: StartBackoff,
    /// True if the folder of a try that the datastore records as running could not be read.
    pub(super) needs_take_over: bool,
}

/// Result of a claim of queued tasks.
#[derive(Default)]
struct ClaimResult {
    started: usize,
    /// True if another transaction holds locks on claimable tasks.
    locked: bool,
}

impl Agent {
    pub fn new(context: TaskContext, python: Option<PathBuf>, boot_id: String, notifier: Notifier) -> Self {
        Self {
            interpreter: SharedInterpreter::new(context.home.clone(), python),
            environments: Environments::new(&context.home),
            keepers: Keepers::new(&context.home),
            triggers: Triggers::new(&context.home),
            commit_siblings: COMMIT_SIBLINGS * processor::count(),
            versions: Versions::new(&context.home, &context.workspace),
            context,
            boot_id,
            running: HashMap::new(),
            watchers: JoinSet::new(),
            is_prepared: false,
            has_claimed: false,
            may_be_queued: true,
            start_backoff: StartBackoff::new(notifier),
            needs_take_over: false,
        }
    }

    /// Runs until dropped; running tasks then continue.
    pub async fn run(mut self, endpoint: &Endpoint, config: &tokio_postgres::Config) {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            if let Err(error) = self.session(endpoint, config).await {
                failures = if begun.elapsed() > STABLE_AFTER { 1 } else { failures + 1 };
                if failures >= REPORT_AFTER_FAILURES {
                    self.start_backoff.note(format!("tasks wait in the queue: {error}"), tokio::time::Instant::now());
                } else {
                    warn!("{error}; reconnecting");
                }
                tokio::time::sleep(RECONNECT).await;
            }
        }
    }

    /// Serves one connection. A connection that has claimed tasks has grown in memory and is replaced when idle.
    async fn session(&mut self, endpoint: &Endpoint, config: &tokio_postgres::Config) -> Result<(), StoreError> {
        let (mut client, mut events) = session::listen(endpoint, config, events::AGENT).await?;
        self.take_over(&client).await?;
        self.refresh_triggers(&mut client).await?;
        self.stop_cancelled(&client).await?;
        let prepare = tokio::time::sleep(prepare_delay());
        tokio::pin!(prepare);
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        // Heartbeats that were missed during a suspend are not sent later.
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = LOCK_RETRY;
        // True for a round of the loop that the poll interval has caused, and not a notification.
        let mut is_poll = false;
        let mut last_wake = tokio::time::Instant::now();
        self.may_be_queued = true;
        loop {
            let claimed = self.claim(&client).await?;
            let has_polled = std::mem::take(&mut is_poll);
            // Notifications arrive on the same connection, before the answer to the claim.
            if has_polled && claimed.started > 0 && events.is_empty() {
                warn!("polling found {} queued task(s) that no notification announced", claimed.started);
            }
            pause = if claimed.started > 0 || !claimed.locked { LOCK_RETRY } else { (pause * 2).min(LOCK_RETRY_MAX) };
            tokio::select! {
                payload = events.recv() => {
                    self.on_notification(&mut client, payload.as_deref()).await?;
                    if self.may_be_queued {
                        last_wake = tokio::time::Instant::now();
                    }
                }
                () = tokio::time::sleep(pause), if claimed.locked => {}
                event = self.keepers.next() => self.on_keeper_event(&mut client, event).await?,
                Some(ended) = self.watchers.join_next() => self.on_watched_end(&mut client, ended).await?,
                Some((claimed, problem)) = self.environments.next() => match problem {
                    None => self.start(&client, &claimed).await?,
                    Some(reason) => self.fail(&client, &claimed.key, reason).await?,
                },
                event = self.triggers.next() => self.on_trigger_event(&mut client, event).await?,
                _ = heartbeat.tick(), if !self.running.is_empty() => self.on_heartbeat(&mut client).await?,
                () = &mut prepare, if !self.is_prepared => {
                    self.is_prepared = true;
                    self.prepare_warm(None).await;
                }
                () = self.start_backoff.due() => self.on_backoff_end(&client).await?,
                () = tokio::time::sleep_until(last_wake + POLL_INTERVAL) => {
                    last_wake = tokio::time::Instant::now();
                    (is_poll, self.may_be_queued) = (true, true);
                    if self.running.is_empty() && std::mem::take(&mut self.has_claimed) {
                        memory::release_memory();
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Handles a notification of the datastore; `payload` is `None` once the connection is lost.
    async fn on_notification(&mut self, client: &mut ClientWrapper, payload: Option<&str>) -> Result<(), StoreError> {
        match payload.map(Event::parse) {
            None => Err(StoreError::Postgres(PgError::ConnectionLost)),
            // Until the first warm Python is prepared, parses are those of the start.
            Some(Some(Event::Prepare { environment })) => {
                if self.is_prepared {
                    self.prepare_warm(environment.as_deref()).await;
                }
                Ok(())
            }
            Some(Some(Event::Stop)) => {
                self.stop_cancelled(client).await?;
                self.refresh_triggers(client).await
            }
            Some(Some(Event::Triggers)) => self.refresh_triggers(client).await,
            // Also for an event of another release.
            Some(_) => {
                self.may_be_queued = true;
                Ok(())
            }
        }
    }

    /// Records the tries that have ended according to `first` and the events that have arrived by now. While the processors
    /// are busy with tries, waits for more events, because several outcomes cost little more than one.
    async fn on_keeper_event(&mut self, client: &mut ClientWrapper, first: KeeperEvent) -> Result<(), StoreError> {
        let mut ended = Vec::new();
        let mut next = Some(first);
        let is_busy = self.has_siblings() && processor::runnable_threads() > self.commit_siblings;
        let deadline = tokio::time::Instant::now() + COMMIT_DELAY;
        while let Some(event) = next {
            match event {
                KeeperEvent::Ended(keeper, folder) => {
                    ended.extend(
                        self.remove_running(|running| running.keeper == keeper && running.folder.path() == folder),
                    );
                }
                KeeperEvent::Gone(keeper, exit) => {
                    self.keepers.disconnect(&keeper);
                    let tries = self.remove_running(|running| running.keeper == keeper);
                    ended.extend(tries.into_iter().map(|ended| ended.with_keeper_exit(exit)));
                }
                KeeperEvent::Refused(versions) => self.versions.refuse_templates(&versions),
                KeeperEvent::Idle(keeper) => self.disconnect_unused(&keeper),
            }
            next = match is_busy && self.has_siblings() {
                true => tokio::time::timeout_at(deadline, self.keepers.next()).await.ok(),
                false => self.keepers.try_next(),
            };
        }
        self.finish(client, ended).await
    }

    /// True while the tries that run may keep all processors busy.
    fn has_siblings(&self) -> bool {
        self.running.len() > self.commit_siblings
    }

    /// Records the try whose watcher has ended.
    async fn on_watched_end(
        &mut self,
        client: &mut ClientWrapper,
        ended: Result<TryKey, JoinError>,
    ) -> Result<(), StoreError> {
        let Ok(ended) = ended else { return Ok(()) };
        let removed = self.running.remove_entry(&ended).map(|(key, running)| EndedTry::of(key, running));
        self.finish(client, removed.into_iter().collect()).await
    }

    /// Removes running tries. All are removed before the first is recorded: if the connection is lost then, the next
    /// session finds them by their folders.
    fn remove_running(&mut self, has_ended: impl Fn(&Running) -> bool) -> Vec<EndedTry> {
        let ended = self.running.extract_if(|_, running| has_ended(running));
        ended.map(|(key, running)| EndedTry::of(key, running)).collect()
    }

    async fn finish(&mut self, client: &mut ClientWrapper, ended: Vec<EndedTry>) -> Result<(), StoreError> {
        let keepers: Vec<ProcessId> = ended.iter().filter_map(|ended| ended.keeper.clone()).collect();
        let ended = ended.into_iter().filter_map(|ended| self.after_end(ended)).collect();
        let has_deferred = self.record(client, ended).await?;
        keepers.iter().for_each(|keeper| self.disconnect_if_earlier(keeper));
        if has_deferred { self.refresh_triggers(client).await } else { Ok(()) }
    }

    async fn on_trigger_event(&mut self, client: &mut ClientWrapper, event: TriggerEvent) -> Result<(), StoreError> {
        match self.triggers.handle(client, event).await? {
            true => self.refresh_triggers(client).await,
            false => Ok(()),
        }
    }

    async fn on_backoff_end(&mut self, client: &ClientWrapper) -> Result<(), StoreError> {
        self.start_backoff.step(tokio::time::Instant::now());
        self.may_be_queued = true;
        match std::mem::take(&mut self.needs_take_over) {
            true => self.take_over(client).await,
            false => Ok(()),
        }
    }

    async fn on_heartbeat(&mut self, client: &mut ClientWrapper) -> Result<(), StoreError> {
        let alive: Vec<_> = self.running.iter().map(|(key, running)| (key.clone(), running.keeper.clone())).collect();
        tries::heartbeat(client, &alive).await?;
        self.keepers.continue_stopped();
        self.attach_again(client).await?;
        self.stop_cancelled(client).await
    }

    /// Connects to keepers that did not answer before, and records the tries that have ended there meanwhile.
    async fn attach_again(&mut self, client: &mut ClientWrapper) -> Result<(), StoreError> {
        let mut ended = Vec::new();
        for (keeper, folders) in self.keepers.attach().await {
            ended.extend(self.remove_running(|running| {
                running.keeper == keeper && !folders.iter().any(|folder| folder == running.folder.path())
            }));
            self.disconnect_if_earlier(&keeper);
        }
        self.finish(client, ended).await
    }

    /// Prepares a warm Python of an environment, so that the next task need not wait for one.
    async fn prepare_warm(&mut self, environment: Option<&str>) {
        let Ok(plain) = self.interpreter.get().await else { return };
        let Some(interpreter) = self.environments.find_or_request(&Rc::new(plain), environment) else { return };
        let interpreter = Box::new((*interpreter).clone());
        let request = Request::Prepare { interpreter, usage_key: String::new() };
        if let Err(error) = self.keepers.request(&request) {
            warn!("cannot start a keeper: {error}");
        }
    }

    /// Starts and cancels triggers to match the deferred tasks in the datastore.
    async fn refresh_triggers(&mut self, client: &mut ClientWrapper) -> Result<(), StoreError> {
        if !self.triggers.is_active() && !triggers::is_any(client).await? {
            return Ok(());
        }
        let Ok(plain) = self.interpreter.get().await.map(Rc::new) else { return Ok(()) };
        let find = |hash: Option<&str>| self.environments.find_or_request(&plain, hash);
        self.triggers.refresh(client, &mut self.versions, find).await
    }

    /// Claims and starts queued tasks for the free slots.
    async fn claim(&mut self, client: &ClientWrapper) -> Result<ClaimResult, StoreError> {
        let slots = tries::SLOTS.saturating_sub(self.running.len() + self.environments.slots_taken());
        let capacity = self.start_backoff.capacity(slots);
        if capacity == 0 || !self.may_be_queued {
            return Ok(ClaimResult::default());
        }
        let all_claimed = tries::claim(client, capacity, &self.boot_id, random::hex_256).await?;
        let started = all_claimed.len();
        self.has_claimed |= started > 0;
        for claimed in all_claimed {
            self.start(client, &claimed).await?;
        }
        // `claim` skips rows that a clear or the end of a run has locked, and no NOTIFY announces the unlock, so the
        // caller retries.
        let locked = started < capacity && tries::is_any_claimable(client).await?;
        self.may_be_queued = started == capacity || locked;
        Ok(ClaimResult { started, locked })
    }

    /// Watches a running try. With a pause, or if its keeper reports no events, waits for the pause and the keeper's end.
    pub(super) fn watch(&mut self, key: TryKey, running: Running, pause: Duration) {
        let keeper = running.keeper.clone();
        self.running.insert(key.clone(), running);
        let reports_events = self.keepers.is_connected(&keeper);
        if reports_events && pause == Duration::ZERO {
            return;
        }
        self.watchers.spawn_local(async move {
            tokio::time::sleep(pause).await;
            if !reports_events {
                exit::wait_gone(&keeper).await;
            }
            key
        });
    }

    /// Disconnects from a keeper that has none of the running tries, so that it exits.
    fn disconnect_unused(&mut self, keeper: &ProcessId) {
        if !self.running.values().any(|running| running.keeper == *keeper) {
            self.keepers.disconnect(keeper);
        }
    }

    /// Disconnects from the keeper of an earlier agent once the last of its tries has ended.
    pub(super) fn disconnect_if_earlier(&mut self, keeper: &ProcessId) {
        if !self.keepers.is_own(keeper) {
            self.disconnect_unused(keeper);
        }
    }

    /// Stops cancelled and cleared tries, with one request for each.
    async fn stop_cancelled(&mut self, client: &ClientWrapper) -> Result<(), StoreError> {
        for key in tries::to_stop(client).await? {
            if self.environments.cancel_waiting(&key) {
                self.fail(client, &key, "the task was stopped before it could begin".to_owned()).await?;
            }
            if let Some(running) = self.running.get_mut(&key).filter(|running| !running.stop_requested) {
                running.stop_requested = true;
                self.keepers.stop(&running.keeper, running.folder.path());
            }
        }
        Ok(())
    }
}
