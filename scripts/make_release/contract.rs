//! What a version number promises: a patch has no migration, a minor only such as add.

use super::Outcome;
use leoflow::upgrade::manifest::{Migration, Release};
use semver::Version;
use std::fs;
use std::path::Path;

pub fn check(version: &Version, migrations: &[Migration], last: Option<&Release>) -> Outcome<()> {
    let Some(last) = last else { return Ok(()) };
    if version.cmp_precedence(&last.version).is_le() {
        return Err(format!("{version} is not newer than the last release, {}", last.version));
    }
    for old in &last.migrations {
        if !migrations.contains(old) {
            return Err(format!("V{:04}__{} of {} is missing or was changed", old.version, old.name, last.version));
        }
    }
    let new = added(migrations, Some(last));
    let label = |migration: &Migration| format!("V{:04}__{} ({})", migration.version, migration.name, migration.phase);
    let is_patch =
        (version.major, version.minor) == (last.version.major, last.version.minor) && last.version.pre.is_empty();
    if let (true, Some(migration)) = (is_patch, new.first()) {
        return Err(format!("{version} is a patch release, and may not have the migration {}", label(migration)));
    }
    let not_additive = new.iter().find(|migration| migration.phase != "expand");
    match not_additive {
        Some(migration) if version.major == last.version.major => {
            Err(format!("{version} is a minor release, and {} does more than add", label(migration)))
        }
        _ => Ok(()),
    }
}

/// What a release adds to the last one.
fn added<'a>(migrations: &'a [Migration], last: Option<&Release>) -> Vec<&'a Migration> {
    let known = |migration: &&Migration| last.is_none_or(|last| !last.migrations.contains(migration));
    migrations.iter().filter(known).collect()
}

/// The changelog's section of this version, and every new migration with its phase.
pub fn notes(changelog: &Path, version: &Version, migrations: &[Migration], last: Option<&Release>) -> Outcome<String> {
    let text = fs::read_to_string(changelog).map_err(|error| format!("{}: {error}", changelog.display()))?;
    let section = section(&text, version)
        .ok_or_else(|| format!("{} has no section `## {version}`: write what is new", changelog.display()))?;
    let mut notes = section.trim().to_owned();
    let new = added(migrations, last);
    if last.is_some() && !new.is_empty() {
        notes.push_str("\n\nMigrations:\n");
        for Migration { version, name, phase, reversible, .. } in new {
            let call = if phase == "expand" { "" } else { ": NOT ADDITIVE" };
            let undo = if *reversible { "" } else { ", cannot be undone by itself" };
            notes.push_str(&format!("- V{version:04}__{name} ({phase}{undo}){call}\n"));
        }
    }
    Ok(notes)
}

/// From `## 0.2.0 …` to the next `## `.
fn section<'a>(text: &'a str, version: &Version) -> Option<&'a str> {
    let is_heading = |line: &str| {
        line.strip_prefix("## ")
            .and_then(|rest| rest.split_whitespace().next())
            .map(|word| word.trim_matches(['[', ']']))
            == Some(version.to_string().as_str())
    };
    let mut offset = 0;
    let mut start = None;
    for line in text.split_inclusive('\n') {
        match start {
            None if is_heading(line.trim_end()) => start = Some(offset + line.len()),
            Some(start) if line.starts_with("## ") => return Some(&text[start..offset]),
            _ => {}
        }
        offset += line.len();
    }
    start.map(|start| &text[start..])
}
