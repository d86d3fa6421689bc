//! The conditions of the instance that may be notified, besides failed runs and tasks.

use crate::state::Core;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::config::{NotifyEvent, NotifySettings};
use leoflow_base::home::upkeep::{self, Upkeep};
use leoflow_base::home::{Home, failed_release};
use leoflow_base::sys::blocking;
use leoflow_base::sys::fs::disk;
use leoflow_engine::store::notifications::{self, Subject};
use leoflow_engine::store::{Result, StoreError};
use leoflow_postgres::GenericClient;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// The subject of conditions of the instance itself.
const INSTANCE: &str = "instance";

/// Free space at which a low disk is low no more, in bytes.
const LOW_SPACE_ENDS: u64 = disk::LOW_SPACE / 4 * 5;

/// A condition that holds: its event, its subject and why.
type Condition = (NotifyEvent, String, String);

/// The events and subjects of the conditions that hold.
pub type Known = HashSet<(String, String)>;

/// Reads the conditions that the rules are about. `known` are those that held the last time.
pub async fn read(core: &Core, settings: &NotifySettings, known: Option<&Known>) -> Vec<Condition> {
    let wanted: HashSet<NotifyEvent> = settings.rules.iter().flat_map(|rule| rule.on.iter().copied()).collect();
    let older_than: Vec<Duration> = settings.rules.iter().filter_map(|rule| rule.older_than).collect();
    let home = core.home.clone();
    let disk_low = (NotifyEvent::DiskLow.name().to_owned(), INSTANCE.to_owned());
    // A disk at the limit would send a message for each file that comes and goes.
    let low_space = if known.is_some_and(|known| known.contains(&disk_low)) { LOW_SPACE_ENDS } else { disk::LOW_SPACE };
    let local = blocking::run(move || of_home(&home, &older_than, low_space)).await.unwrap_or_default();
    local.into_iter().filter(|(event, ..)| wanted.contains(event)).collect()
}

fn of_home(home: &Home, older_than: &[Duration], low_space: u64) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut add = |event, subject: &str, detail: Option<String>| {
        conditions.extend(detail.map(|detail| (event, subject.to_owned(), detail)));
    };
    if let Some(upkeep) = upkeep::read(home) {
        add(NotifyEvent::BackupFailed, INSTANCE, upkeep.backup.problem.clone());
        add(NotifyEvent::BackupFailed, "copies", upkeep.copies.problem.clone());
        add(NotifyEvent::VerificationFailed, INSTANCE, upkeep.verification.problem.clone());
        for limit in older_than {
            add(NotifyEvent::BackupOld, &format!("{INSTANCE}{}", suffix(*limit)), age_of_backup(&upkeep, *limit));
        }
    }
    let free = disk::free_bytes(home.root()).ok().filter(|free| *free < low_space);
    add(NotifyEvent::DiskLow, INSTANCE, free.map(|free| format!("{} free", disk::human_size(free))));
    if let Some(failed) = failed_release::read(home) {
        let subject = format!("{} {}", failed.version, failed.at);
        add(NotifyEvent::UpgradeRolledBack, &subject, Some(format!("{}: {}", failed.version, failed.reason)));
    }
    conditions
}

/// The end of a subject that is about a rule's limit, so that each limit has its own episodes.
pub fn suffix(limit: Duration) -> String {
    format!(" {}s", limit.as_secs())
}

fn age_of_backup(upkeep: &Upkeep, limit: Duration) -> Option<String> {
    let now = Timestamp::now();
    let age = now.duration_since(upkeep.backup.last(now));
    let is_old = SignedDuration::try_from(limit).is_ok_and(|limit| age > limit);
    is_old.then(|| format!("the last backup is {} hours old", age.as_hours()))
}

/// Begins and ends episodes by what holds now. `known` are the conditions that held the last time; `None` at the start,
/// when the datastore knows.
pub async fn note(client: &impl GenericClient, conditions: &[Condition], known: &mut Option<Known>) -> Result<()> {
    let now: HashMap<(String, String), &str> = conditions
        .iter()
        .map(|(event, subject, detail)| ((event.name().to_owned(), subject.clone()), detail.as_str()))
        .collect();
    let before = match known.take() {
        Some(before) => before,
        None => notifications::begun(client).await?.into_iter().filter(|(event, _)| is_of_instance(event)).collect(),
    };
    for ((event, subject), detail) in &now {
        if !before.contains(&(event.clone(), subject.clone())) {
            let subject = Subject { event, name: subject, detail: Some(detail), ..Subject::default() };
            notifications::begin(client, &subject).await?;
        }
    }
    for episode in before.iter().filter(|episode| !now.contains_key(*episode)) {
        notifications::end(client, &episode.0, None, &episode.1).await?;
    }
    *known = Some(now.into_keys().collect());
    Ok(())
}

fn is_of_instance(event: &str) -> bool {
    use NotifyEvent::{BackupFailed, BackupOld, DiskLow, UpgradeRolledBack, VerificationFailed};
    [BackupFailed, BackupOld, DiskLow, UpgradeRolledBack, VerificationFailed].iter().any(|one| one.name() == event)
}

/// Adds notifications of runs that are late by a rule.
pub async fn note_late_runs(client: &impl GenericClient, settings: &NotifySettings) -> Result<(), StoreError> {
    let rules = settings.rules.iter().filter(|rule| rule.on.contains(&NotifyEvent::RunLate));
    for (late_after, dags) in rules.filter_map(|rule| Some((rule.late_after?, rule.dags.as_deref()))) {
        let Some(due_before) =
            SignedDuration::try_from(late_after).ok().and_then(|late| Timestamp::now().checked_sub(late).ok())
        else {
            continue;
        };
        for run in notifications::late_runs(client, due_before, dags, &suffix(late_after)).await? {
            let name = format!("{} {}{}", run.dag_id, run.run_id, suffix(late_after));
            let detail = format!("due more than {} min ago", late_after.as_secs() / 60);
            let subject = Subject {
                event: NotifyEvent::RunLate.name(),
                name: &name,
                run: Some(&run),
                task: None,
                detail: Some(&detail),
            };
            notifications::begin(client, &subject).await?;
        }
    }
    Ok(())
}
