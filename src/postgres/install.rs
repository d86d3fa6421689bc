//! `managed-postgres/install/<version>/`: complete or absent. A stamp, written last and before the
//! rename, says what it is and where its programs are.

use super::tools::{complete, postgres_version};
use super::{MAJOR, archive};
use crate::home::Home;
use crate::sys::{checkpoint, clock, files};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// PostgreSQL's programs, ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// As the server says: `18.4`.
    pub version: String,
    pub bin: PathBuf,
    /// Where it came from, for people.
    pub source: String,
    /// Of the archive that it was unpacked from.
    pub sha256: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    version: String,
    source: String,
    /// Relative to the folder of the stamp, or absolute for a system's own PostgreSQL.
    bin: PathBuf,
    #[serde(default)]
    sha256: Option<String>,
    /// RFC 3339; of two of one version the later one is in use.
    #[serde(default)]
    installed_at: String,
}

const STAMP: &str = "leoflow-install.json";
const STAGING: &str = ".staging-";

impl Installation {
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// The newest complete installation in the home. One whose programs are gone does not count.
pub fn installed(home: &Home) -> Option<Installation> {
    let mut found: Vec<(Installation, String)> = std::fs::read_dir(home.postgres_installs())
        .ok()?
        .flatten()
        // What begins with a dot is on its way in or out.
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| read_stamp(&entry.path()))
        .collect();
    found.sort_by_key(|(installation, at)| (version_key(&installation.version), at.clone()));
    found.pop().map(|(installation, _)| installation)
}

/// With when it was installed.
fn read_stamp(folder: &Path) -> Option<(Installation, String)> {
    let text = files::read_text(&folder.join(STAMP), 64 * 1024).ok()??;
    let stamp: Stamp = serde_json::from_str(&text).ok()?;
    // `join` with an absolute path is that path.
    let bin = folder.join(&stamp.bin);
    let usable =
        version_key(&stamp.version).first() == Some(&MAJOR) && bin.join("postgres").is_file() && complete(&bin).is_ok();
    let Stamp { version, source, sha256, installed_at, .. } = stamp;
    usable.then_some((Installation { version, bin, source, sha256 }, installed_at))
}

/// Another build of a version that is there, perhaps in use, has a place of its own.
fn place_of(home: &Home, version: &str, sha256: Option<&str>) -> PathBuf {
    let place = home.postgres_installs().join(version);
    match sha256 {
        Some(sha256) if read_stamp(&place).is_some() => {
            home.postgres_installs().join(format!("{version}-{}", &sha256[..8]))
        }
        _ => place,
    }
}

fn version_key(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// A folder beside the final one, to unpack into. Dropped unfinished, it is removed.
pub struct Staging {
    folder: PathBuf,
}

impl Staging {
    /// Also removes what killed attempts left behind: the caller holds the home's lock.
    pub fn new(home: &Home) -> io::Result<Self> {
        let installs = home.postgres_installs();
        files::create_private_dir(&installs)?;
        for entry in std::fs::read_dir(&installs)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGING) {
                files::remove_any(&entry.path())?;
            }
        }
        let folder = installs.join(format!("{STAGING}{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        Ok(Self { folder })
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Tries the programs, stamps the tree and moves it to its place.
    /// `sha256` is of the archive that it came in.
    pub fn commit(
        self,
        home: &Home,
        tree: &Path,
        source: &str,
        sha256: Option<String>,
    ) -> Result<Installation, String> {
        let bin = archive::find_bin(tree).ok_or("there is no bin/postgres in it")?;
        let relative = bin.strip_prefix(tree).map_err(|error| error.to_string())?;
        self.finish(home, tree, (relative, &bin), source, sha256)
    }

    /// Where `commit` would put that tree.
    pub fn place(&self, home: &Home, tree: &Path, sha256: &str) -> Result<PathBuf, String> {
        let bin = archive::find_bin(tree).ok_or("there is no bin/postgres in it")?;
        let (_, version) = postgres_version(&bin)?;
        Ok(place_of(home, &version, Some(sha256)))
    }

    /// As `commit`, for programs that stay where they are.
    pub fn commit_link(self, home: &Home, bin: &Path, source: &str) -> Result<Installation, String> {
        let tree = self.folder.join("link");
        std::fs::create_dir(&tree).map_err(|error| error.to_string())?;
        self.finish(home, &tree, (bin, bin), source, None)
    }

    fn finish(
        &self,
        home: &Home,
        tree: &Path,
        (stamped, bin): (&Path, &Path),
        source: &str,
        sha256: Option<String>,
    ) -> Result<Installation, String> {
        let (major, version) = postgres_version(bin)?;
        if major != MAJOR {
            return Err(format!("it is PostgreSQL {version}; this release runs {MAJOR}"));
        }
        complete(bin)?;
        let place = place_of(home, &version, sha256.as_deref());
        let stamp = Stamp {
            version,
            source: source.to_owned(),
            bin: stamped.to_owned(),
            sha256,
            installed_at: clock::now_rfc3339(),
        };
        let io = |error: io::Error| error.to_string();
        let text = serde_json::to_vec_pretty(&stamp).map_err(|error| error.to_string())?;
        files::write_atomic(&tree.join(STAMP), &text, 0o600).map_err(io)?;
        files::sync_file_system(tree).map_err(io)?;
        checkpoint("postgres.unpacked");
        files::remove_any(&place).map_err(io)?;
        files::rename_durably(tree, &place).map_err(io)?;
        checkpoint("postgres.installed");
        read_stamp(&place)
            .map(|(installed, _)| installed)
            .ok_or_else(|| format!("{} is not as it was written", place.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is removed by the next attempt.
        let _ = files::remove_any(&self.folder);
    }
}
