//! `run/upkeep.json`: the scheduled jobs with their last run and last problem.

use super::Home;
use crate::sys::fs::files;
use crate::sys::fs::flock::FileLock;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::Duration;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    pub backup: Job,
    pub verification: Job,
    /// Removal of old history. Records of earlier releases have none.
    #[serde(default = "Job::never_run")]
    pub history: Job,
    /// Copies of backups to other places.
    #[serde(default = "Job::never_run")]
    pub copies: Job,
    /// When a backup in the home was last test-restored, on schedule or by request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_restored_at: Option<Timestamp>,
    /// When a scheduled clean-up of the history with an archive last ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<Timestamp>,
}

/// A scheduled job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// When the record was created, scheduled or not; the first run is due after that.
    pub since: Timestamp,
    /// When the last try started.
    pub tried_at: Option<Timestamp>,
    /// When the job last succeeded, also [partially](End::Partial).
    pub done_at: Option<Timestamp>,
    /// Why the last try failed, or why the job cannot be tried.
    pub problem: Option<String>,
    /// Number of consecutive failures.
    #[serde(default)]
    pub failures: u32,
    /// True when the last run was incomplete; see [`End::Partial`].
    #[serde(default)]
    pub partial: bool,
    /// Seconds in which Leoflow ran and the machine was awake, counted since the last success.
    #[serde(default)]
    pub awake_seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Backup,
    Verification,
    History,
    Copies,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Backup, Self::Verification, Self::History, Self::Copies];

    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Verification => "verification",
            Self::History => "removal of old history",
            Self::Copies => "copying of backups",
        }
    }

    /// The command that does the same at once.
    pub fn command(self) -> &'static str {
        match self {
            Self::Backup => "leoflow lite backup",
            Self::Verification => "leoflow lite backups verify",
            Self::History => "leoflow db clean",
            Self::Copies => "leoflow lite backups copy",
        }
    }
}

/// Pause after a failure; doubles with each further one, up to the maximum.
const RETRY_PAUSE: SignedDuration = SignedDuration::from_mins(30);
const MAX_RETRY_PAUSE: SignedDuration = SignedDuration::from_hours(12);
/// How long to wait for the lock; a change takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Dates up to this far in the future are accepted.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// Maximum length of a problem in characters: another server's answer may be part of it.
const PROBLEM_LIMIT: usize = 2000;

/// Size limit of the file in bytes.
const SIZE_LIMIT: u64 = 64 * 1024;

impl Job {
    fn new(now: Timestamp) -> Self {
        Self { since: now, tried_at: None, done_at: None, problem: None, failures: 0, partial: false, awake_seconds: 0 }
    }

    fn never_run() -> Self {
        Self::new(Timestamp::UNIX_EPOCH)
    }

    /// True if a date is in the future, written while the clock was ahead.
    fn is_ahead(&self, now: Timestamp) -> bool {
        let limit = now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX);
        [Some(self.since), self.tried_at, self.done_at].into_iter().flatten().any(|time| time > limit)
    }

    /// Clears dates in the future, so that the job is due too early rather than never.
    fn forget_future(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.tried_at = self.tried_at.filter(|time| *time <= now);
        self.done_at = self.done_at.filter(|time| *time <= now);
    }

    /// The time from which the next due time is computed; never in the future.
    pub fn last(&self, now: Timestamp) -> Timestamp {
        self.done_at.unwrap_or(self.since).min(now)
    }

    /// The time before which the job is not retried; `None` if it was not tried since its last success.
    pub fn paused_until(&self, now: Timestamp) -> Option<Timestamp> {
        let tried = self.tried_at.filter(|tried| *tried <= now && self.done_at.is_none_or(|done| done < *tried))?;
        let pause = RETRY_PAUSE.as_secs() << self.failures.saturating_sub(1).min(10);
        tried.checked_add(SignedDuration::from_secs(pause).min(MAX_RETRY_PAUSE)).ok()
    }
}

impl Upkeep {
    fn new(now: Timestamp) -> Self {
        Self {
            backup: Job::new(now),
            verification: Job::new(now),
            history: Job::new(now),
            copies: Job::new(now),
            test_restored_at: None,
            archived_at: None,
        }
    }

    pub fn job(&self, kind: Kind) -> &Job {
        match kind {
            Kind::Backup => &self.backup,
            Kind::Verification => &self.verification,
            Kind::History => &self.history,
            Kind::Copies => &self.copies,
        }
    }

    /// When a backup in the home was last test-restored. Earlier releases recorded only scheduled verifications.
    pub fn last_test_restore(&self) -> Option<Timestamp> {
        self.test_restored_at.max(self.verification.done_at.filter(|_| !self.verification.partial))
    }

    /// Messages about the last failures, and about jobs that cannot be tried.
    pub fn problems(&self) -> Vec<String> {
        let problem = |kind: Kind| {
            let reason = self.job(kind).problem.as_ref()?;
            Some(format!("the scheduled {} failed or cannot run: {reason}", kind.name()))
        };
        Kind::ALL.into_iter().filter_map(problem).collect()
    }

    fn job_mut(&mut self, kind: Kind) -> &mut Job {
        match kind {
            Kind::Backup => &mut self.backup,
            Kind::Verification => &mut self.verification,
            Kind::History => &mut self.history,
            Kind::Copies => &mut self.copies,
        }
    }
}

/// Reads the record; `None` when it is missing or unreadable.
pub fn read(home: &Home) -> Option<Upkeep> {
    let read = |path: &Path| files::read_json(path, SIZE_LIMIT).ok()?;
    read(&home.upkeep()).or_else(|| read(&home.legacy_upkeep()))
}

/// Changes the record under its lock; a missing or unreadable one is created.
fn change(home: &Home, now: Timestamp, edit: impl FnOnce(&mut Upkeep)) -> io::Result<Upkeep> {
    files::create_private_dir(&home.run())?;
    // The server and a command may change the record at the same time.
    let _lock = FileLock::exclusive_within(FileLock::open(&home.upkeep_lock())?, LOCK_TIMEOUT)?;
    let mut upkeep = read(home).unwrap_or_else(|| Upkeep::new(now));
    edit(&mut upkeep);
    files::write_atomic(&home.upkeep(), &serde_json::to_vec_pretty(&upkeep)?, 0o600)?;
    Ok(upkeep)
}

/// Reads the record; creates it if it is missing, and clears dates in the future.
pub fn begin(home: &Home, now: Timestamp) -> io::Result<Upkeep> {
    match read(home) {
        Some(upkeep) if !Kind::ALL.iter().any(|kind| upkeep.job(*kind).is_ahead(now)) => Ok(upkeep),
        _ => change(home, now, |upkeep| {
            Kind::ALL.into_iter().for_each(|kind| upkeep.job_mut(kind).forget_future(now));
            upkeep.test_restored_at = upkeep.test_restored_at.filter(|time| *time <= now);
        }),
    }
}

/// Adds `seconds` in which Leoflow ran and the machine was awake.
pub fn note_awake(home: &Home, now: Timestamp, seconds: u64) -> io::Result<Upkeep> {
    change(home, now, |upkeep| {
        Kind::ALL.into_iter().for_each(|kind| upkeep.job_mut(kind).awake_seconds += seconds);
    })
}

/// Records that a job is tried now.
pub fn note_try(home: &Home, now: Timestamp, kind: Kind) -> io::Result<Upkeep> {
    change(home, now, |upkeep| upkeep.job_mut(kind).tried_at = Some(now))
}

/// Withdraws a try that could not start because another operation was running: the job stays due and does not pause, as
/// it does after a failure.
pub fn withdraw_try(home: &Home, now: Timestamp, kind: Kind) -> io::Result<Upkeep> {
    change(home, now, |upkeep| upkeep.job_mut(kind).tried_at = None)
}

/// The outcome of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Done,
    /// A verification without a full test restore: there is no backup, or no key to decrypt it.
    Partial,
    Failed(String),
}

/// Records the outcome of a try.
pub fn note_end(home: &Home, now: Timestamp, kind: Kind, end: End) -> io::Result<Upkeep> {
    change(home, now, |upkeep| {
        let job = upkeep.job_mut(kind);
        if !matches!(end, End::Failed(_)) {
            (job.done_at, job.awake_seconds, job.failures) = (Some(now), 0, 0);
        } else {
            job.failures += 1;
        }
        job.partial = end == End::Partial;
        job.problem = match end {
            End::Failed(reason) => Some(reason.chars().take(PROBLEM_LIMIT).collect()),
            End::Done | End::Partial => None,
        };
    })
}

/// Records a test restore of any backup in the home.
pub fn note_test_restore(home: &Home, now: Timestamp) -> io::Result<Upkeep> {
    change(home, now, |upkeep| upkeep.test_restored_at = Some(now))
}

/// Records that a scheduled clean-up of the history with an archive has ended.
pub fn note_archived(home: &Home, now: Timestamp) -> io::Result<Upkeep> {
    change(home, now, |upkeep| upkeep.archived_at = Some(now))
}

/// Sets or clears the job's problem: why the last try failed, or why the job cannot be tried.
pub fn note_problem(home: &Home, now: Timestamp, kind: Kind, problem: Option<String>) -> io::Result<Upkeep> {
    change(home, now, |upkeep| upkeep.job_mut(kind).problem = problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_try_is_recorded_and_retried_after_a_pause() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().to_owned() };
        let timestamp = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        assert_eq!(begin(&home, timestamp(0)).unwrap().backup.last(timestamp(9)), timestamp(0));
        note_awake(&home, timestamp(10), 10).unwrap();
        note_try(&home, timestamp(20), Kind::Backup).unwrap();
        let withdrawn = withdraw_try(&home, timestamp(20), Kind::Backup).unwrap();
        assert_eq!(withdrawn.backup.paused_until(timestamp(30)), None, "due at once");
        note_try(&home, timestamp(20), Kind::Backup).unwrap();
        let failed = note_end(&home, timestamp(21), Kind::Backup, End::Failed("the disk is full".to_owned())).unwrap();
        assert_eq!((failed.backup.last(timestamp(30)), failed.backup.awake_seconds), (timestamp(0), 10));
        assert_eq!(failed.backup.paused_until(timestamp(30)), Some(timestamp(20 + 30 * 60)));
        assert_eq!(failed.verification.paused_until(timestamp(30)), None);
        // The pauses grow with each failure.
        let second_failure =
            note_end(&home, timestamp(22), Kind::Backup, End::Failed("the disk is full".to_owned())).unwrap();
        assert_eq!(second_failure.backup.paused_until(timestamp(30)), Some(timestamp(20 + 60 * 60)));
        let many_failures = Job { failures: 99, ..second_failure.backup };
        assert_eq!(many_failures.paused_until(timestamp(30)), Some(timestamp(20 + 12 * 60 * 60)));
        note_try(&home, timestamp(4000), Kind::Backup).unwrap();
        let done = note_end(&home, timestamp(4005), Kind::Backup, End::Done).unwrap();
        assert_eq!(
            (done.backup.last(timestamp(5000)), done.backup.awake_seconds, done.verification.awake_seconds),
            (timestamp(4005), 0, 10)
        );
        assert_eq!((done.backup.paused_until(timestamp(5000)), &done.backup.problem), (None, &None));
        assert_eq!(done.backup.failures, 0);
        // The clock was ahead at the last success.
        assert_eq!(
            (done.backup.last(timestamp(100)), done.backup.paused_until(timestamp(100))),
            (timestamp(100), None)
        );
        std::fs::write(home.upkeep(), "not JSON").unwrap();
        assert_eq!((read(&home), begin(&home, timestamp(1)).unwrap().backup.last(timestamp(9))), (None, timestamp(1)));
    }

    #[test]
    fn dates_in_the_future_are_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().to_owned() };
        let timestamp = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        begin(&home, timestamp(0)).unwrap();
        note_end(&home, timestamp(300_000), Kind::Backup, End::Done).unwrap();
        let corrected = begin(&home, timestamp(100)).unwrap();
        assert_eq!(
            (corrected.backup.done_at, corrected.backup.last(timestamp(200))),
            (None, timestamp(0)),
            "due at its next date, not in three days"
        );
    }

    #[test]
    fn the_record_is_outside_the_backups_folder() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().to_owned() };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        // A file in its place makes the folder unusable, even for root.
        std::fs::write(home.backups(), "").unwrap();
        note_end(&home, now, Kind::Backup, End::Failed("no folder".to_owned())).unwrap();
        assert_eq!(read(&home).unwrap().problems().len(), 1);
    }
}
