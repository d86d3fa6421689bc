//! What comes after an upgrade: `postdeploy` once it is committed, `contract` once its gates are open.

use super::classify::{State, classify, database_version, waiting};
use super::data_migration::{self, Status};
use super::embedded::{Known, Phase};
use super::migrate::{self, Applied, release_lock, take_lock};
use super::{SchemaError, ledger};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use tokio_postgres::{Client, GenericClient};

/// A server works beside it: what it wants a lock for waits no longer than this, and is tried again later.
const PATIENCE: &str = "2s";

/// What is asked of the home, for the gates.
#[derive(Debug, Clone)]
pub struct Gates {
    /// The releases that are kept, with the newest schema that each knows.
    pub kept: Vec<(String, Option<i64>)>,
    /// How long a contract waits from when it was first seen.
    pub contract_after: Duration,
    /// Why nothing may come at all: a change of release that is not committed.
    pub under_way: Option<String>,
}

/// One that waits, and why: each line is a gate that is shut.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Waiting {
    pub version: i64,
    pub migration: String,
    pub phase: &'static str,
    pub gates_shut: Vec<String>,
    /// When a contract was first seen to wait, which its time counts from.
    pub since: Option<String>,
}

/// What waits in the database. Changes nothing.
pub async fn look(client: &impl GenericClient, known: &[Known], gates: &Gates) -> Result<Vec<Waiting>, SchemaError> {
    let found = ledger::inspect(client).await?;
    if !matches!(classify(known, &found), State::Current { .. } | State::Pending { .. }) {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for one in waiting(known, &found) {
        let gates_shut = shut(client, known, one, gates).await?;
        let since = seen(client, one.version).await?.map(|at| at.to_string());
        let (version, migration, phase) = (one.version, one.file.clone(), one.phase.name());
        all.push(Waiting { version, migration, phase, gates_shut, since });
    }
    Ok(all)
}

/// Applies what waits and may come now, as far as `only` names it, and says what waits on. Nothing while something else is
/// pending. `gates` is asked once nobody else can migrate.
pub async fn apply(
    lock: &Client,
    work: &mut Client,
    known: &[Known],
    version: &str,
    only: &[i64],
    gates: impl FnOnce() -> Gates,
    report: &mut dyn FnMut(&str),
) -> Result<(Applied, Vec<Waiting>), SchemaError> {
    take_lock(lock).await?;
    let applied = apply_locked(work, known, version, only, &gates(), report).await;
    release_lock(lock).await;
    applied
}

async fn apply_locked(
    work: &mut Client,
    known: &[Known],
    version: &str,
    only: &[i64],
    gates: &Gates,
    report: &mut dyn FnMut(&str),
) -> Result<(Applied, Vec<Waiting>), SchemaError> {
    let found = ledger::inspect(work).await?;
    let state = classify(known, &found);
    if let Some(error) = migrate::refusal(&state) {
        return Err(error);
    }
    let mut applied = Applied { files: Vec::new(), version: database_version(&found) };
    if !matches!(state, State::Current { .. }) {
        return Ok((applied, look(work, known, gates).await?));
    }
    for one in waiting(known, &found) {
        if one.phase == Phase::Contract {
            note_seen(work, one.version).await?;
        }
        // Asked for each: the one before it may have opened something.
        if only.contains(&one.version) && shut(work, known, one, gates).await?.is_empty() {
            let done = migrate::apply(work, known, &[one.version], version, PATIENCE, report).await?;
            applied.files.extend(done.files);
            applied.version = done.version;
        }
    }
    let left = look(work, known, gates).await?;
    Ok((applied, left))
}

/// The gates of one that are shut, in words.
async fn shut(
    client: &impl GenericClient,
    known: &[Known],
    one: &Known,
    gates: &Gates,
) -> Result<Vec<String>, SchemaError> {
    let mut shut = Vec::new();
    if let Some(upgrade) = &gates.under_way {
        shut.push(upgrade.clone());
    }
    if one.phase != Phase::Contract {
        return Ok(shut);
    }
    for (release, schema) in &gates.kept {
        match schema {
            Some(schema) if *schema >= one.version => {}
            Some(schema) => shut.push(format!("release {release} is kept, which knows no more than schema {schema}")),
            None => shut.push(format!("release {release} is kept, and does not say which schema it knows")),
        }
    }
    // What it takes away may be what one of them reads.
    for before in known.iter().filter(|before| before.batches.is_some() && before.version < one.version) {
        let progress = data_migration::progress(client, before).await?;
        if progress.is_none_or(|progress| progress.status != Status::Verified) {
            shut.push(format!("data migration {} is not verified", before.file));
        } else {
            // Its record may be older than what somebody wrote since.
            match data_migration::left(client, before).await? {
                0 => {}
                left => shut.push(format!("data migration {} has {left} row(s) left", before.file)),
            }
        }
    }
    let wait = SignedDuration::try_from(gates.contract_after).unwrap_or(SignedDuration::MAX);
    let since = seen(client, one.version).await?.unwrap_or_else(Timestamp::now);
    match since.checked_add(wait) {
        Ok(until) if until <= Timestamp::now() => {}
        Ok(until) => shut.push(format!("it waits until {until:.0} (upgrade.contract_after)")),
        Err(_) => shut.push("it waits for longer than there are dates (upgrade.contract_after)".to_owned()),
    }
    Ok(shut)
}

const SEEN: &str = "contract-seen-";
const BACKED_UP: &str = "contract-backed-up-";

/// What is noted of contracts above a version is over when the schema goes back to it: an older release is in use again.
pub(super) async fn forget(client: &impl GenericClient, above: i64) -> Result<(), SchemaError> {
    if client.query_one("SELECT to_regclass('public.instance_fact') IS NULL", &[]).await?.get(0) {
        return Ok(());
    }
    let delete = "DELETE FROM instance_fact
                  WHERE (starts_with(name, $1) OR starts_with(name, $2)) AND substring(name FROM '[0-9]{1,9}$')::bigint > $3";
    client.execute(delete, &[&SEEN, &BACKED_UP, &above]).await?;
    Ok(())
}

/// Whether a backup was made for it within a day: it may be tried again and again.
pub async fn is_backed_up(client: &impl GenericClient, version: i64) -> Result<bool, SchemaError> {
    let at = noted(client, &format!("{BACKED_UP}{version}")).await?;
    Ok(at.is_some_and(|at| Timestamp::now().duration_since(at).as_hours() < 24))
}

pub async fn note_backed_up(client: &impl GenericClient, version: i64) -> Result<(), SchemaError> {
    let insert = "INSERT INTO instance_fact (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2";
    client.execute(insert, &[&format!("{BACKED_UP}{version}"), &Timestamp::now().to_string().into_bytes()]).await?;
    Ok(())
}

/// When a contract was first seen to wait.
async fn seen(client: &impl GenericClient, version: i64) -> Result<Option<Timestamp>, SchemaError> {
    noted(client, &format!("{SEEN}{version}")).await
}

async fn noted(client: &impl GenericClient, name: &str) -> Result<Option<Timestamp>, SchemaError> {
    let row = client.query_opt("SELECT value FROM instance_fact WHERE name = $1", &[&name]).await?;
    let text = row.and_then(|row| String::from_utf8(row.get(0)).ok());
    Ok(text.and_then(|text| text.parse().ok()))
}

async fn note_seen(client: &impl GenericClient, version: i64) -> Result<(), SchemaError> {
    let insert = "INSERT INTO instance_fact (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    client.execute(insert, &[&format!("{SEEN}{version}"), &Timestamp::now().to_string().into_bytes()]).await?;
    Ok(())
}
