//! `versions/`: the programs that are kept.

use super::{program, version_order};
use crate::home::Home;
use crate::setup;
use crate::sys::files;
use semver::Version;
use serde::Serialize;
use std::fs;

/// One that is there.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    pub version: Version,
    /// Whether `bin/` leads to it.
    pub current: bool,
    pub size_bytes: u64,
    /// The newest schema that it knows; `None` when it does not say.
    pub schema_version: Option<i64>,
}

/// All of them, the newest first.
pub fn list(home: &Home) -> Vec<Kept> {
    let current = setup::installed_version(home);
    let mut all: Vec<Kept> = versions(home)
        .into_iter()
        .filter_map(|version| {
            let program = home.versions().join(version.to_string()).join("leoflow");
            let size_bytes = fs::metadata(&program).ok()?.len();
            let schema_version = program::about(&program).ok().map(|about| about.schema_version);
            Some(Kept {
                current: current.as_deref() == Some(version.to_string().as_str()),
                version,
                size_bytes,
                schema_version,
            })
        })
        .collect();
    all.sort_by(|one, other| version_order::compare(&other.version, &one.version));
    all
}

/// Each with the newest schema that it knows, also where its program cannot be asked.
pub fn schemas(home: &Home) -> Vec<(String, Option<i64>)> {
    let asked = |version: Version| {
        let program = home.versions().join(version.to_string()).join("leoflow");
        (version.to_string(), program::about(&program).ok().map(|about| about.schema_version))
    };
    versions(home).into_iter().map(asked).collect()
}

fn versions(home: &Home) -> Vec<Version> {
    let entries = fs::read_dir(home.versions()).into_iter().flatten().flatten();
    entries.filter_map(|entry| Version::parse(entry.file_name().to_str()?).ok()).collect()
}

/// Removes the oldest of those over the limit that are not in `needed`: the one in force, the one before it, and the next
/// one back.
pub fn remove_over_limit(home: &Home, needed: &[Version], keep: u64) {
    for version in over_limit(versions(home), needed, keep) {
        // What stays takes room, and is tried again.
        let _ = files::remove_any(&home.versions().join(version.to_string()));
    }
}

fn over_limit(mut all: Vec<Version>, needed: &[Version], keep: u64) -> Vec<Version> {
    all.retain(|version| !needed.contains(version));
    all.sort_by(|one, other| version_order::compare(other, one));
    // The previous one is one of those that are kept.
    let others = usize::try_from(keep.saturating_sub(1)).unwrap_or(usize::MAX);
    all.into_iter().skip(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_the_way_back_stays() {
        let version = |text: &str| Version::parse(text).unwrap();
        let all = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0"].map(version).to_vec();
        let needed = ["0.5.0", "0.1.0"].map(version);
        assert_eq!(over_limit(all.clone(), &needed, 2), [version("0.3.0"), version("0.2.0")]);
        assert!(over_limit(all.clone(), &["0.5.0", "0.4.0"].map(version), 9).is_empty());
        let twice_back = ["0.4.0", "0.5.0", "0.3.0"].map(version);
        assert_eq!(over_limit(all, &twice_back, 1), [version("0.2.0"), version("0.1.0")]);
        let candidates = ["0.2.0-rc9", "0.2.0-rc10", "0.2.0-rc2"].map(version).to_vec();
        assert_eq!(over_limit(candidates, &[], 2), ["0.2.0-rc9", "0.2.0-rc2"].map(version));
    }
}
