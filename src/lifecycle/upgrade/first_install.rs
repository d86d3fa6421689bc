//! Installs a release into a home without an instance, for install.sh.

use super::UpgradeError;
use super::plan::{Target, UpgradeRefusal};
use super::release::manifest::Release;
use super::release::source::ReleaseFile;
use super::release::{signature, stage};
use super::target_release::{Purpose, Request, TargetError, doubts, source, target};
use crate::setup;
use leoflow_base::build_info::build_info;
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::progress::Reporter;
use leoflow_base::sys::fs::files;
use leoflow_postgres::cluster::{self, ClusterState};
use semver::Version;

/// Downloads the requested release, installs its program, and links it in `bin/`. Puts the PostgreSQL archive beside the
/// program for the setup that follows. Returns the installed version.
pub async fn install(home: &Home, request: Request<'_>, reporter: &dyn Reporter) -> Result<Version, TargetError> {
    if setup::installed_version(home).is_some() && cluster::state(home) != ClusterState::Absent {
        return Err(TargetError::AlreadyInstalled);
    }
    // The release is resolved before anything is written, so that an unknown release leaves nothing behind.
    let source = source(request.from, None)?;
    let manifest = source.manifest(&signature::trusted(home, build_info().public_key)).await?;
    let release: &Release = match target(request.version, None)? {
        Target::Version(version) => manifest.release(&version).ok_or(UpgradeRefusal::Unknown(version))?,
        Target::Newest(channel) => {
            manifest.newest(channel, |_| true).ok_or(UpgradeRefusal::EmptyChannel(channel.name()))?
        }
    };
    let asset = release
        .asset(build_info().target)
        .ok_or_else(|| UpgradeRefusal::Platform(release.version.clone(), build_info().target))?;
    let file = ReleaseFile::from_asset(asset).map_err(UpgradeRefusal::from)?;
    home.create().map_err(|source| UpgradeError::Write { path: home.root().to_owned(), source })?;
    let _operation_lock = OperationLock::take(home, "install.sh")?;
    let folder = home.versions().join(release.version.to_string());
    let downloads = home.upgrade().join("download");
    for path in [home.versions(), folder.clone(), home.upgrade(), downloads.clone()] {
        files::create_private_dir(&path).map_err(|source| UpgradeError::Write { path, source })?;
    }
    let archive = source.fetch(&file, &downloads, reporter).await?;
    stage::program(home, &archive, &release.version).map_err(UpgradeError::from)?;
    for component in release.components(build_info().target) {
        let file = ReleaseFile { url: component.url.clone(), sha256: component.sha256.clone(), size: component.size };
        source.fetch(&file, &folder, reporter).await?;
    }
    // Removes only the downloads: the folder above them also has the records of manifests seen before.
    files::remove_any(&downloads).map_err(|source| UpgradeError::Write { path: downloads, source })?;
    for doubt in doubts(home, &manifest, &source, Purpose::Apply, reporter) {
        reporter.warn(doubt);
    }
    setup::link(home, &release.version.to_string())
        .map_err(|source| UpgradeError::Write { path: home.bin(), source })?;
    Ok(release.version.clone())
}
