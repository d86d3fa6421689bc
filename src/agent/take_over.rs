//! What an agent finds when it begins, or comes back to the datastore.

use super::adopt::{self, Adoption};
use super::folder::TaskFolder;
use super::run::{Agent, Settled, forget};
use super::start;
use super::stop::end_now;
use crate::engine::store::StoreError;
use crate::engine::store::tries::{self, Claimed};
use crate::sys::process::ProcessId;
use crate::sys::random;
use deadpool_postgres::ClientWrapper;

impl Agent {
    /// Tries of an agent before this one, or of a connection before this one.
    pub(super) async fn take_over(&mut self, client: &ClientWrapper) -> Result<(), StoreError> {
        let unfinished = tries::unfinished(client).await?;
        let known: Vec<TaskFolder> =
            unfinished.iter().map(|one| TaskFolder::of(&self.surroundings.home, &one.claimed.key)).collect();
        for (one, folder) in unfinished.iter().zip(&known) {
            let key = &one.claimed.key;
            if self.running.contains_key(key) || self.environments.are_waited_for_by(key) {
                continue;
            }
            let same_boot = one.boot_id.as_deref() == Some(self.boot_id.as_str());
            let (seen, keeper) = adopt::look_at(folder, same_boot);
            match (adopt::decide(seen), keeper) {
                (Adoption::Watch, Some(keeper)) => self.watch(key.clone(), folder.clone(), keeper, None),
                // What is prepared may be on its way into a keeper: it stays as it is.
                (Adoption::Start, _) if folder.spec().ok().flatten().is_some() => {
                    match start::keeper(folder).map(ProcessId::of) {
                        Ok(Some(keeper)) => self.watch(key.clone(), folder.clone(), keeper, None),
                        _ => drop(self.record(client, vec![Settled::of(key, folder)]).await?),
                    }
                }
                (Adoption::Start, _) => {
                    let claimed = Claimed { token: random::hex_256(), ..one.claimed.clone() };
                    tries::renew_token(client, key, &claimed.token).await?;
                    self.start(client, &claimed, false).await?;
                }
                _ => drop(self.record(client, vec![Settled::of(key, folder)]).await?),
            }
        }
        let running: Vec<&TaskFolder> = self.running.values().map(|one| &one.folder).collect();
        for folder in TaskFolder::all(&self.surroundings.home) {
            if !known.contains(&folder) && !running.contains(&&folder) {
                // Of a run that was deleted, or told already.
                end_now(&folder);
                forget(&folder);
            }
        }
        Ok(())
    }
}
