//! Checks contract changes against semantic versioning. A patch release changes nothing. A minor release adds entries
//! and deprecates others. A removal or a changed fact needs a deprecation in an earlier release and, from 1.0 on, a new
//! major version; below 1.0 a new minor version is enough. Pure.

use super::{Change, Contract, Deprecation, Difference, Section, compare};
use semver::Version;

/// Which part of the version number differs from the previous release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Patch,
    Minor,
    /// A major, or a minor below 1.0.
    Breaking,
}

fn step(from: &Version, to: &Version) -> Step {
    match (from.major == to.major, from.minor == to.minor) {
        (true, true) => Step::Patch,
        (true, false) if to.major > 0 => Step::Minor,
        _ => Step::Breaking,
    }
}

/// A change that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub change: Change,
    pub rule: Rule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    PatchChangesNothing,
    MinorOnlyAdds,
    AnnouncedOneMinorBefore,
    NothingNewIsRequired,
}

impl Rule {
    pub fn text(self) -> &'static str {
        match self {
            Self::PatchChangesNothing => "a patch release changes nothing in the contract",
            Self::MinorOnlyAdds => "a minor release only adds and deprecates; a removal waits for the next major",
            Self::AnnouncedOneMinorBefore => {
                "a removal or a change is announced as deprecated at least one minor release before"
            }
            Self::NothingNewIsRequired => "a new option or parameter of what existed before is optional",
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.change, self.rule.text())
    }
}

/// Returns the changes in `new` that break a rule. `old` is the contract of the last stable release before it.
pub fn violations(old: &Contract, new: &Contract) -> Vec<Violation> {
    let step = step(&old.version, &new.version);
    let broken = |change: Change| {
        let rule = broken_rule(&change, step, old, new)?;
        Some(Violation { change, rule })
    };
    compare(old, new).into_iter().filter_map(broken).collect()
}

fn broken_rule(change: &Change, step: Step, old: &Contract, new: &Contract) -> Option<Rule> {
    if step == Step::Patch {
        return Some(Rule::PatchChangesNothing);
    }
    let is_due = |announced: &Option<Deprecation>| {
        announced.as_ref().is_some_and(|deprecation| deprecation.removed_in <= new.version)
    };
    match &change.difference {
        Difference::Added { is_required: true } if belongs_to_existing(change, old) => Some(Rule::NothingNewIsRequired),
        Difference::Added { .. } | Difference::Deprecated(_) => None,
        // Existing calls give the argument.
        Difference::Changed { fact, to, .. } if fact == "required" && to.as_deref() == Some("no") => None,
        // The purpose of a process is a text for readers; only its name is promised.
        Difference::Changed { .. } if change.section == Section::Processes => None,
        // A fact that the older contract does not state was not promised.
        Difference::Changed { from: None, .. } => None,
        Difference::Removed { announced, .. } | Difference::Changed { announced, .. } => match step {
            Step::Patch | Step::Minor => Some(Rule::MinorOnlyAdds),
            Step::Breaking => (!is_due(announced)).then_some(Rule::AnnouncedOneMinorBefore),
        },
    }
}

/// True if the name of an added entry begins with the name of an entry in the older contract, as the name of an option
/// begins with its command.
fn belongs_to_existing(change: &Change, old: &Contract) -> bool {
    // An option is one word behind its command: `leoflow new PATH` belongs to `leoflow new`, not to `leoflow`.
    let is_option = |rest: &str| rest.strip_prefix(' ').is_some_and(|option| !option.contains(' '));
    let is_owner = |name: &String| {
        let rest = change.name.strip_prefix(name.as_str());
        rest.is_some_and(|rest| is_option(rest) || rest.starts_with(['.', ':']))
    };
    old.sections.values().flat_map(|promises| promises.keys()).any(is_owner)
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { section, name, difference } = self;
        write!(f, "{} {name} ", section.noun())?;
        let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        match difference {
            Difference::Added { .. } => f.write_str("is new"),
            Difference::Deprecated(deprecation) => write!(f, "is deprecated{deprecation}"),
            Difference::Removed { announced, recorded } => match announced.as_ref().or(recorded.as_ref()) {
                Some(deprecation) => write_removal(f, deprecation),
                None => f.write_str("was removed"),
            },
            Difference::Changed { fact, from, to, .. } => {
                write!(f, "has another {}: {} instead of {}", fact.replace('_', " "), or_none(to), or_none(from))
            }
        }
    }
}

fn write_removal(f: &mut std::fmt::Formatter<'_>, deprecation: &Deprecation) -> std::fmt::Result {
    let Deprecation { deprecated_in, removed_in, replacement } = deprecation;
    write!(f, "was removed in {removed_in}")?;
    if let Some(deprecated_in) = deprecated_in {
        write!(f, " (deprecated since {deprecated_in})")?;
    }
    replacement.iter().try_for_each(|replacement| write!(f, ": use {replacement}"))
}

impl std::fmt::Display for Deprecation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(replacement) = &self.replacement {
            write!(f, ": use {replacement}")?;
        }
        write!(f, "; it works until {}", self.removed_in)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Promise;
    use super::*;

    /// A contract with one entry in each of several sections.
    fn contract(version: &str) -> Contract {
        let mut contract = Contract::new(version.parse().unwrap());
        contract.add(Section::Settings, "port", [("type", "number".to_owned()), ("default", "8088".to_owned())]);
        contract.add(Section::Commands, "leoflow lite start", []);
        contract.add(Section::Options, "leoflow lite start --port", [("required", "no".to_owned())]);
        contract.add(Section::ExitCodes, "3", [("meaning", "refused".to_owned())]);
        contract.add(Section::JsonFields, "leoflow lite status: processes[].name", [("type", "string".to_owned())]);
        contract.add(Section::ApiOperations, "GET /api/v2/dags", []);
        contract
    }

    fn rules(old: &Contract, new: &Contract) -> Vec<Rule> {
        violations(old, new).into_iter().map(|violation| violation.rule).collect()
    }

    fn without(mut contract: Contract, section: Section, name: &str) -> Contract {
        contract.sections.get_mut(&section).unwrap().remove(name).unwrap();
        contract
    }

    fn announced(mut contract: Contract, section: Section, name: &str, removed_in: &str) -> Contract {
        let promise = contract.sections.get_mut(&section).unwrap().get_mut(name).unwrap();
        let (removed_in, replacement) = (removed_in.parse().unwrap(), Some("another".to_owned()));
        promise.deprecated = Some(Deprecation { deprecated_in: None, removed_in, replacement });
        contract
    }

    const KINDS: [(Section, &str); 6] = [
        (Section::Settings, "port"),
        (Section::Commands, "leoflow lite start"),
        (Section::Options, "leoflow lite start --port"),
        (Section::ExitCodes, "3"),
        (Section::JsonFields, "leoflow lite status: processes[].name"),
        (Section::ApiOperations, "GET /api/v2/dags"),
    ];

    #[test]
    fn a_removal_without_an_announcement_is_refused_for_each_kind() {
        for (section, name) in KINDS {
            for (version, rule) in [
                ("1.2.4", Rule::PatchChangesNothing),
                ("1.3.0", Rule::MinorOnlyAdds),
                ("2.0.0", Rule::AnnouncedOneMinorBefore),
            ] {
                let new = without(contract(version), section, name);
                assert_eq!(rules(&contract("1.2.3"), &new), [rule], "{name} in {version}");
            }
            let new = without(contract("0.3.0"), section, name);
            assert_eq!(rules(&contract("0.2.0"), &new), [Rule::AnnouncedOneMinorBefore], "{name}");
        }
    }

    #[test]
    fn an_announced_removal_is_allowed_when_it_is_due() {
        for (section, name) in KINDS {
            let old = |version| announced(contract(version), section, name, "2.0.0");
            assert_eq!(rules(&old("1.2.3"), &without(contract("2.0.0"), section, name)), []);
            assert_eq!(rules(&old("1.2.3"), &without(contract("1.3.0"), section, name)), [Rule::MinorOnlyAdds]);
            let early = announced(contract("0.2.0"), section, name, "0.4.0");
            assert_eq!(rules(&early, &without(contract("0.3.0"), section, name)), [Rule::AnnouncedOneMinorBefore]);
            assert_eq!(rules(&early, &without(contract("0.4.0"), section, name)), []);
        }
    }

    #[test]
    fn a_changed_type_default_or_meaning_counts_as_a_removal() {
        for (section, name, fact, value) in [
            (Section::Settings, "port", "type", "text"),
            (Section::Settings, "port", "default", "80"),
            (Section::ExitCodes, "3", "meaning", "done"),
            (Section::JsonFields, "leoflow lite status: processes[].name", "type", "number"),
        ] {
            let change = |mut contract: Contract| {
                let promise = contract.sections.get_mut(&section).unwrap().get_mut(name).unwrap();
                promise.facts.insert(fact.to_owned(), value.to_owned());
                contract
            };
            assert_eq!(rules(&contract("1.2.3"), &change(contract("1.3.0"))), [Rule::MinorOnlyAdds], "{name} {fact}");
            let old = announced(contract("1.2.3"), section, name, "2.0.0");
            assert_eq!(rules(&old, &change(contract("2.0.0"))), [], "{name} {fact}");
            let text = violations(&contract("1.2.3"), &change(contract("2.0.0")))[0].to_string();
            assert!(text.contains(name) && text.contains(value) && text.contains("announced"), "{text}");
        }
    }

    #[test]
    fn a_minor_adds_and_announces_and_a_patch_does_neither() {
        let with_addition = |version| {
            let mut contract = contract(version);
            contract.add(Section::Options, "leoflow lite start --fast", [("required", "no".to_owned())]);
            contract
        };
        assert_eq!(rules(&contract("1.2.3"), &with_addition("1.3.0")), []);
        assert_eq!(rules(&contract("1.2.3"), &with_addition("1.2.4")), [Rule::PatchChangesNothing]);
        let announcing = |version| announced(contract(version), Section::Settings, "port", "2.0.0");
        assert_eq!(rules(&contract("1.2.3"), &announcing("1.3.0")), []);
        assert_eq!(rules(&contract("1.2.3"), &announcing("1.2.4")), [Rule::PatchChangesNothing]);
        assert_eq!(rules(&contract("1.2.3"), &contract("1.2.4")), []);
    }

    #[test]
    fn a_new_required_option_of_an_old_command_is_refused() {
        let mut new = contract("2.0.0");
        new.add(Section::Options, "leoflow lite start --token", [("required", "yes".to_owned())]);
        assert_eq!(rules(&contract("1.2.3"), &new), [Rule::NothingNewIsRequired]);
        let mut new = contract("1.3.0");
        new.add(Section::Options, "leoflow lite tunnel --token", [("required", "yes".to_owned())]);
        let mut old = contract("1.2.3");
        old.add(Section::Commands, "leoflow lite", []);
        new.add(Section::Commands, "leoflow lite", []);
        assert_eq!(rules(&old, &new), [], "the command is new as well");
    }

    #[test]
    fn a_fact_that_was_not_stated_may_be_stated() {
        let mut new = contract("1.3.0");
        let promise = Promise { facts: [("unit".to_owned(), "none".to_owned())].into(), deprecated: None };
        let port = new.sections.get_mut(&Section::Settings).unwrap().get_mut("port").unwrap();
        port.facts.extend(promise.facts);
        assert_eq!(rules(&contract("1.2.3"), &new), []);
    }
}
