//! `manifest.json`: which releases there are, and everything about one that has to be known before it is
//! fetched. `docs/release-format.md` describes it; the fields that `self_update` knows are as it wants them.

use super::version_order;
use crate::config::Channel;
use jiff::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};

/// The largest manifest that is read, bytes: some thousands of releases.
pub const SIZE_LIMIT: u64 = 4 * 1024 * 1024;
pub const MANIFEST: &str = "manifest.json";
/// What is added to a file's name for its signature.
pub const SIGNATURE_SUFFIX: &str = ".minisig";

/// The version of `self_update`'s schema.
const SCHEMA: u64 = 1;
/// The version of what we add to it. A number above it changes the meaning of what is there.
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: u64,
    pub format: u32,
    /// When it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
    /// Until when a host that is looked after has a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// A key by which later releases will be signed; whoever trusts this manifest trusts it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_public_key: Option<String>,
    /// The newest first.
    pub releases: Vec<Release>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub version: Version,
    pub channel: Channel,
    /// RFC 3339.
    pub date: String,
    /// Markdown, from the changelog.
    pub notes: String,
    /// The oldest version that can be upgraded to this one.
    pub upgrades_from: Version,
    /// Versions that have to be passed through on the way to this one.
    #[serde(default)]
    pub required_stops: Vec<Version>,
    /// Every migration that this release knows, oldest first.
    pub migrations: Vec<Migration>,
    /// One tarball a platform.
    pub assets: Vec<Asset>,
    pub components: Vec<Component>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    pub version: i64,
    pub name: String,
    /// `expand`, `data`, `postdeploy` or `contract`.
    pub phase: String,
    /// Of its file.
    pub sha256: String,
    /// Whether it comes with SQL that undoes it.
    pub reversible: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    pub name: String,
    /// Relative to the manifest, or whole.
    pub url: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// As Rust names it.
    pub target: String,
}

/// A part of a release that changes more seldom than the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// `postgres`
    pub name: String,
    /// Its own version: `18.4`
    pub version: String,
    pub target: String,
    pub url: String,
    pub sha256: String,
    /// Bytes, packed and unpacked.
    pub size: u64,
    pub unpacked_size: u64,
    /// The release that really made these bytes.
    pub produced_by: Version,
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it is not a manifest: {0}")]
    Unreadable(String),
    #[error("it is of a later format ({0}) than this version reads")]
    Newer(u64),
    #[error("it names {0:?}, which leads away from it")]
    Escapes(String),
    #[error("it names a sha256 that is none: {0:?}")]
    Digest(String),
}

impl Manifest {
    pub fn new(releases: Vec<Release>) -> Self {
        Self { schema: SCHEMA, format: FORMAT, issued_at: None, expires_at: None, next_public_key: None, releases }
    }

    /// Reads and checks one. The caller has verified its signature.
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
        let manifest: Self = serde_json::from_slice(text).map_err(unreadable)?;
        manifest.releases.iter().try_for_each(Release::check)?;
        let mut versions: Vec<&Version> = manifest.releases.iter().map(|release| &release.version).collect();
        versions.sort_by(|one, other| version_order::compare(one, other));
        match versions.windows(2).find(|pair| version_order::compare(pair[0], pair[1]).is_eq()) {
            Some(pair) => Err(ManifestError::Unreadable(format!("it has two releases {}", pair[0]))),
            None => Ok(manifest),
        }
    }

    /// The same, as any program that uses `self_update` reads it from that address: it has to find the same releases,
    /// files and sums there.
    pub fn parse_at(text: &[u8], address: &str) -> Result<Self, ManifestError> {
        let manifest = Self::parse(text)?;
        let listed = self_update::backends::manifest::parse_manifest(&String::from_utf8_lossy(text), address)
            .map_err(|error| ManifestError::Unreadable(error.to_string()))?;
        let theirs = listed.iter().flat_map(|release| release.assets()).map(|asset| (asset.name(), asset.digest()));
        let ours = manifest.releases.iter().flat_map(|release| &release.assets);
        if ours.map(|asset| (asset.name.as_str(), Some(asset.digest.as_str()))).eq(theirs) {
            Ok(manifest)
        } else {
            Err(ManifestError::Unreadable("others read other files from it".to_owned()))
        }
    }

    pub fn release(&self, version: &Version) -> Option<&Release> {
        self.releases.iter().find(|release| release.version == *version)
    }

    /// The newest release of a channel that fits; release candidates get stable releases too.
    pub fn newest(&self, channel: Channel, fits: impl Fn(&Release) -> bool) -> Option<&Release> {
        let is_in =
            |release: &&Release| (channel == Channel::Rc || release.channel == Channel::Stable) && fits(release);
        self.releases.iter().filter(is_in).max_by(|one, other| version_order::compare(&one.version, &other.version))
    }
}

impl Release {
    pub fn schema_version(&self) -> i64 {
        self.migrations.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    pub fn asset(&self, target: &str) -> Option<&Asset> {
        self.assets.iter().find(|asset| asset.target == target)
    }

    pub fn components(&self, target: &str) -> impl Iterator<Item = &Component> {
        self.components.iter().filter(move |component| component.target == target)
    }

    fn check(&self) -> Result<(), ManifestError> {
        for asset in &self.assets {
            check_name(&asset.url)?;
            asset.sha256().map(drop)?;
        }
        for component in &self.components {
            check_name(&component.url)?;
            check_sha256(&component.sha256)?;
        }
        let mut last = 0;
        for migration in &self.migrations {
            check_sha256(&migration.sha256)?;
            if migration.version <= last {
                return Err(ManifestError::Unreadable(format!("migration {} is out of order", migration.version)));
            }
            last = migration.version;
        }
        Ok(())
    }
}

impl Asset {
    pub fn sha256(&self) -> Result<&str, ManifestError> {
        let hex = self.digest.strip_prefix("sha256:").ok_or_else(|| ManifestError::Digest(self.digest.clone()))?;
        check_sha256(hex)?;
        Ok(hex)
    }
}

/// A plain file name beside the manifest, or an address that ends in one.
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
