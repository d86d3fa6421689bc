//! Deferred migrations, which run after an upgrade: `postdeploy` once it is committed, `contract` once its gates are
//! open.

use super::data_migration::{self, Status};
use super::embedded::{EmbeddedMigration, Phase};
use super::migrate::{self, Applied};
use super::schema_state::{State, classify, database_version, waiting};
use super::start_check::refusal;
use super::{SchemaError, ledger};
use crate::instance_fact;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::counted::counted;
use std::time::Duration;
use tokio_postgres::{Client, GenericClient};

/// Lock timeout of a deferred migration, which runs while the server works; it is retried later.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// The state of the home that decides the gates, the conditions for a deferred migration.
#[derive(Debug, Clone)]
pub struct Gates {
    /// The releases in `versions/` with the newest schema that each knows.
    pub kept: Vec<(String, Option<i64>)>,
    /// How long a contract migration waits after it was first seen.
    pub cleanup_after: Duration,
    /// Why no deferred migration may run now, for example because an operation is in progress.
    pub under_way: Option<String>,
}

/// A waiting migration and its closed gates, one line each.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Waiting {
    pub version: i64,
    pub migration: String,
    pub phase: &'static str,
    pub gates_shut: Vec<String>,
    /// When a contract migration was first seen; its waiting time starts then.
    pub since: Option<String>,
}

/// Lists the waiting migrations. Read-only.
pub async fn list(
    client: &impl GenericClient,
    known: &[EmbeddedMigration],
    gates: &Gates,
) -> Result<Vec<Waiting>, SchemaError> {
    let records = ledger::inspect(client).await?;
    if !matches!(classify(known, &records), State::Current { .. } | State::Pending { .. }) {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    for migration in waiting(known, &records) {
        let gates_shut = closed_gates(client, known, migration, gates).await?;
        let since = first_seen(client, migration.version).await?.map(|time| time.to_string());
        let (version, migration, phase) = (migration.version, migration.file.clone(), migration.phase.name());
        entries.push(Waiting { version, migration, phase, gates_shut, since });
    }
    Ok(entries)
}

/// Applies the waiting migrations in `selected` whose gates are open, and returns those that still wait. Applies
/// nothing while other migrations are pending. `gates` is called while the migration lock is held.
pub async fn apply(
    lock: &Client,
    migration_client: &mut Client,
    known: &[EmbeddedMigration],
    version: &str,
    selected: &[i64],
    gates: impl FnOnce() -> Gates,
    report: &mut dyn FnMut(&str),
) -> Result<(Applied, Vec<Waiting>), SchemaError> {
    let work = async { apply_locked(migration_client, known, version, selected, &gates(), report).await };
    migrate::locked(lock, work).await
}

async fn apply_locked(
    migration_client: &mut Client,
    known: &[EmbeddedMigration],
    version: &str,
    selected: &[i64],
    gates: &Gates,
    report: &mut dyn FnMut(&str),
) -> Result<(Applied, Vec<Waiting>), SchemaError> {
    let records = ledger::inspect(migration_client).await?;
    let state = classify(known, &records);
    if let Some(error) = refusal(&state) {
        return Err(error);
    }
    let mut applied = Applied { files: Vec::new(), version: database_version(&records) };
    if !matches!(state, State::Current { .. }) {
        return Ok((applied, list(migration_client, known, gates).await?));
    }
    for migration in waiting(known, &records) {
        if migration.phase == Phase::Contract {
            record_first_seen(migration_client, migration.version).await?;
        }
        // The gates are checked for each migration, because the previous one may have opened a gate.
        if selected.contains(&migration.version)
            && closed_gates(migration_client, known, migration, gates).await?.is_empty()
        {
            let outcome =
                migrate::apply(migration_client, known, &[migration.version], version, LOCK_LIMIT, report).await?;
            applied.files.extend(outcome.files);
            applied.version = outcome.version;
        }
    }
    let still_waiting = list(migration_client, known, gates).await?;
    Ok((applied, still_waiting))
}

/// Describes the closed gates of a migration.
async fn closed_gates(
    client: &impl GenericClient,
    known: &[EmbeddedMigration],
    migration: &EmbeddedMigration,
    gates: &Gates,
) -> Result<Vec<String>, SchemaError> {
    let mut closed = Vec::new();
    if let Some(reason) = &gates.under_way {
        closed.push(reason.clone());
    }
    if migration.phase != Phase::Contract {
        return Ok(closed);
    }
    for (release, schema) in &gates.kept {
        match schema {
            Some(schema) if *schema >= migration.version => {}
            Some(schema) => {
                closed.push(format!("release {release} is kept and only knows schema versions up to {schema}"))
            }
            None => closed.push(format!("release {release} is kept and does not report its schema version")),
        }
    }
    // A data migration may read what the contract migration removes.
    for earlier in known.iter().filter(|other| other.batches.is_some() && other.version < migration.version) {
        let progress = data_migration::progress(client, earlier).await?;
        if progress.is_none_or(|progress| progress.status != Status::Verified) {
            closed.push(format!("data migration {} is not verified", earlier.file));
        } else {
            // Rows may have been written after the verification.
            match data_migration::remaining_rows(client, earlier).await? {
                0 => {}
                left => closed.push(format!("data migration {} has {} left", earlier.file, counted(left, "row"))),
            }
        }
    }
    let wait = SignedDuration::try_from(gates.cleanup_after).unwrap_or(SignedDuration::MAX);
    let since = first_seen(client, migration.version).await?.unwrap_or_else(Timestamp::now);
    match since.checked_add(wait) {
        Ok(until) if until <= Timestamp::now() => {}
        Ok(until) => closed.push(format!("waiting until {until:.0} (upgrade.cleanup_after)")),
        Err(_) => closed.push("waiting forever: upgrade.cleanup_after is beyond the range of dates".to_owned()),
    }
    Ok(closed)
}

/// Name prefix of the record of when a contract migration was first seen; its version follows.
const SEEN_PREFIX: &str = "contract-seen-";
/// Name prefix of the record of a backup made for a contract migration; its version follows.
const BACKED_UP_PREFIX: &str = "contract-backed-up-";

/// Deletes the records of contract migrations above a version after a rollback to it.
pub(super) async fn delete_records(client: &impl GenericClient, above: i64) -> Result<(), SchemaError> {
    if !instance_fact::exist(client).await? {
        return Ok(());
    }
    let delete = "DELETE FROM instance_fact
                  WHERE (starts_with(name, $1) OR starts_with(name, $2)) AND substring(name FROM '[0-9]{1,9}$')::bigint > $3";
    client.execute(delete, &[&SEEN_PREFIX, &BACKED_UP_PREFIX, &above]).await?;
    Ok(())
}

/// True when a backup was made for the migration within the last day, so that retries do not make more.
pub async fn is_backed_up(client: &impl GenericClient, version: i64) -> Result<bool, SchemaError> {
    let time = recorded_time(client, &format!("{BACKED_UP_PREFIX}{version}")).await?;
    Ok(time.is_some_and(|time| Timestamp::now().duration_since(time).as_hours() < 24))
}

/// Records that a backup was made for a contract migration now.
pub async fn record_backup(client: &impl GenericClient, version: i64) -> Result<(), SchemaError> {
    let statement = instance_fact::statement(&format!("{BACKED_UP_PREFIX}{version}"), &Timestamp::now().to_string());
    Ok(client.batch_execute(&statement).await?)
}

/// When a contract migration was first seen.
async fn first_seen(client: &impl GenericClient, version: i64) -> Result<Option<Timestamp>, SchemaError> {
    recorded_time(client, &format!("{SEEN_PREFIX}{version}")).await
}

/// Reads a recorded time; `None` if there is none.
async fn recorded_time(client: &impl GenericClient, name: &str) -> Result<Option<Timestamp>, SchemaError> {
    let text = instance_fact::read(client, name).await?.and_then(|value| String::from_utf8(value).ok());
    Ok(text.and_then(|text| text.parse().ok()))
}

async fn record_first_seen(client: &impl GenericClient, version: i64) -> Result<(), SchemaError> {
    let now = Timestamp::now().to_string();
    Ok(instance_fact::add(client, &format!("{SEEN_PREFIX}{version}"), now.as_bytes()).await?)
}
