//! The packages of a release: a wheel, a .deb and, once the manifest is known, Homebrew's formula.

use super::{Outcome, deb, elf, macho, wheel};
use jiff::Timestamp;
use semver::Version;
use std::fs;
use std::path::Path;

/// At most 80 characters, without an article or a full stop: both Homebrew and Debian ask for that.
pub const SUMMARY: &str = "Airflow-style DAGs on a laptop: one program with its own PostgreSQL";

/// Markdown and plain text in one.
pub const DESCRIPTION: &str = "\
Leoflow Lite runs Apache Airflow 3 DAGs on a laptop, from one program with its
own PostgreSQL, without Docker and without an Airflow installation. It has
Airflow's own web UI and REST API, backups with test restores, and upgrades
that are rehearsed and can be rolled back. `leoflow lite` starts it.";

/// What packages contain.
pub struct Contents<'a> {
    pub version: &'a Version,
    pub date: Timestamp,
    pub program: &'a Path,
    pub license: &'a Path,
    pub third_party: Option<&'a Path>,
    /// The shells and their completion scripts.
    pub completions: &'a [(&'static str, Vec<u8>)],
    /// Compress not at all, for tests.
    pub quick: bool,
}

impl Contents<'_> {
    pub fn program(&self) -> Outcome<Vec<u8>> {
        read(self.program)
    }

    /// The names and texts of the licence files.
    pub fn licenses(&self) -> Outcome<Vec<(&'static str, Vec<u8>)>> {
        let files = [("LICENSE", Some(self.license)), ("THIRD-PARTY-LICENSES.txt", self.third_party)];
        files.into_iter().filter_map(|(name, path)| Some(read(path?).map(|text| (name, text)))).collect()
    }
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes the wheel, and for Linux the .deb.
pub fn write(contents: &Contents<'_>, output: &Path) -> Outcome<()> {
    if macho::is_for_macs(contents.program)? {
        return wheel::write(contents, macho::WHEEL_TAG, "MacOS", output);
    }
    let needs = elf::needs(contents.program)?;
    wheel::write(contents, &wheel::manylinux(&needs), "POSIX :: Linux", output)?;
    deb::write(contents, &needs, output)
}

/// True for the name of a wheel, a .deb or a container image.
pub fn is_package(name: &str) -> bool {
    name.starts_with("leoflow") && [".whl", ".deb", ".oci.tar"].iter().any(|end| name.ends_with(end))
}
