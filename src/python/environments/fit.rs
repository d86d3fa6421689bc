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
    match resolve(declared, &[]) {
        Err(EnvironmentError::Unresolvable(_)) => {}
        Err(error) => return Err(error),
        Ok(newest) => {
            let newest = versions(&newest);
            // Without wheels for all, some versions are built from their sources.
            let wheels = resolve(&with_wheels(declared), &[]).map_or_else(|_| newest.clone(), |lock| versions(&lock));
            let old = compiled_for_numpy_1(declared, &wheels);
            if !old.is_empty() {
                let loose = without(declared, |line| old.iter().any(|old| *old == line));
                let lock = resolve(&with_wheels(&loose), &[]).or_else(|_| resolve(&loose, &[]))?;
                return Ok(Fit { loosened: loosened(declared, &versions(&lock)), ..Fit::default() });
            }
            let limits = newest.iter().filter_map(|(name, version)| {
                wheels.get(name).filter(|other| *other != version).map(|other| format!("{name}<={other}"))
            });
            return Ok(Fit { limits: limits.collect(), ..Fit::default() });
        }
    }
    // First the exact versions go, which uv keeps where it can, then all.
    let preferred = declared.pin_lines().filter_map(|line| exact(line)).filter(|pin| !is_for_numpy_1(pin));
    let preferred: Vec<String> = preferred.collect();
    let attempt = |loose: &Declared| resolve(&with_wheels(loose), &preferred).or_else(|_| resolve(loose, &preferred));
    let lock = attempt(&without(declared, |line| exact(line).is_some()));
    let lock = lock.or_else(|_| attempt(&without(declared, |_| true)))?;
    Ok(Fit { loosened: loosened(declared, &versions(&lock)), ..Fit::default() })
}

/// The lines whose versions the chosen ones do not meet.
fn loosened(declared: &Declared, chosen: &BTreeMap<String, String>) -> Vec<Loosened> {
    let loosened = declared.pin_lines().filter_map(|line| {
        let version = chosen.get(&pins::name_of(line))?;
        let specifiers = pins::specifiers_of(line)?;
        let is_met = version.parse().is_ok_and(|version| specifiers.contains(&version));
        (!is_met).then(|| Loosened { line: line.clone(), version: version.clone() })
    });
    loosened.collect()
}

/// The lines that pin a version compiled for numpy 1, if numpy 2 or newer was chosen: their metadata allows it, and their
/// import fails.
fn compiled_for_numpy_1<'a>(declared: &'a Declared, chosen: &BTreeMap<String, String>) -> Vec<&'a String> {
    let first = Version::new([2]);
    let has_numpy_2 =
        chosen.get("numpy").and_then(|version| version.parse().ok()).is_some_and(|chosen| first <= chosen);
    let is_old = |line: &&String| has_numpy_2 && exact(line).is_some_and(|pin| is_for_numpy_1(&pin));
    declared.pin_lines().filter(is_old).collect()
}

/// True for `NAME==VERSION` of a version that was compiled for numpy 1.
fn is_for_numpy_1(pin: &str) -> bool {
    let Some((name, version)) = pin.split_once("==") else { return false };
    let first =
        BUILT_FOR_NUMPY_2.iter().find(|(package, _)| *package == name).and_then(|(_, first)| first.parse().ok());
    let version: Option<Version> = version.parse().ok();
    first.is_some_and(|first: Version| version.is_some_and(|version| version < first))
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
    fn pins_compiled_for_numpy_1_do_not_fit_numpy_2() {
        let old = |numpy: &str, lines: &[&str]| -> Vec<String> {
            let requirements = lines.iter().map(|line| (*line).to_owned()).collect();
            let declared = Declared { requirements, ..Declared::default() };
            let chosen = BTreeMap::from([("numpy".to_owned(), numpy.to_owned())]);
            compiled_for_numpy_1(&declared, &chosen).into_iter().cloned().collect()
        };
        let lines = ["Pandas[sql]==2.0.3", "scipy==1.13.0", "pandas>=2", "requests==2.0"];
        assert_eq!(old("2.4.6", &lines), ["Pandas[sql]==2.0.3"]);
        assert!(old("1.26.4", &lines).is_empty());
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
