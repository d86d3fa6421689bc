//! Takes over unfinished tries when an agent starts, or reconnects to the datastore.

use super::adopt::{self, Adoption, Boot};
use super::run::Agent;
use super::running::{EndedTry, Running};
use super::stop::{end_now, end_processes};
use crate::keeper::TaskFolder;
use deadpool_postgres::ClientWrapper;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::random;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::instance::claimed::Claimed;
use leoflow_engine::store::instance::tries;
use leoflow_engine::store::session;
use std::fs;
use std::io;
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

impl Agent {
    /// Takes over the tries of an earlier agent or an earlier connection, and removes obsolete folders.
    pub(super) async fn take_over(&mut self, client: &ClientWrapper) -> Result<(), StoreError> {
        let datastore = tries::datastore_id(client).await?;
        let owner_file = self.context.home.running_tasks_datastore();
        let owner = fs::read_to_string(&owner_file);
        // Earlier releases wrote no such file, and neither does an upgrade that restores its snapshot.
        let is_missing = owner.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let is_own = is_missing || owner.is_ok_and(|owner| owner == datastore);
        let unfinished = tries::unfinished(client).await?;
        let attached = self.keepers.attach().await;
        let unfinished_folders: Vec<TaskFolder> =
            unfinished.iter().map(|attempt| TaskFolder::of(&self.context.home, &attempt.claimed.key)).collect();
        for (attempt, folder) in unfinished.iter().zip(&unfinished_folders) {
            let key = &attempt.claimed.key;
            if self.running.contains_key(key) || self.environments.is_waiting(key) {
                continue;
            }
            let keeper = attached.iter().find(|(_, folders)| folders.iter().any(|other| other == folder.path()));
            if let Some((keeper, _)) = keeper {
                self.watch(key.clone(), Running::new(folder.clone(), keeper.clone(), None), Duration::ZERO);
                continue;
            }
            let is_current = attempt.boot_id.as_deref() == Some(self.boot_id.as_str());
            // Another poke of a sensor that has rescheduled itself does no harm.
            let may_repeat = attempt.claimed.reschedules > 0;
            let boot = match (is_own || may_repeat, is_current) {
                (false, _) => Boot::OtherDatastore,
                (true, true) => Boot::Current,
                (true, false) => Boot::Earlier,
            };
            let (adoption, keeper) = match adopt::inspect(folder, boot, |keeper| self.keepers.is_connected(keeper)) {
                Ok(inspected) => inspected,
                Err(error) => {
                    let reason = format!("{key}: cannot read {}: {error}", folder.path().display());
                    self.start_backoff.note_unread(reason, Instant::now());
                    self.needs_take_over = true;
                    continue;
                }
            };
            match (adoption, keeper) {
                (Adoption::Watch, Some(keeper)) => {
                    self.watch(key.clone(), Running::new(folder.clone(), keeper, None), Duration::ZERO)
                }
                (Adoption::Start, _) => {
                    let claimed = Claimed { token: random::hex_256(), ..attempt.claimed.clone() };
                    tries::renew_token(client, key, &claimed.token).await?;
                    self.start(client, &claimed).await?;
                }
                (_, keeper) => {
                    let ended_try = EndedTry::adopted(key, folder, keeper, boot);
                    self.record(client, vec![ended_try]).await?;
                }
            }
        }
        self.remove_obsolete(client, &unfinished_folders).await?;
        attached.iter().for_each(|(keeper, _)| self.disconnect_if_earlier(keeper));
        // Written last: until all tries are taken over, a missing folder proves nothing.
        if (is_missing || !is_own)
            && !self.needs_take_over
            && let Err(error) = files::write_atomic(&owner_file, datastore.as_bytes(), 0o600)
        {
            warn!("cannot write {}: {error}", owner_file.display());
        }
        Ok(())
    }

    /// Ends the processes of tries that are recorded already or whose run was deleted, and removes their folders.
    async fn remove_obsolete(&self, client: &ClientWrapper, unfinished: &[TaskFolder]) -> Result<(), StoreError> {
        let running: Vec<&TaskFolder> = self.running.values().map(|running| &running.folder).collect();
        // Folders that cannot be listed now are removed by a later take-over.
        let mut obsolete = TaskFolder::all(&self.context.home).unwrap_or_default();
        obsolete.retain(|folder| !unfinished.contains(folder) && !running.contains(&folder));
        if !obsolete.is_empty() {
            // An earlier agent may have recorded the outcomes without waiting for the disk.
            session::flush(client).await?;
        }
        for folder in obsolete {
            match folder.keeper() {
                // It has other tries too.
                Ok(Some(keeper)) if self.keepers.is_shared(&keeper) => {
                    self.keepers.stop(&keeper, folder.path());
                    end_processes(&folder);
                }
                _ => end_now(&folder),
            }
            folder.discard();
        }
        Ok(())
    }
}
