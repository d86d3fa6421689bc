//! The disk space that the instance uses, by kind, and its newest backup, for the status page.

use crate::http::api_error::ApiError;
use jiff::Timestamp;
use leoflow_base::home::disk_kinds::{self, DiskKind};
use leoflow_base::home::{Home, upkeep};
use leoflow_base::sys::fs::disk;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// Time limit for measuring all folders.
const TOTAL_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub struct Storage {
    pub kinds: Vec<ShownKind>,
    /// The size of all kinds together.
    pub total: String,
    /// Empty if unknown.
    pub free: String,
    pub is_low: bool,
}

#[derive(Debug, Serialize)]
pub struct ShownKind {
    pub name: &'static str,
    pub size: String,
    /// True when there is more than was measured.
    pub is_partial: bool,
    /// A command that lists or removes unused data.
    pub command: Option<&'static str>,
}

/// `12.3 MB`; empty if unknown.
pub fn size_text(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return String::new() };
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Measures the disk space. Blocks.
pub fn read(home: &Home) -> Storage {
    let mut kinds = disk_kinds::measure_kinds(home, TOTAL_TIME);
    let total = disk_kinds::total(&kinds);
    // An external datastore has no folder here.
    kinds.retain(|kind| kind.name != "Datastore" || home.postgres_data().exists());
    let shown = |DiskKind { name, usage, command }| ShownKind {
        name,
        size: size_text(Some(usage.bytes)),
        is_partial: usage.is_partial,
        command,
    };
    let free = disk::free_bytes(home.root()).ok();
    Storage {
        kinds: kinds.into_iter().map(shown).collect(),
        total: size_text(Some(total.bytes)),
        free: size_text(free),
        is_low: free.is_some_and(|free| free < disk::LOW_SPACE),
    }
}

/// The newest backup and the last verification.
#[derive(Debug, Serialize)]
pub struct Backups {
    pub last: Option<LastBackup>,
    /// Why the backups cannot be listed.
    pub problem: Option<String>,
    /// Number of listed backups that cannot be read.
    pub unreadable: usize,
    /// When backups were last verified: any test restore, or a scheduled verification without a full one.
    pub verified_at: Option<Timestamp>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LastBackup {
    /// `None` if its manifest cannot be read.
    pub created_at: Option<String>,
    pub size: String,
}

/// Takes the newest backup from `list`, the answer of `leoflow lite backups list` or why there is none. That command
/// reads the manifests, or for encrypted backups the record of their creation: the time of a file changes when it is
/// copied.
pub fn backups(list: Result<Value, ApiError>, verified_at: Option<Timestamp>) -> Backups {
    let problem = list.as_ref().err().map(ApiError::message);
    let list = list.unwrap_or_default();
    let listed = list["backups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = listed.first().map(|newest| LastBackup {
        created_at: newest["created_at"].as_str().map(str::to_owned),
        size: size_text(newest["size_bytes"].as_u64()),
    });
    let unreadable = listed.iter().filter(|backup| backup["problem"].is_string()).count();
    Backups { last, problem, unreadable, verified_at }
}

/// Reads when backups were last verified. Blocks.
pub fn last_verification(home: &Home) -> Option<Timestamp> {
    upkeep::read(home).and_then(|known| known.last_test_restore().max(known.verification.done_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_test_restore_of_any_backup_is_the_last_verification() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        let time = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        upkeep::begin(&home, time(0)).unwrap();
        assert_eq!(last_verification(&home), None);
        upkeep::note_test_restore(&home, time(10)).unwrap();
        assert_eq!(last_verification(&home), Some(time(10)));
        upkeep::note_end(&home, time(20), upkeep::Kind::Verification, upkeep::End::Partial).unwrap();
        assert_eq!(last_verification(&home), Some(time(20)));
    }

    #[test]
    fn the_first_listed_backup_is_the_last_one() {
        let listed = json!({"backups": [
            {"created_at": "2026-01-02T00:00:00Z", "size_bytes": 2_000},
            {"created_at": "2026-01-01T00:00:00Z", "size_bytes": 3_000},
        ]});
        let last = backups(Ok(listed), None).last.unwrap();
        assert_eq!((last.created_at.as_deref(), last.size.as_str()), (Some("2026-01-02T00:00:00Z"), "2.0 kB"));
        let damaged = json!({"created_at": null, "size_bytes": 3_000, "problem": "it is damaged"});
        let good = json!({"created_at": "2026-01-02T00:00:00Z", "size_bytes": 2_000, "problem": null});
        let both = backups(Ok(json!({"backups": [good, damaged]})), None);
        assert_eq!((both.last.unwrap().created_at.is_some(), both.unreadable), (true, 1));
        let unreadable = backups(Ok(json!({"backups": [damaged]})), None);
        assert_eq!((unreadable.last.unwrap().created_at, unreadable.unreadable), (None, 1));
        assert_eq!(backups(Ok(json!({"backups": []})), None).last, None);
        assert_eq!(backups(Err(ApiError::retry_later("timeout")), None).problem.as_deref(), Some("timeout"));
    }
}
