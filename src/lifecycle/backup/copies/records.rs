//! `backups/copies.json`: the backups that this home copied to other places.

use super::files::Entry;
use crate::backup::retain::notes::{add_note, read_notes, write_notes};
use jiff::Timestamp;
use leoflow_base::home::Home;
use serde::{Deserialize, Serialize};
use std::io;

/// A copy that was compared with the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// The place's address.
    pub to: String,
    pub name: String,
    pub size: u64,
    pub sha256: String,
    /// When the backup was created.
    pub created_at: Option<Timestamp>,
    pub copied_at: Timestamp,
}

impl CopyRecord {
    /// True if a place's list has it with its size.
    pub(super) fn is_in(&self, listed: &[Entry]) -> bool {
        listed.iter().any(|entry| entry.name == self.name && entry.size == self.size)
    }
}

const FILE: &str = "copies.json";

/// All copies, by place.
pub fn read(home: &Home) -> io::Result<Vec<CopyRecord>> {
    read_notes(home, FILE)
}

/// The copies at a place.
pub fn of_place(home: &Home, to: &str) -> io::Result<Vec<CopyRecord>> {
    Ok(read(home)?.into_iter().filter(|record| record.to == to).collect())
}

pub(super) fn add(home: &Home, record: CopyRecord) -> io::Result<()> {
    let mut all = read(home)?;
    all.retain(|other| (&other.to, &other.name) != (&record.to, &record.name));
    add_note(home, FILE, all, record)
}

/// Replaces the copies at a place.
pub(super) fn replace(home: &Home, to: &str, records: Vec<CopyRecord>) -> io::Result<()> {
    let mut all = read(home)?;
    all.retain(|record| record.to != to);
    all.extend(records);
    write_notes(home, FILE, &all)
}

pub(super) fn forget(home: &Home, to: &str, name: &str) -> io::Result<()> {
    let mut all = read(home)?;
    all.retain(|record| record.to != to || record.name != name);
    write_notes(home, FILE, &all)
}
