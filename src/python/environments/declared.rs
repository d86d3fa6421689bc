//! The declared packages and Pythons of an environment.

use super::python_range::PythonRange;
use super::requirements::Index;
use crate::Python;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The declared packages. Equal declarations share an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// In pip's syntax, sorted, each once.
    pub requirements: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Ranges that the Python version must all match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub python: Vec<String>,
    #[serde(default)]
    pub index: Index,
}

impl Declared {
    /// Hash of the declaration with the Python version of its lock; equal if a lock may be shared.
    pub fn inputs(&self, python: &str) -> String {
        let inputs = serde_json::json!([self.requirements, self.constraints, self.index, python]);
        hex::encode(&Sha256::digest(inputs.to_string().as_bytes())[..16])
    }

    /// Like `inputs`, for an installed Python.
    pub fn inputs_with(&self, python: &Python) -> String {
        self.inputs(&self.python_of_lock(python))
    }

    /// All lines that may pin a file or a commit.
    pub(crate) fn pinning(&self) -> impl Iterator<Item = &String> {
        self.requirements.iter().chain(&self.constraints)
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
}
