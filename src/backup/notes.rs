//! Notes in `backups/` about backups: what a verification found, and what an encrypted one holds.

use super::made::Made;
use super::manifest::Manifest;
use crate::home::Home;
use crate::sys::files;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io;

/// The most notes in a file.
const LIMIT: usize = 500;

pub(super) fn read_notes<T: DeserializeOwned>(home: &Home, name: &str) -> io::Result<Vec<T>> {
    files::read_json_or_default(&home.backups().join(name), 1024 * 1024)
}

/// With one more, and not without end: the oldest go.
pub(super) fn add_note<T: Serialize>(home: &Home, name: &str, mut all: Vec<T>, new: T) -> io::Result<()> {
    let excess = (all.len() + 1).saturating_sub(LIMIT);
    all.drain(..excess);
    all.push(new);
    files::create_private_dir(&home.backups())?;
    files::write_atomic(&home.backups().join(name), &serde_json::to_vec_pretty(&all)?, 0o600)
}

/// What a manifest says of its backup as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub created_at: Option<String>,
    pub leoflow_version: Option<String>,
    pub schema_version: Option<i64>,
    pub rows: Option<i64>,
}

impl Facts {
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            created_at: Some(manifest.created_at.clone()),
            leoflow_version: Some(manifest.leoflow_version.clone()),
            schema_version: Some(manifest.schema_version),
            rows: Some(manifest.rows()),
        }
    }
}

/// What was written down of an encrypted backup when it was made: nothing of it is in the file for all to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MadeHere {
    pub name: String,
    pub size: u64,
    pub sha256: String,
    pub facts: Facts,
}

const MADE: &str = "made.json";

pub(super) fn made_here(home: &Home) -> Vec<MadeHere> {
    read_notes(home, MADE).unwrap_or_default()
}

/// Size and sha256 of the encrypted backups that were made here.
pub fn encrypted_here(home: &Home) -> Vec<(u64, String)> {
    made_here(home).into_iter().map(|made| (made.size, made.sha256)).collect()
}

/// Writes down what can be said of an encrypted backup without its key.
pub fn note_made(home: &Home, made: &Made) -> io::Result<()> {
    let name = made.path.file_name().and_then(OsStr::to_str);
    let Some(name) = name.filter(|_| made.encrypted) else { return Ok(()) };
    let new = MadeHere {
        name: name.to_owned(),
        size: made.size_bytes,
        sha256: made.sha256.to_string(),
        facts: Facts {
            created_at: Some(made.created_at.clone()),
            leoflow_version: Some(made.leoflow_version.clone()),
            schema_version: Some(made.schema_version),
            rows: Some(made.tables.values().sum()),
        },
    };
    add_note(home, MADE, read_notes(home, MADE)?, new)
}
