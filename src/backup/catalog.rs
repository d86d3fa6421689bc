//! The backups in the home, and what was proven of them.

use super::archive::Hashed;
use super::encryption::Input;
use super::notes::{Facts, MadeHere, add_note, made_here, read_notes};
use super::restore::peek;
use super::restore_error::RestoreError;
use crate::home::Home;
use crate::sys::clock;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
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
    /// It is encrypted, and was only compared with what was written here, byte by byte.
    #[serde(default)]
    pub unopened: bool,
    /// What was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Proof {
    pub fn now(quick: bool, problem: Option<String>) -> Self {
        Self { verified_at: clock::now_rfc3339(), ok: problem.is_none(), quick, unopened: false, problem }
    }

    pub fn unopened(problem: Option<String>) -> Self {
        Self { unopened: true, ..Self::now(true, problem) }
    }

    /// Whether it was restored on trial, and all was right.
    pub fn is_whole(&self) -> bool {
        self.ok && !self.quick
    }
}

/// A proof holds for the file as it was: its place, size and time of change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    /// The real path; in the file it is relative to the home where it is below it, so that it is found when the home has moved.
    path: PathBuf,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    proof: Proof,
}

impl Remembered {
    /// Whether it is of the file at this real path as it is now.
    fn is_of(&self, path: &Path, meta: &Metadata) -> bool {
        self.path == path && self.size == meta.len() && self.modified == modified(meta)
    }
}

const MEMORY: &str = "verified.json";

fn modified(meta: &Metadata) -> i128 {
    i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
}

/// The stored proofs; none where the file cannot be read. Only for display.
fn memory(home: &Home) -> Vec<Remembered> {
    read_memory(home).unwrap_or_default()
}

fn read_memory(home: &Home) -> io::Result<Vec<Remembered>> {
    let mut all: Vec<Remembered> = read_notes(home, MEMORY)?;
    let root = home.root().canonicalize().unwrap_or_else(|_| home.root().to_owned());
    for one in &mut all {
        // An absolute path, of an older release, may be of the place where the home was before.
        let moved = one.path.file_name().map(|name| root.join("backups").join(name));
        one.path = match moved {
            Some(moved) if one.path.is_absolute() && !one.path.exists() && moved.exists() => moved,
            _ => root.join(&one.path),
        };
    }
    Ok(all)
}

/// What was found of the file as it is now.
pub fn known_proof(home: &Home, path: &Path) -> Option<Proof> {
    let (path, meta) = (path.canonicalize().ok()?, fs::metadata(path).ok()?);
    memory(home).into_iter().find(|old| old.is_of(&path, &meta)).map(|old| old.proof)
}

/// When one of those in the home was last restored on trial, and all was right.
pub fn last_trial(home: &Home) -> Option<String> {
    let backups = home.backups().canonicalize().ok()?;
    let of_home = memory(home).into_iter().filter(|old| old.path.starts_with(&backups) && old.path.exists());
    of_home.filter(|old| old.proof.is_whole()).map(|old| old.proof.verified_at).max()
}

/// Remembers what was found of the file at `path`.
pub fn remember(home: &Home, path: &Path, proof: &Proof) -> io::Result<()> {
    let (path, meta) = (path.canonicalize()?, fs::metadata(path)?);
    let mut all = read_memory(home)?;
    if proof.ok && !proof.is_whole() && all.iter().any(|old| old.is_of(&path, &meta) && old.proof.is_whole()) {
        // What was proven before is more than that.
        return Ok(());
    }
    all.retain(|old| old.path != path && old.path.exists());
    let mut new = Remembered { path, size: meta.len(), modified: modified(&meta), proof: proof.clone() };
    let root = home.root().canonicalize()?;
    for one in all.iter_mut().chain([&mut new]) {
        if let Ok(below) = one.path.strip_prefix(&root) {
            one.path = below.to_owned();
        }
    }
    add_note(home, MEMORY, all, new)
}

/// What can be said of an encrypted backup that does not open: whether it is, byte by byte, one that was made on this machine.
/// `None` for one of which nothing is known.
pub fn unopened(home: &Home, path: &Path) -> io::Result<Option<Proof>> {
    let mut hashed = Hashed::new(fs::File::open(path)?);
    io::copy(&mut hashed, &mut io::sink())?;
    let (sha256, made) = (hashed.sha256().to_string(), made_here(home));
    if made.iter().any(|made| made.sha256 == sha256) {
        return Ok(Some(Proof::unopened(None)));
    }
    let name = path.file_name().and_then(OsStr::to_str);
    let is_changed = made.iter().any(|made| Some(made.name.as_str()) == name);
    Ok(is_changed.then(|| Proof::unopened(Some("its bytes are not those that were written".to_owned()))))
}

/// A file in `backups/`.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub automatic: bool,
    pub encrypted: bool,
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
    /// When it was made; `None` where nothing says so.
    pub fn created(&self) -> Option<Timestamp> {
        self.created_at.as_deref()?.parse().ok()
    }

    pub fn age(&self) -> (&Option<String>, i128, &Path) {
        (&self.created_at, self.modified, &self.path)
    }
}

/// Every backup in the home, the newest first.
pub fn list(home: &Home) -> Vec<Listed> {
    let (remembered, made) = (memory(home), made_here(home));
    let entries = fs::read_dir(home.backups()).into_iter().flatten().flatten();
    let mut found: Vec<Listed> = entries
        .filter(|entry| super::archive::Compression::of(&entry.path()).is_some() && !is_hidden(&entry.path()))
        .filter_map(|entry| Some(listed(&entry.path(), &fs::metadata(entry.path()).ok()?, &remembered, &made)))
        .collect();
    found.sort_by(|one, other| other.age().cmp(&one.age()));
    found
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn listed(path: &Path, meta: &Metadata, remembered: &[Remembered], made: &[MadeHere]) -> Listed {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (facts, problem, encrypted) = match peek(&Input::plain(path)) {
        Ok(manifest) => (Some(Facts::of(&manifest)), None, false),
        // Whoever made it has written down what can be said of it.
        Err(RestoreError::NotOpened { .. }) => {
            let made = made.iter().find(|made| Some(made.name.as_ref()) == path.file_name().and_then(OsStr::to_str));
            (made.filter(|made| made.size == meta.len()).map(|made| made.facts.clone()), None, true)
        }
        Err(error) => (None, Some(error.to_string()), false),
    };
    let mut facts = facts.unwrap_or_default();
    if encrypted && facts.created_at.is_none() {
        // Nothing was written down of it here. A copy has the time of its file.
        facts.created_at = Timestamp::from_second(meta.mtime()).ok().map(|at| at.to_string());
    }
    Listed {
        path: path.to_owned(),
        size_bytes: meta.len(),
        automatic: is_automatic(path),
        encrypted,
        created_at: facts.created_at,
        leoflow_version: facts.leoflow_version,
        schema_version: facts.schema_version,
        rows: facts.rows,
        last_verified: remembered.iter().find(|old| old.is_of(&real, meta)).map(|old| old.proof.clone()),
        problem,
        modified: modified(meta),
    }
}

const AUTOMATIC: &str = "automatic-";

fn is_automatic(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(AUTOMATIC))
}

/// Where an automatic backup goes; `why` is a few words joined by `-`.
pub fn automatic_path(home: &Home, why: &str, is_encrypted: bool) -> PathBuf {
    let age = if is_encrypted { ".age" } else { "" };
    let at = clock::now_rfc3339().replace(['-', ':'], "");
    let place = |more: &str| home.backups().join(format!("{AUTOMATIC}{at}-{why}{more}.tar.zst{age}"));
    // The second one within a second has a number.
    let numbered = (2..).map(|number: u32| place(&format!("-{number}")));
    std::iter::once(place("")).chain(numbered).find(|path| !path.exists()).unwrap_or_else(|| place(""))
}
