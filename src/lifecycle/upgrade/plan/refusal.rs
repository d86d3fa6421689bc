//! Refusals of an upgrade.

use crate::upgrade::plan::UpgradePlan;
use crate::upgrade::release::manifest::ManifestError;
use semver::Version;

/// Why an upgrade is refused.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeRefusal {
    #[error("leoflow {0} is the newest release of its channel")]
    UpToDate(Version),
    #[error("leoflow {installed} is newer than the newest release of its channel, {newest}")]
    Ahead { installed: Version, newest: Version },
    #[error("leoflow {0} is already installed")]
    Installed(Version),
    #[error("{to} is older than the installed release, {from}")]
    Older { from: Version, to: Version },
    #[error("there is no release {0}")]
    Unknown(Version),
    #[error("there is no release in the channel {0}")]
    EmptyChannel(&'static str),
    #[error("release {0} has no program for this machine, {1}")]
    Platform(Version, &'static str),
    #[error("release {to} upgrades from {floor} and later, not from {from}")]
    BelowFloor { from: Version, to: Version, floor: Version },
    #[error("upgrade to {stop} first")]
    Stop { stop: Version, to: Version },
    #[error("{stop} must be installed first, but the release host no longer offers it")]
    StopGone { stop: Version, to: Version },
    #[error("the database is at schema version {database}, and {to} only knows up to {known}")]
    NewerSchema { database: i64, to: Version, known: i64 },
    #[error("migration {version} of the database differs from the one in {to}")]
    OtherHistory { version: i64, to: Version },
    #[error("the database's migration history is damaged: {0}")]
    Damaged(String),
    #[error("migration V{version:04}__{name} has the unknown phase {phase}")]
    Phase { version: i64, name: String, phase: String },
    #[error("Leoflow's tables in the database were changed: {}", .0.join(", "))]
    SchemaChanged(Vec<String>),
    #[error(
        "the upgrade needs {} MB of free disk, but only {} MB are available",
        .needed.div_ceil(1_000_000), .free / 1_000_000
    )]
    Space { needed: u64, free: u64 },
    /// The release's own program must make the plan; this `UpgradePlan` has only what is known without that program.
    #[error("leoflow {} plans the upgrade to it itself", .0.to)]
    HandOver(Box<UpgradePlan>),
    #[error("cannot determine the free disk space")]
    UnknownSpace,
    #[error("the release has a component that this version does not know: {0}")]
    UnknownComponent(String),
    #[error("the instance is not healthy: {0}")]
    Unhealthy(String),
    #[error("{to} runs PostgreSQL {new}, but the datastore belongs to PostgreSQL {old}")]
    OtherMajor { to: Version, new: String, old: String },
    #[error("invalid manifest: {0}")]
    Manifest(#[from] ManifestError),
}
