//! Checks the rules of version numbers: a patch release has no migration, a minor release only reversible ones.

use super::Outcome;
use leoflow::schema::embedded::Phase;
use leoflow::upgrade::release::manifest::{Migration, Release};
use leoflow::upgrade::release::version_order;
use semver::Version;
use std::fs;
use std::path::Path;

pub fn check(version: &Version, is_candidate: bool, migrations: &[Migration], releases: &[Release]) -> Outcome<()> {
    if is_candidate == version.pre.is_empty() {
        let channel = if version.pre.is_empty() { "stable" } else { "rc" };
        return Err(format!("{version} belongs to the channel {channel}: pass --channel {channel}"));
    }
    if let Some(same) = releases.iter().find(|release| version_order::compare(&release.version, version).is_eq()) {
        return Err(format!("{} is already released", same.version));
    }
    let label = |migration: &Migration| format!("V{:04}__{} ({})", migration.version, migration.name, migration.phase);
    if let Some(unknown) = migrations.iter().find(|migration| Phase::parse(&migration.phase).is_none()) {
        return Err(format!("{} has an unknown phase, so that each upgrade would refuse it", label(unknown)));
    }
    // The rules compare with the last stable release before this version.
    let Some(base) = base(version, releases) else { return Ok(()) };
    for old in &base.migrations {
        if !migrations.contains(old) {
            return Err(format!("V{:04}__{} of {} is missing or was changed", old.version, old.name, base.version));
        }
    }
    let new = added(migrations, Some(base));
    let is_patch = (version.major, version.minor) == (base.version.major, base.version.minor);
    if let (true, Some(migration)) = (is_patch, new.first()) {
        return Err(format!("{version} is a patch release and cannot have the migration {}", label(migration)));
    }
    match new.iter().find(|migration| !migration.reversible || migration.phase == Phase::Contract.name()) {
        Some(migration) if version.major == base.version.major => {
            let reason = if migration.reversible { "is not additive" } else { "cannot be undone" };
            Err(format!("{version} is a minor release, but {} {reason}", label(migration)))
        }
        _ => Ok(()),
    }
}

/// The newest stable release below a version.
pub fn base<'a>(version: &Version, releases: &'a [Release]) -> Option<&'a Release> {
    let is_below = |release: &&Release| {
        release.version.pre.is_empty() && version_order::compare(&release.version, version).is_lt()
    };
    releases.iter().filter(is_below).max_by(|one, other| version_order::compare(&one.version, &other.version))
}

/// The migrations that are not in the release `last`.
fn added<'a>(migrations: &'a [Migration], last: Option<&Release>) -> Vec<&'a Migration> {
    let known = |migration: &&Migration| last.is_none_or(|last| !last.migrations.contains(migration));
    migrations.iter().filter(known).collect()
}

/// Returns the changelog's section of this version and the new migrations with their phases.
pub fn notes(changelog: &Path, version: &Version, migrations: &[Migration], last: Option<&Release>) -> Outcome<String> {
    let text = fs::read_to_string(changelog).map_err(|error| format!("{}: {error}", changelog.display()))?;
    let section = section(&text, version)
        .ok_or_else(|| format!("{} has no section `## {version}`: describe the changes there", changelog.display()))?;
    let mut notes = section.trim().to_owned();
    let new = added(migrations, last);
    if last.is_some() && !new.is_empty() {
        notes.push_str("\n\nMigrations:\n");
        for Migration { version, name, phase, reversible, .. } in new {
            let warning = if phase == "expand" { "" } else { ": NOT ADDITIVE" };
            let undo = if *reversible { "" } else { ", has no rollback SQL" };
            notes.push_str(&format!("- V{version:04}__{name} ({phase}{undo}){warning}\n"));
        }
    }
    Ok(notes)
}

/// The text from `## 0.2.0 …` to the next `## `.
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
