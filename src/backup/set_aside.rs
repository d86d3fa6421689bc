//! A cluster that cannot be read any more, or whose key is lost, set aside whole so that a backup can come to its
//! place: it is renamed, kept, and never deleted. Until the restore is through, a note says where it is, so that whoever comes after a
//! restore that failed or was killed puts it back.

use crate::home::Home;
use crate::sys::{checkpoint, clock, files};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Beside the place of the cluster.
    pub folder: PathBuf,
    /// When that is what cannot be read.
    #[serde(default)]
    pub config: Option<ConfigAside>,
    /// There were none for the cluster: those that are made belong to its successor.
    #[serde(default)]
    pub had_no_credentials: bool,
    /// Why it could not be read.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigAside {
    /// It is there now.
    At(PathBuf),
    /// There was none.
    Gone,
}

fn note(home: &Home) -> PathBuf {
    home.postgres().join("set-aside.json")
}

/// One whose restore is not through.
pub fn pending(home: &Home) -> Option<SetAside> {
    let text = files::read_text(&note(home), 64 * 1024).ok().flatten()?;
    serde_json::from_str(&text).ok()
}

/// What cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Cluster,
    /// The configuration, and with it the key to the cluster.
    Config,
}

/// Nothing may run from the cluster, which is there. The caller has the home.
pub fn begin(home: &Home, what: What, reason: &str) -> io::Result<SetAside> {
    let at = clock::now_rfc3339().replace(['-', ':'], "");
    let aside = SetAside {
        folder: home.postgres().join(format!("data.damaged-{at}")),
        config: (what == What::Config).then(|| match home.config().exists() {
            true => ConfigAside::At(home.postgres().join(format!("config.yaml.damaged-{at}"))),
            false => ConfigAside::Gone,
        }),
        had_no_credentials: !home.postgres_credentials().exists(),
        reason: reason.to_owned(),
    };
    files::write_atomic(&note(home), &serde_json::to_vec_pretty(&aside)?, 0o600)?;
    checkpoint("restore.set-aside-noted");
    if let Some(ConfigAside::At(config)) = &aside.config {
        rename_if_there(&home.config(), config)?;
    }
    checkpoint("restore.config-set-aside");
    rename_if_there(&home.postgres_data(), &aside.folder)?;
    checkpoint("restore.set-aside");
    Ok(aside)
}

/// The restore did not come into force: what it made goes, what was there is there again.
pub fn put_back(home: &Home) -> io::Result<()> {
    let Some(aside) = pending(home) else { return Ok(()) };
    let has_moved = aside.folder.exists();
    match &aside.config {
        Some(ConfigAside::At(config)) => rename_if_there(config, &home.config())?,
        // Made since, for the cluster that goes.
        Some(ConfigAside::Gone) if has_moved => files::remove_any(&home.config())?,
        _ => {}
    }
    if has_moved {
        if aside.had_no_credentials {
            files::remove_any(&home.postgres_credentials())?;
        }
        files::remove_any(&home.postgres_data())?;
        files::rename_durably(&aside.folder, &home.postgres_data())?;
    }
    settle(home)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    if from.exists() { files::rename_durably(from, to) } else { Ok(()) }
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
        let aside = begin(&home, What::Cluster, "damaged").unwrap();
        assert!(!data.exists() && pending(&home) == Some(aside));
        std::fs::create_dir_all(&data).unwrap();
        put_back(&home).unwrap();
        assert!(data.join("old").exists() && pending(&home).is_none());
        let aside = begin(&home, What::Cluster, "damaged").unwrap();
        settle(&home).unwrap();
        put_back(&home).unwrap();
        assert!(aside.folder.join("old").exists() && !data.exists());
    }

    #[test]
    fn a_config_comes_back_as_it_was_or_stays_away_if_there_was_none() {
        for was in [Some("damaged"), None] {
            let folder = tempfile::tempdir().unwrap();
            let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
            std::fs::create_dir_all(home.postgres_data().join("old")).unwrap();
            if let Some(text) = was {
                std::fs::write(home.config(), text).unwrap();
            }
            let aside = begin(&home, What::Config, "damaged").unwrap();
            assert!(!home.config().exists() && !home.postgres_data().exists());
            std::fs::create_dir_all(home.postgres_data()).unwrap();
            std::fs::write(home.config(), "new").unwrap();
            if let Some(ConfigAside::At(path)) = aside.config {
                // Ended between its steps, it is done again.
                std::fs::rename(path, home.config()).unwrap();
            }
            put_back(&home).unwrap();
            assert_eq!(std::fs::read_to_string(home.config()).ok().as_deref(), was);
            assert!(home.postgres_data().join("old").exists() && pending(&home).is_none());
        }
    }
}
