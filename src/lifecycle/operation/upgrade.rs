//! Upgrades to another release: planned for the command and its dry run, performed by the worker that it starts.
//!
//! The worker is a process in a session of its own, so that closing the terminal does not end it. It plans again under
//! the operation lock with the same functions, because other commands may have changed the facts.

use super::change::{Change, Gathered};
use super::{OperationContext, OperationError};
use crate::contract::effects::{Uses, effects};
use crate::contract::{self, Contract};
use crate::setup::PackageOwner;
use crate::upgrade::plan::{Database, Instance, UpgradeFacts, UpgradePlan, UpgradeRefusal};
use crate::upgrade::release::{program, stage};
use crate::upgrade::rollback::history;
use crate::upgrade::target_release::{Purpose, Request, TargetError, TargetRelease, earlier_failures};
use crate::upgrade::{Outcome, OwnProgram, UpgradeError, facts, first_install};
use leoflow_base::build_info::build_info;
use leoflow_base::config::{self, Loaded};
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::progress::Reporter;
use leoflow_base::sys::env_vars;
use semver::Version;
use serde::Serialize;

const COMMAND: &str = "leoflow upgrade";

/// What an upgrade has to do.
pub enum Planned {
    Upgrade(PlannedUpgrade),
    /// Only the release's own program can plan the upgrade; for [`Purpose::Apply`] alone.
    HandOver(PlannedUpgrade),
    Unneeded(Unneeded),
}

/// Why there is nothing to do.
pub enum Unneeded {
    /// The refusal is `UpToDate`, `Ahead` or `Installed`.
    Installed {
        why: UpgradeRefusal,
        installed: Version,
        /// Reasons to doubt that the release host's manifest is current.
        warnings: Vec<String>,
    },
    /// A package manager upgrades the program; for [`Purpose::Show`] alone.
    Owned { own: Version, installed: Version, owner: PackageOwner },
}

/// A plan and the release that it goes to; serialized for `--json`.
#[derive(Serialize)]
pub struct PlannedUpgrade {
    #[serde(flatten)]
    pub plan: UpgradePlan,
    /// Seconds that requests waited during the last change of release; `None` if not measured.
    pub last_pause: Option<f64>,
    #[serde(skip)]
    pub release: TargetRelease,
}

impl OperationContext<'_> {
    /// Finds the requested release on this machine, at a release host or in this program, and plans the upgrade to it.
    pub async fn plan_upgrade(&self, request: Request<'_>, purpose: Purpose) -> Result<Planned, OperationError> {
        let settings = config::load(&self.home.config())?;
        let program = OwnProgram::of(self.home, self.version)?;
        let may_be_own = program.answers(&request);
        let mut release = match program.owner {
            Some(owner) if !may_be_own => {
                let (own, installed) = (program.version, program.installed);
                return match purpose {
                    Purpose::Show => Ok(Planned::Unneeded(Unneeded::Owned { own, installed, owner })),
                    Purpose::Apply => Err(TargetError::Owned { own, owner }.into()),
                };
            }
            Some(_) => TargetRelease::own()?,
            None => self.find_release(settings.as_ref(), request, may_be_own).await?,
        };
        let doubts = release.doubts(self.home, purpose, self.reporter);
        let facts = Gathered::open(self, COMMAND).await?.facts;
        refuse_older_program(self.home, &facts)?;
        let mut planned = release.plan(&facts);
        let is_nothing_newer = matches!(
            planned,
            Err(UpgradeRefusal::UpToDate(_) | UpgradeRefusal::Ahead { .. } | UpgradeRefusal::Unknown(_))
        );
        if may_be_own && is_nothing_newer {
            // The host offers nothing newer, but this program is.
            release = TargetRelease::own()?;
            planned = release.plan(&facts);
        }
        let plan = match planned {
            Ok(plan) => plan,
            Err(UpgradeRefusal::HandOver(plan)) if purpose == Purpose::Show => *plan,
            Err(UpgradeRefusal::HandOver(plan)) => {
                let plan = UpgradePlan { warnings: doubts, ..*plan };
                return Ok(Planned::HandOver(PlannedUpgrade { plan, last_pause: None, release }));
            }
            Err(why @ (UpgradeRefusal::UpToDate(_) | UpgradeRefusal::Ahead { .. } | UpgradeRefusal::Installed(_))) => {
                return Ok(Planned::Unneeded(Unneeded::Installed {
                    why,
                    installed: facts.installed,
                    warnings: doubts,
                }));
            }
            Err(refusal) => return Err(TargetError::from(refusal).into()),
        };
        Ok(Planned::Upgrade(with_warnings(self.home, settings, plan, doubts, release).await))
    }

    /// Finds the release that a program without a package manager upgrades to.
    async fn find_release(
        &self,
        settings: Option<&Loaded>,
        request: Request<'_>,
        may_be_own: bool,
    ) -> Result<TargetRelease, TargetError> {
        let config = settings.map(|loaded| &loaded.config);
        match TargetRelease::find(self.home, config, self.version, request).await {
            Err(TargetError::NoHost) if may_be_own => TargetRelease::own(),
            Err(error) if may_be_own && !matches!(error, TargetError::DevelopmentBuild) => {
                self.warn(error.to_string().replace('\n', " "));
                TargetRelease::own()
            }
            found => found,
        }
    }

    /// Plans the upgrade again under the operation lock and applies it. `reporter` reports the steps; this context
    /// reports to the log.
    pub async fn perform_upgrade(
        &self,
        request: Request<'_>,
        reporter: &dyn Reporter,
        cancelled: impl Future<Output = ()>,
    ) -> Result<Outcome, OperationError> {
        let home = self.home;
        let _operation_lock = OperationLock::take(home, COMMAND)?;
        self.refuse_interrupted_change()?;
        let config = self.running_config()?;
        let release = TargetRelease::find(home, Some(&config), self.version, request).await?;
        let mut gathered = Gathered::open(self, COMMAND).await?;
        let mut plan = release.plan(&gathered.facts).map_err(TargetError::from)?;
        if gathered.facts.database == Database::Applied(Vec::new()) {
            create_tables(home, &mut gathered).await?;
            plan = release.plan(&gathered.facts).map_err(TargetError::from)?;
        }
        let change = Change { plan, source: release.source(), no_rollback: request.no_rollback, reporter };
        change.apply(self, &config, gathered, cancelled).await
    }

    /// Installs a release into a home without an instance, for install.sh. Returns its version.
    pub async fn install_release(&self, request: Request<'_>) -> Result<Version, OperationError> {
        self.refuse_interrupted_change()?;
        Ok(first_install::install(self.home, request, self.reporter).await?)
    }
}

/// Adds warnings to the plan: the doubts about the release host, earlier failed upgrades to this release, and changes
/// of features that this home uses.
async fn with_warnings(
    home: &Home,
    settings: Option<Loaded>,
    mut plan: UpgradePlan,
    doubts: Vec<String>,
    release: TargetRelease,
) -> PlannedUpgrade {
    plan.warnings.extend(doubts);
    plan.warnings.extend(earlier_failures(home, &plan.to));
    if let (Some(settings), Ok(own)) = (settings, Contract::parse(build_info().contract.as_bytes()))
        && let Some(new) = release.contract(&plan.to).await
    {
        plan.warnings.extend(effects(&contract::compare(&own, &new), &Uses::of(&settings)));
    }
    PlannedUpgrade { plan, last_pause: history::last_pause(&history::history(home), None), release }
}

/// Refuses to upgrade when this program is older than the running release: it cannot rehearse on a schema that is newer
/// than its own.
fn refuse_older_program(home: &Home, facts: &UpgradeFacts) -> Result<(), TargetError> {
    let schema = match &facts.database {
        Database::Applied(applied) => applied.iter().map(|(version, _)| *version).max().unwrap_or(0),
        Database::Damaged(_) => 0,
    };
    let program = stage::program_of(home, &facts.installed);
    let is_behind = facts.instance != Instance::Stopped && schema > facts.own_schema;
    match is_behind && program::about(&program).is_ok() {
        true => {
            let (own, installed) = (facts.own_version.clone(), facts.installed.clone());
            Err(TargetError::OlderProgram { own, installed, program })
        }
        false => Ok(()),
    }
}

/// Creates the tables of the installed release, for an instance that was set up but never started: the backup before
/// the upgrade fails without tables.
async fn create_tables(home: &Home, gathered: &mut Gathered) -> Result<(), OperationError> {
    let installed = stage::program_of(home, &gathered.facts.installed);
    let program = match installed.exists() {
        true => installed,
        false => env_vars::current_exe().map_err(OperationError::io("find", env_vars::running_program()))?,
    };
    program::migrate(&program, home, None).map_err(UpgradeError::from)?;
    gathered.facts.database = facts::database(&gathered.datastore.connect().await?).await?;
    Ok(())
}
