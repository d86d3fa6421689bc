//! Selects the contract changes that affect one home, from the parts of the contract that the home uses.

use super::{Change, Difference, Section};
use leoflow_base::config::Loaded;
use leoflow_base::sys::env_vars;
use std::collections::BTreeSet;

/// The parts of the contract that a home uses.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    /// Keys that `config.yaml`, an override file or an environment variable sets.
    pub settings: BTreeSet<String>,
    /// Names of the environment variables of the process that plans the upgrade.
    pub variables: BTreeSet<String>,
}

impl Uses {
    /// The uses of a home with these settings, in this process's environment.
    pub fn of(settings: &Loaded) -> Self {
        Self {
            settings: settings.origins.keys().cloned().chain(settings.written_keys()).collect(),
            variables: env_vars::all().into_iter().filter_map(|(name, _)| name.into_string().ok()).collect(),
        }
    }
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
        _ => return None,
    };
    Some(format!("{change}; {place}"))
}

#[cfg(test)]
mod tests {
    use super::super::{Contract, Deprecation, compare};
    use super::*;

    /// Changes: a new default, a deprecated setting, and a removed variable.
    fn changes() -> Vec<Change> {
        let mut old = Contract::new("0.2.0".parse().unwrap());
        old.add(Section::Settings, "port", [("default", "8088".to_owned())]);
        old.add(Section::Settings, "host", []);
        old.add(Section::EnvironmentVariables, "LEOFLOW_HOST", []);
        let mut new = Contract::new("0.3.0".parse().unwrap());
        new.add(Section::Settings, "port", [("default", "80".to_owned())]);
        new.add(Section::Settings, "host", []);
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
        let uses = Uses { settings: set(&["port", "host"]), variables: set(&["LEOFLOW_HOST"]) };
        let lines = effects(&changes(), &uses);
        assert!(
            lines.contains(
                &"setting host is deprecated: use address; it works until 0.4.0; this home sets it".to_owned()
            )
        );
        assert!(lines.iter().any(|line| line.contains("LEOFLOW_HOST was removed")), "{lines:?}");
        assert_eq!(lines.len(), 3, "{lines:?}");
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
}
