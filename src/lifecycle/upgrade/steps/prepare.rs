//! Downloads the release, and backs up the instance before any change.

use super::{Direction, State, Step};
use crate::backup::create::automatic;
use crate::upgrade::UpgradeError;
use crate::upgrade::automatic_backup::automatic_backup;
use crate::upgrade::release::source::Source;
use crate::upgrade::release::stage;
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::protocol::web::chain;
use leoflow_base::sys::fs::files;
use leoflow_components::web_ui;
use leoflow_postgres::acquire::{self, Staged};
use std::path::PathBuf;

/// Fetches the release from `host`; without a host, checks the program in `versions/`. Returns the new PostgreSQL, if
/// the release has one; `pause` installs it.
pub async fn fetch(run: &mut StepRunner<'_>, host: Option<&Source>) -> Result<Option<Staged>, UpgradeError> {
    match host {
        Some(host) => run.step(Step::Fetch, async |context, state| download(context, state, host).await).await,
        None => {
            run.context.notes.commit = stage::check(&run.state.new_program, &run.state.plan.to)?.commit;
            run.skip(Step::Fetch)?;
            Ok(None)
        }
    }
}

/// Downloads the release's program and components, and installs them next to the ones in use. Only stages a new
/// PostgreSQL.
async fn download(
    context: &mut UpgradeContext<'_>,
    state: &State,
    source: &Source,
) -> Result<Option<Staged>, UpgradeError> {
    let (home, plan) = (context.home, &state.plan);
    let downloads = home.upgrade().join("download");
    for folder in [home.upgrade(), downloads.clone(), home.versions()] {
        files::create_private_dir(&folder).map_err(|source| UpgradeError::Write { path: folder, source })?;
    }
    let archive = source.fetch(&plan.program, &downloads, context.reporter).await?;
    context.notes.commit = stage::program(home, &archive, &plan.to)?.commit;
    let mut postgres = None;
    for (component, release_file) in plan.fetched() {
        let archive = source.fetch(release_file, &downloads, context.reporter).await?;
        let failed = |reason: String| UpgradeError::Component { name: component.name.clone(), reason };
        if component.name == web_ui::COMPONENT {
            // Each version has a folder of its own, so the UI in use is not replaced.
            web_ui::install_component(home, &component.version, &archive).map_err(|error| failed(error.to_string()))?;
        } else {
            let staged = acquire::stage(home, &archive, &release_file.sha256);
            postgres = Some(staged.map_err(|error| failed(chain(&error)))?);
        }
    }
    Ok(postgres)
}

/// Creates and records a backup, even of an empty database: a rollback may restore it.
pub async fn back_up(run: &mut StepRunner<'_>) -> Result<PathBuf, UpgradeError> {
    let backup = run.step(Step::Backup, async |context, state| {
        let (home, own_version) = (context.home, context.own_version);
        let parameters = automatic_backup(home, &context.access, context.config, own_version, context.reporter)?;
        let reason = if state.direction == Direction::Up { "upgrade" } else { "rollback" };
        Ok(automatic::create_even_if_empty(reason, &parameters).await?.path)
    });
    let backup = backup.await?;
    run.state.backup = Some(backup.clone());
    run.save_state()?;
    Ok(backup)
}
