//! Warnings of a plan: skipped or unsupported releases, and irreversible migrations. Pure.

use super::release::manifest::{Manifest, Migration, Release};
use semver::Version;

/// Lists the warnings. `newer` is a release newer than the planned one that this machine cannot run.
pub fn warnings<'a>(
    from: &Version,
    newer: Option<&Version>,
    manifest: &Manifest,
    release: &Release,
    migrations: impl Iterator<Item = &'a Migration>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings
        .extend(newer.map(|newer| format!("{newer} is newer, but does not support this machine or its PostgreSQL")));
    let minor = |version: &Version| (version.major, version.minor);
    let mut skipped: Vec<(u64, u64)> = manifest
        .releases
        .iter()
        .map(|other| minor(&other.version))
        .filter(|other| *other > minor(from) && *other < minor(&release.version))
        .collect();
    skipped.sort_unstable();
    skipped.dedup();
    if !skipped.is_empty() {
        let names: Vec<String> = skipped.iter().map(|(major, minor)| format!("{major}.{minor}")).collect();
        warnings.push(format!("this skips {}: features that they deprecated may be removed", names.join(", ")));
    }
    warnings.extend(irreversible(migrations));
    warnings
}

/// The warning about migrations that cannot be undone; `None` if all can.
pub fn irreversible<'a>(migrations: impl Iterator<Item = &'a Migration>) -> Option<String> {
    let names: Vec<String> = migrations
        .filter(|migration| !migration.reversible)
        .map(|migration| format!("V{:04}__{}", migration.version, migration.name))
        .collect();
    let list = names.join(", ");
    (!names.is_empty())
        .then(|| format!("{list} cannot be undone: a rollback restores the backup that the upgrade takes first"))
}
