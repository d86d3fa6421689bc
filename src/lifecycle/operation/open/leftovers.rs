//! Removes the leftovers of a restore, a verification or a rehearsal that was killed before it changed anything.

use super::Recovery;
use leoflow_base::home::journal;
use leoflow_base::home::lock::{LockError, OperationLock};
use leoflow_base::home::progress::Progress;
use crate::backup::restore;
use leoflow_postgres::Access;
use leoflow_postgres::cluster::{self, ClusterState};

impl OperationContext<'_> {
    /// Removes leftovers unless the operation that uses them runs: it holds the operation lock.
    pub async fn remove_leftovers(&self) -> Result<(), OpenError> {
        if !restore::has_leftovers(self.home) {
            return Ok(());
        }
        let _operation_lock = match OperationLock::take(self.home, "cleaning up") {
            Ok(lock) => lock,
            Err(LockError::Held { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.clean_up(None).await
    }

    /// Removes leftovers from the home and from the cluster: the running one, or a private one. The caller holds the
    /// operation lock. A failed removal is only a warning, because leftovers do no harm.
    pub async fn clean_up(&self, access: Option<&Access>) -> Result<(), OpenError> {
        // The folder of an unfinished exchange looks like leftovers but holds live data.
        if !restore::has_leftovers(self.home) || journal::unfinished(self.home)?.is_some() {
            return Ok(());
        }
        let removed = match access {
            Some(access) => restore::remove_restore_leftovers(self.home, Some(access)).await,
            None if cluster::state(self.home) != ClusterState::Ready => {
                restore::remove_restore_leftovers(self.home, None).await
            }
            None => match self.private_server().await {
                Ok((access, _server)) => restore::remove_restore_leftovers(self.home, Some(&access)).await,
                // The next start reports why the server fails; the folders stay, so that it retries the removal.
                Err(_) => return Ok(()),
            },
        };
        self.reporter.report(match removed {
            Ok(()) => {
                Progress::Note("removed the leftovers of an interrupted restore, verification or rehearsal".to_owned())
            }
            Err(error) => Progress::Warning(format!(
                "cannot remove the leftovers of an interrupted restore, verification or rehearsal: {error}"
            )),
        });
        Ok(())
    }
}
