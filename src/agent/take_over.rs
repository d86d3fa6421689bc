//! What an agent finds when it begins, or comes back to the datastore.

use super::adopt::{self, Adoption};
use super::finish::Settled;
use super::folder::TaskFolder;
use super::run::Agent;
use super::start;
use super::stop::end_now;
use crate::engine::store::StoreError;
use crate::engine::store::tries::{self, Claimed};
use crate::sys::process::ProcessId;
use crate::sys::random;
use deadpool_postgres::ClientWrapper;
use tokio::time::Instant;

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
            let (seen, keeper) = match adopt::look_at(folder, same_boot) {
                Ok(seen) => seen,
                Err(error) => {
                    let reason = format!("{key}: {} cannot be read: {error}", folder.path().display());
                    self.hindrance.note_unread(reason, Instant::now());
                    self.must_look_again = true;
                    continue;
                }
            };
            match (adopt::decide(seen), keeper) {
                (Adoption::Watch, Some(keeper)) => self.watch(key.clone(), folder.clone(), keeper, None),
                // A spec that is whole or cannot be read is left as it is: a keeper may already be reading it.
                (Adoption::Start, _) if !matches!(folder.spec(), Ok(None)) => {
                    match start::keeper(folder).map(ProcessId::of) {
                        Ok(Some(keeper)) => self.watch(key.clone(), folder.clone(), keeper, None),
                        _ => drop(self.record(client, vec![Settled::adopted(key, folder, None, same_boot)]).await?),
                    }
                }
                (Adoption::Start, _) => {
                    let claimed = Claimed { token: random::hex_256(), ..one.claimed.clone() };
                    tries::renew_token(client, key, &claimed.token).await?;
                    self.start(client, &claimed, false).await?;
                }
                (_, keeper) => {
                    let settled = Settled::adopted(key, folder, keeper, same_boot);
                    self.record(client, vec![settled]).await?;
                }
            }
        }
        let running: Vec<&TaskFolder> = self.running.values().map(|one| &one.folder).collect();
        // What cannot be listed now is removed at a later look.
        for folder in TaskFolder::all(&self.surroundings.home).unwrap_or_default() {
            if !known.contains(&folder) && !running.contains(&&folder) {
                // Of a run that was deleted, or told already.
                end_now(&folder);
                folder.discard();
            }
        }
        Ok(())
    }
}
