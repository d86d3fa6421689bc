//! `manifest.json`: the available releases, with everything that planning an upgrade needs before the download.
//! `docs/reference/release-format.md` describes it; the fields that `self_update` reads follow its schema.

use super::version_order;
use jiff::Timestamp;
use leoflow_base::config::Channel;
use semver::Version;
use serde::{Deserialize, Serialize};

/// Size limit of a manifest, in bytes; enough for some thousands of releases.
pub const SIZE_LIMIT: u64 = 4 * 1024 * 1024;
pub const MANIFEST: &str = "manifest.json";
/// The suffix of a signature file.
pub const SIGNATURE_SUFFIX: &str = ".minisig";

/// The version of `self_update`'s schema.
const SCHEMA: u64 = 1;
/// The version of our additions to that schema. A higher number changes the meaning of existing fields.
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: u64,
    pub format: u32,
    /// Time when the manifest was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
    /// Expiry; a maintained host serves a newer manifest by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The public key that will sign later releases. A home that verifies this manifest trusts the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_public_key: Option<String>,
    /// Newest first.
    pub releases: Vec<Release>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub version: Version,
    pub channel: Channel,
    /// RFC 3339.
    pub date: String,
    /// The commit of the release's sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Markdown, from the changelog.
    pub notes: String,
    /// The oldest version that can be upgraded to this one.
    pub upgrades_from: Version,
    /// Versions that must be installed first, on the way from an older release to this one.
    #[serde(default)]
    pub required_stops: Vec<Version>,
    /// True when only the release's own program can plan the upgrade to it. An older program downloads and starts that
    /// program.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hands_over: bool,
    /// Every migration that this release knows, oldest first.
    pub migrations: Vec<Migration>,
    /// The operator's contract, see [`crate::contract`]; releases before 0.2.0 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<ContractFile>,
    /// One archive per platform.
    pub assets: Vec<Asset>,
    pub components: Vec<Component>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    pub version: i64,
    pub name: String,
    /// `expand`, `data`, `postdeploy` or `contract`.
    pub phase: String,
    /// The hash of the migration's file.
    pub sha256: String,
    /// True when the migration has rollback SQL.
    pub reversible: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    pub name: String,
    /// Absolute, or relative to the manifest.
    pub url: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
    /// A Rust target triple.
    pub target: String,
}

/// The release's contract: a file next to the manifest, the same for all platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractFile {
    pub url: String,
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
}

/// A part of a release that changes less often than the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// For example `postgres`.
    pub name: String,
    /// The component's own version, such as `18.4`.
    pub version: String,
    pub target: String,
    pub url: String,
    pub sha256: String,
    /// Size of the archive in bytes.
    pub size: u64,
    /// Size of the archive's content in bytes.
    pub unpacked_size: u64,
    /// The release that built this archive.
    pub produced_by: Version,
    /// True when a program that does not know this component may install the release without it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is not valid: {0}")]
    Unreadable(String),
    #[error("the manifest has format {0}, which is newer than this version can read")]
    Newer(u64),
    #[error("the manifest names {0:?}, which is outside of its folder")]
    Escapes(String),
    #[error("the manifest has an invalid sha256: {0:?}")]
    Digest(String),
}

impl Manifest {
    pub fn new(releases: Vec<Release>) -> Self {
        Self { schema: SCHEMA, format: FORMAT, issued_at: None, expires_at: None, next_public_key: None, releases }
    }

    /// Parses and checks a manifest. The caller has verified its signature.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Versions {
            schema: u64,
            format: u64,
        }
        let unreadable = |error: serde_json::Error| ManifestError::Unreadable(error.to_string());
        let versions: Versions = serde_json::from_slice(text).map_err(unreadable)?;
        if versions.schema != SCHEMA || versions.format > u64::from(FORMAT) {
            return Err(ManifestError::Newer(versions.schema.max(versions.format)));
        }
        let manifest: Self = serde_json::from_value(known_channels(text).map_err(unreadable)?).map_err(unreadable)?;
        manifest.releases.iter().try_for_each(Release::check)?;
        let mut versions: Vec<&Version> = manifest.releases.iter().map(|release| &release.version).collect();
        versions.sort_by(|left, right| version_order::compare(left, right));
        match versions.windows(2).find(|pair| version_order::compare(pair[0], pair[1]).is_eq()) {
            Some(pair) => Err(ManifestError::Unreadable(format!("it lists release {} twice", pair[0]))),
            None => Ok(manifest),
        }
    }

    /// Parses a manifest and checks that `self_update`, reading it from `address`, finds the same releases, files
    /// and hashes.
    pub(crate) fn parse_at(text: &[u8], address: &str) -> Result<Self, ManifestError> {
        let manifest = Self::parse(text)?;
        let listed = self_update::backends::manifest::parse_manifest(&String::from_utf8_lossy(text), address)
            .map_err(|error| ManifestError::Unreadable(error.to_string()))?;
        let is_read = |version: &str| manifest.releases.iter().any(|release| release.version.to_string() == version);
        let listed = listed.iter().filter(|release| is_read(release.version()));
        let theirs = listed.flat_map(|release| release.assets()).map(|asset| (asset.name(), asset.digest()));
        let ours = manifest.releases.iter().flat_map(|release| &release.assets);
        if ours.map(|asset| (asset.name.as_str(), Some(asset.digest.as_str()))).eq(theirs) {
            Ok(manifest)
        } else {
            Err(ManifestError::Unreadable("self_update finds other files in it".to_owned()))
        }
    }

    pub fn release(&self, version: &Version) -> Option<&Release> {
        self.releases.iter().find(|release| release.version == *version)
    }

    /// The newest release of a channel for which `fits` returns true; the channel of release candidates includes stable
    /// releases.
    pub fn newest(&self, channel: Channel, fits: impl Fn(&Release) -> bool) -> Option<&Release> {
        let is_candidate =
            |release: &&Release| (channel == Channel::Rc || release.channel == Channel::Stable) && fits(release);
        self.releases
            .iter()
            .filter(is_candidate)
            .max_by(|left, right| version_order::compare(&left.version, &right.version))
    }
}

impl Release {
    /// The newest schema version that the release knows; 0 without migrations.
    pub fn schema_version(&self) -> i64 {
        self.migrations.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// The program for a platform.
    pub fn asset(&self, target: &str) -> Option<&Asset> {
        self.assets.iter().find(|asset| asset.target == target)
    }

    pub fn components(&self, target: &str) -> impl Iterator<Item = &Component> {
        self.components.iter().filter(move |component| component.target == target)
    }

    /// Checks file names, hashes and the order of the migrations.
    fn check(&self) -> Result<(), ManifestError> {
        for asset in &self.assets {
            check_name(&asset.url)?;
            asset.sha256().map(drop)?;
        }
        if let Some(contract) = &self.contract {
            check_name(&contract.url)?;
            check_sha256(&contract.sha256)?;
        }
        for component in &self.components {
            check_name(&component.url)?;
            check_sha256(&component.sha256)?;
        }
        let mut last_version = 0;
        for migration in &self.migrations {
            check_sha256(&migration.sha256)?;
            if migration.version <= last_version {
                return Err(ManifestError::Unreadable(format!("migration {} is out of order", migration.version)));
            }
            last_version = migration.version;
        }
        Ok(())
    }
}

impl Asset {
    /// The hash as 64 hexadecimal digits.
    pub fn sha256(&self) -> Result<&str, ManifestError> {
        let hex = self.digest.strip_prefix("sha256:").ok_or_else(|| ManifestError::Digest(self.digest.clone()))?;
        check_sha256(hex)?;
        Ok(hex)
    }
}

/// Parses a manifest and removes the releases of channels that this version does not know, which would otherwise make
/// the whole manifest invalid.
fn known_channels(text: &[u8]) -> Result<serde_json::Value, serde_json::Error> {
    let mut manifest: serde_json::Value = serde_json::from_slice(text)?;
    if let Some(releases) = manifest.get_mut("releases").and_then(serde_json::Value::as_array_mut) {
        releases.retain(|release| release["channel"].as_str().is_none_or(|name| Channel::parse(name).is_some()));
    }
    Ok(manifest)
}

/// Accepts a plain file name next to the manifest, or a URL that ends in one.
fn check_name(url: &str) -> Result<(), ManifestError> {
    let is_address = url.starts_with("https://") || url.starts_with("http://");
    let name = if is_address { url.rsplit('/').next().unwrap_or_default() } else { url };
    let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0', '?', '#', '%']);
    if is_name { Ok(()) } else { Err(ManifestError::Escapes(url.to_owned())) }
}

fn check_sha256(text: &str) -> Result<(), ManifestError> {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex { Ok(()) } else { Err(ManifestError::Digest(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn releases_of_an_unknown_channel_do_not_hide_the_others() {
        let release = |version: &str, channel: &str| {
            json!({
                "version": version, "channel": channel, "date": "", "notes": "", "upgrades_from": "0.1.0",
                "migrations": [], "assets": [], "components": [], "of_a_later_version": {},
            })
        };
        let text = |channel: &str| {
            json!({"schema": 1, "format": 1, "releases": [release("0.3.0", channel), release("0.2.0", "stable")]})
                .to_string()
        };
        let manifest = Manifest::parse(text("nightly").as_bytes()).unwrap();
        assert_eq!(manifest.releases.iter().map(|release| release.version.to_string()).collect::<Vec<_>>(), ["0.2.0"]);
        assert_eq!(Manifest::parse(text("rc").as_bytes()).unwrap().releases.len(), 2);
        assert!(Manifest::parse(b"[1, 1]").is_err());
    }
}
