//! Compares the contracts of two releases. Pure.

use super::{Contract, Deprecation, Promise, Section};
use std::collections::BTreeMap;

/// A difference between two contracts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub section: Section,
    pub name: String,
    pub difference: Difference,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Added {
        /// True for a required option, argument or parameter: existing calls without it fail.
        is_required: bool,
    },
    /// Announced as deprecated; it still works.
    Deprecated(Deprecation),
    Removed {
        /// The announcement in the older contract.
        announced: Option<Deprecation>,
        /// The announcement as the newer contract records it. It is the only one if the older release was followed by
        /// the one that announced the removal, and that one was skipped.
        recorded: Option<Deprecation>,
    },
    Changed {
        fact: String,
        /// `None` where the older contract does not state the fact.
        from: Option<String>,
        to: Option<String>,
        /// The announcement in the older contract.
        announced: Option<Deprecation>,
    },
}

/// Returns the differences, sorted by section and name.
pub fn compare(old: &Contract, new: &Contract) -> Vec<Change> {
    let empty = BTreeMap::new();
    let mut sections: Vec<Section> = old.sections.keys().chain(new.sections.keys()).copied().collect();
    sections.sort_unstable();
    sections.dedup();
    let mut changes = Vec::new();
    for section in sections {
        let removed = new.removed.get(&section);
        let [old, new] = [old, new].map(|contract| contract.sections.get(&section).unwrap_or(&empty));
        compare_section(section, old, (new, removed), &mut changes);
    }
    changes
}

fn compare_section(
    section: Section,
    old: &BTreeMap<String, Promise>,
    (new, removed): (&BTreeMap<String, Promise>, Option<&BTreeMap<String, Deprecation>>),
    changes: &mut Vec<Change>,
) {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut push = |difference| changes.push(Change { section, name: name.clone(), difference });
        match (old.get(name), new.get(name)) {
            (Some(old), None) => push(Difference::Removed {
                announced: old.deprecated.clone(),
                recorded: removed.and_then(|removed| removed.get(name)).cloned(),
            }),
            (None, Some(new)) => {
                push(Difference::Added { is_required: new.facts.get("required").is_some_and(|value| value == "yes") });
            }
            (Some(old), Some(new)) => {
                if let (None, Some(deprecation)) = (&old.deprecated, &new.deprecated) {
                    push(Difference::Deprecated(deprecation.clone()));
                }
                changed_facts(old, new).into_iter().for_each(push);
            }
            (None, None) => {}
        }
    }
}

fn changed_facts(old: &Promise, new: &Promise) -> Vec<Difference> {
    let mut facts: Vec<&String> = old.facts.keys().chain(new.facts.keys()).collect();
    facts.sort_unstable();
    facts.dedup();
    let is_changed = |fact: &&String| old.facts.get(*fact) != new.facts.get(*fact);
    let changed = |fact: &String| Difference::Changed {
        fact: fact.clone(),
        from: old.facts.get(fact).cloned(),
        to: new.facts.get(fact).cloned(),
        announced: old.deprecated.clone(),
    };
    facts.into_iter().filter(is_changed).map(changed).collect()
}
