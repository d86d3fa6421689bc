//! A cluster that cannot be read any more, set aside whole so that a backup can come to its place: it is renamed,
//! kept, and never deleted. Until the restore is through, a note says where it is, so that whoever comes after a
//! restore that failed or was killed puts it back.

use crate::home::Home;
use crate::sys::{checkpoint, clock, files};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Beside the place of the cluster.
    pub folder: PathBuf,
    /// Why it could not be read.
    pub reason: String,
}

fn note(home: &Home) -> PathBuf {
    home.postgres().join("set-aside.json")
}

/// One whose restore is not through.
pub fn pending(home: &Home) -> Option<SetAside> {
    let text = files::read_text(&note(home), 64 * 1024).ok().flatten()?;
    serde_json::from_str(&text).ok()
}

/// Nothing may run from the cluster. The caller has the home.
pub fn begin(home: &Home, reason: &str) -> io::Result<SetAside> {
    let at = clock::now_rfc3339().replace(['-', ':'], "");
    let aside = SetAside { folder: home.postgres().join(format!("data.damaged-{at}")), reason: reason.to_owned() };
    files::write_atomic(&note(home), &serde_json::to_vec_pretty(&aside)?, 0o600)?;
    checkpoint("restore.set-aside-noted");
    if home.postgres_data().exists() {
        files::rename_durably(&home.postgres_data(), &aside.folder)?;
    }
    checkpoint("restore.set-aside");
    Ok(aside)
}

/// The restore did not come into force: what it made goes, what was there is there again.
pub fn put_back(home: &Home) -> io::Result<()> {
    let Some(aside) = pending(home) else { return Ok(()) };
    if aside.folder.exists() {
        files::remove_any(&home.postgres_data())?;
        files::rename_durably(&aside.folder, &home.postgres_data())?;
    }
    settle(home)
}

/// The restore is in force: what is set aside stays where it is.
pub fn settle(home: &Home) -> io::Result<()> {
    files::remove_any(&note(home))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_comes_back_or_stays_and_is_never_lost() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let data = home.postgres_data();
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("old"), "").unwrap();
        let aside = begin(&home, "damaged").unwrap();
        assert!(!data.exists() && pending(&home) == Some(aside));
        std::fs::create_dir_all(&data).unwrap();
        put_back(&home).unwrap();
        assert!(data.join("old").exists() && pending(&home).is_none());
        let aside = begin(&home, "damaged").unwrap();
        settle(&home).unwrap();
        put_back(&home).unwrap();
        assert!(aside.folder.join("old").exists() && !data.exists());
    }
}
