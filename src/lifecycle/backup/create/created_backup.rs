//! The result of a backup.

use crate::backup::format::manifest::{Sha256Hex, Skipped};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A finished backup.
#[derive(Debug)]
pub struct CreatedBackup {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub sha256: Sha256Hex,
    pub encrypted: bool,
    /// RFC 3339.
    pub created_at: String,
    pub leoflow_version: String,
    pub schema_version: i64,
    /// Rows of each table.
    pub tables: BTreeMap<String, i64>,
    pub skipped: Vec<Skipped>,
    /// Number of paths excluded on purpose.
    pub left_out: usize,
}
