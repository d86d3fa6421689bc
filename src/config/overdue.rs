//! Scheduled jobs that are due and do not happen. Pure.

use super::{BackupSettings, Cadence};
use crate::home::upkeep::{Job, Kind, Upkeep};
use jiff::{SignedDuration, Timestamp, Zoned};
use std::fmt;
use std::time::Duration;

/// A job may begin this much late: half of its interval, within these.
const SHORTEST_PATIENCE: SignedDuration = SignedDuration::from_mins(5);
const LONGEST_PATIENCE: SignedDuration = SignedDuration::from_hours(1);
/// One that was begun ends within this time, `protocol::own_command::LONG`.
const LONGEST_TRY: SignedDuration = SignedDuration::from_hours(7);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    pub kind: Kind,
    pub since: Timestamp,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, command) = match self.kind {
            Kind::Backup => ("backup", "leoflow lite backup"),
            Kind::Verification => ("verification", "leoflow lite backups verify"),
        };
        let since = self.since.strftime("%Y-%m-%d %H:%M UTC");
        write!(f, "a scheduled {what} is overdue since {since}; do it now: {command}; why: leoflow lite logs server")
    }
}

impl BackupSettings {
    /// Jobs that are overdue in an instance that has run since `running_since`. A failed one is not: it has its reason.
    pub fn overdue(&self, known: Option<&Upkeep>, running_since: Timestamp, now: &Zoned) -> Vec<Overdue> {
        let jobs = [(Kind::Backup, &self.schedule), (Kind::Verification, &self.verify)];
        let found = jobs.into_iter().filter_map(|(kind, cadence)| {
            let since = match known {
                Some(known) => since(cadence, known.job(kind), running_since, now)?,
                // The server writes the record when it starts.
                None => never_begun(cadence, running_since, now)?,
            };
            Some(Overdue { kind, since })
        });
        found.collect()
    }
}

fn never_begun(cadence: &Cadence, running_since: Timestamp, now: &Zoned) -> Option<Timestamp> {
    let late = now.timestamp().duration_since(running_since) > SHORTEST_PATIENCE;
    (late && *cadence != Cadence::Off).then_some(running_since)
}

fn since(cadence: &Cadence, job: &Job, running_since: Timestamp, now: &Zoned) -> Option<Timestamp> {
    if job.problem.is_some() {
        return None;
    }
    let at = now.timestamp();
    let (due, interval) = match cadence {
        Cadence::Off => return None,
        Cadence::Cron(_) => {
            let zoned = |at: Timestamp| at.to_zoned(now.time_zone().clone());
            let due = cadence.due(&zoned(job.last(at)), Duration::ZERO, at)?;
            let next = cadence.due(&zoned(due), Duration::ZERO, at)?;
            (due, next.duration_since(due))
        }
        Cadence::Awake(wanted) => {
            let over = Duration::from_secs(job.awake_seconds).checked_sub(*wanted)?;
            (at.checked_sub(SignedDuration::try_from(over).ok()?).ok()?, SignedDuration::try_from(*wanted).ok()?)
        }
    };
    let patience = (interval / 2).clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE);
    let expected = match job.tried_at.filter(|tried| *tried >= due && *tried <= at) {
        Some(tried) => tried.checked_add(LONGEST_TRY),
        None => due.max(running_since).checked_add(patience),
    };
    (at > expected.ok()?).then_some(due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    fn at(text: &str) -> Timestamp {
        format!("2026-03-02T{text}Z").parse().unwrap()
    }

    fn known(done: &str) -> Upkeep {
        let job = serde_json::json!({"since": at("00:00:00"), "done_at": at(done)});
        serde_json::from_value(serde_json::json!({"backup": job, "verification": job})).unwrap()
    }

    fn overdue(schedule: &str, known: Option<&Upkeep>, running_since: &str, now: &str) -> Vec<Timestamp> {
        let (schedule, verify) = (Cadence::parse(schedule).unwrap(), Cadence::Off);
        let settings = BackupSettings { schedule, verify, ..BackupSettings::default() };
        let now = at(now).to_zoned(TimeZone::UTC);
        settings.overdue(known, at(running_since), &now).into_iter().map(|one| one.since).collect()
    }

    #[test]
    fn a_backup_is_overdue_within_one_interval() {
        let done = known("06:00:01");
        assert_eq!(overdue("0 * * * *", Some(&done), "01:00:00", "07:29:00"), []);
        assert_eq!(overdue("0 * * * *", Some(&done), "01:00:00", "07:31:00"), [at("07:00:00")]);
        assert_eq!(overdue("0 * * * *", Some(&done), "07:20:00", "07:31:00"), [], "it has only just started");
        assert_eq!(overdue("off", Some(&done), "01:00:00", "07:31:00"), []);
        assert_eq!(overdue("0 * * * *", None, "07:00:00", "07:31:00"), [at("07:00:00")], "the server has not begun");
        let mut awake = known("06:00:01");
        awake.backup.awake_seconds = 3 * 3600;
        assert_eq!(overdue("2h", Some(&awake), "01:00:00", "09:00:00"), [], "an hour late is the most that is borne");
        awake.backup.awake_seconds += 60;
        assert_eq!(overdue("2h", Some(&awake), "01:00:00", "09:01:00").len(), 1);
    }

    #[test]
    fn one_that_is_under_way_or_has_failed_is_not_overdue() {
        let mut tried = known("06:00:01");
        tried.backup.tried_at = Some(at("07:00:00"));
        assert_eq!(overdue("0 * * * *", Some(&tried), "01:00:00", "10:00:00"), []);
        assert_eq!(overdue("0 * * * *", Some(&tried), "01:00:00", "14:30:00").len(), 1, "no backup takes that long");
        tried.backup.problem = Some("full".to_owned());
        assert_eq!(overdue("0 * * * *", Some(&tried), "01:00:00", "14:30:00"), [], "that is said already");
    }
}
