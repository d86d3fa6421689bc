//! The backups in the home, what was proven of them, and which of the automatic ones go.

use super::manifest::Manifest;
use super::restore::peek;
use crate::home::Home;
use crate::sys::{clock, files};
use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub verified_at: String,
    pub ok: bool,
    /// Only the hashes were compared; nothing was restored.
    pub quick: bool,
    /// What was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Proof {
    pub fn now(quick: bool, problem: Option<String>) -> Self {
        Self { verified_at: clock::now_rfc3339(), ok: problem.is_none(), quick, problem }
    }

    /// Whether it was restored on trial, and all was right.
    pub fn is_whole(&self) -> bool {
        self.ok && !self.quick
    }
}

/// A proof holds for the file as it was: its place, size and time of change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    path: PathBuf,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    proof: Proof,
}

/// Proofs of backups that lie elsewhere are remembered too, but not without end.
const REMEMBERED_LIMIT: usize = 500;
const MEMORY: &str = "verified.json";

fn modified(meta: &Metadata) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}

/// A memory that cannot be read has been lost; each proof can be made again.
fn memory(home: &Home) -> Vec<Remembered> {
    let text = files::read_text(&home.backups().join(MEMORY), 1024 * 1024).ok().flatten();
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Remembers what was found of the file at `path`.
pub fn remember(home: &Home, path: &Path, proof: &Proof) -> io::Result<()> {
    let (path, meta) = (path.canonicalize()?, fs::metadata(path)?);
    let mut all = memory(home);
    all.retain(|old| old.path != path && old.path.exists());
    let excess = (all.len() + 1).saturating_sub(REMEMBERED_LIMIT);
    all.drain(..excess);
    all.push(Remembered { path, size: meta.len(), modified: modified(&meta), proof: proof.clone() });
    files::create_private_dir(&home.backups())?;
    files::write_atomic(&home.backups().join(MEMORY), &serde_json::to_vec_pretty(&all)?, 0o600)
}

/// A file in `backups/`.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub automatic: bool,
    pub created_at: Option<String>,
    pub leoflow_version: Option<String>,
    pub schema_version: Option<i64>,
    pub rows: Option<i64>,
    pub last_verified: Option<Proof>,
    /// Why its manifest cannot be read.
    pub problem: Option<String>,
    /// Nanoseconds since 1970: the order of two that were made within one second.
    #[serde(skip)]
    pub modified: i128,
}

impl Listed {
    pub fn age(&self) -> (&Option<String>, i128, &Path) {
        (&self.created_at, self.modified, &self.path)
    }
}

/// Every backup in the home, the newest first.
pub fn list(home: &Home) -> Vec<Listed> {
    let remembered = memory(home);
    let entries = fs::read_dir(home.backups()).into_iter().flatten().flatten();
    let mut found: Vec<Listed> = entries
        .filter(|entry| super::archive::Compression::of(&entry.path()).is_some() && !is_hidden(&entry.path()))
        .filter_map(|entry| Some(listed(&entry.path(), &fs::metadata(entry.path()).ok()?, &remembered)))
        .collect();
    found.sort_by(|one, other| other.age().cmp(&one.age()));
    found
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn listed(path: &Path, meta: &Metadata, remembered: &[Remembered]) -> Listed {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let of_this = |old: &&Remembered| old.path == real && old.size == meta.len() && old.modified == modified(meta);
    let (manifest, problem): (Option<Manifest>, Option<String>) = match peek(path) {
        Ok(manifest) => (Some(manifest), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Listed {
        path: path.to_owned(),
        size_bytes: meta.len(),
        automatic: is_automatic(path),
        created_at: manifest.as_ref().map(|manifest| manifest.created_at.clone()),
        leoflow_version: manifest.as_ref().map(|manifest| manifest.leoflow_version.clone()),
        schema_version: manifest.as_ref().map(|manifest| manifest.schema_version),
        rows: manifest.as_ref().map(Manifest::rows),
        last_verified: remembered.iter().find(of_this).map(|old| old.proof.clone()),
        problem,
        modified: modified(meta),
    }
}

const AUTOMATIC: &str = "automatic-";

fn is_automatic(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(AUTOMATIC))
}

/// Where an automatic backup goes; `why` is a few words joined by `-`.
pub fn automatic_path(home: &Home, why: &str) -> PathBuf {
    let at = clock::now_rfc3339().replace(['-', ':'], "");
    let place = |more: &str| home.backups().join(format!("{AUTOMATIC}{at}-{why}{more}.tar.zst"));
    // The second one within a second has a number.
    let numbered = (2..).map(|number: u32| place(&format!("-{number}")));
    std::iter::once(place("")).chain(numbered).find(|path| !path.exists()).unwrap_or_else(|| place(""))
}
