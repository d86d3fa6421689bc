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

/// All of them, oldest first. What cannot be read has been lost, and is only missed by who goes back.
pub fn history(home: &Home) -> Vec<Change> {
    let text = files::read_text(&path(home), SIZE_LIMIT).ok().flatten();
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// The change that led to `version`, the last one.
pub fn led_to(home: &Home, version: &Version) -> Option<Change> {
    history(home).into_iter().rev().find(|change| change.to == *version)
}

/// The backups that are the way back from a release that is kept, to one that is kept.
pub fn ways_back(home: &Home) -> Vec<PathBuf> {
    let is_kept = |version: &Version| stage::program_of(home, version).exists();
    let changes = history(home);
    let last = |version: &Version| changes.iter().rev().find(|change| change.to == *version);
    let mut found: Vec<PathBuf> = changes
        .iter()
        .filter(|change| is_kept(&change.from) && is_kept(&change.to) && last(&change.to) == Some(change))
        .filter_map(|change| change.backup.clone())
        .collect();
    found.dedup();
    found
}

pub fn add(home: &Home, change: Change) -> io::Result<()> {
    let mut all = history(home);
    all.push(change);
    let excess = all.len().saturating_sub(LIMIT);
    all.drain(..excess);
    write(home, &all)
}

/// The snapshots that are there no more.
pub fn forget_snapshots(home: &Home, but: Option<&str>) -> io::Result<()> {
    let mut all = history(home);
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
