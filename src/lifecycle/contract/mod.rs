//! The operator's contract: what users, scripts and service files may rely on in one release. It is generated from the
//! code as `docs/reference/contract.json`; every release carries it.

mod compare;
pub mod effects;
pub mod rules;

pub use compare::{Change, Difference, compare};

use leoflow_base::words;
use semver::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the file format. A higher number changes the meaning of existing fields.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    pub format: u32,
    /// The release that makes these promises.
    pub version: Version,
    /// Promises by name: a key, a command or a path.
    pub sections: BTreeMap<Section, BTreeMap<String, Promise>>,
    /// What earlier releases promised, announced as deprecated and removed, also for homes that skipped those releases.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<Section, BTreeMap<String, Deprecation>>,
}

words! {
    /// A kind of public interface that users, scripts and clients refer to by name.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Section: noun {
        /// Keys of `config.yaml`.
        Settings = "setting",
        /// Keys of a project's `leoflow.yaml`.
        ProjectSettings = "project setting",
        EnvironmentVariables = "environment variable",
        Commands = "command",
        /// Options and arguments: `leoflow lite start --port`.
        Options = "option",
        ExitCodes = "exit code",
        /// Fields that `--json` prints: `leoflow dags list: dags[].dag_id`.
        JsonFields = "JSON field",
        /// Operations of the REST API: `GET /api/v2/dags`.
        ApiOperations = "API operation",
        /// Parameters of operations: `GET /api/v2/dags limit`.
        ApiParameters = "API parameter",
        /// Fields of the schemas in requests and responses: `DAGResponse.dag_id`.
        ApiFields = "API field",
        /// Files and sockets in the home, by their paths below it.
        HomeFiles = "file of the home",
        BackupFiles = "file of a backup",
        /// Processes, with their purpose and what starts them.
        Processes = "process",
    }
}

/// The promised facts about one entry, such as a setting or a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Facts by name, such as `type`, `default` and `takes_effect`.
    #[serde(flatten)]
    pub facts: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<Deprecation>,
}

/// Announces that an entry will be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deprecation {
    /// First release that announced it. Contracts of 0.1 do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated_in: Option<Version>,
    /// First release without the entry.
    pub removed_in: Version,
    /// What to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    #[error("the contract is not valid: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the contract has format {0}, which is newer than this version can read")]
    Newer(u64),
}

impl Contract {
    pub fn new(version: Version) -> Self {
        Self { format: FORMAT, version, sections: BTreeMap::new(), removed: BTreeMap::new() }
    }

    /// Parses a contract. Skips sections of a newer release that this release does not know.
    pub fn parse(text: &[u8]) -> Result<Self, ContractError> {
        #[derive(Deserialize)]
        struct Raw {
            format: u64,
            version: Version,
            sections: BTreeMap<String, serde_json::Value>,
            #[serde(default)]
            removed: BTreeMap<String, serde_json::Value>,
        }
        let raw: Raw = serde_json::from_slice(text)?;
        if raw.format > u64::from(FORMAT) {
            return Err(ContractError::Newer(raw.format));
        }
        let mut contract = Self::new(raw.version);
        for (name, promises) in raw.sections {
            let Ok(section) = serde_json::from_value(name.into()) else { continue };
            contract.sections.insert(section, read_promises(promises)?);
        }
        for (name, removed) in raw.removed {
            let Ok(section) = serde_json::from_value(name.into()) else { continue };
            contract.removed.insert(section, serde_json::from_value(removed)?);
        }
        Ok(contract)
    }

    /// Records the removals that `last`, the contract of the release before, announced and this one carried out, and
    /// those that `last` itself records.
    pub fn record_removals(&mut self, last: &Self) {
        let announced = last.sections.iter().flat_map(|(section, promises)| {
            promises.iter().filter_map(move |(name, promise)| Some((*section, name, promise.deprecated.as_ref()?)))
        });
        let earlier = last.removed.iter().flat_map(|(section, removed)| {
            removed.iter().map(move |(name, deprecation)| (*section, name, deprecation))
        });
        for (section, name, deprecation) in announced.chain(earlier) {
            if self.promise(section, name).is_none() {
                self.removed.entry(section).or_default().insert(name.clone(), deprecation.clone());
            }
        }
    }

    pub fn promise(&self, section: Section, name: &str) -> Option<&Promise> {
        self.sections.get(&section)?.get(name)
    }

    /// Adds a promise with these facts.
    pub fn add<'a>(&mut self, section: Section, name: &str, facts: impl IntoIterator<Item = (&'a str, String)>) {
        let facts = facts.into_iter().map(|(fact, value)| (fact.to_owned(), value)).collect();
        let promise = Promise { facts, deprecated: None };
        self.sections.entry(section).or_default().insert(name.to_owned(), promise);
    }
}

/// Reads the promises of a section. Skips facts that are not strings: only newer releases write them.
fn read_promises(promises: serde_json::Value) -> Result<BTreeMap<String, Promise>, serde_json::Error> {
    let all: BTreeMap<String, BTreeMap<String, serde_json::Value>> = serde_json::from_value(promises)?;
    let read = |(name, mut facts): (String, BTreeMap<String, serde_json::Value>)| {
        let deprecated = facts.remove("deprecated").map(serde_json::from_value).transpose()?;
        let facts = facts.into_iter().filter_map(|(fact, value)| Some((fact, value.as_str()?.to_owned()))).collect();
        Ok((name, Promise { facts, deprecated }))
    };
    all.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_of_a_newer_format_is_refused() {
        let text = br#"{"format": 2, "version": "0.9.0", "sections": {}}"#;
        assert!(matches!(Contract::parse(text), Err(ContractError::Newer(2))));
        for broken in [&b""[..], b"[]", b"{}", br#"{"format": 1, "version": "x", "sections": {}}"#] {
            assert!(matches!(Contract::parse(broken), Err(ContractError::Unreadable(_))));
        }
    }

    #[test]
    fn unknown_sections_and_facts_of_a_newer_release_are_read() {
        let text = br#"{"format": 1, "version": "0.9.0", "signed": true, "sections": {
            "settings": {"port": {"type": "number", "unit": "none", "range": [1, 65535]}}, "dashboards": {"new": 1}}}"#;
        let contract = Contract::parse(text).unwrap();
        assert_eq!(contract.sections.len(), 1);
        assert_eq!(contract.promise(Section::Settings, "port").unwrap().facts["unit"], "none");
    }

    #[test]
    fn a_contract_is_the_same_when_it_is_read_back() {
        let mut contract = Contract::new(Version::new(0, 2, 0));
        contract.add(Section::Settings, "port", [("type", "number".to_owned())]);
        contract.sections.entry(Section::Settings).or_default().insert("http_port".to_owned(), deprecated());
        let mut next = Contract::new(Version::new(0, 3, 0));
        next.record_removals(&contract);
        for contract in [contract, next] {
            let text = serde_json::to_vec(&contract).unwrap();
            assert_eq!(Contract::parse(&text).unwrap(), contract);
        }
    }

    fn deprecated() -> Promise {
        let deprecated = Deprecation {
            deprecated_in: Some(Version::new(0, 2, 0)),
            removed_in: Version::new(0, 3, 0),
            replacement: Some("port".to_owned()),
        };
        Promise { facts: BTreeMap::new(), deprecated: Some(deprecated) }
    }

    #[test]
    fn announced_removals_are_recorded_in_all_later_releases() {
        let mut first = Contract::new(Version::new(0, 2, 0));
        first.sections.entry(Section::Settings).or_default().insert("http_port".to_owned(), deprecated());
        first.add(Section::Settings, "unannounced", []);
        let mut second = Contract::new(Version::new(0, 3, 0));
        second.record_removals(&first);
        let mut third = Contract::new(Version::new(0, 4, 0));
        third.record_removals(&second);
        for contract in [&second, &third] {
            assert_eq!(contract.removed[&Section::Settings].keys().collect::<Vec<_>>(), ["http_port"]);
        }
        // A name that is promised again is not removed.
        let mut fourth = Contract::new(Version::new(0, 5, 0));
        fourth.add(Section::Settings, "http_port", []);
        fourth.record_removals(&third);
        assert!(fourth.removed.is_empty());
    }
}
