//! What comes after an upgrade, and the gates that keep it: for `migrate-db`, `data-migrate status` and the server.

use crate::commands::context::Context;
use crate::config;
use crate::error::Error;
use crate::home::journal;
use crate::recovery::datastore::Datastore;
use crate::schema::embedded::Phase;
use crate::schema::later::{self, Gates, Waiting};
use crate::schema::{Applied, known};
use crate::upgrade::versions;
use std::time::Duration;

/// The gates as they stand. Asks every kept release which schema it knows.
pub fn gates(context: &Context<'_>) -> Gates {
    let home = &context.home;
    let kept = versions::schemas(home);
    let (contract_after, mut under_way) = match config::load(&home.config()) {
        Ok(loaded) => (loaded.map(|loaded| loaded.config.upgrade).unwrap_or_default().contract_after, None),
        Err(error) => (Duration::MAX, Some(format!("config.yaml cannot be read ({error})"))),
    };
    match journal::unfinished(home) {
        Ok(None) => {}
        Ok(Some(entry)) => under_way = Some(format!("a change ({}) is under way", entry.operation)),
        Err(error) => under_way = Some(error.to_string()),
    }
    Gates { kept, contract_after, under_way }
}

/// What waits.
pub async fn waiting(context: &Context<'_>, datastore: &Datastore) -> Result<Vec<Waiting>, Error> {
    Ok(later::look(&datastore.connect().await?, known(), &gates(context)).await?)
}

/// Applies what may come now, each contract after a backup; `report` hears of each. The caller has the operation lock, or
/// nothing else runs on this home.
pub async fn apply(
    context: &Context<'_>,
    datastore: &Datastore,
    back_up: impl AsyncFnOnce() -> Result<(), Error>,
    report: &mut dyn FnMut(&str),
) -> Result<(Applied, Vec<Waiting>), Error> {
    let (lock, mut work) = (datastore.connect().await?, datastore.connect().await?);
    let of_phase = |waiting: &[Waiting], phase: Phase| -> Vec<i64> {
        let is_open = |one: &&Waiting| one.phase == phase.name() && one.gates_shut.is_empty();
        waiting.iter().filter(is_open).map(|one| one.version).collect()
    };
    let only = of_phase(&waiting(context, datastore).await?, Phase::Postdeploy);
    let gates = || gates(context);
    let (mut applied, left) = later::apply(&lock, &mut work, known(), context.version, &only, gates, report).await?;
    // Only these: another that opens meanwhile has no backup.
    let contracts = of_phase(&left, Phase::Contract);
    let Some(first) = contracts.first() else { return Ok((applied, left)) };
    if !later::is_backed_up(&work, *first).await? {
        back_up().await?;
        for version in &contracts {
            later::note_backed_up(&work, *version).await?;
        }
    }
    let done = later::apply(&lock, &mut work, known(), context.version, &contracts, gates, report).await?;
    applied.files.extend(done.0.files);
    applied.version = done.0.version;
    Ok((applied, done.1))
}

/// A line for each, and one for each gate that is shut.
pub fn show(context: &Context<'_>, waiting: &[Waiting]) {
    for one in waiting {
        context.printer.line(format!("waiting: {} ({})", one.migration, one.phase));
        for gate in &one.gates_shut {
            context.printer.line(format!("  {gate}"));
        }
        if one.gates_shut.is_empty() {
            context.printer.line("  nothing is in its way; the server applies it, or `leoflow migrate-db`");
        }
    }
}
