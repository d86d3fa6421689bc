//! Which of the automatic backups go. Pure.

use super::catalog::{Listed, Proof};
use crate::config::BackupSettings;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub now: Timestamp,
    pub keep: u64,
    pub max_bytes: u64,
    /// What was made before goes.
    pub not_before: Option<Timestamp>,
    /// Bytes that the next backup lacks on the disk.
    pub lacking: u64,
}

impl Limits {
    pub fn of(settings: &BackupSettings, now: Timestamp) -> Self {
        let age = settings.max_age.and_then(|age| SignedDuration::try_from(age).ok());
        Self {
            now,
            keep: settings.keep,
            max_bytes: settings.max_bytes,
            not_before: age.and_then(|age| now.checked_sub(age).ok()),
            lacking: 0,
        }
    }
}

/// Why one goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is older than `backup.max_age`.
    Age,
    /// There are more than `backup.keep`.
    Count,
    /// Together they are more than `backup.max_bytes`.
    Bytes,
    /// The next backup would have no room.
    Room,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Age => "older than backup.max_age",
            Self::Count => "more than backup.keep",
            Self::Bytes => "together more than backup.max_bytes",
            Self::Room => "the next backup needs the room",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excess {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub why: Why,
}

/// Which automatic backups go, oldest first. `made`, which was made just now, stays, and so do the newest one and the newest
/// one that was proven whole; what the user put there is not touched. `pinned` ones are the way back from an upgrade: they
/// stay, and do not count.
pub fn excess(all: &[Listed], made: &Path, pinned: &[PathBuf], limits: &Limits) -> Vec<Excess> {
    let is_pinned = |backup: &&Listed| pinned.contains(&backup.path);
    let mut newest_first: Vec<&Listed> = all.iter().filter(|backup| backup.automatic && !is_pinned(backup)).collect();
    newest_first.sort_by(|one, other| other.age().cmp(&one.age()));
    let is_proven = |backup: &&&Listed| backup.last_verified.as_ref().is_some_and(Proof::is_whole);
    let proven = newest_first.iter().find(is_proven);
    let protected: Vec<&Path> =
        newest_first.first().into_iter().chain(proven).map(|backup| backup.path.as_path()).chain([made]).collect();
    // Made by a clock that was ahead: age says nothing then.
    let is_of_the_future = |backup: &&Listed| backup.created().is_some_and(|created| created > limits.now);
    let not_before = limits.not_before.filter(|_| !newest_first.iter().any(is_of_the_future));
    let mut total: u64 = newest_first.iter().map(|backup| backup.size_bytes).sum();
    let mut count = newest_first.len() as u64;
    // What would not be enough is not given for it.
    let spare: u64 =
        newest_first.iter().filter(|one| !protected.contains(&one.path.as_path())).map(|one| one.size_bytes).sum();
    let mut lacking = if spare < limits.lacking { 0 } else { limits.lacking };
    let mut gone = Vec::new();
    for backup in newest_first.iter().rev() {
        let is_old = backup.created().zip(not_before).is_some_and(|(created, before)| created < before);
        let why = match () {
            () if is_old => Why::Age,
            () if count > limits.keep => Why::Count,
            () if total > limits.max_bytes => Why::Bytes,
            () if lacking > 0 => Why::Room,
            () => continue,
        };
        if !protected.contains(&backup.path.as_path()) {
            total -= backup.size_bytes;
            lacking = lacking.saturating_sub(backup.size_bytes);
            count -= 1;
            gone.push(Excess { path: backup.path.clone(), size_bytes: backup.size_bytes, why });
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Limits =
        Limits { now: Timestamp::MAX, keep: u64::MAX, max_bytes: u64::MAX, not_before: None, lacking: 0 };

    fn backup(number: u32, size_bytes: u64, proven: bool) -> Listed {
        Listed {
            path: format!("/b/automatic-{number}").into(),
            size_bytes,
            automatic: true,
            encrypted: false,
            created_at: Some(format!("2026-01-{number:02}T00:00:00Z")),
            leoflow_version: None,
            schema_version: None,
            rows: None,
            last_verified: proven.then(|| Proof::now(false, None)),
            problem: None,
            modified: 0,
        }
    }

    fn gone_by(all: &[Listed], limits: &Limits) -> Vec<String> {
        let name = |one: Excess| one.path.to_string_lossy().trim_start_matches("/b/automatic-").to_owned();
        excess(all, Path::new(""), &[], limits).into_iter().map(name).collect()
    }

    fn gone(all: &[Listed], keep: u64, max_bytes: u64) -> Vec<String> {
        gone_by(all, &Limits { keep, max_bytes, ..NONE })
    }

    #[test]
    fn the_oldest_go_first() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        assert_eq!(gone(&all, 2, 1000), ["1", "2"]);
        assert_eq!(gone(&all, 9, 25), ["1", "2"]);
        assert!(gone(&all, 4, 40).is_empty());
    }

    #[test]
    fn the_newest_and_the_newest_proven_stay_whatever_the_limits() {
        let all = [backup(1, 10, true), backup(2, 10, true), backup(3, 10, false), backup(4, 99, false)];
        assert_eq!(gone(&all, 1, 1), ["1", "3"]);
        let not_before = Some("2027-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(gone_by(&all, &Limits { not_before, ..NONE }), ["1", "3"]);
        assert_eq!(gone_by(&all, &Limits { lacking: 20, ..NONE }), ["1", "3"]);
        assert!(gone_by(&all, &Limits { lacking: 21, ..NONE }).is_empty(), "all that may go is not enough");
        let quick = Listed { last_verified: Some(Proof::now(true, None)), ..backup(1, 10, false) };
        assert_eq!(gone(&[quick, backup(2, 10, false)], 1, 1000), ["1"], "hashes alone prove nothing");
    }

    #[test]
    fn what_is_too_old_goes_and_no_more_than_the_next_one_needs() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        let not_before = Some("2026-01-03T00:00:00Z".parse().unwrap());
        assert_eq!(gone_by(&all, &Limits { not_before, ..NONE }), ["1", "2"]);
        assert_eq!(gone_by(&all, &Limits { lacking: 15, ..NONE }), ["1", "2"]);
        let whys = excess(
            &all,
            Path::new(""),
            &[],
            &Limits { lacking: 15, not_before: all[1].created_at.as_deref().and_then(|at| at.parse().ok()), ..NONE },
        );
        assert_eq!(whys.iter().map(|one| one.why).collect::<Vec<_>>(), [Why::Age, Why::Room]);
    }

    #[test]
    fn a_clock_that_was_ahead_removes_nothing_by_age() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        let limits = |now: &str| Limits {
            now: now.parse().unwrap(),
            not_before: Some("2026-01-03T00:00:00Z".parse().unwrap()),
            ..NONE
        };
        assert_eq!(gone_by(&all, &limits("2026-02-01T00:00:00Z")), ["1", "2"]);
        assert!(gone_by(&all, &limits("2026-01-03T12:00:00Z")).is_empty());
    }

    #[test]
    fn what_the_user_put_there_stays() {
        let theirs = Listed { automatic: false, ..backup(1, 10, false) };
        assert!(gone(&[theirs, backup(2, 10, false)], 1, 1).is_empty());
    }

    #[test]
    fn the_one_made_just_now_stays_whatever_the_clock_says() {
        let all = [backup(1, 10, false), backup(2, 10, false), backup(3, 10, false)];
        let gone = excess(&all, Path::new("/b/automatic-1"), &[], &Limits { keep: 1, ..NONE });
        assert_eq!(gone.iter().map(|one| one.path.as_path()).collect::<Vec<_>>(), [Path::new("/b/automatic-2")]);
    }

    #[test]
    fn what_is_the_way_back_stays_and_takes_no_place() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        let pinned = [PathBuf::from("/b/automatic-1")];
        let gone = |keep, max_bytes| {
            let excess = excess(&all, Path::new(""), &pinned, &Limits { keep, max_bytes, ..NONE });
            excess.into_iter().map(|one| one.path).collect::<Vec<_>>()
        };
        assert_eq!(gone(1, 1000), ["/b/automatic-2", "/b/automatic-3"].map(PathBuf::from));
        assert_eq!(gone(3, 30), Vec::<PathBuf>::new());
    }
}
