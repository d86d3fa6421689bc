//! A declaration: the requirements, constraints, indexes and Python versions of an environment.

use super::error::LineError;
use super::index::Index;
use super::python_range::PythonRange;
use super::requirements::Role;
use super::variables::Variables;
use crate::Python;
use crate::environments::pins;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The merged declaration for a DAG file. Equal declarations share an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// In pip's syntax, sorted, without duplicates.
    pub requirements: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Ranges that the Python version must all match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub python: Vec<String>,
    #[serde(default)]
    pub index: Index,
    /// The values of the variables (`${NAME}`) that requirements, constraints and indexes contain; never stored.
    #[serde(skip)]
    pub variables: Variables,
    /// The file, setting or variable that contains a requirement, for messages; not stored.
    #[serde(skip)]
    pub origins: BTreeMap<String, String>,
}

impl Declared {
    /// Hash of the declaration and the Python version of a lock (see `python_of_lock`). Declarations with equal hashes
    /// may share a lock.
    pub fn inputs(&self, python: &str) -> String {
        let mut inputs = serde_json::json!([self.requirements, self.constraints, self.index, python]);
        let values = self.variables.identifying_values(self.texts());
        if let (Some(list), false) = (inputs.as_array_mut(), values.is_empty()) {
            list.push(serde_json::json!(values));
        }
        hex::encode(&Sha256::digest(inputs.to_string().as_bytes())[..16])
    }

    /// Like `inputs`, for an installed Python.
    pub fn inputs_with(&self, python: &Python) -> String {
        self.inputs(&self.python_of_lock(python))
    }

    /// Returns the declaration with these requirements added; each replaces one for the same package.
    pub fn with_packages(&self, packages: &[String]) -> Result<Self, LineError> {
        packages.iter().try_for_each(|package| Role::Requirements.check(package))?;
        let is_replaced = |line: &String| packages.iter().any(|package| pins::name_of(package) == pins::name_of(line));
        let mut requirements: Vec<String> =
            self.requirements.iter().filter(|line| !is_replaced(line)).chain(packages).cloned().collect();
        requirements.sort();
        requirements.dedup();
        Ok(Self { requirements, ..self.clone() })
    }

    /// The requirements and constraints, and the lines that include files.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (Role, &String)> {
        let requirements = self.requirements.iter().map(|line| (Role::Requirements, line));
        requirements.chain(self.constraints.iter().map(|line| (Role::Constraints, line)))
    }

    /// The requirements and constraints, which may pin a file or a commit; without the lines that include files.
    pub(crate) fn pin_lines(&self) -> impl Iterator<Item = &String> {
        self.lines().filter(|(role, line)| role.included_address(line).is_none()).map(|(_, line)| line)
    }

    /// True if both declare the same; the files that contain the requirements may differ.
    pub fn is_equal_to(&self, other: &Self) -> bool {
        *self == Self { origins: self.origins.clone(), ..other.clone() }
    }

    /// All texts that may contain variables.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &String> {
        self.requirements.iter().chain(&self.constraints).chain(self.index.addresses())
    }

    /// Returns the declaration with the variables' values from `other`; `None` if the declarations differ otherwise.
    pub fn with_variables_of(&self, other: &Self) -> Option<Self> {
        let with_values = Self { variables: other.variables.clone(), origins: other.origins.clone(), ..self.clone() };
        (with_values == *other).then_some(with_values)
    }

    /// True if no environment is needed: nothing to install, and the chosen Python is the plain one (the one for DAGs
    /// without an environment).
    pub fn is_plain(&self, chosen: &Python, plain: &Path) -> bool {
        self.requirements.is_empty() && chosen.path == plain
    }

    /// The Python version of a lock: `3.12`, or `3.12.4` if a range distinguishes patches.
    pub(crate) fn python_of_lock(&self, python: &Python) -> String {
        let mut ranges = self.python.iter().filter_map(|range| range.parse::<PythonRange>().ok());
        if ranges.any(|range| range.is_exact()) { python.version.clone() } else { python.minor() }
    }

    /// The first range that a version (`3.12.1`) does not match; `None` if it matches all.
    pub(crate) fn mismatch(&self, version: &str) -> Option<String> {
        let accepts = |range: &&String| range.parse::<PythonRange>().is_ok_and(|range| range.contains(version));
        self.python.iter().find(|range| !accepts(range)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_declarations_have_equal_inputs() {
        let declared =
            |requirement: &str| Declared { requirements: vec![requirement.to_owned()], ..Declared::default() };
        assert_eq!(declared("a").inputs("3.11"), declared("a").inputs("3.11"));
        assert_ne!(declared("a").inputs("3.11"), declared("b").inputs("3.11"));
        assert_ne!(declared("a").inputs("3.11"), declared("a").inputs("3.12"));
    }

    #[test]
    fn added_packages_replace_those_of_the_same_name() {
        let declared = Declared { requirements: vec!["a<2".to_owned(), "b".to_owned()], ..Declared::default() };
        let added = declared.with_packages(&["A>=2".to_owned(), "c".to_owned()]).unwrap();
        assert_eq!(added.requirements, ["A>=2", "b", "c"]);
        assert!(declared.with_packages(&["./x".to_owned()]).is_err());
    }
}
