//! The scheduler's main loop. Notifications and due dates wake it; it polls once a minute only to catch missed
//! notifications. If several schedulers run, only the leader works: the one that holds an advisory lock, which Postgres
//! releases when the connection ends.

use super::advance::{self, Admission};
use super::cache::Cache;
use super::due_runs::{self, PendingQueries, TimetableEvaluator};
use super::totals::Totals;
use crate::model::keys::RunKey;
use crate::store::asset::{assets, partitions};
use crate::store::clock_step::{self, Sensors};
use crate::store::dag::dags;
use crate::store::events::{self, Event};
use crate::store::run::{active, deadlines, new_run};
use crate::store::{Result, StoreError, notifications, session, transition};
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use leoflow_base::sys::clock::ClockWatch;
use leoflow_postgres::{Endpoint, PgError};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::warn;

/// Interval at which a waiting scheduler tries to become the leader; matters only while a server is being replaced.
const LEADER_RETRY: Duration = Duration::from_millis(500);
/// Delay before reconnecting to Postgres after an error.
const RECONNECT: Duration = Duration::from_millis(200);
/// Maximum wait, because the clock may jump and a laptop may sleep.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Poll interval for all running runs; catches missed notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// After this many rounds of work, the connection is replaced once no event has arrived for `QUIET_PERIOD`.
const MAX_ROUNDS: u32 = 10;
const QUIET_PERIOD: Duration = Duration::from_secs(10);
/// Maximum duration of a round of work, after which events are received.
const MAX_WORK: Duration = Duration::from_millis(50);
/// When deadlines are looked at again after some have passed.
const MISSED_DEADLINE_DELAY: Duration = Duration::from_secs(1);
/// Time to wait for more changed DAG files, because a server start or a git checkout changes many. Their due runs are
/// then computed only once.
const DAG_CHANGE_DELAY: Duration = Duration::from_millis(100);

/// Runs the scheduler until the future is dropped. `on_event` receives every event, for displays of runs and DAGs,
/// whether this scheduler leads or not; `None` means that events may have been missed. `heartbeat` is called each time
/// that the leader has finished a round of work, at least once a minute. `totals` counts what it does. `evaluator` evaluates custom timetables.
pub async fn run(
    endpoint: &Endpoint,
    config: &tokio_postgres::Config,
    totals: &Totals,
    on_event: impl Fn(Option<&Event>),
    heartbeat: impl Fn(),
    evaluator: impl TimetableEvaluator,
) {
    let mut watch = None;
    loop {
        if let Err(error) = session(endpoint, config, totals, &on_event, &heartbeat, &evaluator, &mut watch).await {
            warn!("scheduler: {error}; retrying");
            // The correction after a clock step may not have been completed.
            watch = None;
            tokio::time::sleep(RECONNECT).await;
        }
    }
}

/// Runs for the lifetime of one connection. The memory of a Postgres backend grows with its work, so a connection that
/// has done much work is replaced when nothing happens.
async fn session(
    endpoint: &Endpoint,
    config: &tokio_postgres::Config,
    totals: &Totals,
    on_event: &impl Fn(Option<&Event>),
    heartbeat: &impl Fn(),
    evaluator: &impl TimetableEvaluator,
    watch: &mut Option<ClockWatch>,
) -> Result<()> {
    let (mut client, mut events) = session::listen(endpoint, config, events::ENGINE).await?;
    // Events may have been missed while there was no connection.
    on_event(None);
    wait_to_lead(&client, &mut events, on_event).await?;
    let mut work = PendingWork::at_start(active::running(&client).await?);
    let episodes = notifications::begun(&client).await?;
    let mut cache = Cache { totals: totals.clone(), episodes, ..Cache::default() };
    let mut pending_queries = PendingQueries::default();
    let mut last_poll = Instant::now();
    let mut rounds = 0;
    loop {
        check_clock(&client, &mut cache, &mut work, watch).await?;
        if last_poll.elapsed() >= POLL_INTERVAL {
            last_poll = Instant::now();
            poll(&client, &mut cache, &mut work).await?;
        }
        let started = Instant::now();
        let next = work.run_pending(&mut client, &mut cache, evaluator, &mut pending_queries).await?;
        totals.looped(started.elapsed());
        heartbeat();
        rounds += 1;
        let max_wait = if rounds > MAX_ROUNDS { QUIET_PERIOD } else { MAX_WAIT };
        let wait = next.map_or(max_wait, |next| time_until(next).min(max_wait));
        tokio::select! {
            has_event = wait_for_work(&mut events, wait, on_event, &mut work) => {
                if !has_event? && wait == QUIET_PERIOD {
                    return Ok(());
                }
            }
            () = pending_queries.next_answer() => work.schedules = true,
        }
    }
}

/// Waits until this connection holds the leader lock.
async fn wait_to_lead(
    client: &ClientWrapper,
    events: &mut UnboundedReceiver<String>,
    on_event: &impl Fn(Option<&Event>),
) -> Result<()> {
    while !active::try_lead(client).await? {
        match tokio::time::timeout(LEADER_RETRY, events.recv()).await {
            Ok(Some(payload)) => on_event(Event::parse(&payload).as_ref()),
            Ok(None) => return Err(connection_lost()),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Corrects dates if the clock was set back, and at the first call, because clock steps before this process started are
/// unknown.
async fn check_clock(
    client: &ClientWrapper,
    cache: &mut Cache,
    work: &mut PendingWork,
    watch: &mut Option<ClockWatch>,
) -> Result<()> {
    let is_first = watch.is_none();
    let set_back = watch.get_or_insert_default().set_back(Timestamp::now(), Instant::now());
    if let Some(step) = set_back {
        warn!("the clock was set back by {step:#}; recomputing what is due");
    }
    if is_first || set_back.is_some() {
        correct_dates(client, cache, Sensors::PokeNow).await?;
        work.schedules = true;
    }
    Ok(())
}

/// Adds all work whose notifications may have been missed.
async fn poll(client: &ClientWrapper, cache: &mut Cache, work: &mut PendingWork) -> Result<()> {
    for RunKey { dag_id, run_id } in std::mem::take(&mut work.missed) {
        warn!("polling advanced run {run_id} of {dag_id}; its notification was missed");
    }
    // Dropping the cache is simpler than comparing it with the database.
    cache.runs.forget_all();
    work.polled = active::running(client).await?.into_iter().collect();
    // Runs that are due now need no notification, so they do not count as missed.
    work.runs.extend(active::due_work(client, new_run::now()).await?.due);
    correct_dates(client, cache, Sensors::Wait).await?;
    (work.capacity, work.assets, work.schedules) = (true, true, true);
    Ok(())
}

/// Corrects dates that a clock ahead may have written, and drops the cache if a due date of an instance changed.
async fn correct_dates(client: &ClientWrapper, cache: &mut Cache, sensors: Sensors) -> Result<()> {
    if clock_step::correct_dates(client, sensors).await? {
        cache.runs.forget_all();
    }
    Ok(())
}

/// The error for a closed connection.
fn connection_lost() -> StoreError {
    StoreError::Postgres(PgError::ConnectionLost)
}

fn time_until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// Pending work. Several events of one run cause only one evaluation.
#[derive(Default)]
struct PendingWork {
    runs: BTreeSet<RunKey>,
    /// Runs to evaluate in case a notification was missed.
    polled: BTreeSet<RunKey>,
    /// Polled runs that did advance. If no notification arrives before the next poll, it was missed.
    missed: BTreeSet<RunKey>,
    /// True when a scheduled run may be due.
    schedules: bool,
    /// True when an asset-triggered run may be due.
    assets: bool,
    /// True when slots may have become free.
    capacity: bool,
    /// True when DAGs have changed, which is not urgent.
    dags: bool,
}

/// Work that this round has evaluated. It may stay due, so without this record the round would repeat it.
#[derive(Default)]
struct Evaluated {
    /// Runs that were due and could not advance.
    runs: BTreeSet<RunKey>,
    /// True once due DAGs have been evaluated again: a DAG at its `max_active_runs` stays due.
    schedules: bool,
}

impl PendingWork {
    /// All work, for a scheduler that has become the leader.
    fn at_start(running: Vec<RunKey>) -> Self {
        Self { runs: running.into_iter().collect(), schedules: true, assets: true, capacity: true, ..Self::default() }
    }

    fn add_event(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Plan(run)) => {
                self.missed.remove(&run);
                self.runs.insert(run);
            }
            // The web pages, the agent and the server handle these.
            Some(
                Event::Changed(_)
                | Event::Callback
                | Event::Migrations
                | Event::Notification
                | Event::Prepare { .. }
                | Event::Queued
                | Event::Stop
                | Event::Triggers,
            ) => {}
            Some(Event::Capacity) => self.capacity = true,
            Some(Event::Assets) => self.assets = true,
            Some(Event::Dags) => self.dags = true,
            // `None` is an event that this version does not know; it may announce any work.
            Some(Event::Sweep) | None => (self.schedules, self.assets) = (true, true),
        }
    }

    fn is_empty(&self) -> bool {
        !self.dags && !self.is_urgent()
    }

    /// True when the only pending work is not urgent.
    fn can_wait(&self) -> bool {
        self.dags && !self.is_urgent()
    }

    fn is_urgent(&self) -> bool {
        !self.runs.is_empty() || self.schedules || self.assets || self.capacity
    }

    /// Does all pending and due work, for about `MAX_WORK`: with `@continuous`, a run may be due again as soon as it
    /// ends, and events must be received in between. Returns when the next work is due: now if the time limit has
    /// interrupted the work, `None` if nothing is due.
    async fn run_pending(
        &mut self,
        client: &mut ClientWrapper,
        cache: &mut Cache,
        evaluator: &impl TimetableEvaluator,
        pending_queries: &mut PendingQueries,
    ) -> Result<Option<Timestamp>> {
        let mut evaluated = Evaluated::default();
        let start = Instant::now();
        if std::mem::take(&mut self.dags) {
            (self.schedules, self.assets) = (true, true);
        }
        loop {
            self.advance_runs(client, cache, &mut evaluated).await?;
            if std::mem::take(&mut self.capacity) {
                advance::admit_all(client, cache).await?;
            }
            self.make_runs(client, evaluator, pending_queries).await?;
            let due_work = active::due_work(client, new_run::now()).await?;
            if due_work.has_missed_deadline {
                deadlines::queue_missed(client, new_run::now()).await?;
            }
            // DAGs may have become due in the meantime.
            if due_work.is_due && !std::mem::replace(&mut evaluated.schedules, true) {
                self.schedules = true;
            }
            // `due_work` is read before the runs start, so a run that becomes due in between starts here, and a later
            // one is in `due_work.next`.
            self.runs.extend(transition::run::start_queued(client, new_run::now()).await?);
            self.runs.extend(due_work.due.into_iter().filter(|run| evaluated.runs.insert(run.clone())));
            if self.runs.is_empty() && !self.schedules && !self.assets {
                // Runs that were locked have deadlines left.
                let retry = due_work.has_missed_deadline.then(|| Timestamp::now() + MISSED_DEADLINE_DELAY);
                return Ok(due_work.next.into_iter().chain(retry).min());
            }
            if start.elapsed() > MAX_WORK {
                return Ok(Some(Timestamp::now()));
            }
        }
    }

    /// Removes and returns the next run to advance, first those that events have named, then the polled ones, and whether
    /// it is only polled.
    fn next_run(&mut self) -> Option<(RunKey, bool)> {
        if let Some(run) = self.runs.pop_first() {
            self.polled.remove(&run);
            return Some((run, false));
        }
        Some((self.polled.pop_first()?, true))
    }

    /// Advances the pending runs.
    async fn advance_runs(
        &mut self,
        client: &mut ClientWrapper,
        cache: &mut Cache,
        evaluated: &mut Evaluated,
    ) -> Result<()> {
        let admission = match self.runs.len() + self.polled.len() {
            0 => return Ok(()),
            1 => Admission::WithStep,
            _ => Admission::Later,
        };
        let mut last_admission = Instant::now();
        while let Some((run, is_polled)) = self.next_run() {
            if advance(client, cache, &run, admission).await? {
                evaluated.runs.remove(&run);
                if is_polled {
                    self.missed.insert(run);
                }
            }
            if admission == Admission::Later && last_admission.elapsed() > MAX_WORK {
                advance::admit_all(client, cache).await?;
                last_admission = Instant::now();
            }
        }
        self.capacity |= admission == Admission::Later;
        Ok(())
    }

    /// Creates the scheduled and asset-triggered runs that are due.
    async fn make_runs(
        &mut self,
        client: &mut ClientWrapper,
        evaluator: &impl TimetableEvaluator,
        pending_queries: &mut PendingQueries,
    ) -> Result<()> {
        if std::mem::take(&mut self.schedules) {
            dags::pause_drained(client).await?;
            due_runs::update_next_runs(client, evaluator, pending_queries).await?;
            // Each pass creates at most one run of a DAG, because its next run must be computed first.
            self.schedules = due_runs::make_due_runs(client).await? > 0;
        }
        if std::mem::take(&mut self.assets) {
            assets::make_runs(client).await?;
            self.assets = partitions::make_runs(client).await?;
        }
        Ok(())
    }
}

/// Advances a run and returns whether anything changed. Invalid data of one run must not stop the others.
async fn advance(client: &mut ClientWrapper, cache: &mut Cache, run: &RunKey, admission: Admission) -> Result<bool> {
    match advance::advance(client, cache, run, admission).await {
        Err(error) if error.is_invalid_data() => {
            warn!("run {} of {} cannot advance: {error}", run.run_id, run.dag_id);
            Ok(false)
        }
        other => other,
    }
}

/// Waits for an event that is work, for at most `limit`, and adds all that have arrived to `work`. Returns false if no event
/// has arrived at all.
async fn wait_for_work(
    events: &mut UnboundedReceiver<String>,
    limit: Duration,
    on_event: &impl Fn(Option<&Event>),
    work: &mut PendingWork,
) -> Result<bool> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut has_event = false;
    while let Ok(first) = tokio::time::timeout_at(deadline, events.recv()).await {
        has_event = true;
        receive(first.ok_or_else(connection_lost)?, events, on_event, work).await?;
        if !work.is_empty() {
            return Ok(true);
        }
    }
    // Scheduled runs may be due.
    work.schedules = true;
    Ok(has_event)
}

/// Adds the event `first` to `work`, and all others that have arrived.
async fn receive(
    first: String,
    events: &mut UnboundedReceiver<String>,
    on_event: &impl Fn(Option<&Event>),
    work: &mut PendingWork,
) -> Result<()> {
    let mut next = Some(first);
    let delay_ends = tokio::time::Instant::now() + DAG_CHANGE_DELAY;
    while let Some(payload) = next {
        let event = Event::parse(&payload);
        on_event(event.as_ref());
        work.add_event(event);
        next = match events.try_recv() {
            Ok(payload) => Some(payload),
            Err(_) if work.can_wait() => match tokio::time::timeout_at(delay_ends, events.recv()).await {
                Ok(payload) => Some(payload.ok_or_else(connection_lost)?),
                Err(_) => None,
            },
            Err(_) => None,
        };
    }
    Ok(())
}
