//! Selects the automatic backups to remove, and removes them.

use super::catalog::{Listed, Proof};
use jiff::{SignedDuration, Timestamp};
use leoflow_base::config::BackupSettings;
use leoflow_base::sys::fs::files;
use serde::Serialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub now: Timestamp,
    /// `backup.keep`: maximum number of backups.
    pub keep: u64,
    /// `backup.max_bytes`: maximum total size.
    pub max_bytes: u64,
    /// Backups created before this time are removed; `None` is no limit.
    pub not_before: Option<Timestamp>,
    /// Bytes to free on the disk for the next backup.
    pub missing_bytes: u64,
}

impl Limits {
    pub fn of(settings: &BackupSettings, now: Timestamp) -> Self {
        let age = settings.max_age.and_then(|age| SignedDuration::try_from(age).ok());
        Self {
            now,
            keep: settings.keep,
            max_bytes: settings.max_bytes,
            not_before: age.and_then(|age| now.checked_sub(age).ok()),
            missing_bytes: 0,
        }
    }
}

/// Reason for a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// Older than `backup.max_age`.
    Age,
    /// More than `backup.keep` backups.
    Count,
    /// Total size above `backup.max_bytes`.
    Bytes,
    /// The next backup would not have enough space.
    Room,
}

impl fmt::Display for RemovalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Age => "older than backup.max_age",
            Self::Count => "exceeds backup.keep",
            Self::Bytes => "total size exceeds backup.max_bytes",
            Self::Room => "the next backup needs the space",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excess {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub why: RemovalReason,
}

/// Lists the automatic backups to remove, oldest first. Keeps `new_backup`, the newest automatic backup, the newest
/// test-restored one, and backups that the user made. `pinned` backups are needed to roll back an upgrade: they are
/// kept and do not count towards the limits.
pub fn excess(all: &[Listed], new_backup: &Path, pinned: &[PathBuf], limits: &Limits) -> Vec<Excess> {
    let is_pinned = |backup: &&Listed| pinned.contains(&backup.path);
    let mut newest_first: Vec<&Listed> = all.iter().filter(|backup| backup.automatic && !is_pinned(backup)).collect();
    newest_first.sort_by(|a, b| b.age().cmp(&a.age()));
    let is_proven = |backup: &&&Listed| backup.last_verified.as_ref().is_some_and(Proof::is_test_restored);
    let proven = newest_first.iter().find(is_proven);
    let protected: Vec<&Path> = newest_first
        .first()
        .into_iter()
        .chain(proven)
        .map(|backup| backup.path.as_path())
        .chain([new_backup])
        .collect();
    // A backup from the future shows that the clock is or was wrong, so no backup is removed for its age.
    let is_of_the_future = |backup: &&Listed| backup.created().is_some_and(|created| created > limits.now);
    let not_before = limits.not_before.filter(|_| !newest_first.iter().any(is_of_the_future));
    let mut total: u64 = newest_first.iter().map(|backup| backup.size_bytes).sum();
    let mut count = newest_first.len() as u64;
    // If removing all removable backups would not free enough space, none is removed for space.
    let removable_bytes: u64 = newest_first
        .iter()
        .filter(|backup| !protected.contains(&backup.path.as_path()))
        .map(|backup| backup.size_bytes)
        .sum();
    let mut missing_bytes = if removable_bytes < limits.missing_bytes { 0 } else { limits.missing_bytes };
    let mut removed = Vec::new();
    for backup in newest_first.iter().rev() {
        let is_old = backup.created().zip(not_before).is_some_and(|(created, before)| created < before);
        let why = match () {
            () if is_old => RemovalReason::Age,
            () if count > limits.keep => RemovalReason::Count,
            () if total > limits.max_bytes => RemovalReason::Bytes,
            () if missing_bytes > 0 => RemovalReason::Room,
            () => continue,
        };
        if !protected.contains(&backup.path.as_path()) {
            total -= backup.size_bytes;
            missing_bytes = missing_bytes.saturating_sub(backup.size_bytes);
            count -= 1;
            removed.push(Excess { path: backup.path.clone(), size_bytes: backup.size_bytes, why });
        }
    }
    removed
}

/// A backup that cannot be removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove {path}: {source}")]
pub struct RemoveError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Removes the backups. Continues after an error and returns the first one.
pub fn remove(excess: &[Excess]) -> Result<(), RemoveError> {
    let mut outcome = Ok(());
    for backup in excess {
        let removed = files::remove_any(&backup.path);
        outcome = outcome.and(removed.map_err(|source| RemoveError { path: backup.path.clone(), source }));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::super::catalog::Method;
    use super::*;

    const NONE: Limits =
        Limits { now: Timestamp::MAX, keep: u64::MAX, max_bytes: u64::MAX, not_before: None, missing_bytes: 0 };

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
            last_verified: proven.then(|| Proof::now(Method::TestRestore, None)),
            problem: None,
            modified: 0,
        }
    }

    fn removed_with(all: &[Listed], limits: &Limits) -> Vec<String> {
        let name = |excess: Excess| excess.path.to_string_lossy().trim_start_matches("/b/automatic-").to_owned();
        excess(all, Path::new(""), &[], limits).into_iter().map(name).collect()
    }

    fn removed(all: &[Listed], keep: u64, max_bytes: u64) -> Vec<String> {
        removed_with(all, &Limits { keep, max_bytes, ..NONE })
    }

    #[test]
    fn removes_the_oldest_first() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        assert_eq!(removed(&all, 2, 1000), ["1", "2"]);
        assert_eq!(removed(&all, 9, 25), ["1", "2"]);
        assert!(removed(&all, 4, 40).is_empty());
    }

    #[test]
    fn keeps_the_newest_and_the_newest_test_restored() {
        let all = [backup(1, 10, true), backup(2, 10, true), backup(3, 10, false), backup(4, 99, false)];
        assert_eq!(removed(&all, 1, 1), ["1", "3"]);
        let not_before = Some("2027-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(removed_with(&all, &Limits { not_before, ..NONE }), ["1", "3"]);
        assert_eq!(removed_with(&all, &Limits { missing_bytes: 20, ..NONE }), ["1", "3"]);
        assert!(
            removed_with(&all, &Limits { missing_bytes: 21, ..NONE }).is_empty(),
            "removing all unprotected backups is not enough"
        );
        let quick = Listed { last_verified: Some(Proof::now(Method::Hashes, None)), ..backup(1, 10, false) };
        assert_eq!(removed(&[quick, backup(2, 10, false)], 1, 1000), ["1"], "hashes alone prove nothing");
    }

    #[test]
    fn removes_old_backups_and_frees_only_needed_space() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        let not_before = Some("2026-01-03T00:00:00Z".parse().unwrap());
        assert_eq!(removed_with(&all, &Limits { not_before, ..NONE }), ["1", "2"]);
        assert_eq!(removed_with(&all, &Limits { missing_bytes: 15, ..NONE }), ["1", "2"]);
        let removals = excess(
            &all,
            Path::new(""),
            &[],
            &Limits {
                missing_bytes: 15,
                not_before: all[1].created_at.as_deref().and_then(|time| time.parse().ok()),
                ..NONE
            },
        );
        assert_eq!(
            removals.iter().map(|excess| excess.why).collect::<Vec<_>>(),
            [RemovalReason::Age, RemovalReason::Room]
        );
    }

    #[test]
    fn ignores_age_when_the_clock_was_ahead() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        let limits = |now: &str| Limits {
            now: now.parse().unwrap(),
            not_before: Some("2026-01-03T00:00:00Z".parse().unwrap()),
            ..NONE
        };
        assert_eq!(removed_with(&all, &limits("2026-02-01T00:00:00Z")), ["1", "2"]);
        assert!(removed_with(&all, &limits("2026-01-03T12:00:00Z")).is_empty());
    }

    #[test]
    fn keeps_files_of_the_user() {
        let user_backup = Listed { automatic: false, ..backup(1, 10, false) };
        assert!(removed(&[user_backup, backup(2, 10, false)], 1, 1).is_empty());
    }

    #[test]
    fn keeps_the_backup_just_made() {
        let all = [backup(1, 10, false), backup(2, 10, false), backup(3, 10, false)];
        let list = excess(&all, Path::new("/b/automatic-1"), &[], &Limits { keep: 1, ..NONE });
        assert_eq!(list.iter().map(|excess| excess.path.as_path()).collect::<Vec<_>>(), [Path::new("/b/automatic-2")]);
    }

    #[test]
    fn pinned_backups_stay_and_do_not_count() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        let pinned = [PathBuf::from("/b/automatic-1")];
        let removed = |keep, max_bytes| {
            let excess = excess(&all, Path::new(""), &pinned, &Limits { keep, max_bytes, ..NONE });
            excess.into_iter().map(|excess| excess.path).collect::<Vec<_>>()
        };
        assert_eq!(removed(1, 1000), ["/b/automatic-2", "/b/automatic-3"].map(PathBuf::from));
        assert_eq!(removed(3, 30), Vec::<PathBuf>::new());
    }

    #[test]
    fn an_error_does_not_keep_the_other_backups() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a-file");
        let last = folder.path().join("last");
        std::fs::write(&file, "").unwrap();
        std::fs::write(&last, "").unwrap();
        // A path below a file cannot be removed.
        let paths = [file.join("below"), last.clone()];
        let excess = paths.map(|path| Excess { path, size_bytes: 0, why: RemovalReason::Count });
        assert_eq!(remove(&excess).unwrap_err().path, file.join("below"));
        assert!(!last.exists());
    }
}
