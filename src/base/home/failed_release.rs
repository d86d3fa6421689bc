//! `upgrade/failed.json`: the last release that failed here and was rolled back; upgrading to it again shows a warning.

use super::Home;
use crate::sys::clock;
use crate::sys::fs::files;
use semver::Version;
use serde::{Deserialize, Serialize};
use std::io;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRelease {
    pub version: Version,
    /// Time of the failure, RFC 3339.
    pub at: String,
    pub reason: String,
}

const SIZE_LIMIT: u64 = 64 * 1024;
/// Maximum length of a reason, in characters.
const REASON_LIMIT: usize = 500;

/// Reads the record; `None` if the file is missing or unreadable, because the record only serves a warning.
pub fn read(home: &Home) -> Option<FailedRelease> {
    files::read_json(&home.failed_release(), SIZE_LIMIT).ok()?
}

/// Records that upgrading to `version` failed for `reason`.
pub fn remember(home: &Home, version: &Version, reason: &str) -> io::Result<()> {
    files::create_private_dir(&home.upgrade())?;
    // Only the first line is the reason; the end of a program's log may follow.
    let reason: String = reason.lines().next().unwrap_or_default().chars().take(REASON_LIMIT).collect();
    let failed = FailedRelease { version: version.clone(), at: clock::now_rfc3339(), reason };
    files::write_atomic(&home.failed_release(), &serde_json::to_vec_pretty(&failed)?, 0o600)
}

/// Removes the record if it is about `version`, which now works.
pub fn clear(home: &Home, version: &Version) -> io::Result<()> {
    if read(home).is_some_and(|failed| failed.version == *version) {
        files::remove_any(&home.failed_release())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_is_recorded_until_the_release_works() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let (failing, other) = (Version::new(0, 2, 0), Version::new(0, 3, 0));
        assert_eq!(read(&home), None);
        remember(&home, &failing, "the smoke test failed\nthe end of its log").unwrap();
        clear(&home, &other).unwrap();
        let failed = read(&home).unwrap();
        assert_eq!((failed.version, failed.reason.as_str()), (failing.clone(), "the smoke test failed"));
        clear(&home, &failing).unwrap();
        assert_eq!(read(&home), None);
    }
}
