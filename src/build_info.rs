//! Which release this program is. Fixed when it is built; only a program that is made to stand for another
//! release, as the tests of upgrades are, says something else, and before anything asks.

use std::sync::OnceLock;

/// `(file name, SQL, rollback SQL)`
pub type MigrationFile = (&'static str, &'static str, Option<&'static str>);

#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// `0.1.0` for a release, `0.1.0+<hash8>` for a development build.
    pub version: &'static str,
    /// Of the sources, as git names it.
    pub commit: Option<&'static str>,
    /// What the releases are signed with that this one upgrades to, as minisign writes it; a development
    /// build has none.
    pub public_key: Option<&'static str>,
    /// Where releases are, when nothing else is said.
    pub releases_url: Option<&'static str>,
    /// Migrations beside those in `migrations/`.
    pub more_migrations: &'static [MigrationFile],
}

/// As it was built.
pub const BUILT: BuildInfo = BuildInfo {
    version: env!("LEOFLOW_VERSION"),
    commit: option_env!("LEOFLOW_COMMIT"),
    public_key: option_env!("LEOFLOW_PUBLIC_KEY"),
    releases_url: option_env!("LEOFLOW_RELEASES_URL"),
    more_migrations: &[],
};

static ASSUMED: OnceLock<BuildInfo> = OnceLock::new();

/// To be called first, or not at all.
pub fn assume(info: BuildInfo) {
    // The first word counts.
    let _ = ASSUMED.set(info);
}

pub fn build_info() -> &'static BuildInfo {
    ASSUMED.get().unwrap_or(&BUILT)
}

pub fn version() -> &'static str {
    build_info().version
}

/// The platform that it was built for, as Rust names it.
pub const TARGET: &str = env!("LEOFLOW_TARGET");
