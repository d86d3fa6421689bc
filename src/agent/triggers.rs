//! The triggers of deferred tasks, and those that watch assets: for each environment and project a process that runs them,
//! there only while something waits. What they are is in the datastore, so that they survive each of the processes.

use super::start::{self, Versions};
use super::trigger_host::{Ending, Host, Outcome, Place, Said, Told};
use super::trigger_troubles::Troubles;
use crate::engine::keys::TryKey;
use crate::engine::store::StoreError;
use crate::engine::store::hitl;
use crate::engine::store::triggers::{self, FAILURE, Fired, TIMED_OUT, Waiting};
use crate::engine::store::watchers::{self, Watcher, WatcherEvent};
use crate::home::Home;
use crate::python::{Interpreter, VersionCode, installed_packages};
use crate::sys::reaper::Exit;
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use serde_json::json;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::{debug, warn};

/// Between looks while something waits: what nobody has told of is found then.
const LOOK: Duration = Duration::from_secs(30);
/// So long one is kept for what is deferred next: it takes two seconds to begin.
fn idle_limit() -> Duration {
    crate::sys::limit("LEOFLOW_IDLE_LIMIT", Duration::from_secs(10))
}
/// So often in a row without one event; then what waits for it fails.
const MOST_EXITS: u32 = 5;
const MOST_DEATHS: u32 = 50;
/// What processes have said and nobody has taken yet; then they wait.
const UNHEARD: usize = 256;
/// One that has run for so long is well, though its triggers may take hours.
const SETTLED: Duration = Duration::from_secs(60);
/// What its end means for tasks, while it is begun again.
const WAIT: &str = "its deferred tasks wait";
/// Until a process is begun again that does nothing but end.
const RARELY: Duration = Duration::from_secs(60);

pub struct Triggers {
    home: Home,
    workspace: PathBuf,
    waiting: HashMap<i64, Waiting>,
    /// Of assets, by the ids below zero that they have here.
    watchers: HashMap<i64, Watcher>,
    /// Events of those that are not written down yet.
    seen: VecDeque<WatcherEvent>,
    places: HashMap<i64, Place>,
    hosts: HashMap<Place, Host>,
    failures: HashMap<Place, Failures>,
    troubles: Troubles,
    next_look: Instant,
    told: Receiver<(Place, i32, Said)>,
    telling: Sender<(Place, i32, Said)>,
}

/// In a row, without one event.
#[derive(Default)]
struct Failures {
    /// Of its own doing.
    exits: u32,
    deaths: u32,
    again_at: Option<Instant>,
}

impl Triggers {
    pub fn new(home: &Home, workspace: PathBuf) -> Self {
        let (telling, told) = channel(UNHEARD);
        Self {
            home: home.clone(),
            workspace,
            waiting: HashMap::new(),
            watchers: HashMap::new(),
            seen: VecDeque::new(),
            places: HashMap::new(),
            hosts: HashMap::new(),
            failures: HashMap::new(),
            troubles: Troubles::new(home),
            next_look: Instant::now() + LOOK,
            told,
            telling,
        }
    }

    /// Whether anything waits, or did a moment ago.
    pub fn has_any(&self) -> bool {
        !self.waiting.is_empty() || !self.watchers.is_empty() || !self.hosts.is_empty()
    }

    /// What waits now, by the datastore: what is new is begun, what is gone is cancelled. `interpreter` finds the Python of
    /// a version's environment.
    pub async fn look(
        &mut self,
        client: &mut ClientWrapper,
        versions: &mut Versions,
        mut interpreter: impl FnMut(Option<&str>) -> Option<Rc<Interpreter>>,
    ) -> Result<(), StoreError> {
        self.next_look = Instant::now() + LOOK;
        for (place, _) in self.hosts.iter().filter(|(_, host)| host.begun.elapsed() > SETTLED) {
            self.troubles.remove(place);
        }
        self.write_seen(client).await?;
        let wanted = triggers::waiting(client).await?;
        let watched = watchers::all(client).await?;
        let ids: HashSet<i64> = wanted.iter().map(|one| one.id).chain(watched.iter().map(|one| -one.id)).collect();
        let known = self.waiting.keys().chain(self.watchers.keys());
        let gone: Vec<i64> = known.filter(|id| !ids.contains(id)).copied().collect();
        gone.into_iter().for_each(|id| self.forget(id, true));
        let mut new = Vec::new();
        for one in wanted {
            if runs(&self.places, &self.hosts, one.id) {
                // Its time is another after a clock that was ahead has been set back.
                if let Some(known) = self.waiting.get_mut(&one.id) {
                    known.timeout_at = one.timeout_at;
                }
                continue;
            }
            // A person is waited for without a process.
            if !one.is_for_input() {
                new.push((one.id, one.version_id));
            }
            self.waiting.insert(one.id, one);
        }
        for one in watched.into_iter().filter(|one| !runs(&self.places, &self.hosts, -one.id)) {
            new.push((-one.id, one.version_id));
            self.watchers.insert(-one.id, one);
        }
        for (id, version_id) in new {
            let version = versions.get(client, version_id).await?;
            // It is built meanwhile; the time of what waits runs all the same.
            let Some(python) = interpreter(version.environment.as_deref()) else { continue };
            let code = VersionCode::of(&self.workspace, &version.relative_fileloc, &version.sources);
            let place = Place {
                program: python.program.clone(),
                folder: code.folders.first().cloned().unwrap_or_default(),
                packages: installed_packages(&self.home).filter(|_| !python.is_airflows),
            };
            if let Some(at) = self.failures.get(&place).and_then(|one| one.again_at).filter(|at| *at > Instant::now()) {
                self.next_look = self.next_look.min(at);
                continue;
            }
            self.places.insert(id, place.clone());
            if let Err(error) = self.begin(id, place.clone(), &python, &code) {
                warn!("triggers cannot be run: {error}");
                self.troubles.add(&place, format!("it cannot be started: {error}"), WAIT.to_owned(), Some(LOOK));
            }
        }
        Ok(())
    }

    fn begin(&mut self, id: i64, place: Place, python: &Interpreter, code: &VersionCode) -> io::Result<()> {
        let host = match self.hosts.get_mut(&place) {
            Some(host) => host,
            None => {
                let host = Host::start(&self.home, python, code, &place, self.telling.clone())?;
                self.hosts.entry(place).or_insert(host)
            }
        };
        if let Some(one) = self.watchers.get(&id) {
            host.has.insert(id);
            let _ = host.to.send(json!({"id": id, "classpath": one.classpath, "kwargs": one.kwargs, "watches": true, "asset_id": one.asset_id}));
        }
        let Some(one) = self.waiting.get(&id) else { return Ok(()) };
        host.has.insert(id);
        let TryKey { run, task_id, map_index, try_number } = &one.key;
        // Who does not listen has ended, and is heard of.
        let _ = host.to.send(json!({
            "id": id, "classpath": one.classpath, "kwargs": one.kwargs, "next_kwargs": one.next_kwargs,
            "of": {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": task_id, "map_index": map_index,
                   "try_number": try_number},
        }));
        Ok(())
    }

    /// One that is not waited for any more.
    fn forget(&mut self, id: i64, cancel: bool) {
        self.waiting.remove(&id);
        self.watchers.remove(&id);
        let Some(place) = self.places.remove(&id) else { return };
        let Some(host) = self.hosts.get_mut(&place) else { return };
        host.has.remove(&id);
        host.used = Instant::now();
        if cancel {
            let _ = host.to.send(json!({"cancel": id}));
        }
    }

    /// Those that nothing waits in, and nothing has for a while. They end with their connection.
    fn let_go(&mut self) {
        self.hosts.retain(|_, host| !host.has.is_empty() || host.used.elapsed() < idle_limit());
    }

    /// Completes when something has to be done: `act` says what. Never where nothing waits.
    pub async fn next(&mut self) -> Happening {
        if !self.has_any() {
            return std::future::pending().await;
        }
        self.let_go();
        let first = self.waiting.values().filter_map(|one| Some((one.timeout_at?, one.id))).min();
        let idle = self.hosts.values().filter(|host| host.has.is_empty()).map(|host| host.used + idle_limit()).min();
        let look_at = idle.unwrap_or(self.next_look).min(self.next_look);
        let longest = look_at.saturating_duration_since(Instant::now());
        let until = first.map_or(longest, |(at, _)| {
            Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default().min(longest)
        });
        tokio::select! {
            Some((place, pid, said)) = self.told.recv() => match said {
                Said::Told(told) => Happening::Told(place, told),
                Said::Ended(ending) => Happening::Ended(place, pid, ending),
            },
            () = tokio::time::sleep(until) => match first.filter(|(at, _)| *at <= Timestamp::now()) {
                Some((_, id)) => Happening::TimedOut(id),
                None => Happening::Look,
            },
        }
    }

    /// Returns whether there is to be another look.
    pub async fn act(&mut self, client: &mut ClientWrapper, happened: Happening) -> Result<bool, StoreError> {
        match happened {
            Happening::Look => Ok(true),
            Happening::TimedOut(id) => {
                let fired = Fired::Failed { error: TIMED_OUT.to_owned(), traceback: None };
                self.fire(client, id, fired, true).await?;
                Ok(false)
            }
            Happening::Told(_, Told::Log { id, log }) => {
                if let Some(waiting) = self.waiting.get(&id) {
                    start::say_in_log(&self.home, &waiting.key, |file| file.take(log.as_bytes()));
                }
                Ok(false)
            }
            Happening::Told(place, Told::Outcome(outcome)) => {
                self.failures.remove(&place);
                self.troubles.remove(&place);
                let Outcome { id, next_kwargs, failed, ended, xcoms, event } = *outcome;
                if let Some(event) = event {
                    self.seen.push_back(event);
                    self.write_seen(client).await?;
                    return Ok(false);
                }
                let fired = match (next_kwargs, ended) {
                    (Some(next_kwargs), _) => Fired::Event { next_kwargs },
                    (None, Some(state)) => Fired::Ended { state, xcoms },
                    (None, None) => Fired::Failed { error: FAILURE.to_owned(), traceback: failed },
                };
                let written = self.fire(client, id, fired, false).await;
                if written.is_err() {
                    // Its process has forgotten it: the next look begins it again.
                    self.places.remove(&id);
                    for host in self.hosts.values_mut() {
                        host.has.remove(&id);
                    }
                }
                written.map(|()| false)
            }
            Happening::Ended(place, pid, ending) => self.has_ended(client, place, pid, ending).await,
        }
    }

    /// Writes down what has happened to assets that are watched, in order. What cannot be written is kept: nobody says it
    /// again.
    async fn write_seen(&mut self, client: &mut ClientWrapper) -> Result<(), StoreError> {
        while let Some(event) = self.seen.front() {
            let transaction = client.transaction().await?;
            watchers::fire(&transaction, event).await?;
            transaction.commit().await?;
            debug!("a watcher of asset {} has seen something", event.asset_id);
            self.seen.pop_front();
        }
        Ok(())
    }

    /// A process is gone: what it has run is begun again, unless it ends again and again. Returns as `act` does.
    async fn has_ended(
        &mut self,
        client: &mut ClientWrapper,
        place: Place,
        pid: i32,
        Ending { exit, output }: Ending,
    ) -> Result<bool, StoreError> {
        // Another may have begun in its place.
        if self.hosts.get(&place).is_none_or(|host| host.pid != pid) {
            return Ok(false);
        }
        let has = self.hosts.remove(&place).map(|host| host.has).unwrap_or_default();
        let how = exit.map_or_else(|| "somehow".to_owned(), |exit| exit.to_string());
        warn!("the process of {} trigger(s) in {} has ended: {how}", has.len(), place.folder.display());
        let failures = self.failures.entry(place.clone()).or_default();
        // That somebody has killed it is no fault of its own, but for how often.
        failures.exits += u32::from(matches!(exit, Some(Exit::Code(_))));
        failures.deaths += 1;
        let pause = Duration::from_secs(u64::from(failures.deaths - 1).min(10));
        failures.again_at = Some(Instant::now() + pause);
        let last_line = output.last().map(|line| format!(": {line}")).unwrap_or_default();
        let reason = format!("it has ended {} times in a row, with {how}{last_line}", failures.deaths);
        if failures.exits >= MOST_EXITS || failures.deaths >= MOST_DEATHS {
            let error = format!(
                "{FAILURE}: the process that runs triggers has ended {} times in a row, with {how}{last_line}",
                failures.deaths,
            );
            let watches = has.iter().any(|id| self.watchers.contains_key(id));
            let failing = has.iter().filter(|id| self.waiting.contains_key(id)).count();
            let effect = format!("{failing} deferred task(s) failed with it");
            self.troubles.add(&place, reason, effect, watches.then_some(RARELY));
            for id in has {
                let traceback = Some(output.clone()).filter(|lines| !lines.is_empty());
                let fired = Fired::Failed { error: error.clone(), traceback };
                self.fire(client, id, fired, false).await?;
            }
            if watches {
                // Nobody fails with it, so it is tried again, and not often.
                let again_at = Some(Instant::now() + RARELY);
                self.failures.insert(place, Failures { again_at, ..Failures::default() });
            } else {
                self.failures.remove(&place);
            }
        } else {
            self.troubles.add(&place, reason, WAIT.to_owned(), Some(pause));
        }
        Ok(true)
    }

    async fn fire(
        &mut self,
        client: &mut ClientWrapper,
        id: i64,
        fired: Fired,
        cancel: bool,
    ) -> Result<(), StoreError> {
        let Some(waiting) = self.waiting.get(&id) else { return Ok(()) };
        let transaction = client.transaction().await?;
        // What a person is asked ends with the answer, or with the defaults.
        let fired = if waiting.is_for_input() { hitl::settle(&transaction, waiting).await? } else { Some(fired) };
        let is_told = match fired {
            Some(fired) => triggers::fire(&transaction, waiting, &fired).await?,
            None => false,
        };
        transaction.commit().await?;
        debug!("{}: its trigger has fired{}", waiting.key, if is_told { "" } else { ", and nobody waits for it" });
        self.forget(id, cancel);
        Ok(())
    }
}

/// Whether there may be anything to wait for.
pub async fn is_any(client: &ClientWrapper) -> Result<bool, StoreError> {
    Ok(triggers::is_any_waiting(client).await? || watchers::is_any(client).await?)
}

/// Whether a process has been told of it and is there.
fn runs(places: &HashMap<i64, Place>, hosts: &HashMap<Place, Host>, id: i64) -> bool {
    places.get(&id).is_some_and(|place| hosts.get(place).is_some_and(|host| host.has.contains(&id)))
}

/// What `next` has seen.
pub(super) enum Happening {
    Look,
    TimedOut(i64),
    Told(Place, Told),
    Ended(Place, i32, Ending),
}
