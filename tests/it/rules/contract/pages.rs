//! The parts of the contract that come from reference pages (environment variables, files of the home and of a backup),
//! and the processes.

use super::in_repository;
use leoflow::contract::{Contract, Deprecation, Section};
use regex::Regex;
use semver::Version;
use std::fs;

pub fn add(contract: &mut Contract) {
    environment_variables(contract);
    home_files(contract);
    backup_files(contract);
    for (name, started_by, does) in PROCESSES {
        contract.add(
            Section::Processes,
            name,
            [("started_by", (*started_by).to_owned()), ("does", (*does).to_owned())],
        );
    }
    let announced = Deprecation {
        deprecated_in: Some(Version::new(0, 2, 0)),
        removed_in: Version::new(0, 3, 0),
        replacement: Some("leoflow-keeper".to_owned()),
    };
    let processes = contract.sections.entry(Section::Processes).or_default();
    processes.get_mut(FORMER_KEEPER).unwrap().deprecated = Some(announced);
}

const FORMER_KEEPER: &str = "leoflow keep-task";

/// Processes by the names that `ps` shows.
const PROCESSES: [(&str, &str, &str); 7] = [
    ("leoflow", "`leoflow lite`, `lite start` or the service", "supervises the others"),
    ("postgres", "the supervisor, where the datastore is managed", "keeps the data"),
    ("leoflow-server", "the supervisor", "serves the API and the UI, parses DAG files, schedules"),
    ("leoflow-agent", "the supervisor", "claims tasks and records their results, starts triggers"),
    ("leoflow-keeper", "the agent, while tasks run", "starts tasks, writes their logs and records their ends"),
    (FORMER_KEEPER, "the agent of 0.1", "watches one task that began before the upgrade"),
    ("python", "the server, the agent and the keeper", "runs DAG files, tasks and triggers"),
];

fn page(name: &str) -> String {
    fs::read_to_string(in_repository(&format!("docs/reference/{name}"))).unwrap()
}

/// Adds the variables that users may set: those of the page, except in sections about variables that Leoflow sets, that
/// only a release build reads, or that are internal.
fn environment_variables(contract: &mut Contract) {
    let page = page("environment-variables.md");
    let variable =
        Regex::new(r"`((?:LEOFLOW|AIRFLOW|UV|PIP|SSL)_[A-Z0-9_]+|[a-z]+_proxy|NO_COLOR|BROWSER|TZ)`").unwrap();
    let skipped = ["## What Leoflow sets for tasks", "## Building a release", "## Internal"];
    for section in page
        .split("\n## ")
        .filter(|section| !skipped.iter().any(|title| title[3..] == section[..section.find('\n').unwrap()]))
    {
        for found in variable.captures_iter(section) {
            if contract.promise(Section::EnvironmentVariables, &found[1]).is_none() {
                contract.add(Section::EnvironmentVariables, &found[1], []);
            }
        }
    }
}

/// Adds the paths at the beginning of each list item of the page. Paths of the section `run/` are relative to `run/`.
fn home_files(contract: &mut Contract) {
    let page = page("home.md");
    let path = Regex::new(r"`([a-z<][^`]*)`[:,.]").unwrap();
    for section in page.split("\n## ").skip(1) {
        let prefix = if section.starts_with("run/") { "run/" } else { "" };
        for item in section.split("\n- ").skip(1) {
            let names = item.split(": ").next().unwrap_or_default();
            for found in path.captures_iter(&format!("{names}:")) {
                contract.add(Section::HomeFiles, &format!("{prefix}{}", &found[1]), []);
            }
        }
    }
}

/// Adds the entries of a backup and the keys of its manifest, from the tables of the page.
fn backup_files(contract: &mut Contract) {
    let page = page("backup-format.md");
    let entry = Regex::new(r"(?m)^\| \d \| `([^`]+)` \|").unwrap();
    for found in entry.captures_iter(&page) {
        contract.add(Section::BackupFiles, &found[1], []);
    }
    let manifest = page.split("\n## MANIFEST.json").nth(1).unwrap_or_default();
    let key = Regex::new(r"(?m)^\| `([a-z_.]+)` \|").unwrap();
    for found in key.captures_iter(manifest.split("\n## ").next().unwrap_or_default()) {
        contract.add(Section::BackupFiles, &format!("MANIFEST.json: {}", &found[1]), []);
    }
}
