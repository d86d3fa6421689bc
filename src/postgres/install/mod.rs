//! PostgreSQL's files in `managed-postgres/install/<version>/`, which is complete or absent. A stamp file, written
//! before the final rename, names the version and the folder of the programs.

pub mod tools;
pub mod version;

use super::MAJOR;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tools::check_complete;

/// PostgreSQL's programs, ready to run, and the content of their stamp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// As reported by the server: `18.4`.
    pub version: String,
    /// Origin, shown to users.
    pub source: String,
    /// In the stamp relative to its folder, or absolute for a system's own PostgreSQL.
    pub bin: PathBuf,
    /// Hash of the archive that it was unpacked from.
    pub sha256: Option<String>,
    /// RFC 3339; of two builds of one version the later one is used.
    #[serde(default)]
    pub installed_at: String,
}

pub(crate) const STAMP: &str = "leoflow-install.json";

impl Installation {
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Reads the stamp of a folder. The programs may be incomplete.
    fn read(folder: &Path) -> Option<Self> {
        let mut installation: Self = files::read_json(&folder.join(STAMP), 64 * 1024).ok()??;
        // `join` with an absolute path is that path.
        installation.bin = folder.join(&installation.bin);
        Some(installation)
    }

    /// Reads the installation in a folder; `None` unless it is complete and of the supported major version.
    pub(crate) fn read_complete(folder: &Path) -> Option<Self> {
        let is_supported = |version: &str| version::numbers(version).first() == Some(&MAJOR);
        Self::read(folder).filter(|found| is_supported(&found.version) && found.missing().is_none())
    }

    /// Names the first missing program.
    fn missing(&self) -> Option<String> {
        let server = self.program("postgres");
        match server.is_file() {
            true => check_complete(&self.bin).err().map(|error| error.to_string()),
            false => Some(format!("{} is missing", server.display())),
        }
    }
}

/// Finds the newest complete installation in the home.
pub fn installed(home: &Home) -> Option<Installation> {
    std::fs::read_dir(home.postgres_installs())
        .ok()?
        .flatten()
        // Names with a leading dot are staging folders and the lock file.
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| Installation::read_complete(&entry.path()))
        .max_by_key(|installation| (version::numbers(&installation.version), installation.installed_at.clone()))
}

/// Why the home has no complete installation, for users; `None` if nothing was installed there.
pub fn why_incomplete(home: &Home) -> Option<String> {
    let folders = std::fs::read_dir(home.postgres_installs()).ok()?.flatten();
    folders.filter_map(|entry| Installation::read(&entry.path())).find_map(|installation| installation.missing())
}
