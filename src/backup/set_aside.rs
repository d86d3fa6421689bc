//! A cluster that cannot be read any more, or that nothing opens, set aside whole so that a backup can come to its
//! place: it is renamed, kept, and never deleted. Until the restore is through, a note says where it is, so that
//! whoever comes after a restore that failed or was killed puts it back. What somebody has put there meanwhile stays.

use crate::home::Home;
use crate::postgres::credentials::{Credentials, CredentialsError};
use crate::sys::{checkpoint, clock, files, random};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Beside the place of the cluster.
    pub folder: PathBuf,
    /// Why it could not be read.
    pub reason: String,
    /// Those that were made because there were none, or none that can be read.
    #[serde(default)]
    pub credentials: Option<NewCredentials>,
    /// `setup.json` as it was.
    #[serde(default)]
    pub receipt: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCredentials {
    sha256: String,
    /// Where those went that cannot be read.
    damaged: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum SetAsideError {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("cannot set aside what is in {place}: {source}")]
    Io { place: PathBuf, source: io::Error },
}

/// A name beside the cluster's for what cannot be read, which nothing has yet.
pub fn damaged(home: &Home, name: &str) -> PathBuf {
    let at = clock::now_rfc3339().replace(['-', ':'], "");
    let place = home.postgres().join(format!("{name}.damaged-{at}"));
    match place.exists() {
        true => home.postgres().join(format!("{name}.damaged-{at}-{}", hex::encode(random::bytes::<2>()))),
        false => place,
    }
}

/// One whose restore is not through. A note that cannot be read is an error: without it the cluster is never put back.
pub fn pending(home: &Home) -> io::Result<Option<SetAside>> {
    let text = files::read_text(&home.set_aside_note(), 2 * 1024 * 1024)?;
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(io::Error::from)
}

/// Nothing may run from the cluster. The caller has the home.
pub fn begin(home: &Home, reason: &str) -> Result<SetAside, SetAsideError> {
    let io = |source| SetAsideError::Io { place: home.postgres(), source };
    let aside = SetAside {
        folder: damaged(home, "data"),
        reason: reason.to_owned(),
        credentials: new_credentials(home)?,
        receipt: files::read_text(&home.receipt(), 1024 * 1024).ok().flatten(),
    };
    let text = serde_json::to_vec_pretty(&aside).map_err(|error| io(error.into()))?;
    files::write_atomic(&home.set_aside_note(), &text, 0o600).map_err(io)?;
    checkpoint("restore.set-aside-noted");
    rename_if_there(&home.postgres_data(), &aside.folder).map_err(io)?;
    checkpoint("restore.set-aside");
    Ok(aside)
}

/// For the cluster that comes, where those for this one are lost.
fn new_credentials(home: &Home) -> Result<Option<NewCredentials>, SetAsideError> {
    let path = home.postgres_credentials();
    let io = |source| SetAsideError::Io { place: path.clone(), source };
    let damaged = match Credentials::load(home) {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => None,
        Err(_) => {
            let place = damaged(home, "credentials.json");
            files::rename_durably(&path, &place).map_err(io)?;
            Some(place)
        }
    };
    checkpoint("restore.credentials-set-aside");
    Credentials::load_or_create(home)?;
    let sha256 = sha256_of(&path).map_err(io)?.unwrap_or_default();
    Ok(Some(NewCredentials { sha256, damaged }))
}

fn sha256_of(path: &Path) -> io::Result<Option<String>> {
    Ok(files::read_text(path, 64 * 1024)?.map(|text| hex::encode(Sha256::digest(text))))
}

/// The restore did not come into force: what it made goes, what was there is there again.
pub fn put_back(home: &Home) -> io::Result<()> {
    let Some(aside) = pending(home)? else { return Ok(()) };
    if let Some(made) = &aside.credentials {
        let path = home.postgres_credentials();
        // Others are somebody's who has found the lost ones.
        if sha256_of(&path).ok().flatten().as_ref() == Some(&made.sha256) {
            match &made.damaged {
                Some(damaged) => rename_if_there(damaged, &path)?,
                None => files::remove_any(&path)?,
            }
        }
    }
    if files::is_there(&aside.folder)? {
        if let Some(receipt) = &aside.receipt {
            files::write_atomic(&home.receipt(), receipt.as_bytes(), 0o600)?;
        }
        files::remove_any(&home.postgres_data())?;
        files::rename_durably(&aside.folder, &home.postgres_data())?;
    }
    settle(home)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    if files::is_there(from)? { files::rename_durably(from, to) } else { Ok(()) }
}

/// The restore is in force: what is set aside stays where it is.
pub fn settle(home: &Home) -> io::Result<()> {
    files::remove_any(&home.set_aside_note())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn home_with_a_cluster() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        fs::create_dir_all(home.postgres_data()).unwrap();
        fs::write(home.postgres_data().join("old"), "").unwrap();
        (folder, home)
    }

    #[test]
    fn what_is_set_aside_comes_back_or_stays_and_is_never_lost() {
        let (_folder, home) = home_with_a_cluster();
        fs::write(home.receipt(), "old receipt").unwrap();
        let data = home.postgres_data();
        let aside = begin(&home, "damaged").unwrap();
        assert!(!data.exists() && pending(&home).unwrap() == Some(aside));
        fs::create_dir_all(&data).unwrap();
        fs::write(home.receipt(), "new receipt").unwrap();
        put_back(&home).unwrap();
        assert!(data.join("old").exists() && pending(&home).unwrap().is_none());
        assert_eq!(fs::read_to_string(home.receipt()).unwrap(), "old receipt");
        let aside = begin(&home, "damaged").unwrap();
        settle(&home).unwrap();
        put_back(&home).unwrap();
        assert!(aside.folder.join("old").exists() && !data.exists());
    }

    #[test]
    fn credentials_come_back_as_they_were_unless_somebody_has_found_them() {
        for was in [Some("damaged"), None] {
            for found in [true, false] {
                let (_folder, home) = home_with_a_cluster();
                let path = home.postgres_credentials();
                if let Some(text) = was {
                    fs::write(&path, text).unwrap();
                }
                begin(&home, "damaged").unwrap();
                assert!(Credentials::load(&home).unwrap().is_some(), "for the next cluster");
                if found {
                    fs::write(&path, "the right ones").unwrap();
                }
                put_back(&home).unwrap();
                let expected = if found { Some("the right ones") } else { was };
                assert_eq!(fs::read_to_string(&path).ok().as_deref(), expected, "{was:?}");
            }
        }
    }
}
