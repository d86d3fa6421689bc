//! Decides whether the upgrade is handed over to the release's own program, because only that program can plan it.

use super::{Instance, UpgradeFacts, UpgradePlan, UpgradeRefusal};
use crate::upgrade::release::manifest::{Asset, Release};
use crate::upgrade::release::source::ReleaseFile;
use semver::{BuildMetadata, Version};

/// Fails with `UpgradeRefusal::HandOver` if only the release's own program can plan the upgrade and this program has another
/// version. A development build of the release's version counts as its own program.
pub(super) fn check(facts: &UpgradeFacts, release: &Release, asset: &Asset) -> Result<(), UpgradeRefusal> {
    let own = Version { build: BuildMetadata::EMPTY, ..facts.own_version.clone() };
    match release.hands_over && own != release.version {
        true => Err(UpgradeRefusal::HandOver(Box::new(plan(facts, release, asset)?))),
        false => Ok(()),
    }
}

/// The plan as far as this program knows it: migrations and components stay empty, because only the release's own
/// program can judge them.
fn plan(facts: &UpgradeFacts, release: &Release, asset: &Asset) -> Result<UpgradePlan, UpgradeRefusal> {
    Ok(UpgradePlan {
        from: facts.installed.clone(),
        to: release.version.clone(),
        live: facts.instance != Instance::Stopped,
        schema_from: facts.own_schema,
        schema_to: release.schema_version(),
        migrations: Vec::new(),
        later: Vec::new(),
        program: ReleaseFile::from_asset(asset)?,
        components: Vec::new(),
        needs_bytes: asset.size.saturating_mul(4),
        running_tasks: facts.running_tasks,
        warnings: vec![format!(
            "leoflow {} plans this upgrade itself: `leoflow upgrade` downloads it, shows its plan and asks before it \
             changes anything",
            release.version
        )],
        commit: release.commit.clone(),
        notes: release.notes.clone(),
    })
}
