//! What comes after an upgrade, and the gates that keep it: for `migrate-db`, `data-migrate status` and the server.

use crate::commands::context::Context;
use crate::config;
use crate::error::Error;
use crate::home::journal;
use crate::recovery::datastore::Datastore;
use crate::schema::later::{self, Gates, Waiting};
use crate::schema::{Applied, known};
use crate::upgrade::versions;

/// The gates as they stand. Asks every kept release which schema it knows.
pub fn gates(context: &Context<'_>) -> Result<Gates, Error> {
    let home = &context.home;
    let upgrade = config::load(&home.config())?.map(|loaded| loaded.config.upgrade).unwrap_or_default();
    let kept = versions::list(home).into_iter().map(|kept| (kept.version.to_string(), kept.schema_version)).collect();
    let under_way =
        journal::unfinished(home).map_err(Error::failed)?.map(|entry| format!("a change ({})", entry.operation));
    Ok(Gates { kept, contract_after: upgrade.contract_after, under_way })
}

/// What waits.
pub async fn waiting(context: &Context<'_>, datastore: &Datastore) -> Result<Vec<Waiting>, Error> {
    Ok(later::look(&datastore.connect().await?, known(), &gates(context)?).await?)
}

/// Applies what may come now; `report` hears of each.
pub async fn apply(
    context: &Context<'_>,
    datastore: &Datastore,
    report: &mut dyn FnMut(&str),
) -> Result<(Applied, Vec<Waiting>), Error> {
    let (lock, mut work) = (datastore.connect().await?, datastore.connect().await?);
    Ok(later::apply(&lock, &mut work, known(), context.version, &gates(context)?, report).await?)
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
