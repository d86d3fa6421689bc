//! Finds the pins of a declaration that have to go so that it can be resolved.

use super::declaration::declared::Declared;
use super::error::EnvironmentError;
use super::{pins, resolve, uv};
use crate::Python;
use leoflow_base::home::Home;
use leoflow_base::home::progress::Reporter;
use pep440_rs::{Operator, Version};
use std::collections::BTreeMap;

/// A requirement or constraint whose versions cannot be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loosened {
    /// The line as it is declared.
    pub line: String,
    /// The version that fits.
    pub version: String,
}

/// What a declaration needs so that it can be installed.
#[derive(Debug, Default)]
pub struct Fit {
    /// Lines whose versions have to go.
    pub loosened: Vec<Loosened>,
    /// Constraints to the newest versions with wheels, for packages whose newest version has none for this machine.
    pub limits: Vec<String>,
}

/// The first version of each package whose wheels are compiled for numpy 2. Source: release notes of the packages.
const BUILT_FOR_NUMPY_2: [(&str, &str); 5] =
    [("matplotlib", "3.8.4"), ("pandas", "2.2.2"), ("pyarrow", "16.0"), ("scikit-learn", "1.4.2"), ("scipy", "1.13.0")];

/// Finds out what has to change so that the declaration can be installed. Keeps as many versions as possible, and
/// prefers those with wheels for this machine. The error is that of the declaration without any versions.
pub fn fit(
    home: &Home,
    declared: &Declared,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<Fit, EnvironmentError> {
    let uv = uv::ensure(home, reporter)?;
    let resolve = |declared: &Declared, preferred: &[String]| {
        resolve::resolve_here(&uv, home, declared, python, preferred, reporter)
    };
    let with_wheels = |declared: &Declared| {
        let mut declared = declared.clone();
        declared.index.only_binary = vec![":all:".to_owned()];
        declared
    };
    let as_declared = resolve(declared, &[]);
    match (resolve(&with_wheels(declared), &[]), &as_declared) {
        (Err(EnvironmentError::Unresolvable(_)), Err(EnvironmentError::Unresolvable(_))) => {}
        // Some version has no wheel: it is built from its source.
        (Err(_), Ok(_)) => return Ok(Fit::default()),
        (Err(error), _) => return Err(error),
        (Ok(wheels), _) => {
            let wheels = versions(&wheels);
            let newest = versions(&as_declared?);
            let limits = newest.iter().filter_map(|(name, version)| {
                wheels.get(name).filter(|other| *other != version).map(|other| format!("{name}<={other}"))
            });
            let limits = limits.chain(numpy_limit(&wheels)).collect();
            return Ok(Fit { limits, ..Fit::default() });
        }
    }
    // First the exact versions go, which uv keeps where it can, then all.
    let preferred: Vec<String> = declared.pin_lines().filter_map(|line| exact(line)).collect();
    let attempt = |loose: &Declared| resolve(&with_wheels(loose), &preferred).or_else(|_| resolve(loose, &preferred));
    let lock = attempt(&without(declared, |line| exact(line).is_some()));
    let lock = lock.or_else(|_| attempt(&without(declared, |_| true)))?;
    let chosen = versions(&lock);
    let loosened = declared.pin_lines().filter_map(|line| {
        let version = chosen.get(&pins::name_of(line))?;
        let specifiers = pins::specifiers_of(line)?;
        let is_met = version.parse().is_ok_and(|version| specifiers.contains(&version));
        (!is_met).then(|| Loosened { line: line.clone(), version: version.clone() })
    });
    Ok(Fit { loosened: loosened.collect(), limits: numpy_limit(&chosen).into_iter().collect() })
}

/// Limits numpy if the chosen version of another package was compiled for numpy 1, which its metadata does not say.
fn numpy_limit(chosen: &BTreeMap<String, String>) -> Option<String> {
    let version = |text: &str| text.parse::<Version>().ok();
    let is_older = |name: &str, than: &str| chosen.get(name).is_some_and(|chosen| version(chosen) < version(than));
    let is_for_numpy_1 = BUILT_FOR_NUMPY_2.iter().any(|(name, first)| is_older(name, first));
    (is_for_numpy_1 && !is_older("numpy", "2")).then(|| "numpy<2".to_owned())
}

/// The versions in a lock, by package.
fn versions(lock: &str) -> BTreeMap<String, String> {
    let labels = pins::labels(lock);
    let pairs = labels.iter().filter_map(|label| label.split_once("=="));
    pairs.map(|(name, version)| (pins::name_of(name), version.to_owned())).collect()
}

/// The declaration without the versions of some lines.
fn without(declared: &Declared, is_loose: impl Fn(&str) -> bool) -> Declared {
    let is_loose = |line: &String| pins::specifiers_of(line).is_some() && is_loose(line);
    let requirement = |line: &String| if is_loose(line) { pins::without_versions(line) } else { line.clone() };
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
    fn packages_for_numpy_1_limit_numpy() {
        let limit = |chosen: &[(&str, &str)]| {
            numpy_limit(&chosen.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect())
        };
        assert_eq!(limit(&[("pandas", "2.0.3"), ("numpy", "2.4.6")]).as_deref(), Some("numpy<2"));
        assert_eq!(limit(&[("pandas", "2.0.3"), ("numpy", "1.26.4")]), None);
        assert_eq!(limit(&[("pandas", "2.2.2"), ("scipy", "1.13.0"), ("numpy", "2.0.0")]), None);
        assert_eq!(limit(&[("requests", "2.0.3")]), None);
    }

    #[test]
    fn versions_of_requirements_are_dropped() {
        assert_eq!(exact("Pandas[excel] == 1.5.3 ; python_version > '3'").as_deref(), Some("pandas==1.5.3"));
        for line in ["a>=1", "a==1.*", "a @ git+https://h/x@a==1", "a"] {
            assert_eq!(exact(line), None, "{line}");
        }
        let declared = Declared {
            requirements: ["Pandas[excel]==1.5.3 ; os_name == 'a' --hash=x", "a (>=1,<2)", "b @ https://h/b.whl"]
                .map(str::to_owned)
                .into(),
            constraints: ["c==1", "d<2"].map(str::to_owned).into(),
            ..Declared::default()
        };
        let loose = without(&declared, |line| exact(line).is_some());
        assert_eq!(loose.requirements, ["Pandas[excel] ; os_name == 'a'", "a (>=1,<2)", "b @ https://h/b.whl"]);
        assert_eq!(loose.constraints, ["d<2"]);
        assert_eq!(without(&declared, |_| true).requirements[1..], ["a", "b @ https://h/b.whl"]);
    }
}
