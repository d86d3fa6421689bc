//! What a restore or a verification has left that was killed before it changed anything.

use super::Recovery;
use crate::backup::restore;
use crate::error::Error;
use crate::home::journal;
use crate::home::lock::{LockError, OperationLock};
use crate::home::progress::Progress;
use crate::postgres::Access;
use crate::postgres::cluster::{self, ClusterState};

impl Recovery<'_> {
    /// What a restore or a verification has left that was killed before it changed anything. One that is
    /// at work has the operation to itself.
    pub(super) async fn remove_strays(&self) -> Result<(), Error> {
        if !restore::has_strays(self.home) {
            return Ok(());
        }
        let _alone = match OperationLock::take(self.home, "cleaning up") {
            Ok(lock) => lock,
            Err(LockError::Held { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.clean_up(None).await
    }

    /// Removes strays from the home, and from the cluster: the one that answers, or a private one. The
    /// caller has the operation to itself. What cannot be removed is said, and is in nobody's way.
    pub async fn clean_up(&self, access: Option<&Access>) -> Result<(), Error> {
        // Until an exchange is through, its folder looks like a stray's, and holds what was in force.
        if !restore::has_strays(self.home) || journal::unfinished(self.home)?.is_some() {
            return Ok(());
        }
        let removed = match access {
            Some(access) => restore::remove_strays(self.home, Some(access)).await,
            None if cluster::state(self.home) != ClusterState::Ready => restore::remove_strays(self.home, None).await,
            None => match self.private_server().await {
                Ok((access, _server)) => restore::remove_strays(self.home, Some(&access)).await,
                // It has more to tell when it is started for work; the folders stay as a reminder.
                Err(_) => return Ok(()),
            },
        };
        self.reporter.report(match removed {
            Ok(()) => Progress::Note("removed what an interrupted restore or verification had left".to_owned()),
            Err(error) => Progress::Warning(format!(
                "what an interrupted restore or verification left cannot be removed: {error}"
            )),
        });
        Ok(())
    }
}
