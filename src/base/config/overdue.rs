//! Finds scheduled jobs that are overdue. Pure.

use super::{BackupSettings, Cadence};
use crate::home::upkeep::{Job, Kind, Upkeep};
use jiff::{SignedDuration, Timestamp, Zoned};
use std::fmt;
use std::time::Duration;

/// Limits of the tolerated delay. A job may be late by half of its interval, within these limits.
const MIN_DELAY: SignedDuration = SignedDuration::from_mins(5);
const MAX_DELAY: SignedDuration = SignedDuration::from_hours(1);
/// Maximum run time of a job: `protocol::own_command::LONG` (6 hours) and some tolerance.
const MAX_RUN_TIME: SignedDuration = SignedDuration::from_hours(7);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    pub kind: Kind,
    pub overdue_since: Timestamp,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (job, command) = (self.kind.name(), self.kind.command());
        let overdue_since = self.overdue_since.strftime("%Y-%m-%d %H:%M UTC");
        write!(
            f,
            "a scheduled {job} is overdue since {overdue_since}; run it now: {command}; see leoflow lite logs server"
        )
    }
}

impl BackupSettings {
    /// Lists the overdue jobs of an instance running since `running_since`. A failed job is not overdue: its error is
    /// reported instead.
    pub fn overdue(&self, record: Option<&Upkeep>, running_since: Timestamp, now: &Zoned) -> Vec<Overdue> {
        let jobs = [(Kind::Backup, &self.schedule), (Kind::Verification, &self.verify)];
        let overdue = jobs.into_iter().filter_map(|(kind, cadence)| {
            let overdue_since = match record {
                Some(record) => overdue_since(cadence, record.job(kind), running_since, now)?,
                // The server writes the record at its start.
                None => overdue_without_record(cadence, running_since, now)?,
            };
            Some(Overdue { kind, overdue_since })
        });
        overdue.collect()
    }
}

/// Start of the instance, if the server should have written the record by now.
fn overdue_without_record(cadence: &Cadence, running_since: Timestamp, now: &Zoned) -> Option<Timestamp> {
    let is_late = now.timestamp().duration_since(running_since) > MIN_DELAY;
    (is_late && *cadence != Cadence::Off).then_some(running_since)
}

/// Due time of the job, if it is overdue.
fn overdue_since(cadence: &Cadence, job: &Job, running_since: Timestamp, now: &Zoned) -> Option<Timestamp> {
    if job.problem.is_some() {
        return None;
    }
    let now_timestamp = now.timestamp();
    let (due, interval) = match cadence {
        Cadence::Off => return None,
        Cadence::Cron(_) => {
            let zoned = |time: Timestamp| time.to_zoned(now.time_zone().clone());
            let due = cadence.due(&zoned(job.last(now_timestamp)), Duration::ZERO, now_timestamp)?;
            let next = cadence.due(&zoned(due), Duration::ZERO, now_timestamp)?;
            (due, next.duration_since(due))
        }
        Cadence::Awake(interval) => {
            let excess = Duration::from_secs(job.awake_seconds).checked_sub(*interval)?;
            (
                now_timestamp.checked_sub(SignedDuration::try_from(excess).ok()?).ok()?,
                SignedDuration::try_from(*interval).ok()?,
            )
        }
    };
    let tolerated_delay = (interval / 2).clamp(MIN_DELAY, MAX_DELAY);
    let expected = match job.tried_at.filter(|tried| *tried >= due && *tried <= now_timestamp) {
        Some(tried) => tried.checked_add(MAX_RUN_TIME),
        None => due.max(running_since).checked_add(tolerated_delay),
    };
    (now_timestamp > expected.ok()?).then_some(due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    fn time_of_day(text: &str) -> Timestamp {
        format!("2026-03-02T{text}Z").parse().unwrap()
    }

    fn known(done: &str) -> Upkeep {
        let job = serde_json::json!({"since": time_of_day("00:00:00"), "done_at": time_of_day(done)});
        serde_json::from_value(serde_json::json!({"backup": job, "verification": job})).unwrap()
    }

    fn overdue(schedule: &str, known: Option<&Upkeep>, running_since: &str, now: &str) -> Vec<Timestamp> {
        let (schedule, verify) = (Cadence::parse(schedule).unwrap(), Cadence::Off);
        let settings = BackupSettings { schedule, verify, ..BackupSettings::default() };
        let now = time_of_day(now).to_zoned(TimeZone::UTC);
        settings
            .overdue(known, time_of_day(running_since), &now)
            .into_iter()
            .map(|overdue| overdue.overdue_since)
            .collect()
    }

    #[test]
    fn a_backup_is_overdue_within_one_interval() {
        let done = known("06:00:01");
        assert_eq!(overdue("0 * * * *", Some(&done), "01:00:00", "07:29:00"), []);
        assert_eq!(overdue("0 * * * *", Some(&done), "01:00:00", "07:31:00"), [time_of_day("07:00:00")]);
        assert_eq!(overdue("0 * * * *", Some(&done), "07:20:00", "07:31:00"), [], "the instance has just started");
        assert_eq!(overdue("off", Some(&done), "01:00:00", "07:31:00"), []);
        assert_eq!(
            overdue("0 * * * *", None, "07:00:00", "07:31:00"),
            [time_of_day("07:00:00")],
            "the server has not started"
        );
        let mut awake = known("06:00:01");
        awake.backup.awake_seconds = 3 * 3600;
        assert_eq!(overdue("2h", Some(&awake), "01:00:00", "09:00:00"), [], "one hour late is tolerated");
        awake.backup.awake_seconds += 60;
        assert_eq!(overdue("2h", Some(&awake), "01:00:00", "09:01:00").len(), 1);
    }

    #[test]
    fn running_and_failed_jobs_are_not_overdue() {
        let mut tried = known("06:00:01");
        tried.backup.tried_at = Some(time_of_day("07:00:00"));
        assert_eq!(overdue("0 * * * *", Some(&tried), "01:00:00", "10:00:00"), []);
        assert_eq!(overdue("0 * * * *", Some(&tried), "01:00:00", "14:30:00").len(), 1, "no backup takes that long");
        tried.backup.problem = Some("full".to_owned());
        assert_eq!(overdue("0 * * * *", Some(&tried), "01:00:00", "14:30:00"), [], "the failure is reported already");
    }
}
