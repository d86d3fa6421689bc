//! What an upgrade would do, or why it must not. Pure: `--dry-run` prints it, the confirmation shows it, the
//! worker follows it. What cannot be known counts as unsafe.

use super::manifest::{Asset, Component, Manifest, ManifestError, Migration, Release};
use super::plan_warnings::{irreversible, warnings};
use super::source::Wanted;
use super::version_order;
use crate::config::Channel;
use crate::postgres::version;
use crate::schema::embedded::Phase;
use crate::web_ui;
use semver::{BuildMetadata, Version};
use serde::{Deserialize, Serialize};

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Newest(Channel),
    Version(Version),
}

impl Target {
    /// `stable`, `rc`, `0.2.0`, `v0.2.0-rc1`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(channel) = Channel::parse(text) {
            return Some(Self::Newest(channel));
        }
        Version::parse(text.strip_prefix('v').unwrap_or(text)).ok().map(Self::Version)
    }
}

/// What is installed and what the machine is like.
#[derive(Debug, Clone)]
pub struct Facts {
    pub installed: Version,
    pub target: &'static str,
    pub database: Database,
    /// The newest schema that this very program knows.
    pub own_schema: i64,
    /// By name, as far as they came from a release: the sha256 of what was unpacked, and its version.
    pub components: Vec<Installed>,
    /// Bytes on the home's file system; `None` when it does not say.
    pub free_bytes: Option<u64>,
    /// What the database takes, bytes.
    pub database_bytes: u64,
    /// What a backup takes while it is made, bytes.
    pub backup_bytes: u64,
    pub instance: Instance,
    pub running_tasks: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub name: String,
    pub version: String,
    /// `None` when it did not come from a release.
    pub sha256: Option<String>,
}

/// The schema, as the database's own record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// Versions with the sha256 of their files, oldest first.
    Applied(Vec<(i64, String)>),
    Damaged(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    Stopped,
    Healthy,
    /// In its own words.
    Ailing(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub from: Version,
    pub to: Version,
    pub live: bool,
    pub schema_from: i64,
    pub schema_to: i64,
    /// Those that it applies, oldest first.
    pub migrations: Vec<Migration>,
    /// Those that come once it is committed, and their gates are open.
    #[serde(default)]
    pub later: Vec<Migration>,
    pub program: Wanted,
    pub components: Vec<ComponentPlan>,
    pub needs_bytes: u64,
    pub running_tasks: usize,
    pub warnings: Vec<String>,
    pub notes: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentPlan {
    pub name: String,
    pub version: String,
    pub sha256: String,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// These very bytes are installed.
    Carried,
    /// What is installed is of the same version and not from a release; it stays.
    Kept,
    Fetch(Wanted),
}

impl Plan {
    /// Whether every new migration can be taken back by its own SQL.
    pub fn is_reversible(&self) -> bool {
        self.migrations.iter().all(|migration| migration.reversible)
    }

    pub fn fetched(&self) -> impl Iterator<Item = (&ComponentPlan, &Wanted)> {
        self.components.iter().filter_map(|component| match &component.action {
            Action::Fetch(wanted) => Some((component, wanted)),
            Action::Carried | Action::Kept => None,
        })
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("leoflow {0} is the newest there is in its channel")]
    UpToDate(Version),
    #[error("leoflow {installed} is newer than what is offered in its channel, {newest}")]
    Ahead { installed: Version, newest: Version },
    #[error("leoflow {0} is what is installed")]
    Installed(Version),
    #[error("{to} is older than what is installed, {from}")]
    Older { from: Version, to: Version },
    #[error("there is no release {0}")]
    Unknown(Version),
    #[error("there is no release in the channel {0}")]
    EmptyChannel(&'static str),
    #[error("release {0} is not made for this machine, {1}")]
    Platform(Version, &'static str),
    #[error("release {to} upgrades from {floor} and later, not from {from}")]
    BelowFloor { from: Version, to: Version, floor: Version },
    #[error("{stop} must be passed through first")]
    Stop { stop: Version, to: Version },
    #[error("{stop} must be passed through first, and is not offered there any more")]
    StopGone { stop: Version, to: Version },
    #[error("the database is at schema version {database}, and {to} only knows up to {known}")]
    NewerSchema { database: i64, to: Version, known: i64 },
    #[error("migration {version} of the database is not the one that {to} has")]
    OtherHistory { version: i64, to: Version },
    #[error("the database's record of its migrations is damaged: {0}")]
    Damaged(String),
    #[error("migration V{version:04}__{name} is of the phase {phase}, which this version does not apply in an upgrade")]
    Phase { version: i64, name: String, phase: String },
    #[error("the upgrade needs {needed} bytes of free disk, and there are {free}")]
    Space { needed: u64, free: u64 },
    #[error("how much of the disk is free cannot be told")]
    UnknownSpace,
    #[error("it has a component that this version does not know: {0}")]
    UnknownComponent(String),
    #[error("the instance is not healthy: {0}")]
    Ailing(String),
    #[error("{to} runs PostgreSQL {new}, and the datastore is of {old}")]
    OtherMajor { to: Version, new: String, old: String },
    #[error("its manifest is wrong: {0}")]
    Manifest(#[from] ManifestError),
}

/// The component that is the datastore's server.
pub const POSTGRES: &str = "postgres";
/// What this version can put into its place.
const KNOWN: [&str; 2] = [POSTGRES, web_ui::COMPONENT];
/// What is left free beside everything, bytes: the datastore needs room to go on.
const SPARE: u64 = 256 * 1024 * 1024;

pub fn plan(facts: &Facts, manifest: &Manifest, target: &Target) -> Result<Plan, Refusal> {
    let release = choose(facts, manifest, target)?;
    let (from, to) = (&facts.installed, &release.version);
    let asset = release.asset(facts.target).ok_or_else(|| Refusal::Platform(to.clone(), facts.target))?;
    if let Some(stop) = required_stop(from, release) {
        let to = to.clone();
        return Err(match manifest.release(&stop) {
            Some(_) => Refusal::Stop { stop, to },
            None => Refusal::StopGone { stop, to },
        });
    }
    if version_order::compare(from, &release.upgrades_from).is_lt() {
        let floor = release.upgrades_from.clone();
        return Err(Refusal::BelowFloor { from: from.clone(), to: to.clone(), floor });
    }
    let (schema_from, migrations, later) = pending(&facts.database, &release.migrations, to)?;
    check_health(facts, schema_from)?;
    if let Some(unknown) = release.components(facts.target).find(|component| !KNOWN.contains(&component.name.as_str()))
    {
        return Err(Refusal::UnknownComponent(unknown.name.clone()));
    }
    let components: Vec<ComponentPlan> = release.components(facts.target).map(|new| component(facts, new)).collect();
    if let Some((new, old)) = other_major(facts, release) {
        return Err(Refusal::OtherMajor { to: to.clone(), new, old });
    }
    let needs_bytes = needed(facts, asset, release.components(facts.target), &components);
    let free = facts.free_bytes.ok_or(Refusal::UnknownSpace)?;
    if free < needs_bytes {
        return Err(Refusal::Space { needed: needs_bytes, free });
    }
    Ok(Plan {
        from: from.clone(),
        to: to.clone(),
        live: facts.instance != Instance::Stopped,
        schema_from,
        schema_to: migrations.iter().map(|migration| migration.version).fold(schema_from, i64::max),
        warnings: warnings(
            from,
            out_of_reach(facts, manifest, release),
            manifest,
            release,
            migrations.iter().chain(&later),
        ),
        migrations,
        later,
        program: Wanted::of(asset)?,
        components,
        needs_bytes,
        running_tasks: facts.running_tasks,
        notes: release.notes.clone(),
    })
}

/// To a newer release that is kept on this machine: its program says what it knows, and no host is asked.
pub fn plan_kept(facts: &Facts, migrations: &[Migration], to: &Version) -> Result<Plan, Refusal> {
    let (schema_from, pending, later) = pending(&facts.database, migrations, to)?;
    check_health(facts, schema_from)?;
    let needs_bytes = for_data(facts).saturating_add(SPARE);
    let free = facts.free_bytes.ok_or(Refusal::UnknownSpace)?;
    if free < needs_bytes {
        return Err(Refusal::Space { needed: needs_bytes, free });
    }
    Ok(Plan {
        from: facts.installed.clone(),
        to: to.clone(),
        live: facts.instance != Instance::Stopped,
        schema_from,
        schema_to: pending.iter().map(|migration| migration.version).fold(schema_from, i64::max),
        warnings: irreversible(pending.iter().chain(&later)).into_iter().collect(),
        migrations: pending,
        later,
        program: Wanted { url: String::new(), sha256: String::new(), size: 0 },
        components: Vec::new(),
        needs_bytes,
        running_tasks: facts.running_tasks,
        notes: String::new(),
    })
}

/// What ails it may be just that the release in force does not know its schema: a newer one is the cure.
fn check_health(facts: &Facts, schema: i64) -> Result<(), Refusal> {
    match &facts.instance {
        Instance::Ailing(reason) if schema <= facts.own_schema => Err(Refusal::Ailing(reason.clone())),
        _ => Ok(()),
    }
}

fn choose<'a>(facts: &Facts, manifest: &'a Manifest, target: &Target) -> Result<&'a Release, Refusal> {
    let release = match target {
        Target::Version(version) => manifest.release(version).ok_or_else(|| Refusal::Unknown(version.clone()))?,
        Target::Newest(channel) => {
            let newest = manifest.newest(*channel, |_| true).ok_or(Refusal::EmptyChannel(channel.name()))?;
            // The newest upgrade that this machine can run; where there is none, the newest release says why.
            let is_upgrade = |release: &Release| version_order::compare(&release.version, &facts.installed).is_gt();
            let fits = |release: &Release| is_upgrade(release) && is_within_reach(facts, release);
            manifest.newest(*channel, fits).unwrap_or(newest)
        }
    };
    // What was built from the same version's sources on a developer's machine is not the release.
    let is_release = facts.installed.build == BuildMetadata::EMPTY;
    match version_order::compare(&release.version, &facts.installed) {
        std::cmp::Ordering::Equal if is_release => match target {
            Target::Newest(_) => Err(Refusal::UpToDate(facts.installed.clone())),
            Target::Version(_) => Err(Refusal::Installed(facts.installed.clone())),
        },
        std::cmp::Ordering::Less if matches!(target, Target::Newest(_)) => {
            let newest = release.version.clone();
            Err(Refusal::Ahead { installed: facts.installed.clone(), newest })
        }
        std::cmp::Ordering::Less => Err(Refusal::Older { from: facts.installed.clone(), to: release.version.clone() }),
        _ => Ok(release),
    }
}

/// The newest release of its channel, where that is newer and this machine cannot have it.
fn out_of_reach<'a>(facts: &Facts, manifest: &'a Manifest, release: &Release) -> Option<&'a Version> {
    let newest = manifest.newest(release.channel, |_| true)?;
    let is_newer = version_order::compare(&newest.version, &release.version).is_gt();
    (is_newer && !is_within_reach(facts, newest)).then_some(&newest.version)
}

fn is_within_reach(facts: &Facts, release: &Release) -> bool {
    release.asset(facts.target).is_some() && other_major(facts, release).is_none()
}

/// The first of the required stops that lies ahead.
fn required_stop(from: &Version, release: &Release) -> Option<Version> {
    let ahead = |stop: &&Version| {
        version_order::compare(from, stop).is_lt() && version_order::compare(stop, &release.version).is_lt()
    };
    release.required_stops.iter().filter(ahead).min_by(|one, other| version_order::compare(one, other)).cloned()
}

/// The schema's version, what the release adds to it in the upgrade, and what after it.
fn pending(
    database: &Database,
    known: &[Migration],
    to: &Version,
) -> Result<(i64, Vec<Migration>, Vec<Migration>), Refusal> {
    let applied = match database {
        Database::Applied(applied) => applied,
        Database::Damaged(reason) => return Err(Refusal::Damaged(reason.clone())),
    };
    let newest_known = known.iter().map(|migration| migration.version).max().unwrap_or(0);
    let newest = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    if newest > newest_known {
        return Err(Refusal::NewerSchema { database: newest, to: to.clone(), known: newest_known });
    }
    for (version, sha256) in applied {
        let same = known.iter().any(|known| known.version == *version && known.sha256 == *sha256);
        if !same {
            return Err(Refusal::OtherHistory { version: *version, to: to.clone() });
        }
    }
    let is_applied = |migration: &Migration| applied.iter().any(|(version, _)| *version == migration.version);
    let pending: Vec<Migration> = known.iter().filter(|migration| !is_applied(migration)).cloned().collect();
    match pending.iter().find(|migration| Phase::parse(&migration.phase).is_none()) {
        Some(Migration { version, name, phase, .. }) => {
            Err(Refusal::Phase { version: *version, name: name.clone(), phase: phase.clone() })
        }
        // A new database has nothing that a later one could have to wait for.
        None if applied.is_empty() => Ok((newest, pending, Vec::new())),
        None => {
            let (later, now) =
                pending.into_iter().partition(|one| Phase::parse(&one.phase).is_some_and(Phase::comes_later));
            Ok((newest, now, later))
        }
    }
}

/// A datastore is of one major version of PostgreSQL.
fn other_major(facts: &Facts, release: &Release) -> Option<(String, String)> {
    let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
    let new = release.components(facts.target).find(|component| component.name == POSTGRES)?;
    let old = facts.components.iter().find(|installed| installed.name == POSTGRES)?;
    (major(&new.version) != major(&old.version)).then(|| (new.version.clone(), old.version.clone()))
}

fn component(facts: &Facts, new: &Component) -> ComponentPlan {
    let mut installed = facts.components.iter().filter(|installed| installed.name == new.name);
    let same = installed.find_map(|one| match &one.sha256 {
        Some(sha256) => (*sha256 == new.sha256).then_some(Action::Carried),
        None => (one.version == new.version).then_some(Action::Kept),
    });
    // The newest that is installed is what runs: an older one would be fetched for nothing.
    let is_older = |one: &Installed| version::numbers(&new.version) < version::numbers(&one.version);
    let same = same.or_else(|| {
        let mut installed = facts.components.iter().filter(|installed| installed.name == new.name);
        installed.any(|one| one.name == POSTGRES && is_older(one)).then_some(Action::Kept)
    });
    let action = match same {
        Some(action) => action,
        None => Action::Fetch(Wanted { url: new.url.clone(), sha256: new.sha256.clone(), size: new.size }),
    };
    ComponentPlan { name: new.name.clone(), version: new.version.clone(), sha256: new.sha256.clone(), action }
}

/// The database in a rehearsal, once more to time its copy, and as a snapshot; and the backup.
fn for_data(facts: &Facts) -> u64 {
    facts.database_bytes.saturating_mul(3).saturating_add(facts.backup_bytes)
}

/// Beside the data, what is fetched, packed and unpacked.
fn needed<'a>(
    facts: &Facts,
    asset: &Asset,
    all: impl Iterator<Item = &'a Component>,
    components: &[ComponentPlan],
) -> u64 {
    let is_fetched = |new: &&Component| {
        components.iter().any(|plan| plan.name == new.name && matches!(plan.action, Action::Fetch(_)))
    };
    let fetched: u64 = all.filter(is_fetched).map(|new| new.size.saturating_add(new.unpacked_size)).sum();
    // A program packs to a third; twice is more than enough room to unpack it.
    let program = asset.size.saturating_mul(4);
    for_data(facts).saturating_add(fetched).saturating_add(program).saturating_add(SPARE)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
