//! `MANIFEST.json`, the first thing in a backup: what the rest is, to the byte. The format is in
//! `docs/backup-format.md`. Whatever a manifest says is checked here, once, before anything acts on it.

use super::left_out::OWN_FOLDER;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::marker::PhantomData;

/// The manifest that this binary writes and the newest that it reads.
pub const MANIFEST_VERSION: u32 = 1;
/// Its name in the archive.
pub const MANIFEST: &str = "MANIFEST.json";
pub const CONFIG: &str = "config.yaml";
pub const RECEIPT: &str = "setup.json";
pub const DUMP: &str = "datastore.dump.zst";
pub const TASK_LOGS: &str = "task-logs";
pub const WORKSPACE: &str = "workspace";

/// More entries than this are not written, and not read: they are held in memory.
pub const ENTRY_LIMIT: usize = 250_000;
/// What a manifest takes at most, in bytes.
pub const SIZE_LIMIT: u64 = 64 * 1024 * 1024;
/// As Linux has it.
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
    /// Rows of each table, counted in the dump's own snapshot.
    #[serde(deserialize_with = "bounded_map")]
    pub tables: BTreeMap<String, i64>,
    /// What is not in it although it is there, and why.
    #[serde(default, deserialize_with = "bounded_list")]
    pub skipped: Vec<Skipped>,
    /// What is left out on purpose: version control, virtual environments, caches.
    #[serde(default, deserialize_with = "bounded_list")]
    pub left_out: Vec<String>,
    #[serde(deserialize_with = "bounded_list")]
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// The dump before compression, in bytes.
    pub dump_bytes: u64,
}

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
        /// Whether nobody but its owner may read it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        private: bool,
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
            // One sum has one text.
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
    #[error("its manifest is of version {0}; this leoflow reads up to {MANIFEST_VERSION}")]
    Newer(u64),
    #[error("its manifest cannot be read: {0}")]
    Unreadable(String),
    #[error("its manifest names {entry:?}, which {reason}")]
    BadEntry { entry: String, reason: &'static str },
    #[error("its manifest has no {0}")]
    Missing(&'static str),
    #[error("its manifest is too large")]
    TooLarge,
}

/// The one field that says how to read the rest.
#[derive(Deserialize)]
struct Version {
    manifest_version: u64,
}

impl Manifest {
    /// Reads and checks. Everything in the result may be relied on: paths stay below the five places
    /// that a backup has, nothing is named twice, and every parent is a directory that was named before.
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

    /// As `parse`, from a stream of at most `SIZE_LIMIT` bytes.
    pub fn read(source: impl Read, size: u64) -> Result<Self, ManifestError> {
        if size > SIZE_LIMIT {
            return Err(ManifestError::TooLarge);
        }
        let mut text = Vec::new();
        let io = |error: io::Error| ManifestError::Unreadable(error.to_string());
        source.take(size).read_to_end(&mut text).map_err(io)?;
        Self::parse(&text)
    }

    fn check(&self) -> Result<(), ManifestError> {
        // These are shown to whoever decides on the backup.
        let shown = [&self.instance, &self.created_at, &self.leoflow_version, &self.postgres_version];
        if shown.iter().any(|text| text.len() > PATH_LIMIT || text.chars().any(char::is_control)) {
            return Err(ManifestError::Unreadable("a text in it holds what cannot be shown".to_owned()));
        }
        if self.manifest_version == 0 || self.schema_version < 1 || self.tables.values().any(|rows| *rows < 0) {
            return Err(ManifestError::Unreadable("a number in it is impossible".to_owned()));
        }
        let mut seen: HashMap<&str, bool> = HashMap::with_capacity(self.entries.len());
        let mut total: u64 = 0;
        for entry in &self.entries {
            let bad = |reason| ManifestError::BadEntry { entry: shortened(&entry.path), reason };
            check_path(&entry.path).map_err(bad)?;
            let is_directory = matches!(entry.content, Content::Directory { .. });
            place_allows(entry).map_err(bad)?;
            if let Some((parent, _)) = entry.path.rsplit_once('/')
                && seen.get(parent) != Some(&true)
            {
                return Err(bad("has no directory named before it"));
            }
            if seen.insert(&entry.path, is_directory).is_some() {
                return Err(bad("is named twice"));
            }
            total = total.checked_add(entry.size()).ok_or(bad("is too large"))?;
        }
        for needed in [CONFIG, DUMP] {
            if !seen.contains_key(needed) {
                return Err(ManifestError::Missing(needed));
            }
        }
        Ok(())
    }

    /// Bytes of all files together.
    pub fn total_size(&self) -> u64 {
        self.entries.iter().map(Entry::size).sum()
    }

    /// Bytes of the files beside the database's dump.
    pub fn files_size(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.path != DUMP).map(Entry::size).sum()
    }

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
}

/// A list that ends at the limit, however long the file goes on.
fn bounded_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Bounded<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {ENTRY_LIMIT}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut found = Vec::new();
            while let Some(item) = items.next_element()? {
                if found.len() == ENTRY_LIMIT {
                    return Err(A::Error::invalid_length(ENTRY_LIMIT + 1, &self));
                }
                found.push(item);
            }
            Ok(found)
        }
    }

    deserializer.deserialize_seq(Bounded(PhantomData))
}

/// The same for a table of numbers.
fn bounded_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, i64>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = BTreeMap<String, i64>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {ENTRY_LIMIT} numbers by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut found = BTreeMap::new();
            while let Some((name, number)) = items.next_entry()? {
                if found.len() == ENTRY_LIMIT {
                    return Err(A::Error::invalid_length(ENTRY_LIMIT + 1, &self));
                }
                found.insert(name, number);
            }
            Ok(found)
        }
    }

    deserializer.deserialize_map(Bounded)
}

/// Relative, of plain names, none of them `.` or `..`, without control characters.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > PATH_LIMIT {
        return Err("is empty or too long");
    }
    if path.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    for name in path.split('/') {
        match name {
            "" => return Err("is not a plain relative path"),
            "." | ".." => return Err("leaves its place"),
            _ if name.len() > NAME_LIMIT => return Err("has a name that is too long"),
            _ => {}
        }
    }
    Ok(())
}

/// What may be where: three files, and two trees. Links are the workspace's alone.
fn place_allows(entry: &Entry) -> Result<(), &'static str> {
    let (top, below) = match entry.path.split_once('/') {
        Some((top, below)) => (top, Some(below)),
        None => (entry.path.as_str(), None),
    };
    match (top, below, &entry.content) {
        (CONFIG | RECEIPT | DUMP, None, Content::File { executable: false, .. }) => Ok(()),
        (TASK_LOGS | WORKSPACE, None, Content::Directory { .. }) => Ok(()),
        (TASK_LOGS, Some(_), Content::Directory { .. } | Content::File { executable: false, .. }) => Ok(()),
        // Ours, while a restore works there.
        (WORKSPACE, Some(below), _) if below.starts_with(OWN_FOLDER) => Err("has a name that a restore uses itself"),
        (WORKSPACE, Some(_), Content::Directory { .. } | Content::File { .. }) => Ok(()),
        (WORKSPACE, Some(below), Content::Symlink { target }) => {
            if link_stays_inside(below, target) {
                Ok(())
            } else {
                Err("is a link that leads out of the workspace")
            }
        }
        _ => Err("does not belong into a backup"),
    }
}

/// Whether a link at `path` (relative to a root) leads to a place below that root, by name: relative,
/// and never above the root on its way. What names on that way are links themselves is not asked; each
/// of those was checked in the same way.
pub fn link_stays_inside(path: &str, target: &str) -> bool {
    let fits = !target.is_empty() && target.len() <= PATH_LIMIT && !target.starts_with('/');
    if !fits || target.chars().any(char::is_control) {
        return false;
    }
    let mut depth = path.split('/').count() - 1;
    // `a/..` leads elsewhere when `a` is a link; so it may only go up first, then down.
    let mut went_down = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if went_down || depth == 0 => return false,
            ".." => depth -= 1,
            _ => went_down = true,
        }
    }
    true
}

fn shortened(path: &str) -> String {
    if path.chars().count() <= 100 { path.to_owned() } else { path.chars().take(97).chain("...".chars()).collect() }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
pub mod tests;
