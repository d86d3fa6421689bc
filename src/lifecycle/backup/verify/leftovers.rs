//! Removes databases and roles that restores and verifications have left on the database server.

use super::scratch::{self, RestoreId, drop_leftovers};
use crate::backup::restore::restore_dir::{self, RestoreDir};
use crate::backup::restore::restore_error::RestoreError;
use leoflow_base::home::Home;
use leoflow_postgres::Access;

/// Drops leftover databases and roles. On an external server, drops only databases that have a restore directory:
/// others may belong to another home.
pub async fn remove_from(home: &Home, access: &Access) -> Result<(), RestoreError> {
    let all = restore_dir::all(home).map_err(|source| RestoreError::Write { path: home.restore(), source })?;
    let (leftovers, retained): (Vec<RestoreDir>, Vec<RestoreDir>) = all.into_iter().partition(RestoreDir::is_leftover);
    if access.owns_server() {
        let retained: Vec<RestoreId> = retained.into_iter().map(|restore_dir| restore_dir.id).collect();
        return Ok(drop_leftovers(access, &retained).await?);
    }
    for restore_dir in leftovers {
        scratch::drop_standby(access, &restore_dir.id).await?;
    }
    Ok(())
}
