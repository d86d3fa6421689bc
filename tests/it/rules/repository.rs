//! Rules for the files in git.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Bytes. Downloads and build results are much larger than the largest text or picture.
const LARGEST_FILE: u64 = 1024 * 1024;

#[test]
fn files_in_git_are_smaller_than_a_megabyte() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output().unwrap();
    if !listed.status.success() {
        println!("skipped: the sources are not in a git checkout");
        return;
    }
    let names = String::from_utf8(listed.stdout).unwrap();
    let size = |name: &str| fs::symlink_metadata(root.join(name)).map_or(0, |meta| meta.len());
    let large: Vec<&str> = names.split_terminator('\0').filter(|name| size(name) > LARGEST_FILE).collect();
    assert!(names.contains("Cargo.toml") && large.is_empty(), "{large:?}");
}
