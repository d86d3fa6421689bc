//! `upgrade/failed.json`: the last release that failed here and was undone; upgrading to it again shows a warning.

use crate::home::Home;
use crate::sys::{clock, files};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRelease {
    pub version: Version,
    /// RFC 3339.
    pub at: String,
    pub reason: String,
}

const SIZE_LIMIT: u64 = 64 * 1024;
/// Characters of a reason.
const REASON_LIMIT: usize = 500;

fn path(home: &Home) -> PathBuf {
    home.upgrade().join("failed.json")
}

/// `None` where there is none, or where the file cannot be read: it only warns.
pub fn read(home: &Home) -> Option<FailedRelease> {
    let text = files::read_text(&path(home), SIZE_LIMIT).ok().flatten()?;
    serde_json::from_str(&text).ok()
}

pub fn remember(home: &Home, version: &Version, reason: &str) -> io::Result<()> {
    files::create_private_dir(&home.upgrade())?;
    // The first line says it; a program's last words may follow.
    let reason: String = reason.lines().next().unwrap_or_default().chars().take(REASON_LIMIT).collect();
    let failed = FailedRelease { version: version.clone(), at: clock::now_rfc3339(), reason };
    files::write_atomic(&path(home), &serde_json::to_vec_pretty(&failed)?, 0o600)
}

/// It works here now.
pub fn forget(home: &Home, version: &Version) -> io::Result<()> {
    if read(home).is_some_and(|failed| failed.version == *version) { files::remove_any(&path(home)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_known_until_it_works() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let (one, other) = (Version::new(0, 2, 0), Version::new(0, 3, 0));
        assert_eq!(read(&home), None);
        remember(&home, &one, "the smoke test failed\nits last words").unwrap();
        forget(&home, &other).unwrap();
        let failed = read(&home).unwrap();
        assert_eq!((failed.version, failed.reason.as_str()), (one.clone(), "the smoke test failed"));
        forget(&home, &one).unwrap();
        assert_eq!(read(&home), None);
    }
}
