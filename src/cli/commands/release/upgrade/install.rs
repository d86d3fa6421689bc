//! `leoflow upgrade --install`, used by install.sh: installs a release into a home without an instance.

use super::args::Upgrade;
use crate::commands::release::apply_plan;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::build_info::build_info;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::setup;
use leoflow_lifecycle::upgrade::UpgradeError;
use leoflow_lifecycle::upgrade::plan::{Target, UpgradeRefusal};
use leoflow_lifecycle::upgrade::release::manifest::Release;
use leoflow_lifecycle::upgrade::release::signature;
use leoflow_lifecycle::upgrade::release::source::ReleaseFile;
use leoflow_lifecycle::upgrade::release::stage;
use leoflow_lifecycle::upgrade::target_release::{Remember, doubts, source, target};
use leoflow_postgres::cluster::{self, ClusterState};

/// Downloads the release, installs its program, and links it in `bin/`. Puts the PostgreSQL archive beside the program
/// for the setup that follows.
pub async fn run(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    let home = &context.home;
    if setup::installed_version(home).is_some() && cluster::state(home) != ClusterState::Absent {
        return Err(Error::refused("Leoflow is already installed in this home").hint("leoflow upgrade"));
    }
    apply_plan::refuse_interrupted(home)?;
    // The release is resolved before anything is written, so that an unknown release leaves nothing behind.
    let source = source(args.from.from.as_deref(), None)?;
    let manifest = source.manifest(&signature::trusted(home, build_info().public_key)).await?;
    let release: &Release = match target(args.version.as_deref(), None)? {
        Target::Version(version) => manifest.release(&version).ok_or(UpgradeRefusal::Unknown(version))?,
        Target::Newest(channel) => {
            manifest.newest(channel, |_| true).ok_or(UpgradeRefusal::EmptyChannel(channel.name()))?
        }
    };
    let asset = release
        .asset(build_info().target)
        .ok_or_else(|| UpgradeRefusal::Platform(release.version.clone(), build_info().target))?;
    let file = ReleaseFile::from_asset(asset).map_err(UpgradeRefusal::from)?;
    home.create().map_err(|error| Error::io("create", home.root(), &error))?;
    let _operation_lock = OperationLock::take(home, "install.sh")?;
    let folder = home.versions().join(release.version.to_string());
    let downloads = home.upgrade().join("download");
    for folder in [&home.versions(), &folder, &home.upgrade(), &downloads] {
        files::create_private_dir(folder).map_err(|error| Error::io("create", folder, &error))?;
    }
    let archive = source.fetch(&file, &downloads, context.printer).await?;
    stage::program(home, &archive, &release.version).map_err(UpgradeError::from)?;
    for component in release.components(build_info().target) {
        let file = ReleaseFile { url: component.url.clone(), sha256: component.sha256.clone(), size: component.size };
        source.fetch(&file, &folder, context.printer).await?;
    }
    // Removes only the downloads: the folder above them also has the records of manifests seen before.
    files::remove_any(&downloads).map_err(|error| Error::io("remove", &downloads, &error))?;
    doubts(home, &manifest, &source, Remember::Yes, context.printer)
        .iter()
        .for_each(|doubt| context.printer.warning(doubt));
    setup::link(home, &release.version.to_string()).map_err(|error| Error::io("write", &home.bin(), &error))?;
    context.printer.line(format!("Installed leoflow {}", release.version));
    Ok(0)
}
