//! Plans an upgrade or refuses it. Pure: `--dry-run` prints the plan, the confirmation shows it, the worker applies it.
//! Unknown facts count as unsafe.

use super::plan_warnings::{irreversible, warnings};
use super::release::manifest::{Asset, Component, Manifest, Migration, Release};
use super::release::source::ReleaseFile;
use super::release::version_order;
use components::{other_major, plan_components};
use leoflow_base::config::Channel;
use leoflow_postgres::schema::embedded::Phase;
use semver::{BuildMetadata, Version};
use serde::{Deserialize, Serialize};

mod components;
mod refusal;

pub use refusal::UpgradeRefusal;

/// The release that the user requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Newest(Channel),
    Version(Version),
}

impl Target {
    /// Parses `stable`, `rc`, `0.2.0` or `v0.2.0-rc1`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(channel) = Channel::parse(text) {
            return Some(Self::Newest(channel));
        }
        Version::parse(text.strip_prefix('v').unwrap_or(text)).ok().map(Self::Version)
    }
}

/// The installed release, the database and the machine.
#[derive(Debug, Clone)]
pub struct UpgradeFacts {
    pub installed: Version,
    /// The version of the running program, which makes the plan.
    pub own_version: Version,
    /// The machine's platform, a Rust target triple.
    pub target: &'static str,
    pub database: Database,
    /// The user's changes of our tables, because of which the backup of the upgrade would be refused.
    pub schema_changes: Vec<String>,
    /// The newest schema version that the running program knows.
    pub own_schema: i64,
    pub components: Vec<Installed>,
    /// Free bytes on the home's file system; `None` when unknown.
    pub free_bytes: Option<u64>,
    /// Size of the database in bytes.
    pub database_bytes: u64,
    /// Space that a backup needs while it is created, in bytes.
    pub backup_bytes: u64,
    pub instance: Instance,
    pub running_tasks: usize,
}

/// An installed component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub name: String,
    pub version: String,
    /// Hash of its archive; `None` when it did not come from a release.
    pub sha256: Option<String>,
}

/// The schema as recorded in the database.
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
    /// Running with a problem; contains the reason that the instance reports.
    Unhealthy(String),
}

/// A planned change of release. Stored in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradePlan {
    pub from: Version,
    pub to: Version,
    /// True when an instance runs.
    pub live: bool,
    pub schema_from: i64,
    pub schema_to: i64,
    /// The migrations that the upgrade applies, oldest first.
    pub migrations: Vec<Migration>,
    /// The migrations that run after the upgrade, once their conditions are met.
    #[serde(default)]
    pub later: Vec<Migration>,
    pub program: ReleaseFile,
    pub components: Vec<ComponentPlan>,
    /// Free disk space that the change needs, in bytes.
    pub needs_bytes: u64,
    pub running_tasks: usize,
    pub warnings: Vec<String>,
    /// The commit of the release's sources.
    pub commit: Option<String>,
    /// The release notes, Markdown.
    pub notes: String,
}

/// A component of the release and what to do about it.
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
    /// The installed component has the same hash, so it stays.
    Carried,
    /// The installed component stays: it has the same version from another origin, or a newer one.
    Kept,
    Fetch(ReleaseFile),
}

impl UpgradePlan {
    /// A plan without migrations that downloads nothing. `schema` has the schema versions before and after it.
    pub(super) fn without_files(facts: &UpgradeFacts, to: &Version, schema: (i64, i64)) -> Self {
        Self {
            from: facts.installed.clone(),
            to: to.clone(),
            live: facts.instance != Instance::Stopped,
            schema_from: schema.0,
            schema_to: schema.1,
            migrations: Vec::new(),
            later: Vec::new(),
            program: ReleaseFile { url: String::new(), sha256: String::new(), size: 0 },
            components: Vec::new(),
            needs_bytes: 0,
            running_tasks: facts.running_tasks,
            warnings: Vec::new(),
            commit: None,
            notes: String::new(),
        }
    }

    /// True when every new migration has rollback SQL.
    pub(crate) fn is_reversible(&self) -> bool {
        self.migrations.iter().all(|migration| migration.reversible)
    }

    /// The components to download.
    pub fn fetched(&self) -> impl Iterator<Item = (&ComponentPlan, &ReleaseFile)> {
        self.components.iter().filter_map(|component| match &component.action {
            Action::Fetch(release_file) => Some((component, release_file)),
            Action::Carried | Action::Kept => None,
        })
    }
}

/// The name of the component with the datastore's server.
pub const POSTGRES: &str = "postgres";
/// Bytes that stay free: the running datastore needs space.
const RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// Plans an upgrade to `target`, a release in `manifest`.
pub fn plan(facts: &UpgradeFacts, manifest: &Manifest, target: &Target) -> Result<UpgradePlan, UpgradeRefusal> {
    let release = choose_release(facts, manifest, target)?;
    let (from, to) = (&facts.installed, &release.version);
    let asset = release.asset(facts.target).ok_or_else(|| UpgradeRefusal::Platform(to.clone(), facts.target))?;
    let program = ReleaseFile::from_asset(asset)?;
    // A development build of the release's version counts as its own program.
    let own = Version { build: BuildMetadata::EMPTY, ..facts.own_version.clone() };
    if release.hands_over && own != release.version {
        return Err(UpgradeRefusal::HandOver(Box::new(hand_over(facts, release, program))));
    }
    check_path(from, manifest, release)?;
    let plan = plan_migrations(facts, &release.migrations, to)?;
    let components = plan_components(facts, release)?;
    let needs_bytes = needed_bytes(facts, asset, release.components(facts.target), &components);
    check_space(facts, needs_bytes)?;
    let newer = newer_unsupported(facts, manifest, release);
    Ok(UpgradePlan {
        warnings: warnings(from, newer, manifest, release, plan.migrations.iter().chain(&plan.later)),
        program,
        components,
        needs_bytes,
        commit: release.commit.clone(),
        notes: release.notes.clone(),
        ..plan
    })
}

/// The plan of an upgrade that only the release's own program can plan, as far as this program knows it: migrations and
/// components stay empty.
fn hand_over(facts: &UpgradeFacts, release: &Release, program: ReleaseFile) -> UpgradePlan {
    UpgradePlan {
        needs_bytes: program.size.saturating_mul(4),
        program,
        warnings: vec![format!(
            "leoflow {} plans this upgrade itself: `leoflow upgrade` downloads it, shows its plan and asks before it \
             changes anything",
            release.version
        )],
        commit: release.commit.clone(),
        notes: release.notes.clone(),
        ..UpgradePlan::without_files(facts, &release.version, (facts.own_schema, release.schema_version()))
    }
}

/// Plans an upgrade to a newer release that is still in `versions/`. Its program lists its migrations, so no release
/// host is needed.
pub(crate) fn plan_retained(
    facts: &UpgradeFacts,
    migrations: &[Migration],
    to: &Version,
) -> Result<UpgradePlan, UpgradeRefusal> {
    let plan = plan_migrations(facts, migrations, to)?;
    let needs_bytes = data_bytes(facts).saturating_add(RESERVE_BYTES);
    check_space(facts, needs_bytes)?;
    let warnings = irreversible(plan.migrations.iter().chain(&plan.later)).into_iter().collect();
    Ok(UpgradePlan { warnings, needs_bytes, ..plan })
}

/// Plans the migrations to the release `to`, which knows `known`, and checks that the instance can be backed up.
fn plan_migrations(facts: &UpgradeFacts, known: &[Migration], to: &Version) -> Result<UpgradePlan, UpgradeRefusal> {
    let (schema_from, migrations, later) = split_migrations(&facts.database, known, to)?;
    check_health(facts, schema_from)?;
    check_tables(facts)?;
    let schema_to = migrations.iter().map(|migration| migration.version).fold(schema_from, i64::max);
    Ok(UpgradePlan { migrations, later, ..UpgradePlan::without_files(facts, to, (schema_from, schema_to)) })
}

/// Refuses a release that cannot be reached in one upgrade.
fn check_path(from: &Version, manifest: &Manifest, release: &Release) -> Result<(), UpgradeRefusal> {
    let to = release.version.clone();
    if let Some(stop) = required_stop(from, release) {
        return Err(match manifest.release(&stop) {
            Some(_) => UpgradeRefusal::Stop { stop, to },
            None => UpgradeRefusal::StopGone { stop, to },
        });
    }
    match version_order::compare(from, &release.upgrades_from).is_lt() {
        true => Err(UpgradeRefusal::BelowFloor { from: from.clone(), to, floor: release.upgrades_from.clone() }),
        false => Ok(()),
    }
}

/// Refuses an upgrade without enough free disk space.
fn check_space(facts: &UpgradeFacts, needed: u64) -> Result<(), UpgradeRefusal> {
    let free = facts.free_bytes.ok_or(UpgradeRefusal::UnknownSpace)?;
    match free < needed {
        true => Err(UpgradeRefusal::Space { needed, free }),
        false => Ok(()),
    }
}

/// Refuses an unhealthy instance, unless the running program does not know the database's schema: then the upgrade may
/// be the fix.
fn check_health(facts: &UpgradeFacts, schema: i64) -> Result<(), UpgradeRefusal> {
    match &facts.instance {
        Instance::Unhealthy(reason) if schema <= facts.own_schema => Err(UpgradeRefusal::Unhealthy(reason.clone())),
        _ => Ok(()),
    }
}

/// Refuses a database whose backup, the first step of an upgrade, would be refused. A migration might also meet the
/// changes, such as a column that it adds.
fn check_tables(facts: &UpgradeFacts) -> Result<(), UpgradeRefusal> {
    match facts.schema_changes.is_empty() {
        true => Ok(()),
        false => Err(UpgradeRefusal::SchemaChanged(facts.schema_changes.clone())),
    }
}

/// The requested release, if it is newer than the installed one.
fn choose_release<'a>(
    facts: &UpgradeFacts,
    manifest: &'a Manifest,
    target: &Target,
) -> Result<&'a Release, UpgradeRefusal> {
    let release = match target {
        Target::Version(version) => {
            manifest.release(version).ok_or_else(|| UpgradeRefusal::Unknown(version.clone()))?
        }
        Target::Newest(channel) => {
            let newest = manifest.newest(*channel, |_| true).ok_or(UpgradeRefusal::EmptyChannel(channel.name()))?;
            // Choose the newest upgrade that this machine supports. If there is none, the checks of the newest release
            // give the reason for the refusal.
            let is_upgrade = |release: &Release| version_order::compare(&release.version, &facts.installed).is_gt();
            let fits = |release: &Release| is_upgrade(release) && is_supported(facts, release);
            manifest.newest(*channel, fits).unwrap_or(newest)
        }
    };
    // A development build of the same version is not the release.
    let is_release = facts.installed.build == BuildMetadata::EMPTY;
    match version_order::compare(&release.version, &facts.installed) {
        std::cmp::Ordering::Equal if is_release => match target {
            Target::Newest(_) => Err(UpgradeRefusal::UpToDate(facts.installed.clone())),
            Target::Version(_) => Err(UpgradeRefusal::Installed(facts.installed.clone())),
        },
        std::cmp::Ordering::Less if matches!(target, Target::Newest(_)) => {
            let newest = release.version.clone();
            Err(UpgradeRefusal::Ahead { installed: facts.installed.clone(), newest })
        }
        std::cmp::Ordering::Less => {
            Err(UpgradeRefusal::Older { from: facts.installed.clone(), to: release.version.clone() })
        }
        _ => Ok(release),
    }
}

/// The newest release of the channel, if it is newer than `release` and this machine does not support it.
fn newer_unsupported<'a>(facts: &UpgradeFacts, manifest: &'a Manifest, release: &Release) -> Option<&'a Version> {
    let newest = manifest.newest(release.channel, |_| true)?;
    let is_newer = version_order::compare(&newest.version, &release.version).is_gt();
    (is_newer && !is_supported(facts, newest)).then_some(&newest.version)
}

/// True when the release has a program for this machine and the datastore's PostgreSQL version, or plans itself.
fn is_supported(facts: &UpgradeFacts, release: &Release) -> bool {
    release.asset(facts.target).is_some() && (release.hands_over || other_major(facts, release).is_none())
}

/// The first required stop between `from` and the release.
fn required_stop(from: &Version, release: &Release) -> Option<Version> {
    let is_ahead = |stop: &&Version| {
        version_order::compare(from, stop).is_lt() && version_order::compare(stop, &release.version).is_lt()
    };
    release.required_stops.iter().filter(is_ahead).min_by(|left, right| version_order::compare(left, right)).cloned()
}

/// Returns the database's schema version, the migrations that the upgrade applies, and the ones that run after it.
/// `known` are the migrations that the release `to` knows.
fn split_migrations(
    database: &Database,
    known: &[Migration],
    to: &Version,
) -> Result<(i64, Vec<Migration>, Vec<Migration>), UpgradeRefusal> {
    let applied = match database {
        Database::Applied(applied) => applied,
        Database::Damaged(reason) => return Err(UpgradeRefusal::Damaged(reason.clone())),
    };
    let newest_known = known.iter().map(|migration| migration.version).max().unwrap_or(0);
    let newest = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    if newest > newest_known {
        return Err(UpgradeRefusal::NewerSchema { database: newest, to: to.clone(), known: newest_known });
    }
    for (version, sha256) in applied {
        let is_known = known.iter().any(|known| known.version == *version && known.sha256 == *sha256);
        if !is_known {
            return Err(UpgradeRefusal::OtherHistory { version: *version, to: to.clone() });
        }
    }
    let is_applied = |migration: &Migration| applied.iter().any(|(version, _)| *version == migration.version);
    let pending: Vec<Migration> = known.iter().filter(|migration| !is_applied(migration)).cloned().collect();
    match pending.iter().find(|migration| Phase::parse(&migration.phase).is_none()) {
        Some(Migration { version, name, phase, .. }) => {
            Err(UpgradeRefusal::Phase { version: *version, name: name.clone(), phase: phase.clone() })
        }
        // In a new database the deferred migrations run at once too.
        None if applied.is_empty() => Ok((newest, pending, Vec::new())),
        None => {
            let (later, immediate) = pending
                .into_iter()
                .partition(|migration| Phase::parse(&migration.phase).is_some_and(Phase::is_deferred));
            Ok((newest, immediate, later))
        }
    }
}

/// Bytes for three copies of the database (rehearsal, timed copy, snapshot) and the backup.
fn data_bytes(facts: &UpgradeFacts) -> u64 {
    facts.database_bytes.saturating_mul(3).saturating_add(facts.backup_bytes)
}

/// Bytes for the data, for all downloads and their unpacked content, and the reserve.
fn needed_bytes<'a>(
    facts: &UpgradeFacts,
    asset: &Asset,
    release_components: impl Iterator<Item = &'a Component>,
    components: &[ComponentPlan],
) -> u64 {
    let is_fetched = |new: &&Component| {
        components.iter().any(|plan| plan.name == new.name && matches!(plan.action, Action::Fetch(_)))
    };
    let fetched: u64 =
        release_components.filter(is_fetched).map(|new| new.size.saturating_add(new.unpacked_size)).sum();
    // A program compresses to a third of its size, so the archive and the program need four times the archive's size.
    let program = asset.size.saturating_mul(4);
    data_bytes(facts).saturating_add(fetched).saturating_add(program).saturating_add(RESERVE_BYTES)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
