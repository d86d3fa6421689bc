//! Stops server and agent; from here on requests wait.

use super::{State, Step};
use crate::upgrade::UpgradeError;
use crate::upgrade::rollback::snapshot;
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::home::progress::Progress;
use leoflow_base::protocol::web::chain;
use leoflow_postgres::acquire::Staged;
use std::time::Instant;

/// Stops server and agent. If the release has a new PostgreSQL, installs it and restarts the datastore with it.
pub async fn pause(run: &mut StepRunner<'_>, postgres: Option<Staged>) -> Result<(), UpgradeError> {
    snapshot::prepare(&run.context.access).await?;
    // Record the folder before the installation, so that a failed upgrade removes a partial installation too.
    run.state.new_postgres = postgres.as_ref().map(|staged| staged.target.clone());
    run.save_state()?;
    run.step(Step::Pause, async |context, _| {
        context.notes.paused = Some(Instant::now());
        context.host.pause()?;
        let Some(staged) = postgres else { return Ok(()) };
        let failed = |reason: String| UpgradeError::Component { name: "postgres".to_owned(), reason };
        staged.commit(context.home).map_err(|error| failed(chain(&error)))?;
        Ok(context.host.restart_datastore(context.home, &mut context.access).await?)
    })
    .await
}

/// Records and reports how long requests waited.
pub fn report_pause(context: &mut UpgradeContext<'_>, state: &State) {
    let pause = context.notes.paused.map(|paused| paused.elapsed()).unwrap_or_default();
    context.notes.pause = Some(pause);
    let text = format!("the pause took {:.1} s{}", pause.as_secs_f64(), state.expected_pause_text());
    context.reporter.report(Progress::Note(text));
}
