//! Quarantines an unreadable cluster before a restore: renames its data directory, which is never deleted. A note
//! records the new path until the restore succeeds, so that the next command puts the cluster back after a failed or
//! killed restore.

use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{checkpoint, clock, random};
use leoflow_postgres::credentials::{Credentials, CredentialsError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedCluster {
    /// Path of the renamed data directory, next to its original path.
    pub folder: PathBuf,
    /// Reason why it was unreadable.
    pub reason: String,
    /// Credentials created because the old ones were missing or unreadable.
    pub credentials: Option<NewCredentials>,
    /// Content of `setup.json` before the restore.
    pub receipt: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCredentials {
    /// SHA-256 of the new file, in hexadecimal.
    sha256: String,
    /// Path of the renamed unreadable credentials.
    damaged: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("cannot set aside {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Returns an unused path in the cluster's folder, for the unreadable file or folder `name`.
pub(crate) fn quarantine_path(home: &Home, name: &str) -> PathBuf {
    let time = clock::now_rfc3339().replace(['-', ':'], "");
    let path = home.postgres().join(format!("{name}.damaged-{time}"));
    match path.exists() {
        true => home.postgres().join(format!("{name}.damaged-{time}-{}", hex::encode(random::bytes::<2>()))),
        false => path,
    }
}

/// Reads the note of an unfinished restore; `None` if there is none. An unreadable note is an error: if it were
/// ignored, the cluster would never be put back.
pub fn pending(home: &Home) -> io::Result<Option<QuarantinedCluster>> {
    files::read_json(&home.quarantine_note(), 2 * 1024 * 1024)
}

/// Quarantines the cluster. The caller holds the home's lock; the cluster's server must not run.
pub fn begin(home: &Home, reason: &str) -> Result<QuarantinedCluster, QuarantineError> {
    let io = |source| QuarantineError::Io { path: home.postgres(), source };
    let quarantined = QuarantinedCluster {
        folder: quarantine_path(home, "data"),
        reason: reason.to_owned(),
        credentials: new_credentials(home)?,
        receipt: files::read_text(&home.receipt(), 1024 * 1024).ok().flatten(),
    };
    let text = serde_json::to_vec_pretty(&quarantined).map_err(|error| io(error.into()))?;
    files::write_atomic(&home.quarantine_note(), &text, 0o600).map_err(io)?;
    checkpoint("restore.set-aside-noted");
    rename_if_there(&home.postgres_data(), &quarantined.folder).map_err(io)?;
    checkpoint("restore.set-aside");
    Ok(quarantined)
}

/// Creates credentials for the new cluster if the present ones are lost.
fn new_credentials(home: &Home) -> Result<Option<NewCredentials>, QuarantineError> {
    let path = home.postgres_credentials();
    let io = |source| QuarantineError::Io { path: path.clone(), source };
    let damaged = match Credentials::load(home) {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => None,
        Err(_) => {
            let damaged_path = quarantine_path(home, "credentials.json");
            files::rename_durably(&path, &damaged_path).map_err(io)?;
            Some(damaged_path)
        }
    };
    checkpoint("restore.credentials-set-aside");
    Credentials::load_or_create(home)?;
    let sha256 = sha256_of(&path).map_err(io)?.unwrap_or_default();
    Ok(Some(NewCredentials { sha256, damaged }))
}

/// Hash of a file in hexadecimal; `None` if it does not exist.
fn sha256_of(path: &Path) -> io::Result<Option<String>> {
    Ok(files::read_text(path, 64 * 1024)?.map(|text| hex::encode(Sha256::digest(text))))
}

/// Undoes the quarantine after a failed restore: removes the new cluster and puts the old one back.
pub fn put_back(home: &Home) -> io::Result<()> {
    let Some(quarantined) = pending(home)? else { return Ok(()) };
    if let Some(created) = &quarantined.credentials {
        let path = home.postgres_credentials();
        // If the file has other content, the user has put it back, and it stays.
        if sha256_of(&path).ok().flatten().as_ref() == Some(&created.sha256) {
            match &created.damaged {
                Some(damaged) => rename_if_there(damaged, &path)?,
                None => files::remove_any(&path)?,
            }
        }
    }
    if files::is_there(&quarantined.folder)? {
        if let Some(receipt) = &quarantined.receipt {
            files::write_atomic(&home.receipt(), receipt.as_bytes(), 0o600)?;
        }
        files::remove_any(&home.postgres_data())?;
        files::rename_durably(&quarantined.folder, &home.postgres_data())?;
    }
    finish(home)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    if files::is_there(from)? { files::rename_durably(from, to) } else { Ok(()) }
}

/// Removes the note, after a successful restore or after `put_back`. A cluster in quarantine stays there.
pub fn finish(home: &Home) -> io::Result<()> {
    files::remove_any(&home.quarantine_note())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn home_with_a_cluster() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        fs::create_dir_all(home.postgres_data()).unwrap();
        fs::write(home.postgres_data().join("old"), "").unwrap();
        (folder, home)
    }

    #[test]
    fn a_quarantined_cluster_is_never_lost() {
        let (_folder, home) = home_with_a_cluster();
        fs::write(home.receipt(), "old receipt").unwrap();
        let data = home.postgres_data();
        let quarantined = begin(&home, "damaged").unwrap();
        assert!(!data.exists() && pending(&home).unwrap() == Some(quarantined));
        fs::create_dir_all(&data).unwrap();
        fs::write(home.receipt(), "new receipt").unwrap();
        put_back(&home).unwrap();
        assert!(data.join("old").exists() && pending(&home).unwrap().is_none());
        assert_eq!(fs::read_to_string(home.receipt()).unwrap(), "old receipt");
        let quarantined = begin(&home, "damaged").unwrap();
        finish(&home).unwrap();
        put_back(&home).unwrap();
        assert!(quarantined.folder.join("old").exists() && !data.exists());
    }

    #[test]
    fn put_back_restores_credentials_unless_replaced() {
        for original in [Some("damaged"), None] {
            for user_replaced in [true, false] {
                let (_folder, home) = home_with_a_cluster();
                let path = home.postgres_credentials();
                if let Some(text) = original {
                    fs::write(&path, text).unwrap();
                }
                begin(&home, "damaged").unwrap();
                assert!(Credentials::load(&home).unwrap().is_some(), "for the next cluster");
                if user_replaced {
                    fs::write(&path, "the right ones").unwrap();
                }
                put_back(&home).unwrap();
                let expected = if user_replaced { Some("the right ones") } else { original };
                assert_eq!(fs::read_to_string(&path).ok().as_deref(), expected, "{original:?}");
            }
        }
    }
}
