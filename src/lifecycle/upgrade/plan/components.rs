//! Decides which components of a release are fetched.

use super::{Action, ComponentPlan, Installed, POSTGRES, UpgradeFacts, UpgradeRefusal};
use crate::upgrade::release::manifest::{Component, Release};
use crate::upgrade::release::source::ReleaseFile;
use leoflow_components::web_ui;
use leoflow_postgres::install::version;

/// The components that this version can install.
const KNOWN_COMPONENTS: [&str; 2] = [POSTGRES, web_ui::COMPONENT];

/// Decides which files to download. Refuses components that this version cannot install.
pub(super) fn plan_components(facts: &UpgradeFacts, release: &Release) -> Result<Vec<ComponentPlan>, UpgradeRefusal> {
    let is_known = |component: &&Component| KNOWN_COMPONENTS.contains(&component.name.as_str());
    let mut unknown = release.components(facts.target).filter(|component| !is_known(component));
    if let Some(unknown) = unknown.find(|component| !component.optional) {
        return Err(UpgradeRefusal::UnknownComponent(unknown.name.clone()));
    }
    if let Some((new, old)) = other_major(facts, release) {
        return Err(UpgradeRefusal::OtherMajor { to: release.version.clone(), new, old });
    }
    Ok(release.components(facts.target).filter(is_known).map(|new| plan_component(facts, new)).collect())
}

/// The release's and the datastore's PostgreSQL versions, if their major versions differ.
pub(super) fn other_major(facts: &UpgradeFacts, release: &Release) -> Option<(String, String)> {
    let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
    let release_postgres = release.components(facts.target).find(|component| component.name == POSTGRES)?;
    let installed_postgres = facts.components.iter().find(|installed| installed.name == POSTGRES)?;
    let (new, old) = (&release_postgres.version, &installed_postgres.version);
    (major(new) != major(old)).then(|| (new.clone(), old.clone()))
}

/// Decides whether a component of the release is fetched.
fn plan_component(facts: &UpgradeFacts, new: &Component) -> ComponentPlan {
    let mut installed = facts.components.iter().filter(|installed| installed.name == new.name);
    let stays = installed.find_map(|component| match &component.sha256 {
        Some(sha256) => (*sha256 == new.sha256).then_some(Action::Carried),
        None => (component.version == new.version).then_some(Action::Kept),
    });
    // The datastore runs on the newest installed PostgreSQL, so an older one is not fetched.
    let is_older = |component: &Installed| version::numbers(&new.version) < version::numbers(&component.version);
    let stays = stays.or_else(|| {
        let mut installed = facts.components.iter().filter(|installed| installed.name == new.name);
        installed.any(|component| component.name == POSTGRES && is_older(component)).then_some(Action::Kept)
    });
    let action = match stays {
        Some(action) => action,
        None => Action::Fetch(ReleaseFile { url: new.url.clone(), sha256: new.sha256.clone(), size: new.size }),
    };
    ComponentPlan { name: new.name.clone(), version: new.version.clone(), sha256: new.sha256.clone(), action }
}
