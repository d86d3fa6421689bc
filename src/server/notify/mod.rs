//! Notifications: chooses the targets of recorded events by the rules of `notify`, sends the messages, and calls the
//! heartbeat.
//!
//! An event is recorded in the transaction in which it happens (`store::notifications`), and each delivery has a
//! row until it was sent, so that a kill loses none. A task waits for none of this.

mod conditions;
mod message;
pub mod send;

use crate::state::Core;
use crate::state::database::DatastoreError;
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use leoflow_base::config::{Config, NotifyEvent, NotifyRule, NotifySettings, instance_name, leoflow_yaml};
use leoflow_base::home::upkeep;
use leoflow_base::sys::{checkpoint, clock};
use leoflow_engine::store::dag::dag_facts;
use leoflow_engine::store::events::Event;
use leoflow_engine::store::notifications::{self, Delivery, Notification, Unwanted};
use send::SendError;
use std::collections::HashSet;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tracing::warn;

/// Interval of reading the conditions of the instance.
fn watch_interval() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_NOTIFY_WATCH", Duration::from_secs(20))
}
/// Pause before a delivery is tried again; four times as long after each further failure.
fn first_pause() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_NOTIFY_RETRY", Duration::from_secs(10))
}
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// About a day.
const MAX_ATTEMPTS: i32 = 28;
/// How long the datastore must be down to be notified: a restart is shorter.
const DOWN_AFTER: Duration = Duration::from_secs(30);
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// Time limit of a round, which waits for the datastore only.
const ROUND_LIMIT: Duration = Duration::from_secs(60);
/// Messages that are sent to one target at the same time.
const MAX_IN_FLIGHT: usize = 4;

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error("config.yaml is invalid; see leoflow verify-config")]
    InvalidSettings,
    #[error("the settings have no target {0}")]
    UnknownTarget(String),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// What the notifier knows from one round to the next.
#[derive(Default)]
struct Notifier {
    /// What held the last time.
    conditions: Option<conditions::Known>,
    watched_at: Option<Instant>,
    heartbeat_at: Option<Instant>,
    /// The last backup that the heartbeat was called for.
    backup_at: Option<Timestamp>,
    down_since: Option<Instant>,
    /// Targets that were notified that the datastore is down.
    down_notified: HashSet<String>,
    /// Deliveries that are being sent.
    sending: JoinSet<(i64, String)>,
    in_flight: HashSet<(i64, String)>,
}

/// Sends notifications. Never returns.
pub async fn run(core: Arc<Core>) {
    let mut events = core.changes.events.subscribe();
    let mut notifier = Notifier::default();
    let mut has_news = true;
    loop {
        // While the file is invalid, for example half edited, nothing is decided: no rule would be found.
        let config = core.config();
        let is_used = config.as_ref().is_some_and(|config| config.notify.is_used());
        let (mut next, mut is_done) = (None, false);
        // An idle server without rules opens no connection.
        if let Some(config) = config.filter(|_| is_used || has_news) {
            let round = tokio::time::timeout(ROUND_LIMIT, notifier.round(&core, &Arc::new(config))).await;
            is_done = true;
            let delayed = |reason: &dyn Display| {
                warn!("notifications are delayed: {reason}");
                Some(clock::time_in(first_pause()))
            };
            next = match round {
                Ok(Ok(next)) => next,
                Ok(Err(error)) => delayed(&error),
                Err(_) => delayed(&"the datastore does not answer"),
            };
        }
        let wait = next.map_or(watch_interval(), |next| until(next).min(watch_interval()));
        has_news = tokio::select! {
            () = tokio::time::sleep(wait) => next.is_some() || has_news && !is_done,
            () = wait_for_notification(&mut events) => true,
            Some(ended) = notifier.sending.join_next() => {
                if let Ok(ended) = ended {
                    notifier.in_flight.remove(&ended);
                }
                true
            }
        };
    }
}

/// Waits for an event of a notification, or for one that was missed.
async fn wait_for_notification(events: &mut tokio::sync::broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Notification) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => return std::future::pending().await,
            Ok(_) => {}
        }
    }
}

fn until(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default()
}

impl Notifier {
    /// Does what is due; returns when the next delivery is due.
    async fn round(&mut self, core: &Arc<Core>, config: &Arc<Config>) -> Result<Option<Timestamp>, DatastoreError> {
        let settings = &config.notify;
        let is_watched = self.watched_at.is_none_or(|watched| watched.elapsed() >= watch_interval());
        if settings.is_used() && is_watched {
            self.watched_at = Some(Instant::now());
            self.watch(core, config).await?;
            if self.down_since.is_some() {
                return Ok(None);
            }
        }
        let client = core.database.get().await?;
        let mut is_all = true;
        for mut notification in notifications::unrouted(&*client).await? {
            is_all &= route(&client, config, &mut notification).await?;
        }
        let due = notifications::due(&*client, Timestamp::now()).await?;
        let next = notifications::next_due(&*client).await?;
        drop(client);
        for delivery in due {
            is_all &= self.begin_to_send(core, config, delivery);
        }
        if !is_all && self.in_flight.is_empty() {
            return Ok(Some(clock::time_in(watch_interval())));
        }
        // Deliveries that wait for others to the same target are looked at again when one of them ends.
        Ok(next.filter(|_| self.in_flight.is_empty()))
    }

    /// Sends a message in a task of its own, so that a target that hangs holds up only its own messages, and records the
    /// outcome. Returns false if it must wait for others to the same target.
    fn begin_to_send(&mut self, core: &Arc<Core>, config: &Arc<Config>, delivery: Delivery) -> bool {
        let key = (delivery.notification.id, delivery.target.clone());
        if self.in_flight.contains(&key) {
            return true;
        }
        if self.in_flight.iter().filter(|(_, target)| *target == delivery.target).count() >= MAX_IN_FLIGHT {
            return false;
        }
        self.in_flight.insert(key.clone());
        let (core, config) = (core.clone(), config.clone());
        self.sending.spawn_local(async move {
            let Delivery { notification, target, template, .. } = &delivery;
            let sent = send_to(&config, target, notification, template.as_deref()).await;
            if let Err(error) = record(&core, &delivery, sent).await {
                warn!("a delivery was not recorded and is sent again: {error}");
            }
            key
        });
        true
    }

    /// Reads the conditions of the instance, and calls the heartbeat.
    async fn watch(&mut self, core: &Core, config: &Config) -> Result<(), DatastoreError> {
        let settings = &config.notify;
        let is_up = core.database.check(CHECK_LIMIT).await.is_ok();
        self.watch_datastore(is_up, config).await;
        if !is_up {
            return Ok(());
        }
        if settings.rules.iter().flat_map(|rule| &rule.on).any(|event| !event.is_of_scheduler()) {
            let conditions = conditions::read(core, settings, self.conditions.as_ref()).await;
            let client = core.database.get().await?;
            conditions::note(&*client, &conditions, &mut self.conditions).await?;
            conditions::note_late_runs(&*client, settings).await?;
        }
        if core.phase.scheduler_beat.is_alive() {
            self.beat(core, settings);
        }
        Ok(())
    }

    /// Sends that the datastore is down. That cannot be recorded in it, so it is tried until it is sent.
    async fn watch_datastore(&mut self, is_up: bool, config: &Config) {
        let settings = &config.notify;
        if is_up {
            (self.down_since, self.down_notified) = (None, HashSet::new());
            return;
        }
        if self.down_since.get_or_insert_with(Instant::now).elapsed() < DOWN_AFTER {
            return;
        }
        let notification = Notification {
            event: NotifyEvent::DatastoreDown.name().to_owned(),
            detail: Some("it does not answer; see leoflow lite status".to_owned()),
            ..message::test_notification()
        };
        let rules: Vec<NotifyRule> =
            settings.rules.iter().filter(|rule| matches(rule, &notification)).cloned().collect();
        for (target, template) in targets(&rules, settings) {
            if self.down_notified.contains(target) {
                continue;
            }
            match send_to(config, target, &notification, template).await {
                Ok(()) => _ = self.down_notified.insert(target.to_owned()),
                Err(reason) => warn!("the notification datastore_down was not sent to {target}: {reason}"),
            }
        }
    }

    /// Calls the heartbeat's address when it is due, and after a scheduled backup.
    fn beat(&mut self, core: &Core, settings: &NotifySettings) {
        let Some(url) = settings.heartbeat.clone() else { return };
        let backup_at = upkeep::read(&core.home).and_then(|known| known.backup.done_at);
        let is_due = self.heartbeat_at.is_none_or(|at| at.elapsed() >= settings.heartbeat_interval());
        if is_due || backup_at != self.backup_at {
            (self.heartbeat_at, self.backup_at) = (Some(Instant::now()), backup_at);
            tokio::task::spawn_local(async move {
                if let Err(error) = send::call(&url).await {
                    warn!("the heartbeat failed: {error}");
                }
            });
        }
    }
}

/// Adds the deliveries of a notification. Returns false if it has to wait, because the settings of its project are
/// invalid.
async fn route(
    client: &ClientWrapper,
    config: &Config,
    notification: &mut Notification,
) -> Result<bool, DatastoreError> {
    if let (Some(NotifyEvent::TaskFailed), Some(key)) = (event_of(notification), notification.instance())
        && let Some(outcome) = notifications::outcome(client, &key).await?
    {
        notifications::explain(client, notification.id, &outcome).await?;
        notification.detail = Some(outcome);
    }
    let Some(rules) = rules_for(client, config, notification).await? else { return Ok(false) };
    let is_end_wanted = event_of(notification) == Some(NotifyEvent::RunFailed)
        && rules.iter().any(|rule| rule.on.contains(&NotifyEvent::RunRecovered) && is_for_dag(rule, notification));
    let unwanted = if is_end_wanted { Unwanted::KeepEpisode } else { Unwanted::Forget };
    let matching: Vec<NotifyRule> = rules.into_iter().filter(|rule| matches(rule, notification)).collect();
    notifications::route(client, notification, &targets(&matching, &config.notify), unwanted).await?;
    checkpoint("notify.routed");
    Ok(true)
}

/// The event of a notification; `None` if this release does not know it.
fn event_of(notification: &Notification) -> Option<NotifyEvent> {
    NotifyEvent::parse(&notification.event)
}

/// Records the outcome of an attempt.
async fn record(core: &Core, delivery: &Delivery, sent: Result<(), DeliveryError>) -> Result<(), DatastoreError> {
    let client = core.database.get().await?;
    match sent {
        Ok(()) => notifications::sent(&*client, delivery).await?,
        Err(reason) => {
            warn!("the notification {} was not sent to {}: {reason}", delivery.notification.event, delivery.target);
            notifications::not_sent(&*client, delivery, &reason.to_string(), next_attempt(delivery.attempts)).await?;
        }
    }
    Ok(())
}

fn next_attempt(attempts: i32) -> Option<Timestamp> {
    let factor = 4_u32.saturating_pow(attempts.unsigned_abs());
    let pause = first_pause().saturating_mul(factor).min(MAX_PAUSE);
    (attempts + 1 < MAX_ATTEMPTS).then(|| clock::time_in(pause))
}

/// The rules for a notification: those of the settings, and those of the DAG's project; `None` while the latter are
/// invalid.
async fn rules_for(
    client: &ClientWrapper,
    config: &Config,
    notification: &Notification,
) -> Result<Option<Vec<NotifyRule>>, DatastoreError> {
    let mut rules = config.notify.rules.clone();
    if let (Some(dag_id), Some(workspace)) = (&notification.dag_id, &config.workspace) {
        let file = dag_facts::file(client, dag_id).await?;
        for folder in file.map(|file| leoflow_python::folders(workspace, Path::new(&file))).unwrap_or_default() {
            match leoflow_yaml::load(&folder) {
                Ok(Some(own)) => {
                    rules.extend(leoflow_yaml::notify_rules(&own));
                    break;
                }
                Ok(None) => {}
                Err(_) => return Ok(None),
            }
        }
    }
    Ok(Some(rules))
}

fn is_for_dag(rule: &NotifyRule, notification: &Notification) -> bool {
    let is_dag = |dags: &Vec<String>| notification.dag_id.as_ref().is_some_and(|dag_id| dags.contains(dag_id));
    rule.dags.as_ref().is_none_or(is_dag)
}

fn matches(rule: &NotifyRule, notification: &Notification) -> bool {
    let is_wanted = rule.on.iter().any(|event| event.name() == notification.event);
    let limit = match event_of(notification) {
        Some(NotifyEvent::RunLate) => rule.late_after,
        Some(NotifyEvent::BackupOld) => rule.older_than,
        _ => None,
    };
    let is_limit = limit.is_none_or(|limit| notification.subject.ends_with(&conditions::suffix(limit)));
    is_wanted && is_limit && is_for_dag(rule, notification)
}

/// The targets of the rules that exist, each once and with the template of its first rule.
fn targets<'a>(rules: &'a [NotifyRule], settings: &NotifySettings) -> Vec<(&'a str, Option<&'a str>)> {
    let mut seen = HashSet::new();
    let all = rules.iter().flat_map(|rule| rule.to.iter().map(|name| (name.as_str(), rule.template.as_deref())));
    all.filter(|(name, _)| settings.targets.contains_key(*name) && seen.insert(*name)).collect()
}

async fn send_to(
    config: &Config,
    name: &str,
    notification: &Notification,
    template: Option<&str>,
) -> Result<(), DeliveryError> {
    let target = config.notify.targets.get(name).ok_or_else(|| DeliveryError::UnknownTarget(name.to_owned()))?;
    let base_url = format!("http://{}:{}", config.own_address(), config.port);
    let context = message::context(notification, instance_name(Some(config)), &base_url);
    // Without a row, the time is what tells two of them apart.
    let id = match notification.id {
        0 => format!("{}-{}/{name}", notification.event, notification.happened_at.as_second()),
        id => format!("{id}/{name}"),
    };
    Ok(send::send(target, &id, &message::text(template, &context), &context).await?)
}

/// Sends a message to a target, to test it.
pub async fn test(core: &Core, name: &str) -> Result<(), DeliveryError> {
    let config = core.config().ok_or(DeliveryError::InvalidSettings)?;
    send_to(&config, name, &message::test_notification(), None).await
}
