//! Drops the database snapshot of an upgrade when it expires or the disk runs short.

use super::{history, snapshot};
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::{Home, journal};
use leoflow_base::sys::clock;
use leoflow_base::sys::fs::disk;
use leoflow_postgres::Access;
use std::time::Duration;
use tracing::warn;

/// Interval between checks of the expiry. One long timer would not be reliable on a laptop that sleeps.
const POLL_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Runs until no snapshot is retained.
pub async fn run(home: Home, access: Access) {
    while let Some(retained) = history::snapshot(&home) {
        let is_due = retained.until <= clock::unix_seconds();
        // A snapshot of the old release is dropped early when space is short.
        let space_is_low = disk::free_bytes(home.root()).is_ok_and(|free| free < disk::LOW_SPACE);
        if is_due || space_is_low {
            drop_snapshot(&home, &access, &retained.database).await;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn drop_snapshot(home: &Home, access: &Access, database: &str) {
    // A running upgrade may need the snapshot.
    let Ok(_lock) = OperationLock::take(home, "dropping an old copy of the database") else { return };
    // An interrupted upgrade may need the snapshot too.
    if !matches!(journal::unfinished(home), Ok(None)) {
        return;
    }
    let dropped = snapshot::remove(home, access, database).await;
    let outcome = dropped
        .map_err(|error| error.to_string())
        .and_then(|()| history::forget_snapshots(home, None).map_err(|error| error.to_string()));
    if let Err(error) = outcome {
        warn!("cannot drop the database snapshot of the last upgrade: {error}");
    }
}
