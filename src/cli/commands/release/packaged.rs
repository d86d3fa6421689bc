//! A program that a package manager owns. The manager replaces the program; the program then brings each home to its own
//! release, with the steps of every upgrade.

use super::upgrade::args::Upgrade;
use super::upgrade::gather_facts;
use super::watch_worker;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::DryRun;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::control;
use leoflow_lifecycle::setup::{self, PackageOwner};
use leoflow_lifecycle::upgrade::facts;
use leoflow_lifecycle::upgrade::release::version_order;
use leoflow_lifecycle::upgrade::target_release::{Request, TargetRelease, earlier_failures};
use leoflow_postgres::cluster::{self, ClusterState};
use semver::Version;
use serde_json::json;

/// A program of a package manager, and the release of the home.
pub struct Packaged {
    owner: PackageOwner,
    own: Version,
    installed: Version,
}

/// Returns `None` for a program that no package manager owns.
pub fn packaged(context: &Context<'_>) -> Result<Option<Packaged>, Error> {
    let Some(owner) = setup::package_owner() else { return Ok(None) };
    let own = Version::parse(context.version).map_err(Error::bug)?;
    let installed = facts::installed_version(&context.home, context.version)?;
    Ok(Some(Packaged { owner, own, installed }))
}

impl Packaged {
    fn is_newer(&self) -> bool {
        version_order::compare(&self.own, &self.installed).is_gt()
    }

    /// True for a request that this program's own release answers.
    pub fn can_be_requested(&self, request: &Request<'_>) -> bool {
        let is_own =
            |version: &str| Version::parse(version.trim_start_matches('v')).is_ok_and(|version| version == self.own);
        self.is_newer() && request.from.is_none() && request.version.is_none_or(is_own)
    }

    pub fn refusal(&self) -> Error {
        let (own, owner) = (&self.own, self.owner.name());
        let error = Error::refused(format!("leoflow {own} belongs to {owner}, which upgrades it; nothing was changed"))
            .hint(self.owner.upgrade_command());
        match self.owner {
            PackageOwner::Uvx => error,
            _ => error.hint("then, for the instance: leoflow upgrade"),
        }
    }
}

/// The answer of `upgrade plan`: there is nothing that this program could do.
pub fn print_owner(context: &Context<'_>, program: &Packaged) -> Result<(), Error> {
    let command = program.owner.upgrade_command();
    let text = format!("leoflow {} belongs to {}, which upgrades it: {command}", program.own, program.owner.name());
    if context.printer.json {
        let status = json!({"status": "up_to_date", "version": program.installed, "warnings": [text]});
        return context.printer.json(&status);
    }
    context.printer.line(text);
    Ok(())
}

/// Warns that a running instance has an older release than this program.
pub fn warn_of_older_release(context: &Context<'_>) -> Result<(), Error> {
    if let Some(program) = packaged(context)?.filter(Packaged::is_newer) {
        let Packaged { owner, own, installed } = program;
        let text = format!("{} installed leoflow {own}, but {installed} is running: leoflow upgrade", owner.name());
        context.printer.warning(text);
    }
    Ok(())
}

/// Upgrades a stopped home to the release of this program before it is started: with a backup and a rehearsal, and back
/// after a failure.
pub async fn before_start(context: &Context<'_>, reporter: &dyn Reporter) -> Result<(), Error> {
    let home = &context.home;
    if cluster::state(home) != ClusterState::Ready || control::status_of(home).is_some() {
        return Ok(());
    }
    if packaged(context)?.is_none_or(|program| !program.is_newer()) {
        return Ok(());
    }
    context.recovery().settle_change(DryRun::No).await?;
    // An interrupted upgrade may have been finished.
    let Some(program) = packaged(context)?.filter(Packaged::is_newer) else { return Ok(()) };
    refuse_failed(context, &program)?;
    let Packaged { owner, own, installed } = &program;
    let text = format!("{} installed leoflow {own}: upgrading this home from {installed} first", owner.name());
    reporter.report(Progress::Note(text));
    upgrade(context, reporter).await.map_err(|error| error.hint(start_installed(context, installed)))
}

async fn upgrade(context: &Context<'_>, reporter: &dyn Reporter) -> Result<(), Error> {
    let release = TargetRelease::own()?;
    let gathered = gather_facts::gather(context, "leoflow lite start").await?;
    let plan = release.plan(&gathered.facts)?;
    // The worker opens the datastore itself.
    drop(gathered);
    plan.warnings.iter().for_each(|warning| reporter.report(Progress::Warning(warning.clone())));
    release.add_own_program(&context.home)?;
    let (_, error) = watch_worker::run(context, &Upgrade::default().for_worker(&plan.to), &[], reporter).await?;
    error.map_or(Ok(()), Err)
}

/// Refuses to repeat an upgrade that failed or was rolled back here: only the user knows whether the reason is gone.
fn refuse_failed(context: &Context<'_>, program: &Packaged) -> Result<(), Error> {
    let Some(reason) = earlier_failures(&context.home, &program.own).into_iter().next() else { return Ok(()) };
    let Packaged { own, installed, .. } = program;
    Err(Error::refused(format!("this home stays at leoflow {installed}: {reason}"))
        .hint(start_installed(context, installed))
        .hint(format!("to try again: leoflow upgrade {own}")))
}

fn start_installed(context: &Context<'_>, installed: &Version) -> String {
    format!("to go on with {installed}: {} lite start", context.home.bin().join("leoflow").display())
}
