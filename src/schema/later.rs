//! What comes after an upgrade: `postdeploy` once it is committed, `contract` once its gates are open.

use super::classify::{State, classify, waiting};
use super::data_migration::{self, Status};
use super::embedded::Known;
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
    /// An upgrade that is not committed.
    pub under_way: Option<String>,
}

/// One that waits, and why: each line is a gate that is shut.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Waiting {
    pub version: i64,
    pub migration: String,
    pub phase: &'static str,
    pub gates_shut: Vec<String>,
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
        let (version, migration, phase) = (one.version, one.file.clone(), one.phase.name());
        all.push(Waiting { version, migration, phase, gates_shut });
    }
    Ok(all)
}

/// Applies what waits and may come now, and says what waits on. Nothing while something else is pending.
pub async fn apply(
    lock: &Client,
    work: &mut Client,
    known: &[Known],
    version: &str,
    gates: &Gates,
    report: &mut dyn FnMut(&str),
) -> Result<(Applied, Vec<Waiting>), SchemaError> {
    take_lock(lock).await?;
    let applied = apply_locked(work, known, version, gates, report).await;
    release_lock(lock).await;
    applied
}

async fn apply_locked(
    work: &mut Client,
    known: &[Known],
    version: &str,
    gates: &Gates,
    report: &mut dyn FnMut(&str),
) -> Result<(Applied, Vec<Waiting>), SchemaError> {
    let state = classify(known, &ledger::inspect(work).await?);
    if let Some(error) = migrate::refusal(&state) {
        return Err(error);
    }
    let nothing = Applied { files: Vec::new(), version: super::embedded::newest(known) };
    if !matches!(state, State::Current { .. }) {
        return Ok((nothing, look(work, known, gates).await?));
    }
    let mut applied = nothing;
    for one in look(work, known, gates).await? {
        if one.phase == super::embedded::Phase::Contract.name() {
            note_seen(work, one.version).await?;
        }
        // Asked anew: the one before it may have opened or shut something.
        let Some(known_one) = known.iter().find(|known| known.version == one.version) else { continue };
        if shut(work, known, known_one, gates).await?.is_empty() {
            let done = migrate::apply(work, known, &[one.version], version, PATIENCE, report).await?;
            applied.files.extend(done.files);
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
        shut.push(format!("{upgrade} is under way"));
    }
    if one.phase != super::embedded::Phase::Contract {
        return Ok(shut);
    }
    for (release, schema) in &gates.kept {
        match schema {
            Some(schema) if *schema >= one.version => {}
            Some(schema) => shut.push(format!("release {release} is kept, which knows no more than schema {schema}")),
            None => shut.push(format!("release {release} is kept, and does not say which schema it knows")),
        }
    }
    for version in &one.after {
        let named = known.iter().find(|known| known.version == *version);
        let name = named.map_or_else(|| format!("V{version:04}"), |known| known.file.clone());
        let Some(known) = named.filter(|known| known.batches.is_some()) else {
            shut.push(format!("data migration {name} is not known here"));
            continue;
        };
        let progress = data_migration::progress(client, known).await?;
        if progress.is_none_or(|progress| progress.status != Status::Verified) {
            shut.push(format!("data migration {name} is not verified"));
        } else {
            // Its record may be older than what somebody wrote since.
            match data_migration::left(client, known).await? {
                0 => {}
                left => shut.push(format!("data migration {name} has {left} row(s) left")),
            }
        }
    }
    let until = match seen(client, one.version).await? {
        None => Timestamp::now().checked_add(wait_of(gates)).ok(),
        Some(seen) => seen.checked_add(wait_of(gates)).ok(),
    };
    match until {
        Some(until) if until <= Timestamp::now() => {}
        Some(until) => shut.push(format!("it waits until {until:.0} (upgrade.contract_after)")),
        None => shut.push("it waits for longer than there are dates (upgrade.contract_after)".to_owned()),
    }
    Ok(shut)
}

fn wait_of(gates: &Gates) -> SignedDuration {
    SignedDuration::try_from(gates.contract_after).unwrap_or(SignedDuration::MAX)
}

fn fact(version: i64) -> String {
    format!("contract-seen-{version}")
}

/// When a contract was first seen to wait.
async fn seen(client: &impl GenericClient, version: i64) -> Result<Option<Timestamp>, SchemaError> {
    let row = client.query_opt("SELECT value FROM instance_fact WHERE name = $1", &[&fact(version)]).await?;
    let text = row.and_then(|row| String::from_utf8(row.get(0)).ok());
    Ok(text.and_then(|text| text.parse().ok()))
}

async fn note_seen(client: &impl GenericClient, version: i64) -> Result<(), SchemaError> {
    let insert = "INSERT INTO instance_fact (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    client.execute(insert, &[&fact(version), &Timestamp::now().to_string().into_bytes()]).await?;
    Ok(())
}
