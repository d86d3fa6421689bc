//! A declaration: the requirements, constraints, indexes and Python versions of an environment.

use super::addresses::{included_address, is_constraints_file};
use super::index::Index;
use super::python_range::PythonRange;
use super::requirements;
use super::variables::Variables;
use crate::Python;
use crate::environments::pins;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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

    /// Returns the declaration with these requirements added; each replaces one for the same package. The error is a
    /// message for the user.
    pub fn with_packages(&self, packages: &[String]) -> Result<Self, String> {
        packages.iter().try_for_each(|package| requirements::check(package))?;
        let is_replaced = |line: &String| packages.iter().any(|package| pins::name_of(package) == pins::name_of(line));
        let mut requirements: Vec<String> =
            self.requirements.iter().filter(|line| !is_replaced(line)).chain(packages).cloned().collect();
        requirements.sort();
        requirements.dedup();
        Ok(Self { requirements, ..self.clone() })
    }

    /// The requirements and constraints, which may pin a file or a commit; without the lines that include files.
    pub(crate) fn pin_lines(&self) -> impl Iterator<Item = &String> {
        let requirements = self.requirements.iter().filter(|line| included_address(line).is_none());
        requirements.chain(self.constraints.iter().filter(|line| !is_constraints_file(line)))
    }

    /// All texts that may contain variables.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &String> {
        self.requirements.iter().chain(&self.constraints).chain(self.index.addresses())
    }

    /// Returns the declaration with the variables' values from `other`; `None` if the declarations differ otherwise.
    pub fn with_variables_of(&self, other: &Self) -> Option<Self> {
        let with_values = Self { variables: other.variables.clone(), ..self.clone() };
        (with_values == *other).then_some(with_values)
    }

    /// True if no environment is needed: nothing to install, and the chosen Python is the plain one (the one for DAGs
    /// without an environment).
    pub fn is_plain(&self, chosen: &Python, plain: &Path) -> bool {
        self.requirements.is_empty() && chosen.path == plain
    }

    /// The Python version of a lock: `3.12`, or `3.12.4` if a range distinguishes patches.
    pub(crate) fn python_of_lock(&self, python: &Python) -> String {
        let is_exact =
            self.python.iter().filter_map(|range| range.parse::<PythonRange>().ok()).any(|range| range.is_exact());
        if is_exact { python.version.clone() } else { python.minor() }
    }

    /// Checks a version (`3.12.1`). The error is the range that it does not match.
    pub(crate) fn accepts_python(&self, version: &str) -> Result<(), String> {
        for range in &self.python {
            if !range.parse::<PythonRange>()?.contains(version) {
                return Err(range.clone());
            }
        }
        Ok(())
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
