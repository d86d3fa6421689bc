//! Brings a home to the release of this program, with the steps of every upgrade: a package manager has replaced the
//! program, or it was copied over the home's own.

use super::upgrade::args::Upgrade;
use super::upgrade::gather_facts;
use super::watch_worker;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::DryRun;
use leoflow_base::build_info;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::control;
use leoflow_lifecycle::setup::{self, PackageOwner};
use leoflow_lifecycle::upgrade::facts;
use leoflow_lifecycle::upgrade::release::{program, stage, version_order};
use leoflow_lifecycle::upgrade::target_release::{Request, TargetRelease, earlier_failures};
use leoflow_postgres::cluster::{self, ClusterState};
use leoflow_postgres::install;
use semver::Version;
use serde_json::json;

/// This program, and the release of the home.
pub struct Program {
    /// The package manager that owns the program.
    pub owner: Option<PackageOwner>,
    own: Version,
    installed: Version,
}

impl Program {
    pub fn of(context: &Context<'_>) -> Result<Self, Error> {
        let own = Version::parse(context.version).map_err(Error::bug)?;
        let installed = facts::installed_version(&context.home, context.version)?;
        Ok(Self { owner: setup::package_owner(), own, installed })
    }

    fn is_newer(&self) -> bool {
        version_order::compare(&self.own, &self.installed).is_gt()
    }

    /// True for a request that this program's own release answers.
    pub fn can_be_requested(&self, request: &Request<'_>) -> bool {
        let is_own =
            |version: &str| Version::parse(version.trim_start_matches('v')).is_ok_and(|version| version == self.own);
        self.is_newer() && request.from.is_none() && request.version.is_none_or(is_own)
    }

    pub fn refusal(&self, owner: PackageOwner) -> Error {
        let (own, name) = (&self.own, owner.name());
        let error = Error::refused(format!("leoflow {own} belongs to {name}, which upgrades it; nothing was changed"))
            .hint(owner.upgrade_command());
        match owner {
            PackageOwner::Uvx => error,
            _ => error.hint("then, for the instance: leoflow upgrade"),
        }
    }

    /// Says where the newer release comes from.
    fn origin(&self) -> String {
        match self.owner {
            Some(owner) => format!("{} installed leoflow {}", owner.name(), self.own),
            None => format!("this program is leoflow {}", self.own),
        }
    }

    fn announcement(&self) -> String {
        format!("{}: upgrading this home from {} first", self.origin(), self.installed)
    }

    /// Adds the hint that names the program of the home's release, unless this program was copied over it.
    fn with_start_of_installed(&self, context: &Context<'_>, error: Error) -> Error {
        let Self { owner, installed, .. } = self;
        let program = match owner {
            Some(_) => context.home.bin().join("leoflow"),
            // `bin/leoflow` may be this program.
            None => stage::program_of(&context.home, installed),
        };
        if !program::about(&program).is_ok_and(|about| about.version == installed.to_string()) {
            return error;
        }
        let home = context.printer.home_option();
        error.hint(format!("to go on with {installed}: {}{home} lite start", program.display()))
    }

    /// Refuses to repeat an upgrade that failed or was rolled back here: only the user knows whether the reason is
    /// gone.
    fn refuse_failed(&self, context: &Context<'_>) -> Result<(), Error> {
        let Some(reason) = earlier_failures(&context.home, &self.own).into_iter().next() else { return Ok(()) };
        let refused = Error::refused(format!("this home stays at leoflow {}: {reason}", self.installed));
        let refused = self.with_start_of_installed(context, refused);
        Err(refused.hint(format!("to try again: leoflow upgrade {}", self.own)))
    }
}

/// This program, if its release is newer than the home's. `None` for a development build that no package manager owns,
/// which is no release: its start migrates and records that. An unreadable version of the home counts as its own.
fn newer(context: &Context<'_>) -> Option<Program> {
    if setup::linked_version(&context.home).as_deref() == Some(context.version) {
        return None;
    }
    let program = Program::of(context).ok()?;
    (program.is_newer() && (program.owner.is_some() || !build_info::is_development())).then_some(program)
}

/// The answer of `upgrade plan`: there is nothing that this program could do.
pub fn print_owner(context: &Context<'_>, program: &Program, owner: PackageOwner) -> Result<(), Error> {
    let command = owner.upgrade_command();
    let text = format!("leoflow {} belongs to {}, which upgrades it: {command}", program.own, owner.name());
    if context.printer.json {
        let status = json!({"status": "up_to_date", "version": program.installed, "warnings": [text]});
        return context.printer.json(&status);
    }
    context.printer.line(text);
    Ok(())
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
    program.refuse_failed(context)?;
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
    context.recovery().settle_change(DryRun::No).await?;
    // An interrupted upgrade may have been finished.
    let Some(program) = newer(context) else { return Ok(()) };
    program.refuse_failed(context)?;
    reporter.report(Progress::Note(program.announcement()));
    upgrade(context, reporter).await.map_err(|error| program.with_start_of_installed(context, error))
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
