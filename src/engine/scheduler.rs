//! The scheduler: woken by what happened or by the clock, never by looking around. One of them
//! leads, by an advisory lock that ends with its connection.

use super::events::{self, Event, RunKey};
use super::store::StoreError;
use super::tick::{self, Graphs};
use crate::postgres::{Endpoint, PgError};
use crate::protocol::log;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::Client;

/// One number for all schedulers of a datastore.
const LEADER: i64 = 0x6c65_6f66_6c6f_7701;
/// How often one that does not lead asks whether it may: only while a server is being replaced.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Between attempts to reach a datastore that restarts.
const RECONNECT: Duration = Duration::from_millis(200);
/// The clock may jump, and a laptop sleep: no wait is longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Runs until it is dropped. `told` hears every event that concerns those who show runs and DAGs,
/// leader or not; `None` when some may have been missed.
pub async fn run(endpoint: &Endpoint, config: &tokio_postgres::Config, told: impl Fn(Option<&Event>)) {
    loop {
        if let Err(error) = session(endpoint, config, &told).await {
            log::say(format!("scheduler: {error}; trying again"));
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// As long as one connection lasts.
async fn session(
    endpoint: &Endpoint,
    config: &tokio_postgres::Config,
    told: &impl Fn(Option<&Event>),
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
    let mut work = Work { runs: tick::running(&client).await?.into_iter().collect(), sweep: true };
    let mut graphs = Graphs::default();
    loop {
        work.do_all(&mut client, &mut graphs).await?;
        let wait = match tick::next_due(&client).await? {
            Some(due) => until(due).min(LONGEST_WAIT),
            None => LONGEST_WAIT,
        };
        wait_for_work(&mut events, wait, told, &mut work).await?;
        work.runs.extend(tick::due(&client).await?);
    }
}

fn closed() -> StoreError {
    StoreError::Postgres(PgError::Cut)
}

async fn lead(client: &Client) -> Result<bool, StoreError> {
    Ok(client.query_one("SELECT pg_try_advisory_lock($1)", &[&LEADER]).await?.get(0))
}

fn until(due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// What the events since the last step ask for; the same run is looked at once.
#[derive(Default)]
struct Work {
    runs: BTreeSet<RunKey>,
    sweep: bool,
}

impl Work {
    fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Plan(run)) => {
                self.runs.insert(run);
            }
            Some(Event::Sweep) | None => self.sweep = true,
            Some(_) => {}
        }
    }

    async fn do_all(&mut self, client: &mut Client, graphs: &mut Graphs) -> Result<(), StoreError> {
        while self.sweep || !self.runs.is_empty() {
            if std::mem::take(&mut self.sweep) {
                self.runs.extend(tick::begin_runs(client).await?);
            }
            if let Some(run) = self.runs.pop_first() {
                // Where one has ended, another may begin.
                self.sweep |= tick::advance(client, graphs, &run).await?;
            }
        }
        Ok(())
    }
}

/// Takes the events that are there, or waits for one.
async fn wait_for_work(
    events: &mut UnboundedReceiver<String>,
    limit: Duration,
    told: &impl Fn(Option<&Event>),
    work: &mut Work,
) -> Result<(), StoreError> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let payload = if work.sweep || !work.runs.is_empty() {
            match events.try_recv() {
                Ok(payload) => payload,
                Err(_) => return Ok(()),
            }
        } else {
            match tokio::time::timeout_at(deadline, events.recv()).await {
                Ok(Some(payload)) => payload,
                Ok(None) => return Err(closed()),
                Err(_) => return Ok(()),
            }
        };
        let event = Event::parse(&payload);
        told(event.as_ref());
        work.take(event);
    }
}
