//! The release of this program, set by `entry::main` at the start. As a constant of this crate it would recompile the
//! crate after every change, because each change gives a development build another version.

use crate::docs::Documentation;
use std::sync::OnceLock;

/// `(file name, SQL, rollback SQL)`
pub type MigrationFile = (&'static str, &'static str, Option<&'static str>);

#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// `0.1.0` for a release, `0.1.0+<hash8>` for a development build.
    pub version: &'static str,
    /// The Rust target triple.
    pub target: &'static str,
    /// The git commit of the sources.
    pub commit: Option<&'static str>,
    /// The minisign public key that verifies the releases this one upgrades to; a development build has none.
    pub public_key: Option<&'static str>,
    /// The default URL of releases.
    pub releases_url: Option<&'static str>,
    /// Migrations in addition to those in `migrations/`.
    pub more_migrations: &'static [MigrationFile],
    pub documentation: Documentation,
    /// `docs/reference/contract.json`: what operators may rely on in this release.
    pub contract: &'static str,
}

/// The value in unit tests, where nothing calls `set`.
const UNSET: BuildInfo = BuildInfo {
    version: env!("CARGO_PKG_VERSION"),
    target: "unknown",
    commit: None,
    public_key: None,
    releases_url: None,
    more_migrations: &[],
    documentation: Documentation { pages: &[], pictures: &[] },
    contract: "",
};

static INFO: OnceLock<BuildInfo> = OnceLock::new();

/// Sets the release of this program. Only the first call has an effect: a program of the upgrade tests simulates
/// another release by setting it before `entry::main` does.
pub fn set(info: BuildInfo) {
    let _ = INFO.set(info);
}

pub fn build_info() -> &'static BuildInfo {
    INFO.get().unwrap_or(&UNSET)
}

/// The documentation of this program.
pub fn documentation() -> &'static Documentation {
    &build_info().documentation
}

pub fn version() -> &'static str {
    build_info().version
}

/// True for a build that is no release.
pub fn is_development() -> bool {
    version().contains('+')
}
