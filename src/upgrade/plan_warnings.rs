//! What a plan warns of: releases that are skipped or out of reach, and migrations that cannot be undone. Pure.

use super::manifest::{Manifest, Migration, Release};
use semver::Version;

/// `newer` is a release that this machine cannot have, newer than the one that is planned.
pub fn warnings<'a>(
    from: &Version,
    newer: Option<&Version>,
    manifest: &Manifest,
    release: &Release,
    migrations: impl Iterator<Item = &'a Migration>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(newer.map(|newer| format!("{newer} is newer, and not for this machine or its PostgreSQL")));
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
        warnings.push(format!("this skips {}: what they deprecated may be gone", names.join(", ")));
    }
    warnings.extend(irreversible(migrations));
    warnings
}

pub fn irreversible<'a>(migrations: impl Iterator<Item = &'a Migration>) -> Option<String> {
    let fixed: Vec<String> = migrations
        .filter(|migration| !migration.reversible)
        .map(|migration| format!("V{:04}__{}", migration.version, migration.name))
        .collect();
    let them = fixed.join(", ");
    (!fixed.is_empty())
        .then(|| format!("{them} cannot be taken back by itself: the way back is the backup that is taken first"))
}
