//! The release of this program, fixed at build time. Upgrade tests build programs that assume another release;
//! they call `assume` before any other code reads it.

use std::sync::OnceLock;

/// `(file name, SQL, rollback SQL)`
pub type MigrationFile = (&'static str, &'static str, Option<&'static str>);

#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// `0.1.0` for a release, `0.1.0+<hash8>` for a development build.
    pub version: &'static str,
    /// The git commit of the sources.
    pub commit: Option<&'static str>,
    /// The minisign public key that signs the releases this one upgrades to; a development build has none.
    pub public_key: Option<&'static str>,
    /// The default URL of releases.
    pub releases_url: Option<&'static str>,
    /// Migrations in addition to those in `migrations/`.
    pub more_migrations: &'static [MigrationFile],
}

/// The values set at build time.
pub const BUILT: BuildInfo = BuildInfo {
    version: env!("LEOFLOW_VERSION"),
    commit: option_env!("LEOFLOW_COMMIT"),
    public_key: option_env!("LEOFLOW_PUBLIC_KEY"),
    releases_url: option_env!("LEOFLOW_RELEASES_URL"),
    more_migrations: &[],
};

static ASSUMED: OnceLock<BuildInfo> = OnceLock::new();

/// Replaces the build's values. Must be called before `build_info`.
pub fn assume(info: BuildInfo) {
    // Only the first call has an effect.
    let _ = ASSUMED.set(info);
}

pub fn build_info() -> &'static BuildInfo {
    ASSUMED.get().unwrap_or(&BUILT)
}

pub fn version() -> &'static str {
    build_info().version
}

/// The Rust target triple of this build.
pub const TARGET: &str = env!("LEOFLOW_TARGET");
