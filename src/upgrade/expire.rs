//! Dropping the copy of the database from before an upgrade, once its time is over or the disk runs short.

use super::{history, snapshot};
use crate::home::Home;
use crate::home::journal;
use crate::home::lock::OperationLock;
use crate::postgres::Access;
use crate::sys::{clock, disk};
use std::time::Duration;
use tracing::warn;

/// How often is looked; a laptop sleeps, so no longer wait can be relied on.
const ROUND: Duration = Duration::from_secs(10 * 60);
/// With less than this free, bytes, the copy goes before its time.
const SHORT: u64 = 1024 * 1024 * 1024;

/// Runs until there is none left.
pub async fn run(home: Home, access: Access) {
    while let Some(kept) = history::snapshot(&home) {
        let is_due = kept.until <= clock::unix_seconds();
        let is_short = disk::free_bytes(home.root()).is_ok_and(|free| free < SHORT);
        if is_due || is_short {
            drop_it(&home, &access, &kept.database).await;
        }
        tokio::time::sleep(ROUND).await;
    }
}

async fn drop_it(home: &Home, access: &Access, database: &str) {
    // An upgrade that is under way decides itself what it needs.
    let Ok(_alone) = OperationLock::take(home, "dropping an old copy of the database") else { return };
    // One that was interrupted may need it.
    if !matches!(journal::unfinished(home), Ok(None)) {
        return;
    }
    let dropped = snapshot::remove(home, access, database).await;
    let forgotten = dropped
        .map_err(|error| error.to_string())
        .and_then(|()| history::forget_snapshots(home, None).map_err(|error| error.to_string()));
    if let Err(error) = forgotten {
        warn!("the copy of the database from before the upgrade cannot be dropped: {error}");
    }
}
