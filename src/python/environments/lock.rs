//! The lock of an environment: the exact packages to which a declaration resolves.

use super::declaration::declared::Declared;
use super::error::EnvironmentError;
use super::{airflow_versions, pins};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The exact packages for one Python version. Stored in the datastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub declared: Declared,
    /// `3.12`, or `3.12.4` if the project's ranges distinguish patches.
    pub python: String,
    /// The packages in pip's syntax, with hashes.
    pub text: String,
}

impl Lock {
    /// Hash of the packages and the Python version; the same on every machine.
    pub fn hash(&self) -> String {
        let contents = serde_json::json!([self.text, self.python]);
        hex::encode(&Sha256::digest(contents.to_string().as_bytes())[..16])
    }

    /// Hash of the declaration that the lock was resolved from.
    pub fn inputs(&self) -> String {
        self.declared.inputs(&self.python)
    }

    /// `(name, version or address)` of the packages, sorted; several for different Pythons or platforms are joined by
    /// `or`.
    pub fn packages(&self) -> Vec<(String, String)> {
        let mut versions_by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for label in pins::labels(&self.text) {
            if let Some((name, version)) = label.split_once("==").or_else(|| label.split_once(" @ ")) {
                versions_by_name.entry(name.trim().to_owned()).or_default().push(version.trim().to_owned());
            }
        }
        versions_by_name.into_iter().map(|(name, versions)| (name, versions.join(" or "))).collect()
    }

    /// True if the lock has a package of this name, in any spelling.
    pub fn has_package(&self, name: &str) -> bool {
        let name = pins::name_of(name);
        self.packages().iter().any(|(package, _)| pins::name_of(package) == name)
    }

    /// Restricts the lock to the files that the project pins. The error names a commit that is not the pinned one,
    /// or a version of Airflow that this release does not support.
    pub fn allowed(mut self) -> Result<Self, EnvironmentError> {
        self.text = pins::restrict(&self.text, self.declared.pin_lines())?;
        airflow_versions::check(&self.packages())?;
        Ok(self)
    }

    /// True if `allowed` would not change or refuse the lock. It may if an earlier release has made the lock.
    pub fn is_allowed(&self) -> bool {
        self.clone().allowed().is_ok_and(|allowed| allowed == *self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_lists_its_packages() {
        let text = "certifi==2026.1 \\\n    --hash=sha256:ab\nnumpy==2.4 ; python_full_version < '3.12' \\\n    \
                    --hash=sha256:cd\nnumpy==2.5 ; python_full_version >= '3.12' \\\n    --hash=sha256:ef\n";
        let lock = Lock { declared: Declared::default(), python: "3.11".to_owned(), text: text.to_owned() };
        let named = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(lock.packages(), [named("certifi", "2026.1"), named("numpy", "2.4 or 2.5")]);
        let lock = Lock { text: "typing-extensions==4 \\\n    --hash=sha256:ab\n".to_owned(), ..lock };
        assert!(lock.has_package("Typing_Extensions") && !lock.has_package("typing"));
    }

    #[test]
    fn a_lock_with_unpinned_files_or_a_newer_airflow_is_refused() {
        let (pinned, other) = ("ab".repeat(32), "cd".repeat(32));
        let declared = Declared { requirements: vec![format!("n==1 --hash=sha256:{pinned}")], ..Declared::default() };
        let lock = |text: &str| Lock { declared: declared.clone(), python: "3.11".to_owned(), text: text.to_owned() };
        let both = lock(&format!("n==1 \\\n    --hash=sha256:{pinned} \\\n    --hash=sha256:{other}\n"));
        assert!(!both.is_allowed());
        let allowed = both.allowed().unwrap();
        assert!(allowed.is_allowed() && !allowed.text.contains(&other), "{}", allowed.text);
        // uv refuses a lock with hashes that none of the files has.
        let refused = lock(&format!("n==1 \\\n    --hash=sha256:{other}\n"));
        assert!(!refused.is_allowed());
        assert_eq!(refused.allowed().unwrap().text, format!("n==1 \\\n    --hash=sha256:{pinned}\n"));
        let newer = lock(&format!("apache-airflow-core==3.5.0 \\\n    --hash=sha256:{other}\n"));
        assert!(newer.allowed().unwrap_err().to_string().contains("runs Apache Airflow 3.0 to 3.4"));
    }
}
