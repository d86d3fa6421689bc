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
    fn age(&self) -> (&Option<String>, i128, &Path) {
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

/// Which automatic backups are over the limits, oldest first. `made`, which was made just now,
/// stays, and so do the newest one and the newest one that was proven whole; what the user put there is not touched.
/// `pinned` ones are the way back from an upgrade: they stay, and do not count.
pub fn over_limits(all: &[Listed], made: &Path, pinned: &[PathBuf], keep: u64, max_bytes: u64) -> Vec<PathBuf> {
    let is_pinned = |backup: &&Listed| pinned.contains(&backup.path);
    let mut newest_first: Vec<&Listed> = all.iter().filter(|backup| backup.automatic && !is_pinned(backup)).collect();
    newest_first.sort_by(|one, other| other.age().cmp(&one.age()));
    let is_proven = |backup: &&&Listed| backup.last_verified.as_ref().is_some_and(Proof::is_whole);
    let proven = newest_first.iter().find(is_proven);
    let protected: Vec<&Path> =
        newest_first.first().into_iter().chain(proven).map(|backup| backup.path.as_path()).chain([made]).collect();
    let mut total: u64 = newest_first.iter().map(|backup| backup.size_bytes).sum();
    let mut count = newest_first.len() as u64;
    let mut gone = Vec::new();
    for backup in newest_first.iter().rev() {
        if count <= keep && total <= max_bytes {
            break;
        }
        if !protected.contains(&backup.path.as_path()) {
            total -= backup.size_bytes;
            count -= 1;
            gone.push(backup.path.clone());
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(number: u32, size_bytes: u64, proven: bool) -> Listed {
        Listed {
            path: format!("/b/automatic-{number}").into(),
            size_bytes,
            automatic: true,
            created_at: Some(format!("2026-01-{number:02}T00:00:00Z")),
            leoflow_version: None,
            schema_version: None,
            rows: None,
            last_verified: proven.then(|| Proof::now(false, None)),
            problem: None,
            modified: 0,
        }
    }

    fn gone(all: &[Listed], keep: u64, max_bytes: u64) -> Vec<String> {
        let name = |path: PathBuf| path.to_string_lossy().trim_start_matches("/b/automatic-").to_owned();
        over_limits(all, Path::new(""), &[], keep, max_bytes).into_iter().map(name).collect()
    }

    #[test]
    fn the_oldest_go_first() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        assert_eq!(gone(&all, 2, 1000), ["1", "2"]);
        assert_eq!(gone(&all, 9, 25), ["1", "2"]);
        assert!(gone(&all, 4, 40).is_empty());
    }

    #[test]
    fn the_newest_and_the_newest_proven_stay_whatever_the_limits() {
        let all = [backup(1, 10, true), backup(2, 10, true), backup(3, 10, false), backup(4, 99, false)];
        assert_eq!(gone(&all, 1, 1), ["1", "3"]);
        let quick = Listed { last_verified: Some(Proof::now(true, None)), ..backup(1, 10, false) };
        assert_eq!(gone(&[quick, backup(2, 10, false)], 1, 1000), ["1"], "hashes alone prove nothing");
    }

    #[test]
    fn what_the_user_put_there_stays() {
        let theirs = Listed { automatic: false, ..backup(1, 10, false) };
        assert!(gone(&[theirs, backup(2, 10, false)], 1, 1).is_empty());
    }

    #[test]
    fn the_one_made_just_now_stays_whatever_the_clock_says() {
        let all = [backup(1, 10, false), backup(2, 10, false), backup(3, 10, false)];
        let gone = over_limits(&all, Path::new("/b/automatic-1"), &[], 1, 1000);
        assert_eq!(gone, [PathBuf::from("/b/automatic-2")]);
    }

    #[test]
    fn what_is_the_way_back_stays_and_takes_no_place() {
        let all: Vec<Listed> = (1..=4).map(|number| backup(number, 10, false)).collect();
        let pinned = [PathBuf::from("/b/automatic-1")];
        assert_eq!(
            over_limits(&all, Path::new(""), &pinned, 1, 1000),
            ["/b/automatic-2", "/b/automatic-3"].map(PathBuf::from)
        );
        assert_eq!(over_limits(&all, Path::new(""), &pinned, 3, 30), Vec::<PathBuf>::new());
    }
}
