//! `managed-postgres/install/<version>/`: complete or absent. A stamp, written last and before the
//! rename, says what it is and where its programs are.

use super::tools::{complete, postgres_version, try_clients};
use super::{MAJOR, archive, version};
use crate::home::Home;
use crate::sys::flock::FileLock;
use crate::sys::{checkpoint, clock, files};
use serde::{Deserialize, Serialize};
use std::fs::File;
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
/// Held while something is installed here.
const LOCK: &str = ".lock";

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
    found.sort_by_key(|(installation, at)| (version::numbers(&installation.version), at.clone()));
    found.pop().map(|(installation, _)| installation)
}

/// With when it was installed.
fn read_stamp(folder: &Path) -> Option<(Installation, String)> {
    let text = files::read_text(&folder.join(STAMP), 64 * 1024).ok()??;
    let stamp: Stamp = serde_json::from_str(&text).ok()?;
    // `join` with an absolute path is that path.
    let bin = folder.join(&stamp.bin);
    let is_ours = version::numbers(&stamp.version).first() == Some(&MAJOR);
    let usable = is_ours && bin.join("postgres").is_file() && complete(&bin).is_ok();
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

/// The version that a build must be to be installed. The major version is always ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    Any,
    /// What its name says.
    Exactly(String),
    NewerThan(String),
}

impl Requirement {
    fn check(&self, found: &str) -> Result<(), String> {
        match self {
            Self::Exactly(named) if named != found => {
                Err(format!("it is PostgreSQL {found}, and its name says {named}"))
            }
            Self::NewerThan(old) if version::numbers(found) <= version::numbers(old) => {
                Err(format!("it is PostgreSQL {found}, which is not newer than {old}"))
            }
            _ => Ok(()),
        }
    }
}

/// A folder beside the final one, to unpack into. Dropped unfinished, it is removed.
pub struct Staging {
    folder: PathBuf,
    /// Two commands may come to it at once: one beside a running instance has not the home's lock.
    _lock: FileLock,
}

impl Staging {
    /// Also removes what killed attempts left behind: only the holder of the lock has a staging folder.
    pub fn new(home: &Home) -> io::Result<Self> {
        let installs = home.postgres_installs();
        files::create_private_dir(&installs)?;
        let lock = FileLock::try_exclusive(File::create(installs.join(LOCK))?)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::ResourceBusy, "another command is installing PostgreSQL"))?;
        for entry in std::fs::read_dir(&installs)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGING) {
                files::remove_any(&entry.path())?;
            }
        }
        let folder = installs.join(format!("{STAGING}{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        Ok(Self { folder, _lock: lock })
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
        requirement: &Requirement,
    ) -> Result<Installation, String> {
        let bin = archive::find_bin(tree).ok_or("there is no bin/postgres in it")?;
        let relative = bin.strip_prefix(tree).map_err(|error| error.to_string())?;
        let version = examine(&bin, requirement)?;
        // One may want a library that this machine has not.
        try_clients(&bin)?;
        self.finish(home, tree, (relative, version), source, sha256)
    }

    /// Where `commit` would put that tree.
    pub fn place(&self, home: &Home, tree: &Path, sha256: &str) -> Result<PathBuf, String> {
        let bin = archive::find_bin(tree).ok_or("there is no bin/postgres in it")?;
        let (_, version) = postgres_version(&bin)?;
        Ok(place_of(home, &version, Some(sha256)))
    }

    /// As `commit`, for programs that stay where they are.
    pub fn commit_link(
        self,
        home: &Home,
        bin: &Path,
        source: &str,
        requirement: &Requirement,
    ) -> Result<Installation, String> {
        let tree = self.folder.join("link");
        std::fs::create_dir(&tree).map_err(|error| error.to_string())?;
        let version = examine(bin, requirement)?;
        self.finish(home, &tree, (bin, version), source, None)
    }

    fn finish(
        &self,
        home: &Home,
        tree: &Path,
        (stamped, version): (&Path, String),
        source: &str,
        sha256: Option<String>,
    ) -> Result<Installation, String> {
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

/// Asks the server for its version and looks whether everything is there.
pub(super) fn examine(bin: &Path, requirement: &Requirement) -> Result<String, String> {
    let (major, version) = postgres_version(bin)?;
    if major != MAJOR {
        return Err(format!("it is PostgreSQL {version}; this release runs {MAJOR}"));
    }
    requirement.check(&version)?;
    complete(bin)?;
    Ok(version)
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is removed by the next attempt.
        let _ = files::remove_any(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::tools::NEEDED;
    use std::os::unix::fs::PermissionsExt;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        (folder, home)
    }

    /// Programs that say this version.
    fn build(staging: &Staging, version: &str) -> PathBuf {
        let tree = staging.path().join("tree");
        std::fs::create_dir_all(tree.join("bin")).unwrap();
        for name in NEEDED.iter().chain(&["postgres"]) {
            let program = tree.join("bin").join(name);
            std::fs::write(&program, format!("#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        tree
    }

    fn commit(home: &Home, version: &str, requirement: &Requirement) -> Result<Installation, String> {
        let staging = Staging::new(home).unwrap();
        let tree = build(&staging, version);
        staging.commit(home, &tree, "a test", None, requirement)
    }

    #[test]
    fn a_build_is_of_the_version_that_it_is_named() {
        let (_folder, home) = home();
        let named = Requirement::Exactly("18.6".into());
        assert!(commit(&home, "18.1", &named).unwrap_err().contains("18.1"));
        assert_eq!(installed(&home), None);
        assert_eq!(commit(&home, "18.6", &named).unwrap().version, "18.6");
    }

    #[test]
    fn a_newer_minor_version_is_used_and_an_older_not_taken() {
        let (_folder, home) = home();
        commit(&home, "18.4", &Requirement::Any).unwrap();
        let newer = Requirement::NewerThan("18.4".into());
        assert!(commit(&home, "18.4", &newer).unwrap_err().contains("not newer"));
        commit(&home, "18.10", &newer).unwrap();
        assert_eq!(installed(&home).unwrap().version, "18.10");
        // The other one stays, for the server that runs.
        assert!(home.postgres_installs().join("18.4/bin/postgres").is_file());
    }

    #[test]
    fn a_build_whose_programs_do_not_run_is_not_taken() {
        let (_folder, home) = home();
        let staging = Staging::new(&home).unwrap();
        let tree = build(&staging, "18.6");
        std::fs::write(tree.join("bin/pg_dump"), "#!/bin/sh\necho 'libxml2.so.2: cannot open' >&2\nexit 127\n")
            .unwrap();
        let error = staging.commit(&home, &tree, "a test", None, &Requirement::Any).unwrap_err();
        assert!(error.contains("pg_dump") && error.contains("libxml2"), "{error}");
        assert_eq!(installed(&home), None);
    }

    #[test]
    fn only_one_installs_at_a_time() {
        let (_folder, home) = home();
        let first = Staging::new(&home).unwrap();
        assert!(Staging::new(&home).is_err());
        assert!(first.path().is_dir(), "it is not taken for a killed one's");
        drop(first);
        assert!(Staging::new(&home).is_ok());
    }
}
