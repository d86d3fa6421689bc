//! Selects the contract changes that affect one home, from the parts of the contract that the home uses. Pure.

use super::{Change, Difference, Section};
use std::collections::BTreeSet;

/// The parts of the contract that a home uses.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    /// Keys that `config.yaml`, an override file or an environment variable sets.
    pub settings: BTreeSet<String>,
    /// Names of the environment variables of the process that plans the upgrade.
    pub variables: BTreeSet<String>,
    /// The text of service files and of scripts that call Leoflow.
    pub scripts: Vec<String>,
    /// API requests of clients, such as `GET /api/v2/dags`.
    pub requests: BTreeSet<String>,
}

/// Returns one line for each change that affects the home, with the replacement if the contract names one.
pub fn effects(changes: &[Change], uses: &Uses) -> Vec<String> {
    changes.iter().filter_map(|change| effect(change, uses)).collect()
}

fn effect(change: &Change, uses: &Uses) -> Option<String> {
    let Change { section, name, difference } = change;
    if matches!(difference, Difference::Added { .. }) {
        return None;
    }
    let is_new_default = matches!(difference, Difference::Changed { fact, .. } if fact == "default");
    let place = match section {
        Section::Settings if is_new_default && !uses.settings.contains(name) => "this home uses the default",
        Section::Settings if uses.settings.contains(name) => "this home sets it",
        Section::EnvironmentVariables if uses.variables.contains(name) => "it is set in the environment",
        Section::Commands | Section::Options if uses.scripts.iter().any(|text| calls_command(text, name)) => {
            "a service file or a script uses it"
        }
        Section::ApiOperations if uses.requests.iter().any(|request| matches_operation(request, name)) => {
            "a client called it"
        }
        _ => return None,
    };
    Some(format!("{change}; {place}"))
}

/// True if one line of a script contains the words of a command or option in order: `leoflow lite start --port`.
fn calls_command(script: &str, name: &str) -> bool {
    script.lines().any(|line| {
        let mut words = line.split(|c: char| c.is_whitespace() || "=\"';".contains(c)).map(file_name);
        name.split(' ').all(|wanted| words.any(|word| word == wanted))
    })
}

/// Last component of a path: `leoflow` for `/home/u/.leoflow/bin/leoflow`. Options stay unchanged.
fn file_name(word: &str) -> &str {
    if word.starts_with('-') { word } else { word.rsplit('/').next().unwrap_or(word) }
}

/// True if a request calls an operation; a part in braces, such as `{dag_id}`, matches any text.
fn matches_operation(request: &str, operation: &str) -> bool {
    let (request, operation): (Vec<&str>, Vec<&str>) = (request.split('/').collect(), operation.split('/').collect());
    let is_same = |(part, wanted): (&&str, &&str)| part == wanted || (wanted.starts_with('{') && !part.is_empty());
    request.len() == operation.len() && request.iter().zip(&operation).all(is_same)
}

#[cfg(test)]
mod tests {
    use super::super::{Contract, Deprecation, compare};
    use super::*;

    /// Changes: a new default, a deprecated setting, and a removed variable, option and operation.
    fn changes() -> Vec<Change> {
        let mut old = Contract::new("0.2.0".parse().unwrap());
        old.add(Section::Settings, "port", [("default", "8088".to_owned())]);
        old.add(Section::Settings, "host", []);
        old.add(Section::EnvironmentVariables, "LEOFLOW_HOST", []);
        old.add(Section::Commands, "leoflow lite start", []);
        old.add(Section::Options, "leoflow lite start --port", []);
        old.add(Section::ApiOperations, "GET /api/v2/dags/{dag_id}/dagRuns", []);
        let mut new = Contract::new("0.3.0".parse().unwrap());
        new.add(Section::Settings, "port", [("default", "80".to_owned())]);
        new.add(Section::Settings, "host", []);
        new.add(Section::Commands, "leoflow lite start", []);
        new.add(Section::Settings, "new", []);
        let host = new.sections.get_mut(&Section::Settings).unwrap().get_mut("host").unwrap();
        let replacement = Some("address".to_owned());
        host.deprecated = Some(Deprecation { deprecated_in: None, removed_in: "0.4.0".parse().unwrap(), replacement });
        compare(&old, &new)
    }

    #[test]
    fn a_home_without_uses_gets_only_changed_defaults() {
        let lines = effects(&changes(), &Uses::default());
        assert_eq!(lines, ["setting port has another default: 80 instead of 8088; this home uses the default"]);
    }

    #[test]
    fn each_used_entry_is_reported_with_its_replacement() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let uses = Uses {
            settings: set(&["port", "host"]),
            variables: set(&["LEOFLOW_HOST"]),
            scripts: vec!["[Service]\nExecStart=\"/home/u/.leoflow/bin/leoflow\" lite start --port 8090\n".to_owned()],
            requests: set(&["GET /api/v2/dags/hello/dagRuns"]),
        };
        let lines = effects(&changes(), &uses);
        assert!(
            lines.contains(
                &"setting host is deprecated: use address; it works until 0.4.0; this home sets it".to_owned()
            )
        );
        for part in
            ["LEOFLOW_HOST was removed", "leoflow lite start --port was removed", "dagRuns was removed; a client"]
        {
            assert!(lines.iter().any(|line| line.contains(part)), "{part} in {lines:?}");
        }
        assert_eq!(lines.len(), 5, "{lines:?}");
    }

    #[test]
    fn a_removal_that_a_skipped_release_announced_has_its_replacement() {
        let mut old = Contract::new("0.1.0".parse().unwrap());
        old.add(Section::Settings, "host", []);
        let mut skipped = old.clone();
        let host = skipped.sections.get_mut(&Section::Settings).unwrap().get_mut("host").unwrap();
        let [deprecated_in, removed_in] = ["0.2.0", "0.3.0"].map(|version| version.parse().unwrap());
        let replacement = Some("address".to_owned());
        host.deprecated = Some(Deprecation { deprecated_in: Some(deprecated_in), removed_in, replacement });
        let mut new = Contract::new("0.4.0".parse().unwrap());
        new.record_removals(&skipped);
        let uses = Uses { settings: ["host".to_owned()].into(), ..Uses::default() };
        let expected = "setting host was removed in 0.3.0 (deprecated since 0.2.0): use address; this home sets it";
        assert_eq!(effects(&compare(&old, &new), &uses), [expected]);
    }

    #[test]
    fn similar_options_and_operations_do_not_match() {
        assert!(calls_command("leoflow --home /x lite start --port=1", "leoflow lite start --port"));
        assert!(!calls_command("leoflow lite start\nleoflow lite stop --port 1", "leoflow lite start --port"));
        assert!(!calls_command("leoflow lite start --ports 1", "leoflow lite start --port"));
        assert!(matches_operation("GET /api/v2/dags/a", "GET /api/v2/dags/{dag_id}"));
        assert!(!matches_operation("POST /api/v2/dags/a", "GET /api/v2/dags/{dag_id}"));
        assert!(!matches_operation("GET /api/v2/dags/", "GET /api/v2/dags/{dag_id}"));
        assert!(!matches_operation("GET /api/v2/dags/a/b", "GET /api/v2/dags/{dag_id}"));
    }
}
