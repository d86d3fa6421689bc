//! Orders release versions.

use semver::{Prerelease, Version};
use std::cmp::Ordering;

/// Compares by semantic versioning, except that digits inside a pre-release identifier count as a number: `rc10` is
/// newer than `rc9`, while <https://semver.org/#spec-item-11> compares them as text. Ignores build metadata.
pub fn compare(left: &Version, right: &Version) -> Ordering {
    let numbers = |version: &Version| (version.major, version.minor, version.patch);
    numbers(left).cmp(&numbers(right)).then_with(|| compare_pre(&left.pre, &right.pre))
}

fn compare_pre(left: &Prerelease, right: &Prerelease) -> Ordering {
    match (left.is_empty(), right.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        // Pre-releases that differ only in leading zeros are different releases.
        (false, false) => parts(left).cmp(&parts(right)).then_with(|| left.cmp(right)),
    }
}

/// A run of digits or of other characters. Numbers sort before words, as in semantic versioning.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Number(u128),
    Word(&'a str),
}

/// Splits each identifier into runs of digits and of other characters.
fn parts(pre: &Prerelease) -> Vec<Vec<Part<'_>>> {
    pre.as_str().split('.').map(runs).collect()
}

/// Splits an identifier into runs.
fn runs(identifier: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut remaining = identifier;
    while let Some(first) = remaining.chars().next() {
        let is_digit = first.is_ascii_digit();
        let end = remaining.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(remaining.len());
        let (run, following) = remaining.split_at(end);
        parts.push(match run.parse() {
            Ok(number) if is_digit => Part::Number(number),
            _ => Part::Word(run),
        });
        remaining = following;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_pre_releases_compare_as_numbers() {
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
        for (left_index, left) in versions.iter().enumerate() {
            for (right_index, right) in versions.iter().enumerate() {
                assert_eq!(compare(left, right), left_index.cmp(&right_index), "{left} {right}");
            }
        }
        let version = |text: &str| Version::parse(text).unwrap();
        assert_eq!(compare(&version("0.1.0+abc"), &version("0.1.0")), Ordering::Equal);
        assert_ne!(compare(&version("0.1.0-rc01"), &version("0.1.0-rc1")), Ordering::Equal);
    }
}
