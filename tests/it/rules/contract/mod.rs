//! The operator's contract: `docs/reference/contract.json` and its page match the code, and the contract of the last
//! release is kept. `LEOFLOW_UPDATE_DOCS=1 cargo test --test it -- contract` updates the two files.

mod api;
mod command_line;
mod pages;

use super::reference_pages::{GENERATED, check};
use leoflow::config::leoflow_yaml::keys::{PROJECT, TASK};
use leoflow::config::{DEPRECATED, Deprecated, SETTINGS, variable_named, variable_of};
use leoflow::contract::rules::violations;
use leoflow::contract::{Contract, Deprecation, Promise, Section};
use semver::Version;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const FILE: &str = "contract.json";
/// The contract of the last release: its `docs/reference/contract.json`.
const LAST_RELEASE: &str = "tests/contract/last-release.json";

fn in_repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> Contract {
    let text = fs::read(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Contract::parse(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the contract of this checkout. The JSON fields come from `contract.json`, because only a running instance
/// prints them; the tests in `json_shapes` compare them with the commands' output.
fn generated() -> Contract {
    let mut contract = Contract::new(Version::parse(env!("CARGO_PKG_VERSION")).unwrap());
    settings(&mut contract);
    command_line::add(&mut contract);
    api::add(&mut contract);
    pages::add(&mut contract);
    let written =
        fs::read(in_repository("docs/reference").join(FILE)).ok().and_then(|text| Contract::parse(&text).ok());
    if let Some(fields) = written.and_then(|mut written| written.sections.remove(&Section::JsonFields)) {
        contract.sections.insert(Section::JsonFields, fields);
    }
    contract.record_removals(&read(LAST_RELEASE));
    contract
}

/// Adds the keys of `config.yaml` and `leoflow.yaml`, and the environment variables that override those of
/// `config.yaml`.
fn settings(contract: &mut Contract) {
    let contract_version = contract.version.clone();
    for setting in SETTINGS {
        let takes_effect = if setting.needs_restart { "after a restart" } else { "at once" };
        let facts = [
            ("type", setting.type_name().to_owned()),
            ("default", setting.default.to_owned()),
            ("takes_effect", takes_effect.to_owned()),
        ];
        contract.add(Section::Settings, setting.name, facts);
        if let Some(variable) = variable_of(setting) {
            contract.add(Section::EnvironmentVariables, &variable, [("overrides", setting.name.to_owned())]);
        }
    }
    // A later release refuses the old name; `record_removals` takes its entry from the last contract.
    let is_read = |key: &&Deprecated| contract_version < Version::parse(key.removed_in).unwrap();
    for key in DEPRECATED.iter().filter(is_read) {
        let deprecated = Deprecation {
            deprecated_in: Some(Version::parse(key.deprecated_in).unwrap()),
            removed_in: Version::parse(key.removed_in).unwrap(),
            replacement: Some(key.replacement.to_owned()),
        };
        // A deprecated key has the facts of its replacement.
        let facts = contract.promise(Section::Settings, key.replacement).unwrap().facts.clone();
        let variable_deprecation =
            Deprecation { replacement: Some(variable_named(key.replacement)), ..deprecated.clone() };
        let overrides = [("overrides".to_owned(), key.name.to_owned())].into();
        for (section, name, facts, deprecated) in [
            (Section::Settings, key.name.to_owned(), facts, deprecated),
            (Section::EnvironmentVariables, variable_named(key.name), overrides, variable_deprecation),
        ] {
            let promise = Promise { facts, deprecated: Some(deprecated) };
            contract.sections.entry(section).or_default().insert(name, promise);
        }
    }
    for (prefix, keys) in [("", PROJECT), ("tasks.TASK.", TASK)] {
        for key in keys {
            contract.add(Section::ProjectSettings, &format!("{prefix}{}", key.name), [("type", key.value.to_owned())]);
        }
    }
}

fn json(contract: &Contract) -> String {
    serde_json::to_string_pretty(contract).unwrap() + "\n"
}

#[test]
fn the_contract_and_its_page_are_current() {
    let contract = generated();
    check(FILE, &json(&contract));
    check("contract.md", &page(&contract));
}

#[test]
fn the_contract_of_the_last_release_is_kept() {
    let last = read(LAST_RELEASE);
    let mut now = generated();
    // Until the version in Cargo.toml is raised, the next release counts as a minor.
    now.version = now.version.max(Version::new(last.version.major, last.version.minor + 1, 0));
    let broken: Vec<String> = violations(&last, &now).iter().map(ToString::to_string).collect();
    assert!(
        broken.is_empty(),
        "the contract of {} is broken; see docs/reference/contract.md:\n{}",
        last.version,
        broken.join("\n")
    );
}

/// Removes an entry from each section of the current contract; each removal must be a violation.
#[test]
fn a_removed_key_flag_exit_code_field_or_path_fails() {
    let last = generated();
    for (section, name) in [
        (Section::Settings, "port"),
        (Section::EnvironmentVariables, "LEOFLOW_HOME"),
        (Section::Commands, "leoflow lite start"),
        (Section::Options, "leoflow lite start --port"),
        (Section::ExitCodes, "3"),
        (Section::JsonFields, "leoflow lite status: state"),
        (Section::ApiOperations, "GET /api/v2/dags"),
        (Section::ApiParameters, "GET /api/v2/dags limit"),
        (Section::ApiFields, "DAGResponse.dag_id"),
        (Section::HomeFiles, "config.yaml"),
        (Section::BackupFiles, "MANIFEST.json"),
        (Section::Processes, "leoflow-agent"),
    ] {
        let mut next = last.clone();
        next.version = Version::new(last.version.major, last.version.minor + 1, 0);
        assert!(violations(&last, &next).is_empty());
        next.sections.get_mut(&section).unwrap().remove(name).unwrap_or_else(|| panic!("no {name}"));
        let broken = violations(&last, &next);
        assert!(broken.len() == 1 && broken[0].change.name == name, "{name}: {broken:?}");
    }
}

/// Returns the text of `contract.md`: the rules, the number of entries per section, and the lists that no other page
/// has.
fn page(contract: &Contract) -> String {
    let mut text = format!("# The operator's contract\n\n{GENERATED}\n{INTRODUCTION}");
    text.push_str("\n## What it covers\n\n| kind | number | described in |\n|---|---|---|\n");
    for (section, promises) in &contract.sections {
        writeln!(text, "| {} | {} | {} |", plural(*section), promises.len(), described_in(*section)).unwrap();
    }
    text.push_str("\n## Deprecated\n\n");
    let deprecated: BTreeMap<&String, (&Section, &Deprecation)> = contract
        .sections
        .iter()
        .flat_map(|(section, promises)| {
            promises.iter().filter_map(move |(name, promise)| Some((name, (section, promise.deprecated.as_ref()?))))
        })
        .collect();
    text.push_str("| kind | name | use instead | works until |\n|---|---|---|---|\n");
    for (name, (section, deprecation)) in deprecated {
        let replacement = deprecation.replacement.as_deref().unwrap_or("nothing");
        writeln!(text, "| {} | `{name}` | `{replacement}` | {} |", section.noun(), deprecation.removed_in).unwrap();
    }
    text.push_str("\n## Processes\n\n| process | started by | what it does |\n|---|---|---|\n");
    for (name, Promise { facts, .. }) in &contract.sections[&Section::Processes] {
        writeln!(text, "| `{name}` | {} | {} |", facts["started_by"], facts["does"]).unwrap();
    }
    text.push_str(
        "\nNext: [upgrade and roll back](../how-to/upgrade-and-roll-back.md) · [release format](release-format.md)\n",
    );
    text
}

const INTRODUCTION: &str = "This page describes what users, scripts, service files and monitoring may rely on from one \
     release to the next, and what a version number promises. [contract.json](contract.json) is the list itself, \
     generated from the code; every release carries it.\n\n\
     | release | may |\n|---|---|\n\
     | patch, 1.2.3 to 1.2.4 | change nothing in the contract |\n\
     | minor, 1.2 to 1.3 | add, and deprecate with a warning that names the replacement |\n\
     | major, 1.x to 2.0; below 1.0 also a minor | remove or change what was deprecated at least one minor before |\n\n\
     A test compares the contract with that of the last release, and a change that breaks these rules fails it. \
     `leoflow upgrade plan` names what the new release deprecates, removes or changes of the settings and the \
     variables of the environment that your home uses. Releases that you skip count too: the contract lists under \
     `removed` what earlier releases announced and removed, with the releases and the replacement. Facts are the type and \
     default of a setting and when a change takes effect, the type and default of an option, the meaning of an exit \
     code, and the type of a field. A field of JSON may be added at any minor: a reader ignores what it does not know. \
     The order of fields, the text of messages and the pages under `/lite/` and `/ui/` are not in the contract.\n";

fn plural(section: Section) -> String {
    match section {
        Section::Processes => "processes".to_owned(),
        Section::HomeFiles => "files of the home".to_owned(),
        Section::BackupFiles => "files of a backup".to_owned(),
        section => format!("{}s", section.noun()),
    }
}

fn described_in(section: Section) -> &'static str {
    match section {
        Section::Settings => "[configuration](configuration.md)",
        Section::ProjectSettings => "[project settings](project-settings.md)",
        Section::EnvironmentVariables => "[environment variables](environment-variables.md)",
        Section::Commands | Section::Options => "[commands](commands.md)",
        Section::JsonFields => "[contract.json](contract.json)",
        Section::ExitCodes => "[exit codes](exit-codes.md)",
        Section::ApiOperations | Section::ApiParameters | Section::ApiFields => "[REST API](rest-api.md)",
        Section::HomeFiles => "[the home](home.md)",
        Section::BackupFiles => "[backup format](backup-format.md)",
        Section::Processes => "[below](#processes)",
    }
}
