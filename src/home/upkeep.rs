//! `run/upkeep.json`: the scheduled jobs, when each was done last, and what went wrong.

use super::Home;
use crate::sys::files;
use crate::sys::flock::FileLock;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    pub backup: Job,
    pub verification: Job,
}

/// Something that is done by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// When it was first looked after.
    pub since: Timestamp,
    #[serde(default)]
    pub tried_at: Option<Timestamp>,
    /// When it last went well.
    #[serde(default)]
    pub done_at: Option<Timestamp>,
    /// Why the last try did not.
    #[serde(default)]
    pub problem: Option<String>,
    /// How often in a row it did not.
    #[serde(default)]
    pub failures: u32,
    /// Whether that was less than a trial.
    #[serde(default)]
    pub partial: bool,
    /// Seconds that Leoflow has run, and this machine was awake, since it was done.
    #[serde(default)]
    pub awake_seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Backup,
    Verification,
}

/// How long one that went wrong is left alone; twice as long each time, up to the longest.
const AFTER_FAILURE: SignedDuration = SignedDuration::from_mins(30);
const AFTER_FAILURES: SignedDuration = SignedDuration::from_hours(12);
/// A change takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A clock differs from itself by this much at most.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

const LIMIT: u64 = 64 * 1024;

impl Job {
    fn since(now: Timestamp) -> Self {
        Self { since: now, tried_at: None, done_at: None, problem: None, failures: 0, partial: false, awake_seconds: 0 }
    }

    /// True if a date was written by a clock that was ahead.
    fn is_ahead(&self, now: Timestamp) -> bool {
        let limit = now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX);
        [Some(self.since), self.tried_at, self.done_at].into_iter().flatten().any(|at| at > limit)
    }

    /// Forgets dates of a clock that was ahead: the job is due earlier rather than never.
    fn forget_future(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.tried_at = self.tried_at.filter(|at| *at <= now);
        self.done_at = self.done_at.filter(|at| *at <= now);
    }

    /// From when on its next time is counted. A clock that was ahead is not believed.
    pub fn last(&self, now: Timestamp) -> Timestamp {
        self.done_at.unwrap_or(self.since).min(now)
    }

    /// Before this it is not tried again.
    pub fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        let tried = self.tried_at.filter(|tried| *tried <= now && self.done_at.is_none_or(|done| done < *tried))?;
        let pause = AFTER_FAILURE.as_secs() << self.failures.saturating_sub(1).min(10);
        tried.checked_add(SignedDuration::from_secs(pause).min(AFTER_FAILURES)).ok()
    }
}

impl Upkeep {
    fn since(now: Timestamp) -> Self {
        Self { backup: Job::since(now), verification: Job::since(now) }
    }

    pub fn job(&self, kind: Kind) -> &Job {
        match kind {
            Kind::Backup => &self.backup,
            Kind::Verification => &self.verification,
        }
    }

    /// What went wrong the last time, for people.
    pub fn problems(&self) -> Vec<String> {
        let backup = self.backup.problem.iter().map(|reason| format!("the scheduled backup failed: {reason}"));
        let verification =
            self.verification.problem.iter().map(|reason| format!("the scheduled verification failed: {reason}"));
        backup.chain(verification).collect()
    }

    fn job_mut(&mut self, kind: Kind) -> &mut Job {
        match kind {
            Kind::Backup => &mut self.backup,
            Kind::Verification => &mut self.verification,
        }
    }
}

/// The record; `None` before the first. One that cannot be read counts as none.
pub fn read(home: &Home) -> Option<Upkeep> {
    let read = |path: &Path| {
        let text = files::read_text(path, LIMIT).ok().flatten()?;
        serde_json::from_str(&text).ok()
    };
    read(&home.upkeep()).or_else(|| read(&home.older_upkeep()))
}

fn change(home: &Home, now: Timestamp, change: impl FnOnce(&mut Upkeep)) -> io::Result<Upkeep> {
    files::create_private_dir(&home.run())?;
    // The server and a command may come at the same moment, and neither may undo the other.
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(home.upkeep_lock())?;
    let _lock = FileLock::exclusive_within(file, PATIENCE)?;
    let mut upkeep = read(home).unwrap_or_else(|| Upkeep::since(now));
    change(&mut upkeep);
    files::write_atomic(&home.upkeep(), &serde_json::to_vec_pretty(&upkeep)?, 0o600)?;
    Ok(upkeep)
}

/// The record, begun now if there is none.
pub fn begin(home: &Home, now: Timestamp) -> io::Result<Upkeep> {
    match read(home) {
        Some(upkeep) if ![&upkeep.backup, &upkeep.verification].iter().any(|job| job.is_ahead(now)) => Ok(upkeep),
        _ => change(home, now, |upkeep| {
            upkeep.backup.forget_future(now);
            upkeep.verification.forget_future(now);
        }),
    }
}

pub fn note_awake(home: &Home, now: Timestamp, seconds: u64) -> io::Result<Upkeep> {
    change(home, now, |upkeep| {
        upkeep.backup.awake_seconds += seconds;
        upkeep.verification.awake_seconds += seconds;
    })
}

pub fn note_try(home: &Home, now: Timestamp, kind: Kind) -> io::Result<Upkeep> {
    change(home, now, |upkeep| upkeep.job_mut(kind).tried_at = Some(now))
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Done,
    /// As far as it goes: there was nothing to verify, or no key to open it by.
    Partial,
    Failed(String),
}

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
            End::Failed(reason) => Some(reason),
            End::Done | End::Partial => None,
        };
    })
}

/// What keeps it from being tried at all; nothing any more, with `None`.
pub fn note_problem(home: &Home, now: Timestamp, kind: Kind, problem: Option<String>) -> io::Result<Upkeep> {
    change(home, now, |upkeep| upkeep.job_mut(kind).problem = problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_that_went_wrong_is_remembered_and_not_repeated_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().to_owned() };
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        assert_eq!(begin(&home, at(0)).unwrap().backup.last(at(9)), at(0));
        note_awake(&home, at(10), 10).unwrap();
        note_try(&home, at(20), Kind::Backup).unwrap();
        let failed = note_end(&home, at(21), Kind::Backup, End::Failed("the disk is full".to_owned())).unwrap();
        assert_eq!((failed.backup.last(at(30)), failed.backup.awake_seconds), (at(0), 10));
        assert_eq!(failed.backup.rests_until(at(30)), Some(at(20 + 30 * 60)));
        assert_eq!(failed.verification.rests_until(at(30)), None);
        // Again and again: less and less often.
        let again = note_end(&home, at(22), Kind::Backup, End::Failed("the disk is full".to_owned())).unwrap();
        assert_eq!(again.backup.rests_until(at(30)), Some(at(20 + 60 * 60)));
        let often = Job { failures: 99, ..again.backup };
        assert_eq!(often.rests_until(at(30)), Some(at(20 + 12 * 60 * 60)));
        note_try(&home, at(4000), Kind::Backup).unwrap();
        let done = note_end(&home, at(4005), Kind::Backup, End::Done).unwrap();
        assert_eq!(
            (done.backup.last(at(5000)), done.backup.awake_seconds, done.verification.awake_seconds),
            (at(4005), 0, 10)
        );
        assert_eq!((done.backup.rests_until(at(5000)), &done.backup.problem), (None, &None));
        assert_eq!(done.backup.failures, 0);
        // A clock that was ahead when it was done.
        assert_eq!((done.backup.last(at(100)), done.backup.rests_until(at(100))), (at(100), None));
        std::fs::write(home.upkeep(), "not JSON").unwrap();
        assert_eq!((read(&home), begin(&home, at(1)).unwrap().backup.last(at(9))), (None, at(1)));
    }

    #[test]
    fn dates_of_a_clock_that_was_ahead_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().to_owned() };
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        begin(&home, at(0)).unwrap();
        note_end(&home, at(300_000), Kind::Backup, End::Done).unwrap();
        let right = begin(&home, at(100)).unwrap();
        assert_eq!(
            (right.backup.done_at, right.backup.last(at(200))),
            (None, at(0)),
            "due at its next date, not in three days"
        );
    }

    #[test]
    fn the_record_is_not_in_the_folder_of_the_backups() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().to_owned() };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        // Not even root can write there.
        std::fs::write(home.backups(), "").unwrap();
        note_end(&home, now, Kind::Backup, End::Failed("no folder".to_owned())).unwrap();
        assert_eq!(read(&home).unwrap().problems().len(), 1);
    }
}
