//! `backups/copies.json`: the backups that this home copied to other places.

use super::files::Entry;
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// A copy, or one that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// The place's address.
    pub to: String,
    pub name: String,
    pub size: u64,
    pub sha256: String,
    /// When the backup was created.
    pub created_at: Option<Timestamp>,
    /// When the copy was compared with the backup; `None` while it is written, and after a kill.
    pub copied_at: Option<Timestamp>,
    /// True if the same file was there already, so that this home does not remove it.
    #[serde(default)]
    pub was_there: bool,
}

impl CopyRecord {
    /// True if a place's list has it with its size.
    pub(super) fn is_in(&self, listed: &[Entry]) -> bool {
        listed.iter().any(|entry| entry.name == self.name && entry.size == self.size)
    }
}

const SIZE_LIMIT: u64 = 64 * 1024 * 1024;

fn file(home: &Home) -> PathBuf {
    home.backups().join("copies.json")
}

/// All records, also of copies that were only begun.
pub fn read(home: &Home) -> io::Result<Vec<CopyRecord>> {
    files::read_json_or_default(&file(home), SIZE_LIMIT)
}

/// Changes the records of a place.
pub(super) fn change(home: &Home, to: &str, edit: impl FnOnce(&mut Vec<CopyRecord>)) -> io::Result<()> {
    let (mut own, mut all): (Vec<_>, Vec<_>) = read(home)?.into_iter().partition(|record| record.to == to);
    edit(&mut own);
    all.extend(own);
    // Does not recreate a home that was removed.
    home.create_folder(&home.backups())?;
    files::write_atomic(&file(home), &serde_json::to_vec_pretty(&all)?, 0o600)
}
