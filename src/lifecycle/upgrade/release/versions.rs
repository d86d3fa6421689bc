//! `versions/`: the retained programs, one per version.

use super::{program, version_order};
use crate::setup;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::{files, folders};
use semver::Version;
use serde::Serialize;
use std::fs;
use std::io;

/// A retained version.
#[derive(Debug, Clone, Serialize)]
pub struct RetainedVersion {
    pub version: Version,
    /// True when `bin/` links to this version.
    pub current: bool,
    pub size_bytes: u64,
    /// The newest schema version that the program knows; `None` when it does not run.
    pub schema_version: Option<i64>,
}

/// All retained versions, newest first.
pub fn list(home: &Home) -> io::Result<Vec<RetainedVersion>> {
    let current = setup::installed_version(home);
    let mut retained: Vec<RetainedVersion> = versions(home)?
        .into_iter()
        .filter_map(|version| {
            let program = home.versions().join(version.to_string()).join("leoflow");
            let size_bytes = fs::metadata(&program).ok()?.len();
            let schema_version = program::about(&program).ok().map(|about| about.schema_version);
            Some(RetainedVersion {
                current: current.as_deref() == Some(version.to_string().as_str()),
                version,
                size_bytes,
                schema_version,
            })
        })
        .collect();
    retained.sort_by(|left, right| version_order::compare(&right.version, &left.version));
    Ok(retained)
}

/// All retained versions with the newest schema version that each program knows; `None` for a program that does not
/// run.
pub fn schemas(home: &Home) -> io::Result<Vec<(String, Option<i64>)>> {
    let with_schema = |version: Version| {
        let program = home.versions().join(version.to_string()).join("leoflow");
        (version.to_string(), program::about(&program).ok().map(|about| about.schema_version))
    };
    Ok(versions(home)?.into_iter().map(with_schema).collect())
}

/// The versions that have a folder in `versions/`.
fn versions(home: &Home) -> io::Result<Vec<Version>> {
    let paths = folders::entries(&home.versions())?.into_iter();
    Ok(paths.filter_map(|path| Version::parse(path.file_name()?.to_str()?).ok()).collect())
}

/// Removes the oldest versions above the limit `keep`, but none of `needed`: the installed version, the previous one
/// and the target of a rollback.
pub(crate) fn remove_over_limit(home: &Home, needed: &[Version], keep: u64) {
    for version in over_limit(versions(home).unwrap_or_default(), needed, keep) {
        // A leftover only takes disk space, and the next upgrade retries.
        let _ = files::remove_any(&home.versions().join(version.to_string()));
    }
}

fn over_limit(mut retained: Vec<Version>, needed: &[Version], keep: u64) -> Vec<Version> {
    retained.retain(|version| !needed.contains(version));
    retained.sort_by(|left, right| version_order::compare(right, left));
    // The limit includes the previous version, which is in `needed`.
    let other_count = usize::try_from(keep.saturating_sub(1)).unwrap_or(usize::MAX);
    retained.into_iter().skip(other_count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_the_oldest_and_keeps_the_rollback_target() {
        let version = |text: &str| Version::parse(text).unwrap();
        let retained = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0"].map(version).to_vec();
        let needed = ["0.5.0", "0.1.0"].map(version);
        assert_eq!(over_limit(retained.clone(), &needed, 2), [version("0.3.0"), version("0.2.0")]);
        assert!(over_limit(retained.clone(), &["0.5.0", "0.4.0"].map(version), 9).is_empty());
        let twice_back = ["0.4.0", "0.5.0", "0.3.0"].map(version);
        assert_eq!(over_limit(retained, &twice_back, 1), [version("0.2.0"), version("0.1.0")]);
        let candidates = ["0.2.0-rc9", "0.2.0-rc10", "0.2.0-rc2"].map(version).to_vec();
        assert_eq!(over_limit(candidates, &[], 2), ["0.2.0-rc9", "0.2.0-rc2"].map(version));
    }
}
