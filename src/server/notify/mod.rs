//! Notifications: chooses the targets of what has happened by the rules of `notify`, sends the messages, and calls the
//! heartbeat.
//!
//! What happens is recorded in the transaction in which it happens (`store::notifications`), and each delivery has a
//! row until it was sent, so that a kill loses none. A task waits for none of this.

mod conditions;
mod message;
pub mod send;

use crate::state::Core;
use crate::state::database::DatastoreError;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::config::{Config, NotifyEvent, NotifyRule, NotifySettings, instance_name, leoflow_yaml};
use leoflow_base::home::upkeep;
use leoflow_base::sys::checkpoint;
use leoflow_engine::store::events::Event;
use leoflow_engine::store::history;
use leoflow_engine::store::notifications::{self, Delivery, Notification};
use send::SendError;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
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

/// What the notifier knows from one round to the next.
#[derive(Default)]
struct Notifier {
    /// What held the last time.
    conditions: Option<HashSet<(String, String)>>,
    watched_at: Option<Instant>,
    heartbeat_at: Option<Instant>,
    /// The last backup that the heartbeat was called for.
    backup_at: Option<Timestamp>,
    down_since: Option<Instant>,
    /// Targets that were notified that the datastore is down.
    down_notified: HashSet<String>,
}

/// Sends notifications. Never returns.
pub async fn run(core: Arc<Core>) {
    let mut events = core.changes.events.subscribe();
    let mut notifier = Notifier::default();
    let mut has_news = true;
    loop {
        let config = core.config();
        let settings = config.as_ref().map(|config| config.notify.clone()).unwrap_or_default();
        let is_used = !settings.rules.is_empty() || settings.heartbeat.is_some();
        let mut next = None;
        // An idle server without rules opens no connection.
        if is_used || has_news {
            next = notifier.round(&core, config.as_ref(), &settings).await.unwrap_or_else(|error| {
                warn!("notifications are delayed: {error}");
                Timestamp::now().checked_add(SignedDuration::try_from(first_pause()).ok()?).ok()
            });
        }
        let wait = next.map_or(watch_interval(), |next| until(next).min(watch_interval()));
        has_news = tokio::select! {
            () = tokio::time::sleep(wait) => next.is_some(),
            () = wait_for_notification(&mut events) => true,
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
    async fn round(
        &mut self,
        core: &Core,
        config: Option<&Config>,
        settings: &NotifySettings,
    ) -> Result<Option<Timestamp>, DatastoreError> {
        let is_watched = self.watched_at.is_none_or(|watched| watched.elapsed() >= watch_interval());
        let is_used = !settings.rules.is_empty() || settings.heartbeat.is_some();
        if is_used && is_watched {
            self.watched_at = Some(Instant::now());
            self.watch(core, config, settings).await?;
        }
        let client = core.database.get().await?;
        loop {
            let unrouted = notifications::unrouted(&*client).await?;
            if unrouted.is_empty() {
                break;
            }
            for notification in &unrouted {
                let rules = rules_for(&client, config, settings, notification).await?;
                let targets = targets(&rules, settings);
                notifications::route(&*client, notification, &targets).await?;
                checkpoint("notify.routed");
            }
        }
        loop {
            let due = notifications::due(&*client, Timestamp::now()).await?;
            if due.is_empty() {
                return Ok(notifications::next_due(&*client).await?);
            }
            // A target that hangs holds up only this round.
            let outcomes = join_all(due.iter().map(|delivery| deliver(config, settings, delivery))).await;
            for (delivery, outcome) in due.iter().zip(outcomes) {
                match outcome {
                    Ok(()) => notifications::sent(&*client, delivery).await?,
                    Err(reason) => {
                        warn!(
                            "the notification {} was not sent to {}: {reason}",
                            delivery.notification.event, delivery.target
                        );
                        let next = next_attempt(delivery.attempts);
                        notifications::not_sent(&*client, delivery, &reason, next).await?;
                    }
                }
            }
        }
    }

    /// Reads the conditions of the instance, and calls the heartbeat.
    async fn watch(
        &mut self,
        core: &Core,
        config: Option<&Config>,
        settings: &NotifySettings,
    ) -> Result<(), DatastoreError> {
        let is_up = core.database.check(CHECK_LIMIT).await.is_ok();
        self.watch_datastore(is_up, config, settings).await;
        if !is_up {
            return Ok(());
        }
        if settings.rules.iter().flat_map(|rule| &rule.on).any(|event| !is_of_scheduler(*event)) {
            let conditions = conditions::read(core, settings).await;
            let client = core.database.get().await?;
            conditions::note(&*client, &conditions, &mut self.conditions).await?;
            conditions::note_late_runs(&*client, settings).await?;
        }
        if core.phase.scheduler_beat.is_alive() {
            self.beat(core, settings).await;
        }
        Ok(())
    }

    /// Sends that the datastore is down. That cannot be recorded in it, so it is tried until it is sent.
    async fn watch_datastore(&mut self, is_up: bool, config: Option<&Config>, settings: &NotifySettings) {
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
            match send_to(config, settings, target, &notification, template).await {
                Ok(()) => _ = self.down_notified.insert(target.to_owned()),
                Err(reason) => warn!("the notification datastore_down was not sent to {target}: {reason}"),
            }
        }
    }

    /// Calls the heartbeat's address when it is due, and after a backup.
    async fn beat(&mut self, core: &Core, settings: &NotifySettings) {
        let Some(url) = &settings.heartbeat else { return };
        let backup_at = upkeep::read(&core.home).and_then(|known| known.backup.done_at);
        let is_due = self.heartbeat_at.is_none_or(|at| at.elapsed() >= settings.heartbeat_interval());
        if is_due || backup_at != self.backup_at {
            match send::call(url).await {
                Ok(()) => (self.heartbeat_at, self.backup_at) = (Some(Instant::now()), backup_at),
                Err(error) => warn!("the heartbeat failed: {error}"),
            }
        }
    }
}

/// True for an event that the scheduler records.
fn is_of_scheduler(event: NotifyEvent) -> bool {
    [NotifyEvent::RunFailed, NotifyEvent::RunRecovered, NotifyEvent::TaskFailed].contains(&event)
}

fn next_attempt(attempts: i32) -> Option<Timestamp> {
    if attempts + 1 >= MAX_ATTEMPTS {
        return None;
    }
    let factor = 4_u32.saturating_pow(attempts.unsigned_abs());
    let pause = first_pause().saturating_mul(factor).min(MAX_PAUSE);
    Timestamp::now().checked_add(SignedDuration::try_from(pause).ok()?).ok()
}

/// The rules that apply to a notification: those of the settings, and those of the DAG's project.
async fn rules_for(
    client: &deadpool_postgres::ClientWrapper,
    config: Option<&Config>,
    settings: &NotifySettings,
    notification: &Notification,
) -> Result<Vec<NotifyRule>, DatastoreError> {
    let mut rules = settings.rules.clone();
    let workspace = config.and_then(|config| config.workspace.as_deref());
    if let (Some(dag_id), Some(workspace)) = (&notification.dag_id, workspace) {
        let file = history::dags(client).await?.into_iter().find(|(id, _)| id == dag_id).map(|(_, file)| file);
        let folders = file.map(|file| leoflow_python::folders(workspace, Path::new(&file))).unwrap_or_default();
        let own = folders.iter().find_map(|folder| leoflow_yaml::load(folder).ok().flatten());
        rules.extend(own.iter().flat_map(leoflow_yaml::notify_rules));
    }
    rules.retain(|rule| matches(rule, notification));
    Ok(rules)
}

fn matches(rule: &NotifyRule, notification: &Notification) -> bool {
    let is_wanted = rule.on.iter().any(|event| event.name() == notification.event);
    let is_dag = |dags: &Vec<String>| notification.dag_id.as_ref().is_some_and(|dag_id| dags.contains(dag_id));
    is_wanted && rule.dags.as_ref().is_none_or(is_dag)
}

/// The targets of the rules that exist, each once and with the template of its first rule.
fn targets<'a>(rules: &'a [NotifyRule], settings: &NotifySettings) -> Vec<(&'a str, Option<&'a str>)> {
    let mut seen = HashSet::new();
    let all = rules.iter().flat_map(|rule| rule.to.iter().map(|name| (name.as_str(), rule.template.as_deref())));
    all.filter(|(name, _)| settings.targets.contains_key(*name) && seen.insert(*name)).collect()
}

async fn deliver(config: Option<&Config>, settings: &NotifySettings, delivery: &Delivery) -> Result<(), String> {
    let Delivery { notification, target, template, .. } = delivery;
    send_to(config, settings, target, notification, template.as_deref()).await
}

async fn send_to(
    config: Option<&Config>,
    settings: &NotifySettings,
    name: &str,
    notification: &Notification,
    template: Option<&str>,
) -> Result<(), String> {
    let target = settings.targets.get(name).ok_or_else(|| format!("the settings have no target {name}"))?;
    let base_url = config.map_or_else(String::new, |config| format!("http://{}:{}", config.own_address(), config.port));
    let context = message::context(notification, instance_name(config), &base_url);
    let id = format!("{}/{name}", notification.id);
    let sent = send::send(target, &id, &message::text(template, &context), &context).await;
    sent.map_err(|error: SendError| error.to_string())
}

/// Sends a message to a target, to test it.
pub async fn test(core: &Core, name: &str) -> Result<(), String> {
    let config = core.config();
    let settings = config.as_ref().map(|config| config.notify.clone()).unwrap_or_default();
    send_to(config.as_ref(), &settings, name, &message::test_notification(), None).await
}
