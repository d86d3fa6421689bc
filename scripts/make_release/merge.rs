//! Merges the `dist/` folders of several platforms into one, or renews the signature of a single one.

use super::packages::is_package;
use super::{Outcome, Publishing, carry, fresh_folder, last_manifest, pack, sign, signed_text};
use leoflow::config::Channel;
use leoflow::upgrade::release::manifest::{Asset, Component, Manifest, Release};
use semver::Version;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Merge {
    /// The dist/ of each platform; a single one only gets a new signature
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    #[command(flatten)]
    publishing: Publishing,
}

impl Merge {
    pub fn run(&self) -> Outcome<()> {
        let key = self.publishing.key()?;
        let mut all: BTreeMap<Version, Release> = BTreeMap::new();
        let mut each = Vec::new();
        let mut issued = None;
        for folder in &self.folders {
            let Manifest { releases, issued_at, .. } = last_manifest(folder, &key)?;
            issued = issued.max(issued_at);
            for release in &releases {
                match all.get_mut(&release.version) {
                    Some(known) => join(known, release)?,
                    None => drop(all.insert(release.version.clone(), release.clone())),
                }
            }
            each.push((folder, releases));
        }
        fresh_folder(&self.publishing.output)?;
        for (folder, releases) in &each {
            carry(folder, &self.publishing.output, releases)?;
            carry_packages(folder, &self.publishing.output, &key)?;
        }
        // install.sh installs the newest stable release, or the newest candidate if there is none.
        let newest = all.values().rev().find(|release| release.channel == Channel::Stable);
        let newest = newest.or(all.values().next_back()).ok_or("the dists contain no release")?;
        self.publishing.write_scripts(newest)?;
        self.publishing.write_formula(newest)?;
        self.publishing.publish(all.into_values().collect(), issued, &key)
    }
}

/// Copies the wheels and .debs, which the manifest does not list. They are verified against the signed SHA256SUMS.
fn carry_packages(from: &Path, to: &Path, key: &sign::Key) -> Outcome<()> {
    let sums = signed_text(from, "SHA256SUMS", key)?;
    for (sha256, name) in sums.lines().filter_map(|line| line.split_once("  ")).filter(|(_, name)| is_package(name)) {
        let target = to.join(name);
        fs::copy(from.join(name), &target).map_err(|error| format!("{}: {error}", from.join(name).display()))?;
        if pack::sha256(&target)?.0 != sha256 {
            return Err(format!("{} does not match its hash in SHA256SUMS", from.join(name).display()));
        }
    }
    Ok(())
}

/// Adds the files of another platform to a release; all other fields must be equal.
fn join(known: &mut Release, other: &Release) -> Outcome<()> {
    let version = &known.version;
    let without_files = |release: &Release| Release { assets: Vec::new(), components: Vec::new(), ..release.clone() };
    if without_files(known) != without_files(other) {
        return Err(format!("{version} differs between the dists: its date, notes or migrations are not the same"));
    }
    let is_conflict = |one: &Asset, other: &Asset| one.target == other.target && one != other;
    if let Some(asset) = other.assets.iter().find(|asset| known.assets.iter().any(|one| is_conflict(one, asset))) {
        return Err(format!("the dists have different programs of {version} for {}", asset.target));
    }
    let is_conflict =
        |one: &Component, other: &Component| one.name == other.name && one.target == other.target && one != other;
    if let Some(new) = other.components.iter().find(|new| known.components.iter().any(|one| is_conflict(one, new))) {
        return Err(format!("the dists have different {} components of {version} for {}", new.name, new.target));
    }
    let assets: Vec<Asset> = other.assets.iter().filter(|asset| !known.assets.contains(asset)).cloned().collect();
    known.assets.extend(assets);
    let components: Vec<Component> =
        other.components.iter().filter(|component| !known.components.contains(component)).cloned().collect();
    known.components.extend(components);
    Ok(())
}
