//! Handles the end of a trigger host: its triggers and watchers start again in another host. If the hosts keep ending,
//! the triggers fail, and the watchers start again after a longer pause.

use super::trigger_host::{HostExit, HostKey};
use super::{End, Triggers, WAIT_EFFECT};
use deadpool_postgres::ClientWrapper;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::instance::triggers::{FAILURE, Fired};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tracing::warn;

/// A host's triggers fail after this many consecutive exits with an exit code, without an event in between.
const MAX_EXITS: u32 = 5;
/// A host's triggers fail after this many consecutive ends of any kind. The limit is higher, because a kill is rarely
/// the host's own fault.
const MAX_DEATHS: u32 = 50;
/// Pause before a host of watchers that keeps ending is restarted.
const WATCHER_RETRY: Duration = Duration::from_secs(60);

/// Consecutive failures of a host, without an event in between.
#[derive(Default)]
pub(super) struct Failures {
    /// Exits with an exit code, as opposed to kills.
    exits: u32,
    deaths: u32,
    pub(super) retry_at: Option<Instant>,
}

impl Triggers {
    /// Handles the end of a host: restarts its triggers, unless it keeps ending. Returns the same as `handle`.
    pub(super) async fn on_host_end(
        &mut self,
        client: &mut ClientWrapper,
        host_key: HostKey,
        pid: i32,
        HostExit { exit, output }: HostExit,
    ) -> Result<bool, StoreError> {
        // A newer host may have replaced it.
        if self.hosts.get(&host_key).is_none_or(|host| host.pid != pid) {
            return Ok(false);
        }
        let trigger_ids = self.hosts.remove(&host_key).map(|host| host.trigger_ids).unwrap_or_default();
        let exit_text = exit.map_or_else(|| "an unknown status".to_owned(), |exit| exit.to_string());
        warn!("the host of {} trigger(s) in {} ended with {exit_text}", trigger_ids.len(), host_key.folder.display());
        let failures = self.failures.entry(host_key.clone()).or_default();
        // A kill is not the host's own fault, unless it happens often.
        failures.exits += u32::from(matches!(exit, Some(Exit::Code(_))));
        failures.deaths += 1;
        let pause = Duration::from_secs(u64::from(failures.deaths - 1).min(10));
        failures.retry_at = Some(Instant::now() + pause);
        let last_line = output.last().map(|line| format!(": {line}")).unwrap_or_default();
        let reason = format!("it ended {} times in a row, with {exit_text}{last_line}", failures.deaths);
        if failures.exits < MAX_EXITS && failures.deaths < MAX_DEATHS {
            self.problems.add(&host_key, reason, WAIT_EFFECT.to_owned(), Some(pause));
            return Ok(true);
        }
        let error = format!(
            "{FAILURE}: the process that runs triggers ended {} times in a row, with {exit_text}{last_line}",
            failures.deaths,
        );
        self.give_up(client, host_key, trigger_ids, reason, &error, &output).await?;
        Ok(true)
    }

    /// Fails the tasks of a host that keeps ending, and schedules the next start of its watchers.
    async fn give_up(
        &mut self,
        client: &mut ClientWrapper,
        host_key: HostKey,
        trigger_ids: HashSet<i64>,
        reason: String,
        error: &str,
        output: &[String],
    ) -> Result<(), StoreError> {
        let has_watchers = trigger_ids.iter().any(|id| self.watchers.contains_key(id));
        let failed_count = trigger_ids.iter().filter(|id| self.waiting.contains_key(id)).count();
        let effect = format!("{failed_count} deferred task(s) failed with it");
        self.problems.add(&host_key, reason, effect, has_watchers.then_some(WATCHER_RETRY));
        for id in trigger_ids {
            let traceback = Some(output.to_vec()).filter(|lines| !lines.is_empty());
            let fired = Fired::Failed { error: error.to_owned(), traceback };
            self.fire(client, id, fired, End::Fired).await?;
        }
        if has_watchers {
            // No task fails with a watcher, so it is retried at a long interval.
            let retry_at = Some(Instant::now() + WATCHER_RETRY);
            self.failures.insert(host_key, Failures { retry_at, ..Failures::default() });
        } else {
            self.failures.remove(&host_key);
        }
        Ok(())
    }
}
