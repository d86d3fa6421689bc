//! Rehearses an upgrade on a copy of the data, before it stops the previous release. Skipped for a rollback: if it fails,
//! the snapshot of the database is restored.

use super::smoke::{failure, smoke_of};
use super::{Direction, State, Step};
use crate::backup::Input;
use crate::backup::verify::Rehearsal;
use crate::upgrade::release::program::{self, CandidateServer};
use crate::upgrade::rollback::snapshot;
use crate::upgrade::smoke::ServerEndpoint;
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use crate::upgrade::{UpgradeError, totals};
use leoflow_base::sys::blocking;
use leoflow_postgres::schema::{embedded, known};
use leoflow_postgres::{Access, PgError};
use std::path::Path;
use std::time::Instant;

/// Rehearses the upgrade and records the expected pause.
pub async fn rehearse(run: &mut StepRunner<'_>, backup: &Path) -> Result<(), UpgradeError> {
    if run.state.direction == Direction::Down {
        return run.skip(Step::Rehearse);
    }
    run.step(Step::Rehearse, async |context, state| {
        (state.expected_pause, state.rehearsed_trial) = rehearse_on_copy(context, state, backup).await?.unzip();
        Ok(())
    })
    .await
}

/// Restores the backup into a scratch database and smoke-tests the new release on it. Returns the expected pause and the
/// candidate server's share of it, in seconds; `None` on a server where the role may not create databases.
async fn rehearse_on_copy(
    context: &mut UpgradeContext<'_>,
    state: &State,
    backup: &Path,
) -> Result<Option<(f64, f64)>, UpgradeError> {
    if !may_create_databases(&context.access).await? {
        let text = "the upgrade is not rehearsed: the role may not create databases on that server";
        context.reporter.warn(text.to_owned());
        return Ok(None);
    }
    let (home, input, reporter) = (context.home, Input::plain(backup), context.reporter);
    let is_known = state.plan.schema_from <= embedded::newest(known());
    let rehearsal = if is_known {
        Rehearsal::restore(home, &context.access, &input, context.own_version, reporter).await?
    } else {
        // This program is too old to restore the schema, so a copy of the database replaces the restored backup.
        let rehearsal = Rehearsal::empty(home, &input, reporter)?;
        if let Err(error) = snapshot::copy_idle(&context.access, &rehearsal.database()).await {
            rehearsal.remove(home, &context.access, reporter).await;
            return Err(error.into());
        }
        rehearsal
    };
    let outcome = rehearse_in(context, state, &rehearsal.database()).await;
    rehearsal.remove(home, &context.access, reporter).await;
    outcome.map(Some)
}

/// Migrates `database`, the restored copy, and smoke-tests a candidate server on it. Returns the same as
/// `rehearse_on_copy`.
async fn rehearse_in(
    context: &mut UpgradeContext<'_>,
    state: &State,
    database: &str,
) -> Result<(f64, f64), UpgradeError> {
    // The copy has the snapshot's name, so that cleaning up after an interruption finds it.
    let copy_time = snapshot::time_copy(&context.access, database, &state.snapshot).await?;
    let migration_start = Instant::now();
    let before = totals::read(context, Some(database)).await?;
    // Run the migration in another thread, so that the upgrade can be cancelled meanwhile.
    let (program, home, name) = (state.new_program.clone(), context.home.clone(), database.to_owned());
    let migrated = blocking::run(move || program::migrate(&program, &home, Some(&name))).await;
    migrated.map_err(|error| program::ProgramError::Migration(error.to_string()))??;
    totals::require_unchanged(context, &before, Some(database)).await?;
    let candidate_start = Instant::now();
    let mut server = CandidateServer::start(&state.new_program, context.home, context.config.port, Some(database))?;
    let smoke = smoke_of(context, state, ServerEndpoint::Private(server.socket.clone()));
    server.wait_ready(async || smoke.is_healthy().await).await?;
    let checks = smoke.candidate_checks().await;
    if let Some(reason) = failure(context, &checks) {
        return Err(UpgradeError::Smoke { reason, log: server.log_tail() });
    }
    let seconds = (copy_time + migration_start.elapsed()).as_secs_f64();
    context.reporter.note(format!("the pause will take about {seconds:.1} s"));
    let max_pause = context.config.upgrade.max_pause;
    if context.host.is_live() && seconds > max_pause.as_secs_f64() {
        return Err(UpgradeError::LongPause { expected: seconds, max_pause });
    }
    Ok((seconds, candidate_start.elapsed().as_secs_f64()))
}

/// Checks whether the role may create databases; always true on the managed server.
async fn may_create_databases(access: &Access) -> Result<bool, UpgradeError> {
    if access.owns_server() {
        return Ok(true);
    }
    let client = access.connect(&access.application()).await?;
    let query = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user";
    let may: bool = client.query_one(query, &[]).await.map_err(PgError::from)?.get(0);
    // CREATE DATABASE needs a connection to the maintenance database, which hosted servers may refuse.
    Ok(may && access.upkeep().await.is_ok())
}
