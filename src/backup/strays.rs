//! What restores and verifications that were killed have left where the databases are.

use super::scratch::{self, RestoreId, drop_strays};
use super::side::{self, Side};
use crate::home::Home;
use crate::postgres::{Access, PgError};

/// Removes it from the cluster. On somebody else's server only those are ours that our folders know.
pub async fn remove_from(home: &Home, access: &Access) -> Result<(), PgError> {
    let (strays, kept): (Vec<Side>, Vec<Side>) = side::all(home).into_iter().partition(Side::is_stray);
    if access.is_ours() {
        let kept: Vec<RestoreId> = kept.into_iter().map(|side| side.id).collect();
        return drop_strays(access, &kept).await;
    }
    for side in strays {
        scratch::drop_side(access, &side.id).await?;
    }
    Ok(())
}
