//! The disk space that a folder takes.

use super::folders;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Limits of one measurement; the result is partial when one is reached.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of files and folders.
    pub entries: usize,
    pub time: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DiskUsage {
    /// Allocated bytes. A file with several names counts once.
    pub bytes: u64,
    /// True when a limit was reached, or a folder cannot be read: the folder takes at least this many bytes.
    pub is_partial: bool,
}

impl DiskUsage {
    /// The space of several folders together.
    pub fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), is_partial: self.is_partial || other.is_partial }
    }
}

/// Measures everything below `root`; nothing if it does not exist. Follows no links below it.
pub fn measure(root: &Path, limits: Limits) -> DiskUsage {
    let deadline = Instant::now() + limits.time;
    let (mut usage, mut count, mut folders) = (DiskUsage::default(), 0_usize, vec![root.to_owned()]);
    let mut counted_links = HashSet::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            usage.is_partial |= folders::entries(&folder).is_err();
            continue;
        };
        for entry in entries.flatten() {
            count += 1;
            if count > limits.entries || Instant::now() > deadline {
                return DiskUsage { is_partial: true, ..usage };
            }
            // The metadata of the entry itself, because links are not followed.
            let Ok(meta) = entry.metadata() else { continue };
            let is_first = meta.is_dir() || meta.nlink() < 2 || counted_links.insert((meta.dev(), meta.ino()));
            if is_first {
                usage.bytes = usage.bytes.saturating_add(meta.blocks() * 512);
            }
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { entries: 100, time: Duration::from_secs(60) };

    #[test]
    fn counts_each_file_once_and_follows_no_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(folder.path().join("outside"), vec![b'x'; 1_000_000]).unwrap();
        std::os::unix::fs::symlink(folder.path(), root.join("link")).unwrap();
        let before = measure(&root, LIMITS).bytes;
        assert!(before < 1_000_000, "{before}");
        fs::write(root.join("a/b/file"), vec![b'x'; 100_000]).unwrap();
        fs::hard_link(root.join("a/b/file"), root.join("a/same")).unwrap();
        let added = measure(&root, LIMITS).bytes - before;
        assert!((100_000..200_000).contains(&added), "{added}");
        assert_eq!(measure(&folder.path().join("none"), LIMITS), DiskUsage::default());
        let unmounted = folder.path().join("unmounted");
        std::os::unix::fs::symlink("none", &unmounted).unwrap();
        assert!(measure(&unmounted, LIMITS).is_partial);
    }

    #[test]
    fn stops_at_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert!(measure(folder.path(), Limits { entries: 2, ..LIMITS }).is_partial);
        assert!(!measure(folder.path(), Limits { entries: 3, ..LIMITS }).is_partial);
    }
}
