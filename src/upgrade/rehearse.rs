//! The rehearsal of an upgrade: with a copy of the data, while the release before goes on as ever.

use super::program::{self, TrialServer};
use super::smoke::ServerEndpoint;
use super::steps::State;
use super::work::Work;
use super::{UpgradeError, snapshot};
use crate::backup::Input;
use crate::backup::verify::Rehearsal;
use crate::home::progress::Progress;
use crate::postgres::{Access, PgError};
use crate::schema::{embedded, known};
use crate::sys::blocking;
use std::time::Instant;

impl Work<'_> {
    /// Returns the seconds that the switch will take, and those of them that are the server's on trial.
    /// `None` on a server where no database can be made for it. The backup is restored into a database of its own, and the new release has to work with that.
    pub async fn rehearse(
        &mut self,
        state: &State,
        backup: &std::path::Path,
    ) -> Result<Option<(f64, f64)>, UpgradeError> {
        if !may_make_databases(&self.access).await? {
            let text = "the upgrade is not rehearsed: the role may not make databases on that server";
            self.reporter.report(Progress::Warning(text.to_owned()));
            return Ok(None);
        }
        let is_known = state.plan.schema_from <= embedded::newest(known());
        let rehearsal = if is_known {
            Rehearsal::restore(self.home, &self.access, &Input::plain(backup), self.own_version, self.reporter).await?
        } else {
            // Only the new release can read it: a copy of the database stands for its restore.
            let rehearsal = Rehearsal::empty(self.home, &Input::plain(backup), self.reporter)?;
            if let Err(error) = snapshot::copy_idle(&self.access, &rehearsal.database()).await {
                rehearsal.remove(self.home, &self.access, self.reporter).await;
                return Err(error.into());
            }
            rehearsal
        };
        let outcome = self.rehearse_in(state, &rehearsal.database()).await;
        rehearsal.remove(self.home, &self.access, self.reporter).await;
        outcome.map(Some)
    }

    async fn rehearse_in(&mut self, state: &State, database: &str) -> Result<(f64, f64), UpgradeError> {
        // By the name that the real one will have: whoever finds this cut off knows it.
        let copy = snapshot::time_copy(&self.access, database, &state.snapshot).await?;
        let begun = Instant::now();
        // In a thread of its own, so that this can be given up meanwhile.
        let (program, home, name) = (state.new_program.clone(), self.home.clone(), database.to_owned());
        let migrated = blocking::run(move || program::migrate(&program, &home, Some(&name))).await;
        migrated.map_err(|error| program::ProgramError::Migration(error.to_string()))??;
        let trial_began = Instant::now();
        let mut server = TrialServer::start(&state.new_program, self.home, self.config.port, Some(database))?;
        let smoke = self.smoke(state, ServerEndpoint::Private(server.socket.clone()));
        server.wait_ready(async || smoke.answers().await).await?;
        let checks = smoke.on_trial().await;
        if let Some(reason) = self.judge(&checks) {
            return Err(UpgradeError::Smoke { reason, log: server.last_words() });
        }
        let seconds = (copy + begun.elapsed()).as_secs_f64();
        self.reporter.report(Progress::Note(format!("the pause will take about {seconds:.1} s")));
        let most = self.config.upgrade.max_pause;
        if self.host.is_live() && seconds > most.as_secs_f64() {
            return Err(UpgradeError::LongPause { expected: seconds, most });
        }
        Ok((seconds, trial_began.elapsed().as_secs_f64()))
    }
}

/// Of our own server always.
async fn may_make_databases(access: &Access) -> Result<bool, UpgradeError> {
    if access.is_ours() {
        return Ok(true);
    }
    let client = access.connect(&access.application()).await?;
    let query = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user";
    let may: bool = client.query_one(query, &[]).await.map_err(PgError::from)?.get(0);
    // Hosters let nobody into the database that it is done from.
    Ok(may && access.upkeep().await.is_ok())
}
