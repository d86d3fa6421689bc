//! Which of two releases is newer.

use semver::{Prerelease, Version};
use std::cmp::Ordering;

/// By semantic versioning, but that digits in a pre-release count as a number wherever they stand: `rc10` is newer than `rc9`,
/// as whoever publishes such names means it. <https://semver.org/#spec-item-11> compares these as text. Build metadata
/// does not count.
pub fn compare(one: &Version, other: &Version) -> Ordering {
    let numbers = |version: &Version| (version.major, version.minor, version.patch);
    numbers(one).cmp(&numbers(other)).then_with(|| compare_pre(&one.pre, &other.pre))
}

fn compare_pre(one: &Prerelease, other: &Prerelease) -> Ordering {
    match (one.is_empty(), other.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        // Names that differ in leading zeros alone are of two releases.
        (false, false) => parts(one).cmp(&parts(other)).then_with(|| one.cmp(other)),
    }
}

/// Numbers come before words, as with semantic versioning.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Number(u128),
    Word(&'a str),
}

/// For each identifier its runs of digits and of others.
fn parts(pre: &Prerelease) -> Vec<Vec<Part<'_>>> {
    pre.as_str().split('.').map(runs).collect()
}

fn runs(identifier: &str) -> Vec<Part<'_>> {
    let mut found = Vec::new();
    let mut rest = identifier;
    while let Some(first) = rest.chars().next() {
        let is_digit = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        found.push(match run.parse() {
            Ok(number) if is_digit => Part::Number(number),
            _ => Part::Word(run),
        });
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_pre_releases_are_numbers() {
        let ascending = [
            "0.1.0",
            "0.2.0-alpha",
            "0.2.0-alpha.1",
            "0.2.0-alpha.beta",
            "0.2.0-beta",
            "0.2.0-beta.2",
            "0.2.0-beta.11",
            "0.2.0-rc1",
            "0.2.0-rc2",
            "0.2.0-rc9",
            "0.2.0-rc10",
            "0.2.0-rc11",
            "0.2.0",
            "0.2.1-rc1",
            "1.0.0",
        ];
        let versions: Vec<Version> = ascending.iter().map(|text| Version::parse(text).unwrap()).collect();
        for (at, one) in versions.iter().enumerate() {
            for (other_at, other) in versions.iter().enumerate() {
                assert_eq!(compare(one, other), at.cmp(&other_at), "{one} {other}");
            }
        }
        let version = |text: &str| Version::parse(text).unwrap();
        assert_eq!(compare(&version("0.1.0+abc"), &version("0.1.0")), Ordering::Equal);
        assert_ne!(compare(&version("0.1.0-rc01"), &version("0.1.0-rc1")), Ordering::Equal);
    }
}
