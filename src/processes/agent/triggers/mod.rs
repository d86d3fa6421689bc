//! Runs the triggers of deferred tasks and the watchers of assets, in one host process for each environment and
//! project. A host runs only while it has triggers or watchers. Their definitions are in the datastore, so they survive
//! the hosts and the agent.

pub(crate) mod trigger_host;
pub(crate) mod trigger_problems;

use super::task_context::{self, Versions};
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::asset::watchers::{self, Watcher, WatcherEvent};
use leoflow_engine::store::instance::hitl;
use leoflow_engine::store::instance::triggers::{self, FAILURE, Fired, TIMED_OUT, Waiting};
use leoflow_python::{Interpreter, VersionCode, installed_packages};
use serde_json::json;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::{debug, warn};
use trigger_host::{Host, HostEvent, HostKey, HostMessage, Outcome};
use trigger_problems::HostProblems;

/// Poll interval while there are triggers or watchers; catches missed notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// How long an idle host is kept for later triggers: starting one takes two seconds.
fn idle_limit() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_TRIGGER_IDLE_LIMIT", Duration::from_secs(10))
}
/// Messages buffered for the agent; hosts wait when it is full.
const EVENT_BUFFER: usize = 256;
/// A host that has run for this long counts as working, even without an event: triggers may take hours.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// The effect of a host's end on tasks while it is restarted.
const WAIT_EFFECT: &str = "its deferred tasks wait";

/// A host's triggers fail after this many consecutive exits with an exit code, without an event in between.
const MAX_EXITS: u32 = 5;
/// A host's triggers fail after this many consecutive ends of any kind. The limit is higher, because a kill is rarely
/// the host's own fault.
const MAX_DEATHS: u32 = 50;
/// Pause before a host of watchers that keeps ending is restarted.
const WATCHER_RETRY: Duration = Duration::from_secs(60);

/// Consecutive failures of a host, without an event in between.
#[derive(Default)]
struct Failures {
    /// Exits with an exit code, as opposed to kills.
    exits: u32,
    deaths: u32,
    retry_at: Option<Instant>,
}

pub struct Triggers {
    home: Home,
    /// Triggers of deferred tasks, by id.
    waiting: HashMap<i64, Waiting>,
    /// Watchers of assets, by their negated ids, so that they never equal a trigger's id.
    watchers: HashMap<i64, Watcher>,
    /// Events of watchers that are not stored yet.
    unstored_events: VecDeque<WatcherEvent>,
    hosts: HashMap<HostKey, Host>,
    failures: HashMap<HostKey, Failures>,
    problems: HostProblems,
    next_poll: Instant,
    events: Receiver<(HostKey, i32, HostEvent)>,
    event_sender: Sender<(HostKey, i32, HostEvent)>,
}

impl Triggers {
    pub fn new(home: &Home) -> Self {
        let (event_sender, events) = channel(EVENT_BUFFER);
        Self {
            home: home.clone(),
            waiting: HashMap::new(),
            watchers: HashMap::new(),
            unstored_events: VecDeque::new(),
            hosts: HashMap::new(),
            failures: HashMap::new(),
            problems: HostProblems::new(home),
            next_poll: Instant::now() + POLL_INTERVAL,
            events,
            event_sender,
        }
    }

    /// True while there is a trigger, a watcher or a running host.
    pub fn is_active(&self) -> bool {
        !self.waiting.is_empty() || !self.watchers.is_empty() || !self.hosts.is_empty()
    }

    /// Synchronizes with the datastore: starts new triggers, cancels removed ones. `interpreter` returns the Python of
    /// the environment with a hash; `None` while it is being built.
    pub async fn refresh(
        &mut self,
        client: &mut ClientWrapper,
        versions: &mut Versions,
        mut interpreter: impl FnMut(Option<&str>) -> Option<Rc<Interpreter>>,
    ) -> Result<(), StoreError> {
        self.next_poll = Instant::now() + POLL_INTERVAL;
        for (host_key, _) in self.hosts.iter().filter(|(_, host)| host.started.elapsed() > STABLE_AFTER) {
            self.problems.remove(host_key);
        }
        self.store_events(client).await?;
        let waiting = triggers::waiting(client).await?;
        let watchers = watchers::all(client).await?;
        self.forget_removed(&waiting, &watchers);
        for (id, version_id) in self.add(waiting, watchers) {
            let version = versions.get(client, version_id).await?;
            // The environment is still being built. The trigger's timeout counts meanwhile.
            let Some(python) = interpreter(version.version.environment.as_deref()) else { continue };
            self.start_unless_failing(id, &python, &version.code);
        }
        Ok(())
    }

    /// Forgets triggers and watchers that the datastore no longer has.
    fn forget_removed(&mut self, waiting: &[Waiting], watchers: &[Watcher]) {
        let ids: HashSet<i64> =
            waiting.iter().map(|trigger| trigger.id).chain(watchers.iter().map(|watcher| -watcher.id)).collect();
        let known = self.waiting.keys().chain(self.watchers.keys());
        let gone: Vec<i64> = known.filter(|id| !ids.contains(id)).copied().collect();
        gone.into_iter().for_each(|id| self.forget(id, End::Removed));
    }

    /// Adds triggers and watchers, and returns those that need a host: their ids and versions.
    fn add(&mut self, waiting: Vec<Waiting>, watchers: Vec<Watcher>) -> Vec<(i64, i64)> {
        let mut new = Vec::new();
        for trigger in waiting {
            if self.is_running(trigger.id) {
                // The scheduler changes the timeout after the system clock was set back.
                if let Some(waiting) = self.waiting.get_mut(&trigger.id) {
                    waiting.timeout_at = trigger.timeout_at;
                }
                continue;
            }
            // Human input needs no host.
            if !trigger.is_for_input() {
                new.push((trigger.id, trigger.version_id));
            }
            self.waiting.insert(trigger.id, trigger);
        }
        for watcher in watchers {
            if !self.is_running(-watcher.id) {
                new.push((-watcher.id, watcher.version_id));
                self.watchers.insert(-watcher.id, watcher);
            }
        }
        new
    }

    /// True if a live host has this trigger.
    fn is_running(&self, id: i64) -> bool {
        self.hosts.values().any(|host| host.trigger_ids.contains(&id))
    }

    /// Starts a trigger in its host, unless the host has failed and its pause is not over.
    fn start_unless_failing(&mut self, id: i64, python: &Interpreter, code: &VersionCode) {
        let host_key = HostKey {
            program: python.program.clone(),
            folder: code.folders.first().cloned().unwrap_or_default(),
            packages: installed_packages(&self.home).filter(|_| !python.has_airflow_sdk),
        };
        let retry_at = self.failures.get(&host_key).and_then(|failures| failures.retry_at);
        if let Some(retry_at) = retry_at.filter(|due| *due > Instant::now()) {
            self.next_poll = self.next_poll.min(retry_at);
            return;
        }
        if let Err(error) = self.start_trigger(id, host_key.clone(), python, code) {
            warn!("cannot start a trigger host: {error}");
            let reason = format!("it failed to start: {error}");
            self.problems.add(&host_key, reason, WAIT_EFFECT.to_owned(), Some(POLL_INTERVAL));
        }
    }

    fn start_trigger(
        &mut self,
        id: i64,
        host_key: HostKey,
        python: &Interpreter,
        code: &VersionCode,
    ) -> io::Result<()> {
        let host = match self.hosts.get_mut(&host_key) {
            Some(host) => host,
            None => {
                let host = Host::start(&self.home, python, code, &host_key, self.event_sender.clone())?;
                self.hosts.entry(host_key).or_insert(host)
            }
        };
        let watched = self.watchers.get(&id).map(|watcher| {
            json!({
                "id": id, "classpath": watcher.classpath, "kwargs": watcher.kwargs, "watches": true,
                "asset_id": watcher.asset_id, "asset": {"name": watcher.asset_name, "uri": watcher.asset_uri},
            })
        });
        let deferred = self.waiting.get(&id).map(|waiting| {
            json!({
                "id": id, "classpath": waiting.classpath, "kwargs": waiting.kwargs,
                "next_kwargs": waiting.next_kwargs, "of": waiting.key,
            })
        });
        if let Some(message) = watched.or(deferred) {
            host.trigger_ids.insert(id);
            // A failed send means that the host has ended; its end is an event of its own.
            let _ = host.sender.send(message);
        }
        Ok(())
    }

    /// Forgets a trigger or watcher that has ended, and cancels it in its host unless it has fired.
    fn forget(&mut self, id: i64, end: End) {
        self.waiting.remove(&id);
        self.watchers.remove(&id);
        let Some(host) = self.hosts.values_mut().find(|host| host.trigger_ids.contains(&id)) else { return };
        host.trigger_ids.remove(&id);
        host.last_used = Instant::now();
        let message = match end {
            End::Fired => return,
            End::TimedOut => json!({"cancel": id}),
            End::Removed => json!({"cancel": id, "killed": true}),
        };
        let _ = host.sender.send(message);
    }

    /// Drops idle hosts. They exit when their connection closes.
    fn drop_idle(&mut self) {
        self.hosts.retain(|_, host| !host.trigger_ids.is_empty() || host.last_used.elapsed() < idle_limit());
    }

    /// Completes with the next event for `handle`. Never completes without triggers, watchers and hosts.
    pub async fn next(&mut self) -> TriggerEvent {
        if !self.is_active() {
            return std::future::pending().await;
        }
        self.drop_idle();
        let next_timeout = self.waiting.values().filter_map(|trigger| Some((trigger.timeout_at?, trigger.id))).min();
        let idle = self
            .hosts
            .values()
            .filter(|host| host.trigger_ids.is_empty())
            .map(|host| host.last_used + idle_limit())
            .min();
        let poll_at = idle.unwrap_or(self.next_poll).min(self.next_poll);
        let until_poll = poll_at.saturating_duration_since(Instant::now());
        let pause = next_timeout.map_or(until_poll, |(due, _)| {
            Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default().min(until_poll)
        });
        tokio::select! {
            Some((host_key, pid, event)) = self.events.recv() => TriggerEvent::Host(host_key, pid, event),
            () = tokio::time::sleep(pause) => match next_timeout.filter(|(due, _)| *due <= Timestamp::now()) {
                Some((_, id)) => TriggerEvent::TimedOut(id),
                None => TriggerEvent::Poll,
            },
        }
    }

    /// Handles an event. Returns whether `refresh` is due.
    pub async fn handle(&mut self, client: &mut ClientWrapper, event: TriggerEvent) -> Result<bool, StoreError> {
        match event {
            TriggerEvent::Poll => Ok(true),
            TriggerEvent::TimedOut(id) => {
                let fired = Fired::Failed { error: TIMED_OUT.to_owned(), traceback: None };
                self.fire(client, id, fired, End::TimedOut).await?;
                Ok(false)
            }
            TriggerEvent::Host(_, _, HostEvent::Message(HostMessage::Log { id, log })) => {
                if let Some(waiting) = self.waiting.get(&id) {
                    task_context::write_to_log(&self.home, &waiting.key, |file| file.write_output(log.as_bytes()));
                }
                Ok(false)
            }
            TriggerEvent::Host(host_key, _, HostEvent::Message(HostMessage::Outcome(outcome))) => {
                self.failures.remove(&host_key);
                self.problems.remove(&host_key);
                let Outcome { id, next_kwargs, failed, ended, xcoms, event } = *outcome;
                if let Some(event) = event {
                    self.unstored_events.push_back(event);
                    self.store_events(client).await?;
                    return Ok(false);
                }
                let fired = match (next_kwargs, ended) {
                    (Some(next_kwargs), _) => Fired::Event { next_kwargs },
                    (None, Some(state)) => Fired::Ended { state, xcoms },
                    (None, None) => Fired::Failed { error: FAILURE.to_owned(), traceback: failed },
                };
                let written = self.fire(client, id, fired, End::Fired).await;
                if written.is_err() {
                    // The host has dropped the trigger: the next `refresh` starts it again.
                    for host in self.hosts.values_mut() {
                        host.trigger_ids.remove(&id);
                    }
                }
                written.map(|()| false)
            }
            TriggerEvent::Host(host_key, pid, HostEvent::Ended { exit, output }) => {
                self.on_host_end(client, host_key, pid, exit, output).await
            }
        }
    }

    /// Stores the events of asset watchers, in order. An event that cannot be stored is kept: the watcher does not
    /// repeat it.
    async fn store_events(&mut self, client: &mut ClientWrapper) -> Result<(), StoreError> {
        while let Some(event) = self.unstored_events.front() {
            let transaction = client.transaction().await?;
            watchers::fire(&transaction, event).await?;
            transaction.commit().await?;
            debug!("stored an event of a watcher of asset {}", event.asset_id);
            self.unstored_events.pop_front();
        }
        Ok(())
    }

    /// Fires a trigger and forgets it.
    async fn fire(&mut self, client: &mut ClientWrapper, id: i64, fired: Fired, end: End) -> Result<(), StoreError> {
        let Some(waiting) = self.waiting.get(&id) else { return Ok(()) };
        let transaction = client.transaction().await?;
        // For a request for input, `fired` is always the timeout. `time_out` decides whether the task gets a response
        // that came in time, the defaults, or an error.
        let fired = if waiting.is_for_input() { hitl::time_out(&transaction, waiting).await? } else { Some(fired) };
        let is_delivered = match fired {
            Some(fired) => triggers::fire(&transaction, waiting, &fired).await?,
            None => false,
        };
        transaction.commit().await?;
        debug!(
            "{}: its trigger has fired{}",
            waiting.key,
            if is_delivered { "" } else { ", but no task waits for it" }
        );
        self.forget(id, end);
        Ok(())
    }

    /// Handles the end of a host: restarts its triggers, unless it keeps ending. Returns the same as `handle`.
    async fn on_host_end(
        &mut self,
        client: &mut ClientWrapper,
        host_key: HostKey,
        pid: i32,
        exit: Option<Exit>,
        output: Vec<String>,
    ) -> Result<bool, StoreError> {
        // A newer host may have replaced it.
        if self.hosts.get(&host_key).is_none_or(|host| host.pid != pid) {
            return Ok(false);
        }
        let trigger_ids = self.hosts.remove(&host_key).map(|host| host.trigger_ids).unwrap_or_default();
        let exit_text = exit.map_or_else(|| "an unknown status".to_owned(), |exit| exit.to_string());
        warn!("the host of {} trigger(s) in {} ended with {exit_text}", trigger_ids.len(), host_key.folder.display());
        let failures = self.failures.entry(host_key.clone()).or_default();
        // A kill is not the host's own fault, unless it happens often.
        failures.exits += u32::from(matches!(exit, Some(Exit::Code(_))));
        failures.deaths += 1;
        let pause = Duration::from_secs(u64::from(failures.deaths - 1).min(10));
        failures.retry_at = Some(Instant::now() + pause);
        let last_line = output.last().map(|line| format!(": {line}")).unwrap_or_default();
        let reason = format!("it ended {} times in a row, with {exit_text}{last_line}", failures.deaths);
        if failures.exits < MAX_EXITS && failures.deaths < MAX_DEATHS {
            self.problems.add(&host_key, reason, WAIT_EFFECT.to_owned(), Some(pause));
            return Ok(true);
        }
        let error = format!(
            "{FAILURE}: the process that runs triggers ended {} times in a row, with {exit_text}{last_line}",
            failures.deaths,
        );
        self.give_up(client, host_key, trigger_ids, reason, &error, &output).await?;
        Ok(true)
    }

    /// Fails the tasks of a host that keeps ending, and schedules the next start of its watchers.
    async fn give_up(
        &mut self,
        client: &mut ClientWrapper,
        host_key: HostKey,
        trigger_ids: HashSet<i64>,
        reason: String,
        error: &str,
        output: &[String],
    ) -> Result<(), StoreError> {
        let has_watchers = trigger_ids.iter().any(|id| self.watchers.contains_key(id));
        let failed_count = trigger_ids.iter().filter(|id| self.waiting.contains_key(id)).count();
        let effect = format!("{failed_count} deferred task(s) failed with it");
        self.problems.add(&host_key, reason, effect, has_watchers.then_some(WATCHER_RETRY));
        for id in trigger_ids {
            let traceback = Some(output.to_vec()).filter(|lines| !lines.is_empty());
            let fired = Fired::Failed { error: error.to_owned(), traceback };
            self.fire(client, id, fired, End::Fired).await?;
        }
        if has_watchers {
            // No task fails with a watcher, so it is retried at a long interval.
            let retry_at = Some(Instant::now() + WATCHER_RETRY);
            self.failures.insert(host_key, Failures { retry_at, ..Failures::default() });
        } else {
            self.failures.remove(&host_key);
        }
        Ok(())
    }
}

/// Why a trigger ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The trigger has fired, so its host no longer runs it.
    Fired,
    TimedOut,
    /// The datastore no longer has it: its task was cleared, marked or deleted, or its asset no longer has the watcher.
    /// Airflow's `on_kill()` of the trigger is due.
    Removed,
}

/// True if there may be triggers or watchers to run.
pub async fn is_any(client: &ClientWrapper) -> Result<bool, StoreError> {
    Ok(triggers::is_any_waiting(client).await? || watchers::is_any(client).await?)
}

/// An event that `next` returns for `handle`.
pub(super) enum TriggerEvent {
    Poll,
    TimedOut(i64),
    /// The host's pid, and its event.
    Host(HostKey, i32, HostEvent),
}
