//! Finds the pins of a declaration that have to go so that it can be resolved.

use super::declaration::declared::Declared;
use super::error::EnvironmentError;
use super::{pins, resolve, uv};
use crate::Python;
use leoflow_base::home::Home;
use leoflow_base::home::progress::Reporter;
use pep440_rs::Operator;
use std::collections::BTreeMap;

/// A requirement or constraint whose versions cannot be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loosened {
    /// The line as it is declared.
    pub line: String,
    /// The version that fits.
    pub version: String,
}

/// Returns the lines whose versions have to go; an empty list if the declaration can be resolved as it is. Keeps as many
/// as possible, and prefers versions with wheels for this machine. The error is that of the declaration without any
/// versions.
pub fn loosen(
    home: &Home,
    declared: &Declared,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<Vec<Loosened>, EnvironmentError> {
    let uv = uv::ensure(home, reporter)?;
    let resolve = |declared: &Declared, preferred: &[String]| {
        resolve::resolve_here(&uv, home, declared, python, preferred, reporter)
    };
    let with_wheels = |declared: &Declared| {
        let mut declared = declared.clone();
        declared.index.only_binary = vec![":all:".to_owned()];
        declared
    };
    match resolve(&with_wheels(declared), &[]) {
        Err(EnvironmentError::Unresolvable(_)) => {}
        other => return other.map(|_| Vec::new()),
    }
    // First the exact versions go, which uv keeps where it can, then all.
    let preferred: Vec<String> = declared.pin_lines().filter_map(|line| exact(line)).collect();
    let lock = [without(declared, |line| exact(line).is_some()), without(declared, |_| true)].into_iter().fold(
        Err(None),
        |lock, loose| {
            lock.or_else(|_| {
                resolve(&with_wheels(&loose), &preferred).or_else(|_| resolve(&loose, &preferred)).map_err(Some)
            })
        },
    );
    let lock = lock.map_err(|error| error.unwrap_or(EnvironmentError::Unresolvable(String::new())))?;
    let chosen: BTreeMap<String, String> = pins::labels(&lock)
        .iter()
        .filter_map(|label| label.split_once("=="))
        .map(|(name, version)| (pins::name_of(name), version.to_owned()))
        .collect();
    let loosened = declared.pin_lines().filter_map(|line| {
        let version = chosen.get(&pins::name_of(line))?;
        let specifiers = pins::specifiers_of(line)?;
        let is_met = version.parse().is_ok_and(|version| specifiers.contains(&version));
        (!is_met).then(|| Loosened { line: line.clone(), version: version.clone() })
    });
    Ok(loosened.collect())
}

/// The declaration without the versions of some lines.
fn without(declared: &Declared, is_loose: impl Fn(&str) -> bool) -> Declared {
    let is_loose = |line: &String| pins::specifiers_of(line).is_some() && is_loose(line);
    let requirement =
        |line: &String| if is_loose(line) { pins::without_versions(line).to_owned() } else { line.clone() };
    Declared {
        requirements: declared.requirements.iter().map(requirement).collect(),
        constraints: declared.constraints.iter().filter(|line| !is_loose(line)).cloned().collect(),
        ..declared.clone()
    }
}

/// `NAME==VERSION` for a requirement of exactly one version.
fn exact(line: &str) -> Option<String> {
    let specifiers = pins::specifiers_of(line)?;
    let exact = specifiers.iter().find(|specifier| *specifier.operator() == Operator::Equal)?;
    Some(format!("{}=={}", pins::name_of(line), exact.version()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_requirements_are_dropped() {
        assert_eq!(exact("Pandas[excel] == 1.5.3 ; python_version > '3'").as_deref(), Some("pandas==1.5.3"));
        for line in ["a>=1", "a==1.*", "a @ git+https://h/x@a==1", "a"] {
            assert_eq!(exact(line), None, "{line}");
        }
        let declared = Declared {
            requirements: ["Pandas[excel]==1.5.3 --hash=x", "a>=1,<2", "b @ https://h/b.whl"].map(str::to_owned).into(),
            constraints: ["c==1", "d<2"].map(str::to_owned).into(),
            ..Declared::default()
        };
        let loose = without(&declared, |line| exact(line).is_some());
        assert_eq!(loose.requirements, ["Pandas[excel]", "a>=1,<2", "b @ https://h/b.whl"]);
        assert_eq!(loose.constraints, ["d<2"]);
        assert_eq!(without(&declared, |_| true).requirements, ["Pandas[excel]", "a", "b @ https://h/b.whl"]);
    }
}
