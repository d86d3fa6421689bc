//! The scheduler: woken by what happened or by the clock, never by looking around. One of them
//! leads, by an advisory lock that ends with its connection.

use super::advance::{self, Memory};
use super::due_runs::{self, Asking, Oracle};
use crate::engine::keys::RunKey;
use crate::engine::store::StoreError;
use crate::engine::store::assets;
use crate::engine::store::clock_step::{self, Sensors};
use crate::engine::store::events::{self, Event};
use crate::engine::store::partitions;
use crate::postgres::{Endpoint, PgError};
use crate::sys::clock::ClockWatch;
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::warn;

/// One number for all schedulers of a datastore.
const LEADER: i64 = 0x6c65_6f66_6c6f_7701;
/// How often one that does not lead asks whether it may: only while a server is being replaced.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Between attempts to reach a datastore that restarts.
const RECONNECT: Duration = Duration::from_millis(200);
/// The clock may jump, and a laptop sleep: no wait is longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often every run under way is looked at without having been told: whatever became of a notification,
/// nothing waits longer.
const BACKSTOP: Duration = Duration::from_secs(60);
/// After so many rounds of work on a connection, and so long a silence, there is another one.
const MANY_ROUNDS: u32 = 10;
const QUIET: Duration = Duration::from_secs(10);
/// Of work, until events are heard again.
const LONGEST_STRETCH: Duration = Duration::from_millis(50);
/// For more files to be parsed, of the many that a start or a checkout brings: what they may have due is
/// looked for once.
const MORE_FILES: Duration = Duration::from_millis(100);

/// Runs until it is dropped. `told` hears every event that concerns those who show runs and DAGs,
/// leader or not; `None` when some may have been missed. `beat` is called each time that the leader has done
/// all there was to do, at least once a minute.
/// `oracle` is asked about timetables of the user's own.
pub async fn run(
    endpoint: &Endpoint,
    config: &tokio_postgres::Config,
    told: impl Fn(Option<&Event>),
    beat: impl Fn(),
    oracle: impl Oracle,
) {
    let mut watch = None;
    loop {
        if let Err(error) = session(endpoint, config, &told, &beat, &oracle, &mut watch).await {
            warn!("the scheduler: {error}; trying again");
            // What was to be set right may not have been.
            watch = None;
            tokio::time::sleep(RECONNECT).await;
        }
    }
}

/// As long as one connection lasts. One that has done much has grown, and is exchanged for another when it is quiet.
async fn session(
    endpoint: &Endpoint,
    config: &tokio_postgres::Config,
    told: &impl Fn(Option<&Event>),
    beat: &impl Fn(),
    oracle: &impl Oracle,
    watch: &mut Option<ClockWatch>,
) -> Result<(), StoreError> {
    let (mut client, mut events) = endpoint.listen(config, events::ENGINE).await?;
    // What happened while nobody listened.
    told(None);
    while !lead(&client).await? {
        let asked = tokio::time::timeout(ASK_AGAIN, events.recv()).await;
        match asked {
            Ok(Some(payload)) => told(Event::parse(&payload).as_ref()),
            Ok(None) => return Err(closed()),
            Err(_) => {}
        }
    }
    let mut work = Work {
        runs: advance::running(&client).await?.into_iter().collect(),
        schedules: true,
        assets: true,
        room: true,
        ..Work::default()
    };
    let mut memory = Memory::default();
    let mut asking = Asking::default();
    let mut looked = Instant::now();
    let mut rounds = 0;
    loop {
        let is_first = watch.is_none();
        let set_back = watch.get_or_insert_default().set_back(Timestamp::now(), Instant::now());
        if let Some(by) = set_back {
            warn!("the clock was set back by {by:#}: what is due by it is worked out anew");
        }
        if is_first || set_back.is_some() {
            // What was done before this process began is not known.
            set_clock_right(&client, &mut memory, Sensors::LookAtOnce).await?;
            work.schedules = true;
        }
        if looked.elapsed() >= BACKSTOP {
            looked = Instant::now();
            for RunKey { dag_id, run_id } in std::mem::take(&mut work.unheard) {
                warn!("the run {run_id} of {dag_id} went on, and no notification had told of it");
            }
            // Whatever is remembered is compared with nothing: it is read again.
            memory.runs.forget_all();
            work.untold = advance::running(&client).await?.into_iter().collect();
            // What is due now is nothing that anybody was to tell of.
            work.runs.extend(advance::clock(&client).await?.due);
            set_clock_right(&client, &mut memory, Sensors::Wait).await?;
            (work.room, work.assets, work.schedules) = (true, true, true);
        }
        let next = work.do_all(&mut client, &mut memory, oracle, &mut asking).await?;
        beat();
        rounds += 1;
        let longest = if rounds > MANY_ROUNDS { QUIET } else { LONGEST_WAIT };
        let wait = next.map_or(longest, |next| until(next).min(longest));
        tokio::select! {
            waited = wait_for_work(&mut events, wait, told, &mut work) => {
                if !waited? && wait == QUIET {
                    return Ok(());
                }
            }
            () = asking.answered() => work.schedules = true,
        }
    }
}

/// What is remembered of task instances whose dates are set right is read again.
async fn set_clock_right(client: &ClientWrapper, memory: &mut Memory, sensors: Sensors) -> Result<(), StoreError> {
    if clock_step::set_right(client, sensors).await? {
        memory.runs.forget_all();
    }
    Ok(())
}

fn closed() -> StoreError {
    StoreError::Postgres(PgError::Cut)
}

async fn lead(client: &ClientWrapper) -> Result<bool, StoreError> {
    Ok(client.query_one("SELECT pg_try_advisory_lock($1)", &[&LEADER]).await?.get(0))
}

fn until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// What the events since the last step ask for; the same run is looked at once.
#[derive(Default)]
struct Work {
    runs: BTreeSet<RunKey>,
    /// Runs that are looked at in case that something about them was not heard of.
    untold: BTreeSet<RunKey>,
    /// Those of them that had something to do. A notification may have been on its way.
    unheard: BTreeSet<RunKey>,
    /// Whether a run may be due by its schedule, or by its assets.
    schedules: bool,
    assets: bool,
    /// Whether there may be room that there was not.
    room: bool,
    /// Whether DAGs are not as they were, which is in no hurry.
    dags: bool,
}

impl Work {
    fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Plan(run)) => {
                self.unheard.remove(&run);
                self.runs.insert(run);
            }
            Some(Event::Changed(_)) => {}
            Some(Event::Room) => self.room = true,
            Some(Event::Assets) => self.assets = true,
            Some(Event::Dags) => self.dags = true,
            // One that this version does not know may ask for anything.
            _ => (self.schedules, self.assets) = (true, true),
        }
    }

    fn is_in_no_hurry(&self) -> bool {
        self.dags && self.runs.is_empty() && !self.schedules && !self.assets && !self.room
    }

    /// Does all there is, what is due included, as far as there is time: what ends at once may be due again at once, as with
    /// `@continuous`, and others must have their turn. Returns when the clock will give more, which is now where work is left.
    async fn do_all(
        &mut self,
        client: &mut ClientWrapper,
        memory: &mut Memory,
        oracle: &impl Oracle,
        asking: &mut Asking,
    ) -> Result<Option<Timestamp>, StoreError> {
        // A run that is due and cannot go on is looked at once, not again and again; one that has gone on may be due
        // again.
        let mut looked = BTreeSet::new();
        let mut looked_at_schedules = false;
        let begun = Instant::now();
        if std::mem::take(&mut self.dags) {
            (self.schedules, self.assets) = (true, true);
        }
        loop {
            while let Some(run) = self.runs.pop_first() {
                self.untold.remove(&run);
                if advance(client, memory, &run).await? {
                    looked.remove(&run);
                }
            }
            while let Some(run) = self.untold.pop_first() {
                if advance(client, memory, &run).await? {
                    self.unheard.insert(run);
                }
            }
            if std::mem::take(&mut self.room) {
                advance::admit_all(client, memory).await?;
            }
            if std::mem::take(&mut self.schedules) {
                due_runs::look_ahead(client, oracle, asking).await?;
                // One run of each DAG at a time: what comes after it is worked out first.
                self.schedules = due_runs::make_due_runs(client).await? > 0;
            }
            if std::mem::take(&mut self.assets) {
                assets::make_runs(client).await?;
                self.assets = partitions::make_runs(client).await?;
            }
            let clock = advance::clock(client).await?;
            // Due while all this was done; those that may have no more runs are looked at once.
            if clock.is_due && !std::mem::replace(&mut looked_at_schedules, true) {
                self.schedules = true;
            }
            // After the clock was read: a run comes due before that, and begins here, or after, and is next.
            self.runs.extend(advance::begin_runs(client).await?);
            self.runs.extend(clock.due.into_iter().filter(|run| looked.insert(run.clone())));
            if self.runs.is_empty() && !self.schedules && !self.assets {
                return Ok(clock.next);
            }
            if begun.elapsed() > LONGEST_STRETCH {
                return Ok(Some(Timestamp::now()));
            }
        }
    }
}

/// Takes a run as far as it goes. What one run asks of the datastore and cannot be is no reason to stop the others.
async fn advance(client: &mut ClientWrapper, memory: &mut Memory, run: &RunKey) -> Result<bool, StoreError> {
    match advance::advance(client, memory, run).await {
        Err(StoreError::Invalid(reason)) => {
            warn!("the run {} of {} cannot go on: {reason}", run.run_id, run.dag_id);
            Ok(false)
        }
        other => other,
    }
}

/// Waits for an event or for the time, and takes all events that are there. Returns whether there was one.
async fn wait_for_work(
    events: &mut UnboundedReceiver<String>,
    limit: Duration,
    told: &impl Fn(Option<&Event>),
    work: &mut Work,
) -> Result<bool, StoreError> {
    let Ok(first) = tokio::time::timeout(limit, events.recv()).await else {
        work.schedules = true;
        return Ok(false);
    };
    let mut next = Some(first.ok_or_else(closed)?);
    let unhurried = tokio::time::Instant::now() + MORE_FILES;
    while let Some(payload) = next {
        let event = Event::parse(&payload);
        told(event.as_ref());
        work.take(event);
        next = match events.try_recv() {
            Ok(payload) => Some(payload),
            Err(_) if work.is_in_no_hurry() => match tokio::time::timeout_at(unhurried, events.recv()).await {
                Ok(payload) => Some(payload.ok_or_else(closed)?),
                Err(_) => None,
            },
            Err(_) => None,
        };
    }
    Ok(true)
}
