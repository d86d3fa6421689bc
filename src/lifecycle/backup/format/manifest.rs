//! `MANIFEST.json`, the first file of a backup, which lists all others with their sizes and hashes. The format is
//! documented in `docs/reference/backup-format.md`. `Manifest::parse` checks a manifest completely.

use leoflow_base::home::RESTORE_IN_WORKSPACE;
use leoflow_postgres::totals::Answer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::marker::PhantomData;

/// Version of manifests that this binary writes; also the newest that it reads.
pub(crate) const MANIFEST_VERSION: u32 = 1;
/// File name in the archive.
pub const MANIFEST: &str = "MANIFEST.json";
// The top-level entries of a backup.
pub(crate) const CONFIG: &str = "config.yaml";
pub(crate) const RECEIPT: &str = "setup.json";
pub(crate) const DUMP: &str = "datastore.dump.zst";
pub(crate) const TASK_LOGS: &str = "task-logs";
pub const WORKSPACE: &str = "workspace";

/// Maximum number of entries in a backup, because they are held in memory.
pub(crate) const ENTRY_LIMIT: usize = 250_000;
/// Maximum size of a manifest, in bytes.
pub const SIZE_LIMIT: u64 = 64 * 1024 * 1024;
/// Maximum number of invariants.
const INVARIANT_LIMIT: usize = 100;
/// Length limits of paths and names, in bytes; Linux allows 4095 and 255.
const PATH_LIMIT: usize = 4000;
const NAME_LIMIT: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub manifest_version: u32,
    pub leoflow_version: String,
    pub schema_version: i64,
    pub postgres_version: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub instance: String,
    pub database: DatabaseFacts,
    /// Rows of each table, counted in the dump's snapshot.
    #[serde(deserialize_with = "bounded_map")]
    pub tables: BTreeMap<String, i64>,
    /// Invariants with their answers in the dump's snapshot. Older backups have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded_list")]
    pub invariants: Vec<Answer>,
    /// The tries that were running. Older backups do not name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded_list")]
    pub running: Vec<String>,
    /// Paths and database objects (`database/NAME`) that could not be copied, with the reason.
    #[serde(default, deserialize_with = "bounded_list")]
    pub skipped: Vec<Skipped>,
    /// Excluded paths: version control, virtual environments, caches.
    #[serde(default, deserialize_with = "bounded_list")]
    pub left_out: Vec<String>,
    #[serde(deserialize_with = "bounded_list")]
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Size on disk, in bytes.
    pub bytes: u64,
    /// Size of the uncompressed dump, in bytes.
    pub dump_bytes: u64,
}

/// A path or database object that a backup could not copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub path: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub path: String,
    #[serde(flatten)]
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    File {
        size: u64,
        sha256: Sha256Hex,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        executable: bool,
        /// True when only the owner may read it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        private: bool,
        /// Bytes of a sparse file outside its holes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stored: Option<u64>,
    },
    Directory {
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        private: bool,
    },
    /// A relative link that stays in the workspace.
    Symlink { target: String },
}

/// 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sha256Hex(pub [u8; 32]);

impl From<Sha256Hex> for String {
    fn from(hash: Sha256Hex) -> Self {
        hex::encode(hash.0)
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(&text, &mut bytes) {
            // Refuse upper case, so that each hash has one text form.
            Ok(()) if !text.contains(char::is_uppercase) => Ok(Self(bytes)),
            _ => Err("a sha256 is 64 hexadecimal digits".to_owned()),
        }
    }
}

impl std::fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("its manifest has version {0}; this leoflow reads versions up to {MANIFEST_VERSION}")]
    Newer(u64),
    #[error("cannot read its manifest: {0}")]
    Unreadable(String),
    #[error("its manifest lists {entry:?}, which {reason}")]
    BadEntry { entry: String, reason: &'static str },
    #[error("its manifest has no {0}")]
    Missing(&'static str),
    #[error("its manifest is too large")]
    TooLarge,
}

/// The field that determines how to read the rest.
#[derive(Deserialize)]
struct Version {
    manifest_version: u64,
}

impl Manifest {
    /// Parses and checks a manifest. Guarantees for the result: paths stay below the five top-level entries of a
    /// backup, names are unique, and every parent is a directory listed before.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        let unreadable = |error: serde_json::Error| ManifestError::Unreadable(error.to_string());
        let version: Version = serde_json::from_slice(text).map_err(unreadable)?;
        if version.manifest_version > u64::from(MANIFEST_VERSION) {
            return Err(ManifestError::Newer(version.manifest_version));
        }
        let manifest: Self = serde_json::from_slice(text).map_err(unreadable)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Like `parse`, from a stream of at most `SIZE_LIMIT` bytes.
    pub fn read(source: impl Read, size: u64) -> Result<Self, ManifestError> {
        if size > SIZE_LIMIT {
            return Err(ManifestError::TooLarge);
        }
        let mut text = Vec::new();
        let io = |error: io::Error| ManifestError::Unreadable(error.to_string());
        source.take(size).read_to_end(&mut text).map_err(io)?;
        Self::parse(&text)
    }

    /// Checks what `parse` guarantees.
    fn check(&self) -> Result<(), ManifestError> {
        // These texts are shown to users.
        let displayed = [&self.instance, &self.created_at, &self.leoflow_version, &self.postgres_version];
        if displayed.iter().any(|text| text.len() > PATH_LIMIT || text.chars().any(char::is_control)) {
            return Err(ManifestError::Unreadable(
                "a text in it contains control characters or is too long".to_owned(),
            ));
        }
        if self.manifest_version == 0 || self.schema_version < 1 || self.tables.values().any(|rows| *rows < 0) {
            return Err(ManifestError::Unreadable("a number in it is out of range".to_owned()));
        }
        if self.invariants.len() > INVARIANT_LIMIT || !self.invariants.iter().all(is_invariant) {
            return Err(ManifestError::Unreadable("an invariant in it is not valid".to_owned()));
        }
        let mut is_directory_by_path: HashMap<&str, bool> = HashMap::with_capacity(self.entries.len());
        let mut total: u64 = 0;
        for entry in &self.entries {
            let bad = |reason| ManifestError::BadEntry { entry: shortened(&entry.path), reason };
            check_path(&entry.path).map_err(bad)?;
            let is_directory = matches!(entry.content, Content::Directory { .. });
            check_location(entry).map_err(bad)?;
            if let Some((parent, _)) = entry.path.rsplit_once('/')
                && is_directory_by_path.get(parent) != Some(&true)
            {
                return Err(bad("has no parent directory listed before it"));
            }
            if is_directory_by_path.insert(&entry.path, is_directory).is_some() {
                return Err(bad("is listed twice"));
            }
            total = total.checked_add(entry.size()).ok_or(bad("is too large"))?;
        }
        for needed in [CONFIG, DUMP] {
            if !is_directory_by_path.contains_key(needed) {
                return Err(ManifestError::Missing(needed));
            }
        }
        Ok(())
    }

    /// Disk space of all files, in bytes.
    pub(crate) fn total_size(&self) -> u64 {
        self.entries.iter().map(Entry::stored).sum()
    }

    /// Disk space of the files except the database dump, in bytes.
    pub(crate) fn files_size(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.path != DUMP).map(Entry::stored).sum()
    }

    /// Number of rows in all tables.
    pub fn rows(&self) -> i64 {
        self.tables.values().sum()
    }
}

impl Entry {
    pub fn is_file(&self) -> bool {
        matches!(self.content, Content::File { .. })
    }

    pub fn size(&self) -> u64 {
        match self.content {
            Content::File { size, .. } => size,
            Content::Directory { .. } | Content::Symlink { .. } => 0,
        }
    }

    /// Size without the holes of a sparse file, in bytes.
    pub fn stored(&self) -> u64 {
        match self.content {
            Content::File { size, stored: Some(stored), .. } => stored.min(size),
            _ => self.size(),
        }
    }
}

/// Deserializes a list and stops at the limit.
fn bounded_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Bounded<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {ENTRY_LIMIT}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut items_read = Vec::new();
            while let Some(item) = items.next_element()? {
                if items_read.len() == ENTRY_LIMIT {
                    return Err(A::Error::invalid_length(ENTRY_LIMIT + 1, &self));
                }
                items_read.push(item);
            }
            Ok(items_read)
        }
    }

    deserializer.deserialize_seq(Bounded(PhantomData))
}

/// Deserializes a map of numbers and stops at the limit.
fn bounded_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, i64>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = BTreeMap<String, i64>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a map of at most {ENTRY_LIMIT} numbers")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut items_read = BTreeMap::new();
            while let Some((name, number)) = items.next_entry()? {
                if items_read.len() == ENTRY_LIMIT {
                    return Err(A::Error::invalid_length(ENTRY_LIMIT + 1, &self));
                }
                items_read.insert(name, number);
            }
            Ok(items_read)
        }
    }

    deserializer.deserialize_map(Bounded)
}

/// Accepts relative paths of plain names, without `.`, `..` and control characters.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > PATH_LIMIT {
        return Err("is empty or too long");
    }
    if path.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    for name in path.split('/') {
        match name {
            "" => return Err("is not a plain relative path"),
            "." | ".." => return Err("leaves its folder"),
            _ if name.len() > NAME_LIMIT => return Err("has a name that is too long"),
            _ => {}
        }
    }
    Ok(())
}

/// Accepts the entries of a backup: three files and two trees. Only the workspace may have links.
fn check_location(entry: &Entry) -> Result<(), &'static str> {
    let (top, relative_path) = match entry.path.split_once('/') {
        Some((top, relative_path)) => (top, Some(relative_path)),
        None => (entry.path.as_str(), None),
    };
    match (top, relative_path, &entry.content) {
        (CONFIG | RECEIPT | DUMP, None, Content::File { executable: false, .. }) => Ok(()),
        (TASK_LOGS | WORKSPACE, None, Content::Directory { .. }) => Ok(()),
        (TASK_LOGS, Some(_), Content::Directory { .. } | Content::File { executable: false, .. }) => Ok(()),
        // Reserved for a restore's own folders.
        (WORKSPACE, Some(relative_path), _) if relative_path.starts_with(RESTORE_IN_WORKSPACE) => {
            Err("has a name reserved for restores")
        }
        (WORKSPACE, Some(_), Content::Directory { .. } | Content::File { .. }) => Ok(()),
        (WORKSPACE, Some(relative_path), Content::Symlink { target }) => {
            if link_stays_inside(relative_path, target) {
                Ok(())
            } else {
                Err("is a link out of the workspace")
            }
        }
        _ => Err("does not belong in a backup"),
    }
}

/// True when a link at `path`, relative to a root, points below that root. Checks only the text of the target: other
/// links on its way are entries of their own, each checked in the same way.
pub fn link_stays_inside(path: &str, target: &str) -> bool {
    let is_valid = !target.is_empty() && target.len() <= PATH_LIMIT && !target.starts_with('/');
    if !is_valid || target.chars().any(char::is_control) {
        return false;
    }
    let mut depth = path.split('/').count() - 1;
    // If `a` is a link, `a/..` may be any folder, so `..` is allowed only at the start.
    let mut has_descended = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if has_descended || depth == 0 => return false,
            ".." => depth -= 1,
            _ => has_descended = true,
        }
    }
    true
}

/// Checks the texts of an invariant, which messages show.
fn is_invariant(invariant: &Answer) -> bool {
    let Answer { name, query, answer } = invariant;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || [b' ', b'-', b'_'].contains(&byte);
    (1..=100).contains(&name.len())
        && name.trim() == name
        && name.bytes().all(is_allowed)
        && !query.trim().is_empty()
        && query.len() <= 10_000
        && !query.contains('\0')
        && answer.as_ref().is_none_or(|answer| answer.chars().count() <= 4096)
}

/// At most 100 characters of a path, for messages.
fn shortened(path: &str) -> String {
    if path.chars().count() <= 100 { path.to_owned() } else { path.chars().take(97).chain("...".chars()).collect() }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
pub mod tests;
