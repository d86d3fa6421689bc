//! Installs a build into `managed-postgres/install/<version>/`: tests its programs, stamps it and moves it there.

use super::SourceError;
use crate::MAJOR;
use crate::install::tools::{check_complete, postgres_version, try_clients};
use crate::install::{Installation, STAMP, version};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::fs::flock::FileLock;
use leoflow_base::sys::{checkpoint, clock};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const STAGING: &str = ".staging-";
/// Lock file, locked during an installation.
const LOCK: &str = ".lock";

/// Required version of a build. The major version must always match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    Any,
    /// The version in the build's name.
    Exactly(String),
    NewerThan(String),
}

impl Requirement {
    /// Reads the server's version and checks that all programs are present.
    pub fn check(&self, bin: &Path) -> Result<String, SourceError> {
        let (major, actual) = postgres_version(bin)?;
        if major != MAJOR {
            return Err(SourceError::OtherMajor(actual));
        }
        match self {
            Self::Exactly(named) if *named != actual => {
                return Err(SourceError::Misnamed { actual, named: named.clone() });
            }
            Self::NewerThan(old) if version::numbers(&actual) <= version::numbers(old) => {
                return Err(SourceError::NotNewer { actual, old: old.clone() });
            }
            _ => {}
        }
        check_complete(bin)?;
        Ok(actual)
    }
}

/// The programs of a source, in the staging folder's tree or where the system keeps them.
pub struct Build {
    pub bin: PathBuf,
    /// Origin, shown to users.
    pub source: String,
    /// Hash of the archive that it was unpacked from.
    pub sha256: Option<String>,
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

    /// The folder that becomes the installation.
    pub fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Tests the programs, stamps the tree and moves it to its final folder. Programs outside of the tree stay where
    /// they are, and their clients are not tested.
    pub fn commit(self, home: &Home, build: Build, requirement: &Requirement) -> Result<Installation, SourceError> {
        let Build { bin, source, sha256 } = build;
        let tree = self.tree();
        let version = requirement.check(&bin)?;
        let in_tree = bin.strip_prefix(&tree);
        if in_tree.is_ok() {
            // A program may require a library that is missing on this machine.
            try_clients(&bin)?;
        }
        let target = folder_for(home, &version, sha256.as_deref());
        let bin = in_tree.unwrap_or(&bin).to_owned();
        let stamp = Installation { version, source, bin, sha256, installed_at: clock::now_rfc3339() };
        let text = serde_json::to_vec_pretty(&stamp).map_err(io::Error::from)?;
        files::write_atomic(&tree.join(STAMP), &text, 0o600)?;
        files::sync_file_system(&tree)?;
        checkpoint("postgres.unpacked");
        files::remove_any(&target)?;
        files::rename_durably(&tree, &target)?;
        checkpoint("postgres.installed");
        Installation::read_complete(&target).ok_or(SourceError::Unreadable(target))
    }
}

/// Final folder of a build. Another build of an installed version, which may be in use, gets a folder of its own.
pub fn folder_for(home: &Home, version: &str, sha256: Option<&str>) -> PathBuf {
    let target = home.postgres_installs().join(version);
    match sha256 {
        Some(sha256) if Installation::read_complete(&target).is_some() => {
            home.postgres_installs().join(format!("{version}-{}", &sha256[..8]))
        }
        _ => target,
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next attempt removes what remains.
        let _ = files::remove_any(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::tools::NEEDED;
    use crate::install::{installed, why_incomplete};
    use std::os::unix::fs::PermissionsExt;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        (folder, home)
    }

    /// Programs that report this version.
    fn build(staging: &Staging, version: &str) -> Build {
        let tree = staging.tree();
        std::fs::create_dir_all(tree.join("bin")).unwrap();
        for name in NEEDED.iter().chain(&["postgres"]) {
            let program = tree.join("bin").join(name);
            std::fs::write(&program, format!("#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Build { bin: tree.join("bin"), source: "a test".to_owned(), sha256: None }
    }

    fn commit(home: &Home, version: &str, requirement: &Requirement) -> Result<Installation, String> {
        let staging = Staging::new(home).unwrap();
        let build = build(&staging, version);
        staging.commit(home, build, requirement).map_err(|error| error.to_string())
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
        let build = build(&staging, "18.6");
        std::fs::write(build.bin.join("pg_dump"), "#!/bin/sh\necho 'libxml2.so.2: cannot open' >&2\nexit 127\n")
            .unwrap();
        let error = staging.commit(&home, build, &Requirement::Any).unwrap_err().to_string();
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
