//! `upgrade/history.json`: which releases followed one another here, and what each left to come back by.

use super::stage;
use crate::home::Home;
use crate::sys::{clock, files};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// One change of release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// RFC 3339.
    pub at: String,
    pub from: Version,
    pub to: Version,
    pub schema_from: i64,
    pub schema_to: i64,
    /// Taken before it.
    pub backup: Option<PathBuf>,
    /// The database from before it, until this time.
    pub snapshot: Option<Snapshot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub database: String,
    /// Seconds since 1970.
    pub until: i64,
}

/// Older ones are of no use.
const LIMIT: usize = 50;
const SIZE_LIMIT: u64 = 1024 * 1024;

/// All of them, oldest first; none where the file cannot be read. Only for display: whoever writes or removes uses [`read`].
pub fn history(home: &Home) -> Vec<Change> {
    read(home).unwrap_or_default()
}

/// All of them, oldest first. A damaged file counts as empty; a failed read is an error, because the file may be whole.
fn read(home: &Home) -> io::Result<Vec<Change>> {
    files::read_json_or_default(&path(home), SIZE_LIMIT)
}

/// The change that led to `version`, the last one.
pub fn led_to(home: &Home, version: &Version) -> Option<Change> {
    history(home).into_iter().rev().find(|change| change.to == *version)
}

/// The backups that lead from one kept release back to another. Pruning must not remove them, so a failed read is an error.
pub fn ways_back(home: &Home) -> io::Result<Vec<PathBuf>> {
    let is_kept = |version: &Version| stage::program_of(home, version).exists();
    let changes = read(home)?;
    let last = |version: &Version| changes.iter().rev().find(|change| change.to == *version);
    let mut found: Vec<PathBuf> = changes
        .iter()
        .filter(|change| is_kept(&change.from) && is_kept(&change.to) && last(&change.to) == Some(change))
        .filter_map(|change| change.backup.clone())
        .collect();
    found.dedup();
    Ok(found)
}

pub fn add(home: &Home, change: Change) -> io::Result<()> {
    let mut all = read(home)?;
    all.push(change);
    let excess = all.len().saturating_sub(LIMIT);
    all.drain(..excess);
    write(home, &all)
}

/// The snapshots that are there no more.
pub fn forget_snapshots(home: &Home, but: Option<&str>) -> io::Result<()> {
    let mut all = read(home)?;
    for change in &mut all {
        if change.snapshot.as_ref().is_some_and(|snapshot| Some(snapshot.database.as_str()) != but) {
            change.snapshot = None;
        }
    }
    write(home, &all)
}

/// The snapshot that is kept.
pub fn snapshot(home: &Home) -> Option<Snapshot> {
    history(home).into_iter().rev().find_map(|change| change.snapshot)
}

fn write(home: &Home, all: &[Change]) -> io::Result<()> {
    files::create_private_dir(&home.upgrade())?;
    files::write_atomic(&path(home), &serde_json::to_vec_pretty(all)?, 0o600)
}

fn path(home: &Home) -> PathBuf {
    home.upgrade().join("history.json")
}

impl Change {
    pub fn now(from: &Version, to: &Version, schema: (i64, i64), backup: Option<PathBuf>) -> Self {
        Self {
            at: clock::now_rfc3339(),
            from: from.clone(),
            to: to.clone(),
            schema_from: schema.0,
            schema_to: schema.1,
            backup,
            snapshot: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_history_is_neither_overwritten_nor_empty() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let (from, to) = (Version::new(1, 0, 0), Version::new(1, 1, 0));
        let change = Change::now(&from, &to, (1, 2), None);
        add(&home, change.clone()).unwrap();
        assert_eq!(read(&home).unwrap(), std::slice::from_ref(&change));

        // A folder in its place fails every read, also as root.
        let aside = path(&home).with_extension("aside");
        std::fs::rename(path(&home), &aside).unwrap();
        std::fs::create_dir(path(&home)).unwrap();
        assert!(ways_back(&home).is_err());
        assert!(add(&home, change.clone()).is_err());
        assert!(forget_snapshots(&home, None).is_err());

        std::fs::remove_dir(path(&home)).unwrap();
        std::fs::rename(aside, path(&home)).unwrap();
        add(&home, change.clone()).unwrap();
        assert_eq!(read(&home).unwrap().len(), 2);

        std::fs::write(path(&home), "not JSON").unwrap();
        add(&home, change.clone()).unwrap();
        assert_eq!(read(&home).unwrap(), [change]);
    }
}
