//! The backups in the home, and the results of their verification.

use super::notes::{EncryptedRecord, Summary, add_note, encrypted_records, read_notes};
use crate::backup::encryption::{EncryptTo, Input};
use crate::backup::format::archive::Hashed;
use crate::backup::restore::peek;
use crate::backup::restore::restore_error::RestoreError;
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::home::backup_names::is_archive_name;
use leoflow_base::sys::clock;
use leoflow_base::sys::fs::folders;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How a backup is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Compares the hash of each entry with the manifest.
    Hashes,
    /// Restores the backup into a scratch database.
    TestRestore,
}

/// Result of a verification, good or bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// RFC 3339.
    pub verified_at: String,
    pub ok: bool,
    /// True if only hashes were compared; nothing was restored.
    pub quick: bool,
    /// True for an encrypted backup that was only compared with the bytes that this home wrote.
    #[serde(default)]
    pub unopened: bool,
    /// The error found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Proof {
    /// Result of a verification that ends now; `problem` is `None` for a good backup.
    pub fn now(method: Method, problem: Option<String>) -> Self {
        let quick = method == Method::Hashes;
        Self { verified_at: clock::now_rfc3339(), ok: problem.is_none(), quick, unopened: false, problem }
    }

    pub fn unopened(problem: Option<String>) -> Self {
        Self { unopened: true, ..Self::now(Method::Hashes, problem) }
    }

    /// True after a successful test restore.
    pub(crate) fn is_test_restored(&self) -> bool {
        self.ok && !self.quick
    }
}

/// A proof in the file, valid while the backup has the same path, size and modification time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredProof {
    /// Canonical path. Stored relative to the home if inside, so that it stays valid when the home moves.
    path: PathBuf,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    proof: Proof,
}

impl StoredProof {
    fn is_of(&self, file: &FileVersion) -> bool {
        (&self.path, self.size, self.modified) == (&file.path, file.size, file.modified)
    }
}

/// File in `backups/` with the stored proofs.
const PROOFS_FILE: &str = "verified.json";

/// A second in nanoseconds.
const SECOND: i128 = 1_000_000_000;

/// Identifies the content of a backup file without reading it. The fields are those of [`StoredProof`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileVersion {
    path: PathBuf,
    size: u64,
    modified: i128,
}

impl FileVersion {
    pub fn of(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let meta = fs::metadata(&path)?;
        let modified = i128::from(meta.mtime()) * SECOND + i128::from(meta.mtime_nsec());
        Ok(Self { path, size: meta.len(), modified })
    }
}

/// Stored proofs; empty if the file is unreadable. Code that writes uses `read_proofs`.
fn stored_proofs(home: &Home) -> Vec<StoredProof> {
    read_proofs(home).unwrap_or_default()
}

/// Reads the stored proofs, with absolute paths.
fn read_proofs(home: &Home) -> io::Result<Vec<StoredProof>> {
    let mut all: Vec<StoredProof> = read_notes(home, PROOFS_FILE)?;
    let root = home.root().canonicalize().unwrap_or_else(|_| home.root().to_owned());
    for stored in &mut all {
        // An older release wrote absolute paths, which are wrong after the home has moved.
        let moved = stored.path.file_name().map(|name| root.join("backups").join(name));
        stored.path = match moved {
            Some(moved) if stored.path.is_absolute() && !stored.path.exists() && moved.exists() => moved,
            _ => root.join(&stored.path),
        };
    }
    Ok(all)
}

/// The stored proof of a backup; `None` if there is none or the file has changed since.
pub(crate) fn known_proof(home: &Home, path: &Path) -> Option<Proof> {
    let file = FileVersion::of(path).ok()?;
    stored_proofs(home).into_iter().find(|stored| stored.is_of(&file)).map(|stored| stored.proof)
}

/// Time (RFC 3339) of the last successful test restore of a backup in the home.
pub fn last_test_restore(home: &Home) -> Option<String> {
    let backups = home.backups().canonicalize().ok()?;
    let proofs_in_home =
        stored_proofs(home).into_iter().filter(|stored| stored.path.starts_with(&backups) && stored.path.exists());
    proofs_in_home.filter(|stored| stored.proof.is_test_restored()).map(|stored| stored.proof.verified_at).max()
}

/// True for a file in the home's `backups` folder.
pub(crate) fn is_in_home(home: &Home, path: &Path) -> bool {
    let backups = home.backups().canonicalize();
    path.canonicalize().ok().zip(backups.ok()).is_some_and(|(path, backups)| path.starts_with(backups))
}

/// True for the newest backup in the home, which a verification without a file takes.
pub fn is_newest(home: &Home, path: &Path) -> bool {
    let newest = list(home).ok().and_then(|backups| backups.first()?.path.canonicalize().ok());
    newest.is_some() && newest == path.canonicalize().ok()
}

/// Stores the proof of the backup at `path`. `verified` is the file before its verification. A file that changes during
/// the verification, for example because it is still being copied, gets no proof, nor does a
/// link that now points to another file.
pub(crate) fn store_proof(home: &Home, path: &Path, verified: FileVersion, proof: &Proof) -> io::Result<()> {
    if FileVersion::of(path)? != verified {
        return Err(io::Error::other("the file was changed during its verification; verify it again"));
    }
    let mut all = read_proofs(home)?;
    if proof.ok
        && !proof.is_test_restored()
        && all.iter().any(|stored| stored.is_of(&verified) && stored.proof.is_test_restored())
    {
        // Keep the stored test restore: a comparison of hashes proves less.
        return Ok(());
    }
    let FileVersion { path, size, modified } = verified;
    all.retain(|stored| stored.path != path && stored.path.exists());
    let mut new = StoredProof { path, size, modified, proof: proof.clone() };
    let root = home.root().canonicalize()?;
    for stored in all.iter_mut().chain([&mut new]) {
        if let Ok(relative) = stored.path.strip_prefix(&root) {
            stored.path = relative.to_owned();
        }
    }
    add_note(home, PROOFS_FILE, all, new)
}

/// Verifies an encrypted backup without its key, by comparing its bytes with those that this machine wrote. `None` if
/// this machine has no record of the backup.
pub(crate) fn compare_bytes(home: &Home, path: &Path) -> io::Result<Option<Proof>> {
    let mut hashed = Hashed::new(fs::File::open(path)?);
    io::copy(&mut hashed, &mut io::sink())?;
    let (sha256, records) = (hashed.sha256().to_string(), encrypted_records(home)?);
    if records.iter().any(|record| record.sha256 == sha256) {
        return Ok(Some(Proof::unopened(None)));
    }
    let name = path.file_name().and_then(OsStr::to_str);
    let is_changed = records.iter().any(|record| Some(record.name.as_str()) == name);
    Ok(is_changed.then(|| Proof::unopened(Some("its bytes differ from those that were written".to_owned()))))
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
    /// Reason why its manifest cannot be read.
    pub problem: Option<String>,
    /// Nanoseconds since 1970; orders backups made within one second.
    #[serde(skip)]
    pub modified: i128,
}

impl Listed {
    /// Time when the backup was created, if known.
    pub fn created(&self) -> Option<Timestamp> {
        self.created_at.as_deref()?.parse().ok()
    }

    /// Key that sorts backups by age, oldest first.
    pub fn age(&self) -> (&Option<String>, i128, &Path) {
        (&self.created_at, self.modified, &self.path)
    }
}

/// Lists the backups in the home, newest first. Fails if the folder cannot be read, or what was verified in it.
pub fn list(home: &Home) -> io::Result<Vec<Listed>> {
    let paths = folders::entries(&home.backups())?;
    let (proofs, records) = (read_proofs(home)?, encrypted_records(home)?);
    let mut backups: Vec<Listed> = paths
        .into_iter()
        .filter(|path| path.file_name().and_then(OsStr::to_str).is_some_and(is_archive_name))
        .filter_map(|path| Some(listed(&path, FileVersion::of(&path).ok()?, &proofs, &records)))
        .collect();
    backups.sort_by(|a, b| b.age().cmp(&a.age()));
    Ok(backups)
}

/// Describes a backup from its manifest, or an encrypted backup from the record made at its creation.
fn listed(path: &Path, file: FileVersion, proofs: &[StoredProof], records: &[EncryptedRecord]) -> Listed {
    let (facts, problem, encrypted) = match peek(&Input::plain(path)) {
        Ok(manifest) => (Some(Summary::of(&manifest)), None, false),
        Err(RestoreError::NotOpened { .. }) => {
            let record =
                records.iter().find(|record| Some(record.name.as_ref()) == path.file_name().and_then(OsStr::to_str));
            (record.filter(|record| record.size == file.size).map(|record| record.facts.clone()), None, true)
        }
        Err(error) => (None, Some(error.to_string()), false),
    };
    let mut facts = facts.unwrap_or_default();
    if encrypted && facts.created_at.is_none() {
        // This machine has no record of the backup, so use the file's modification time.
        // The second fits, because the time was computed from one.
        let second = file.modified.div_euclid(SECOND) as i64;
        facts.created_at = Timestamp::from_second(second).ok().map(|time| time.to_string());
    }
    Listed {
        path: path.to_owned(),
        size_bytes: file.size,
        automatic: is_automatic(path),
        encrypted,
        created_at: facts.created_at,
        leoflow_version: facts.leoflow_version,
        schema_version: facts.schema_version,
        rows: facts.rows,
        last_verified: proofs.iter().find(|stored| stored.is_of(&file)).map(|stored| stored.proof.clone()),
        problem,
        modified: file.modified,
    }
}

/// Prefix of the names of automatic backups.
pub(crate) const AUTOMATIC: &str = "automatic-";

fn is_automatic(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(AUTOMATIC))
}

/// Beginning of the part of a name that says which change an automatic backup was taken before.
pub(crate) const BEFORE: &str = "before-";

/// True for an automatic backup that was taken before an upgrade or another change.
pub(crate) fn is_before_change(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    is_automatic(path) && name.contains(&format!("-{BEFORE}"))
}

/// Unused path for a new backup in the home, named `prefix`, the time and `suffix`.
pub(crate) fn new_path(home: &Home, prefix: &str, suffix: &str, encrypt_to: &EncryptTo) -> PathBuf {
    let age = if encrypt_to.is_off() { "" } else { ".age" };
    let time = clock::now_rfc3339().replace(['-', ':'], "");
    let path = |number: &str| home.backups().join(format!("{prefix}{time}{suffix}{number}.tar.zst{age}"));
    // A second backup within one second gets a number.
    let numbered = (2..).map(|number: u32| path(&format!("-{number}")));
    std::iter::once(path("")).chain(numbered).find(|path| !path.exists()).unwrap_or_else(|| path(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::restore::restore_dir;
    use crate::upgrade::release::versions;
    use crate::upgrade::rollback::history;

    #[test]
    fn backups_before_a_change_are_known_by_their_names() {
        let home = leoflow_base::home::resolve(Some(Path::new("/h"))).unwrap();
        let path = |suffix: &str| new_path(&home, AUTOMATIC, suffix, &EncryptTo::Off);
        assert!(is_before_change(&path(&format!("-{BEFORE}upgrade"))) && !is_before_change(&path("-scheduled")));
        assert!(!is_before_change(Path::new("/h/backups/before-holiday.tar.zst")), "a user's own");
    }

    #[test]
    fn folders_that_cannot_be_read_are_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let all = |home: &Home| {
            let backups = list(home).map(|backups| backups.len());
            let restores = restore_dir::all(home).map(|all| all.len());
            [
                backups,
                restores,
                versions::schemas(home).map(|all| all.len()),
                history::rollback_backups(home).map(|all| all.len()),
            ]
        };
        assert!(all(&home).iter().all(|result| matches!(result, Ok(0))), "a new home has none");
        for folder in [home.backups(), home.restore(), home.versions()] {
            std::os::unix::fs::symlink("/unmounted/disk", folder).unwrap();
        }
        for result in all(&home) {
            assert!(result.unwrap_err().to_string().contains("is a link to /unmounted/disk, which does not exist"));
        }
        for folder in [home.backups(), home.restore(), home.versions()] {
            fs::remove_file(&folder).unwrap();
            fs::write(folder, "").unwrap();
        }
        assert!(all(&home).iter().all(Result::is_err));
    }

    #[test]
    fn a_file_changed_during_its_verification_has_no_proof() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        let file = folder.path().join("backup.tar.zst");
        fs::write(&file, "half").unwrap();
        let (before, proof) = (FileVersion::of(&file).unwrap(), Proof::now(Method::Hashes, None));
        fs::write(&file, "a half and the rest").unwrap();
        assert!(store_proof(&home, &file, before, &proof).is_err());
        assert!(known_proof(&home, &file).is_none());
        store_proof(&home, &file, FileVersion::of(&file).unwrap(), &proof).unwrap();
        assert!(known_proof(&home, &file).unwrap().ok);

        let [latest, other] = ["latest", "other.tar.zst"].map(|name| folder.path().join(name));
        fs::write(&other, "the other").unwrap();
        std::os::unix::fs::symlink(&other, &latest).unwrap();
        let before = FileVersion::of(&latest).unwrap();
        fs::remove_file(&latest).unwrap();
        std::os::unix::fs::symlink(&file, &latest).unwrap();
        assert!(store_proof(&home, &latest, before, &proof).is_err());
        assert!(known_proof(&home, &other).is_none());
    }
}
