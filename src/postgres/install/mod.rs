//! Installs PostgreSQL into `managed-postgres/install/<version>/`, which is complete or absent. A stamp file, written
//! before the final rename, names the version and the folder of the programs.

pub mod acquire;
pub(crate) mod download;
pub(crate) mod system;
pub mod tools;
pub mod version;

use super::MAJOR;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::fs::flock::FileLock;
use leoflow_base::sys::{checkpoint, clock};
use leoflow_components::archive;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use tools::{check_complete, postgres_version, try_clients};

/// PostgreSQL's programs, ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// As reported by the server: `18.4`.
    pub version: String,
    pub bin: PathBuf,
    /// Origin, shown to users.
    pub source: String,
    /// Hash of the archive that it was unpacked from.
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
    /// RFC 3339; of two builds of one version the later one is used.
    #[serde(default)]
    installed_at: String,
}

const STAMP: &str = "leoflow-install.json";
const STAGING: &str = ".staging-";
/// Lock file, locked during an installation.
const LOCK: &str = ".lock";

impl Installation {
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// Finds the newest complete installation in the home.
pub fn installed(home: &Home) -> Option<Installation> {
    let mut installations: Vec<(Installation, String)> = std::fs::read_dir(home.postgres_installs())
        .ok()?
        .flatten()
        // Names with a leading dot are staging folders and the lock file.
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| read_stamp(&entry.path()))
        .collect();
    installations.sort_by_key(|(installation, time)| (version::numbers(&installation.version), time.clone()));
    installations.pop().map(|(installation, _)| installation)
}

/// Why the home has no complete installation, for users; `None` if nothing was installed there.
pub fn why_incomplete(home: &Home) -> Option<String> {
    std::fs::read_dir(home.postgres_installs()).ok()?.flatten().find_map(|entry| {
        let text = files::read_text(&entry.path().join(STAMP), 64 * 1024).ok()??;
        let stamp: Stamp = serde_json::from_str(&text).ok()?;
        let bin = entry.path().join(&stamp.bin);
        match bin.join("postgres").is_file() {
            true => check_complete(&bin).err(),
            false => Some(format!("{} is missing", bin.join("postgres").display())),
        }
    })
}

/// Reads an installation and its time of installation.
fn read_stamp(folder: &Path) -> Option<(Installation, String)> {
    let text = files::read_text(&folder.join(STAMP), 64 * 1024).ok()??;
    let stamp: Stamp = serde_json::from_str(&text).ok()?;
    // `join` with an absolute path is that path.
    let bin = folder.join(&stamp.bin);
    let is_supported = version::numbers(&stamp.version).first() == Some(&MAJOR);
    let is_usable = is_supported && bin.join("postgres").is_file() && check_complete(&bin).is_ok();
    let Stamp { version, source, sha256, installed_at, .. } = stamp;
    is_usable.then_some((Installation { version, bin, source, sha256 }, installed_at))
}

/// Final folder of a build. Another build of an installed version, which may be in use, gets a folder of its own.
fn folder_for(home: &Home, version: &str, sha256: Option<&str>) -> PathBuf {
    let target = home.postgres_installs().join(version);
    match sha256 {
        Some(sha256) if read_stamp(&target).is_some() => {
            home.postgres_installs().join(format!("{version}-{}", &sha256[..8]))
        }
        _ => target,
    }
}

/// Required version of a build. The major version must always match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    Any,
    /// The version in the build's name.
    Exactly(String),
    NewerThan(String),
}

impl Requirement {
    fn check(&self, actual: &str) -> Result<(), String> {
        match self {
            Self::Exactly(named) if named != actual => {
                Err(format!("it is PostgreSQL {actual}, but its name says {named}"))
            }
            Self::NewerThan(old) if version::numbers(actual) <= version::numbers(old) => {
                Err(format!("it is PostgreSQL {actual}, which is not newer than {old}"))
            }
            _ => Ok(()),
        }
    }
}

/// A folder next to the final one, to unpack into. Dropping this value removes the folder.
pub struct Staging {
    folder: PathBuf,
    /// Excludes another command that installs: next to a running instance, a command does not hold the home's lock.
    _lock: FileLock,
}

impl Staging {
    /// Creates the folder, and removes those of killed attempts: only the lock's holder has a staging folder. Fails if
    /// another command is installing.
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

    /// Tests the programs, stamps the tree and moves it to its final folder. `sha256` is the hash of its archive.
    pub fn commit(
        self,
        home: &Home,
        tree: &Path,
        source: &str,
        sha256: Option<String>,
        requirement: &Requirement,
    ) -> Result<Installation, String> {
        let bin = archive::find_bin(tree).ok_or("it contains no bin/postgres")?;
        let relative = bin.strip_prefix(tree).map_err(|error| error.to_string())?;
        let version = examine(&bin, requirement)?;
        // A program may require a library that is missing on this machine.
        try_clients(&bin)?;
        self.finish(home, tree, (relative, version), source, sha256)
    }

    /// Final folder that `commit` would choose for the tree.
    pub fn target(&self, home: &Home, tree: &Path, sha256: &str) -> Result<PathBuf, String> {
        let bin = archive::find_bin(tree).ok_or("it contains no bin/postgres")?;
        let (_, version) = postgres_version(&bin)?;
        Ok(folder_for(home, &version, Some(sha256)))
    }

    /// Like `commit`, for programs that stay where they are; does not test the clients.
    pub(crate) fn commit_link(
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
        (stamp_bin, version): (&Path, String),
        source: &str,
        sha256: Option<String>,
    ) -> Result<Installation, String> {
        let target = folder_for(home, &version, sha256.as_deref());
        let stamp = Stamp {
            version,
            source: source.to_owned(),
            bin: stamp_bin.to_owned(),
            sha256,
            installed_at: clock::now_rfc3339(),
        };
        let io = |error: io::Error| error.to_string();
        let text = serde_json::to_vec_pretty(&stamp).map_err(|error| error.to_string())?;
        files::write_atomic(&tree.join(STAMP), &text, 0o600).map_err(io)?;
        files::sync_file_system(tree).map_err(io)?;
        checkpoint("postgres.unpacked");
        files::remove_any(&target).map_err(io)?;
        files::rename_durably(tree, &target).map_err(io)?;
        checkpoint("postgres.installed");
        read_stamp(&target)
            .map(|(installed, _)| installed)
            .ok_or_else(|| format!("cannot read back the installation in {}", target.display()))
    }
}

/// Reads the server's version and checks that all programs are present.
pub(super) fn examine(bin: &Path, requirement: &Requirement) -> Result<String, String> {
    let (major, version) = postgres_version(bin)?;
    if major != MAJOR {
        return Err(format!("it is PostgreSQL {version}; this release runs {MAJOR}"));
    }
    requirement.check(&version)?;
    check_complete(bin)?;
    Ok(version)
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next attempt removes what remains.
        let _ = files::remove_any(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::tools::NEEDED;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        (folder, home)
    }

    /// Programs that report this version.
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
    fn refuses_a_build_of_another_version() {
        let (_folder, home) = home();
        let named = Requirement::Exactly("18.6".into());
        assert!(commit(&home, "18.1", &named).unwrap_err().contains("18.1"));
        assert_eq!(installed(&home), None);
        assert_eq!(commit(&home, "18.6", &named).unwrap().version, "18.6");
    }

    #[test]
    fn uses_newer_minor_versions_only() {
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
    fn refuses_a_build_whose_programs_fail() {
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
    fn a_missing_program_is_named() {
        let (_folder, home) = home();
        assert_eq!(why_incomplete(&home), None);
        let installation = commit(&home, "18.6", &Requirement::Any).unwrap();
        std::fs::remove_file(installation.program("pg_dump")).unwrap();
        assert_eq!(installed(&home), None);
        assert!(why_incomplete(&home).unwrap().ends_with("bin contains no pg_dump"));
        std::fs::remove_file(installation.program("postgres")).unwrap();
        assert!(why_incomplete(&home).unwrap().ends_with("bin/postgres is missing"));
    }

    #[test]
    fn installs_are_exclusive() {
        let (_folder, home) = home();
        let first = Staging::new(&home).unwrap();
        assert!(Staging::new(&home).is_err());
        assert!(first.path().is_dir(), "not mistaken for a killed attempt's");
        drop(first);
        assert!(Staging::new(&home).is_ok());
    }
}
