//! This program beside the release of a home. They differ after a package manager has replaced the program, or after it
//! was copied over the home's own.

use super::release::{program, stage, version_order};
use super::target_release::Request;
use super::{UpgradeError, facts};
use crate::setup::{self, PackageOwner};
use leoflow_base::build_info;
use leoflow_base::home::Home;
use semver::Version;
use std::path::PathBuf;

pub struct OwnProgram {
    /// The package manager that owns the program.
    pub owner: Option<PackageOwner>,
    pub version: Version,
    /// The release of the home.
    pub installed: Version,
}

impl OwnProgram {
    pub fn of(home: &Home, own_version: &str) -> Result<Self, UpgradeError> {
        let (version, installed) = (facts::parse_version(own_version)?, facts::installed_version(home, own_version)?);
        Ok(Self { owner: setup::package_owner(), version, installed })
    }

    /// This program, if its release is newer than the home's. `None` for a development build that no package manager
    /// owns, which is no release: its start migrates and records that. An unreadable version of the home counts as its
    /// own.
    pub fn newer(home: &Home, own_version: &str) -> Option<Self> {
        if setup::linked_version(home).as_deref() == Some(own_version) {
            return None;
        }
        let program = Self::of(home, own_version).ok()?;
        (program.is_newer() && (program.owner.is_some() || !build_info::is_development())).then_some(program)
    }

    fn is_newer(&self) -> bool {
        version_order::compare(&self.version, &self.installed).is_gt()
    }

    /// True for a request that this program's own release answers.
    pub(crate) fn answers(&self, request: &Request<'_>) -> bool {
        let is_own = |version: &str| {
            Version::parse(version.trim_start_matches('v')).is_ok_and(|version| version == self.version)
        };
        self.is_newer() && request.from.is_none() && request.version.is_none_or(is_own)
    }

    /// Says where the newer release comes from.
    pub fn origin(&self) -> String {
        match self.owner {
            Some(owner) => format!("{} installed leoflow {}", owner.name(), self.version),
            None => format!("this program is leoflow {}", self.version),
        }
    }

    pub fn announcement(&self) -> String {
        format!("{}: upgrading this home from {} first", self.origin(), self.installed)
    }

    /// The program of the home's release, unless this program was copied over it.
    pub fn installed_program(&self, home: &Home) -> Option<PathBuf> {
        let program = match self.owner {
            Some(_) => home.bin().join("leoflow"),
            // `bin/leoflow` may be this program.
            None => stage::program_of(home, &self.installed),
        };
        program::about(&program).is_ok_and(|about| about.version == self.installed.to_string()).then_some(program)
    }
}
