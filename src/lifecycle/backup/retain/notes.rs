//! Files in `backups/` with information about backups: results of verifications, and records of encrypted backups.

use crate::backup::create::CreatedBackup;
use crate::backup::format::manifest::Manifest;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io;

/// Maximum number of notes in a file.
const LIMIT: usize = 500;

/// Reads the notes in a file; empty if it does not exist.
pub(crate) fn read_notes<T: DeserializeOwned>(home: &Home, name: &str) -> io::Result<Vec<T>> {
    files::read_json_or_default(&home.backups().join(name), 1024 * 1024)
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
}

/// Writes the existing notes `all` and a new one; drops the oldest above the limit.
pub(crate) fn add_note<T: Serialize>(home: &Home, name: &str, mut all: Vec<T>, note: T) -> io::Result<()> {
    let excess = (all.len() + 1).saturating_sub(LIMIT);
    all.drain(..excess);
    all.push(note);
    files::create_private_dir(&home.backups())?;
    files::write_atomic(&home.backups().join(name), &serde_json::to_vec_pretty(&all)?, 0o600)
}

/// Summary of a backup, from its manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub created_at: Option<String>,
    pub leoflow_version: Option<String>,
    pub schema_version: Option<i64>,
    pub rows: Option<i64>,
}

impl Summary {
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            created_at: Some(manifest.created_at.clone()),
            leoflow_version: Some(manifest.leoflow_version.clone()),
            schema_version: Some(manifest.schema_version),
            rows: Some(manifest.rows()),
        }
    }
}

/// Record of an encrypted backup, written at its creation because the manifest is unreadable without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EncryptedRecord {
    pub name: String,
    pub size: u64,
    pub sha256: String,
    pub facts: Summary,
}

const ENCRYPTED_RECORDS_FILE: &str = "made.json";

pub(crate) fn encrypted_records(home: &Home) -> io::Result<Vec<EncryptedRecord>> {
    read_notes(home, ENCRYPTED_RECORDS_FILE)
}

/// Records an encrypted backup; does nothing for others.
pub(crate) fn record_created(home: &Home, backup: &CreatedBackup) -> io::Result<()> {
    let name = backup.path.file_name().and_then(OsStr::to_str);
    let Some(name) = name.filter(|_| backup.encrypted) else { return Ok(()) };
    let note = EncryptedRecord {
        name: name.to_owned(),
        size: backup.size_bytes,
        sha256: backup.sha256.to_string(),
        facts: Summary::of(&backup.manifest),
    };
    add_note(home, ENCRYPTED_RECORDS_FILE, encrypted_records(home)?, note)
}
