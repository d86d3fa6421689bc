//! Brings a home to the release of this program, with the steps of every upgrade: a package manager has replaced the
//! program, or it was copied over the home's own.

use super::upgrade::args::Upgrade;
use super::watch_worker;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::home::progress::Reporter;
use leoflow_base::protocol::control;
use leoflow_lifecycle::operation::DryRun;
use leoflow_lifecycle::operation::change::Gathered;
use leoflow_lifecycle::upgrade::OwnProgram;
use leoflow_lifecycle::upgrade::target_release::{TargetRelease, earlier_failures};
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_postgres::install;

fn newer(context: &Context<'_>) -> Option<OwnProgram> {
    OwnProgram::newer(&context.home, context.version)
}

/// Adds the hint that names the program of the home's release.
fn with_start_of_installed(context: &Context<'_>, program: &OwnProgram, error: Error) -> Error {
    let Some(path) = program.installed_program(&context.home) else { return error };
    let home = context.printer.home_option();
    error.hint(format!("to go on with {}: {}{home} lite start", program.installed, path.display()))
}

/// Refuses to repeat an upgrade that failed or was rolled back here: only the user knows whether the reason is gone.
fn refuse_failed(context: &Context<'_>, program: &OwnProgram) -> Result<(), Error> {
    let OwnProgram { version, installed, .. } = program;
    let Some(reason) = earlier_failures(&context.home, version).into_iter().next() else { return Ok(()) };
    let refused = Error::refused(format!("this home stays at leoflow {installed}: {reason}"));
    let refused = with_start_of_installed(context, program, refused);
    Err(refused.hint(format!("to try again: leoflow upgrade {version}")))
}

/// Warns that a running instance has an older release than this program.
pub fn warn_of_older_release(context: &Context<'_>) {
    if let Some(program) = newer(context) {
        let text = format!("{}, but {} is running: leoflow upgrade", program.origin(), program.installed);
        context.printer.warning(text);
    }
}

/// Upgrades a running instance to the release of this program before it is restarted. After a failure it runs on.
pub async fn upgrade_running(context: &Context<'_>) -> Result<(), Error> {
    let Some(program) = newer(context) else { return Ok(()) };
    refuse_failed(context, &program)?;
    context.printer.note(program.announcement());
    upgrade(context, context.printer).await
}

/// Refuses a command that would change the database beneath the home's release.
pub fn refuse_newer(context: &Context<'_>) -> Result<(), Error> {
    let Some(program) = newer(context) else { return Ok(()) };
    Err(Error::refused(format!("{}, but this home is at {}", program.origin(), program.installed))
        .hint("leoflow upgrade")
        .hint("or leoflow lite start, which upgrades it, too"))
}

/// Says that a setup upgrades the home first.
pub fn print_plan(context: &Context<'_>) {
    if let Some(program) = newer(context) {
        context.printer.note(program.announcement());
    }
}

/// Upgrades a stopped home to the release of this program before it is started: with a backup and a rehearsal, and back
/// after a failure.
pub async fn before_start(context: &Context<'_>, reporter: &dyn Reporter) -> Result<(), Error> {
    let home = &context.home;
    let can_open = cluster::state(home) == ClusterState::Ready && install::installed(home).is_some();
    if !can_open || newer(context).is_none() || control::status_of(home).is_some() {
        return Ok(());
    }
    context.operation().settle_change(DryRun::No).await?;
    // An interrupted upgrade may have been finished.
    let Some(program) = newer(context) else { return Ok(()) };
    refuse_failed(context, &program)?;
    reporter.note(program.announcement());
    upgrade(context, reporter).await.map_err(|error| with_start_of_installed(context, &program, error))
}

async fn upgrade(context: &Context<'_>, reporter: &dyn Reporter) -> Result<(), Error> {
    let release = TargetRelease::own()?;
    // The worker opens the datastore itself.
    let facts = Gathered::open(&context.operation(), "leoflow lite start").await?.facts;
    let plan = release.plan(&facts)?;
    plan.warnings.iter().for_each(|warning| reporter.warn(warning.clone()));
    release.add_own_program(&context.home)?;
    let (_, error) = watch_worker::run(context, &Upgrade::default().for_worker(&plan.to), &[], reporter).await?;
    error.map_or(Ok(()), Err)
}
