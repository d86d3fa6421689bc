//! Migrations that run after an upgrade (postdeploy and contract) and their gates (the conditions for that), for
//! `migrate-db`, `data-migrate status` and the server.

use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use leoflow_base::config;
use leoflow_base::home::journal;
use leoflow_lifecycle::upgrade::release::versions;
use leoflow_postgres::schema::deferred::{self, Gates, Waiting};
use leoflow_postgres::schema::embedded::Phase;
use leoflow_postgres::schema::{Applied, known};
use std::time::Duration;
use tokio_postgres::Client;

/// Returns the facts that decide which gates are open. Runs every release in `versions/` to ask which schema it knows.
pub fn gates(context: &Context<'_>) -> Gates {
    let home = &context.home;
    let (cleanup_after, mut under_way) = match config::load(&home.config()) {
        Ok(loaded) => (loaded.map(|loaded| loaded.config.upgrade).unwrap_or_default().cleanup_after, None),
        Err(error) => (Duration::MAX, Some(format!("config.yaml cannot be read ({error})"))),
    };
    match journal::unfinished(home) {
        Ok(None) => {}
        Ok(Some(entry)) => under_way = Some(format!("an operation ({}) is in progress", entry.operation)),
        Err(error) => under_way = Some(error.to_string()),
    }
    let kept = versions::schemas(home).unwrap_or_else(|error| {
        under_way = Some(format!("{} cannot be read ({error})", home.versions().display()));
        Vec::new()
    });
    Gates { kept, cleanup_after, under_way }
}

/// Returns the waiting migrations.
pub async fn waiting(context: &Context<'_>, client: &Client) -> Result<Vec<Waiting>, Error> {
    Ok(deferred::list(client, known(), &gates(context)).await?)
}

/// Applies the migrations whose gates are open and passes each file name to `report`; `back_up` runs before contracts.
/// The caller holds the operation lock, or nothing else runs on this home.
pub async fn apply(
    context: &Context<'_>,
    datastore: &Datastore,
    back_up: impl AsyncFnOnce() -> Result<(), Error>,
    report: &mut dyn FnMut(&str),
) -> Result<(Applied, Vec<Waiting>), Error> {
    let (lock, mut client) = (datastore.connect().await?, datastore.connect().await?);
    let ready_versions = |waiting: &[Waiting], phase: Phase| -> Vec<i64> {
        let is_open =
            |migration_entry: &&Waiting| migration_entry.phase == phase.name() && migration_entry.gates_shut.is_empty();
        waiting.iter().filter(is_open).map(|migration_entry| migration_entry.version).collect()
    };
    let postdeploy = ready_versions(&waiting(context, &client).await?, Phase::Postdeploy);
    let gates = || gates(context);
    let (mut applied, still_waiting) =
        deferred::apply(&lock, &mut client, known(), context.version, &postdeploy, gates, report).await?;
    // Apply only these contract migrations: one whose gates open in the meantime has no backup yet.
    let contracts = ready_versions(&still_waiting, Phase::Contract);
    let Some(first) = contracts.first() else { return Ok((applied, still_waiting)) };
    if !deferred::is_backed_up(&client, *first).await? {
        back_up().await?;
        for version in &contracts {
            deferred::record_backup(&client, *version).await?;
        }
    }
    let contract_outcome =
        deferred::apply(&lock, &mut client, known(), context.version, &contracts, gates, report).await?;
    applied.files.extend(contract_outcome.0.files);
    applied.version = contract_outcome.0.version;
    Ok((applied, contract_outcome.1))
}

/// Prints a line per waiting migration and one per closed gate.
pub fn show(context: &Context<'_>, waiting: &[Waiting]) {
    for migration_entry in waiting {
        context.printer.line(format!("waiting: {} ({})", migration_entry.migration, migration_entry.phase));
        for gate in &migration_entry.gates_shut {
            context.printer.line(format!("  {gate}"));
        }
        if migration_entry.gates_shut.is_empty() {
            context.printer.advice("  ready; the server applies it, or run `leoflow migrate-db`");
        }
    }
}
