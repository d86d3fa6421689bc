//! Finds the release that an upgrade goes to and plans the upgrade, for `leoflow upgrade` and its dry run.

use super::own_program::OwnProgram;
use super::plan::{Database, Instance, UpgradeFacts, UpgradePlan, UpgradeRefusal};
use super::release::{program, stage};
use super::rollback::history;
use super::target_release::{Purpose, Request, TargetError, TargetRelease, earlier_failures};
use crate::contract::effects::{Uses, effects};
use crate::contract::{self, Contract};
use crate::setup::PackageOwner;
use leoflow_base::build_info::build_info;
use leoflow_base::config::{self, Loaded};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use semver::Version;
use serde::Serialize;

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

/// The release that an upgrade goes to, before the facts are known.
pub struct Planner<'a> {
    home: &'a Home,
    settings: Option<Loaded>,
    program: OwnProgram,
    /// True if this program's own release answers the request.
    may_be_own: bool,
    release: TargetRelease,
    purpose: Purpose,
    doubts: Vec<String>,
}

impl<'a> Planner<'a> {
    /// Finds the requested release on this machine, at a release host, or in this program.
    pub async fn find(
        home: &'a Home,
        own_version: &str,
        request: Request<'_>,
        purpose: Purpose,
        reporter: &dyn Reporter,
    ) -> Result<Self, TargetError> {
        let settings = config::load(&home.config())?;
        let config = settings.as_ref().map(|loaded| &loaded.config);
        let program = OwnProgram::of(home, own_version)?;
        let may_be_own = program.answers(&request);
        let release = match program.owner {
            None => match TargetRelease::find(home, config, own_version, request).await {
                Err(TargetError::NoHost) if may_be_own => TargetRelease::own()?,
                Err(error) if may_be_own && !matches!(error, TargetError::DevelopmentBuild) => {
                    reporter.report(Progress::Warning(error.to_string().replace('\n', " ")));
                    TargetRelease::own()?
                }
                found => found?,
            },
            Some(_) if may_be_own => TargetRelease::own()?,
            Some(owner) => {
                return Err(TargetError::Owned { own: program.version, installed: program.installed, owner });
            }
        };
        let doubts = release.doubts(home, purpose, reporter);
        Ok(Self { home, settings, program, may_be_own, release, purpose, doubts })
    }

    /// Plans the upgrade from the facts.
    pub async fn plan(mut self, facts: &UpgradeFacts) -> Result<Planned, TargetError> {
        self.refuse_older_program(facts)?;
        let mut planned = self.release.plan(facts);
        let is_nothing_newer = matches!(
            planned,
            Err(UpgradeRefusal::UpToDate(_) | UpgradeRefusal::Ahead { .. } | UpgradeRefusal::Unknown(_))
        );
        if self.may_be_own && is_nothing_newer {
            // The host offers nothing newer, but this program is.
            self.release = TargetRelease::own()?;
            planned = self.release.plan(facts);
        }
        match planned {
            Ok(plan) => Ok(Planned::Upgrade(self.with_warnings(plan).await)),
            Err(UpgradeRefusal::HandOver(plan)) if self.purpose == Purpose::Show => {
                Ok(Planned::Upgrade(self.with_warnings(*plan).await))
            }
            Err(UpgradeRefusal::HandOver(plan)) => {
                let plan = UpgradePlan { warnings: self.doubts, ..*plan };
                Ok(Planned::HandOver(PlannedUpgrade { plan, last_pause: None, release: self.release }))
            }
            Err(why @ (UpgradeRefusal::UpToDate(_) | UpgradeRefusal::Ahead { .. } | UpgradeRefusal::Installed(_))) => {
                let installed = facts.installed.clone();
                Ok(Planned::Unneeded(Unneeded::Installed { why, installed, warnings: self.doubts }))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Adds warnings to the plan: the doubts about the release host, earlier failed upgrades to this release, and
    /// changes of features that this home uses.
    async fn with_warnings(self, mut plan: UpgradePlan) -> PlannedUpgrade {
        plan.warnings.extend(self.doubts);
        plan.warnings.extend(earlier_failures(self.home, &plan.to));
        let own = Contract::parse(build_info().contract.as_bytes());
        if let (Some(settings), Ok(own)) = (self.settings, own)
            && let Some(new) = self.release.contract(&plan.to).await
        {
            plan.warnings.extend(effects(&contract::compare(&own, &new), &Uses::of(&settings)));
        }
        let last_pause = history::last_pause(&history::history(self.home), None);
        PlannedUpgrade { plan, last_pause, release: self.release }
    }

    /// Refuses to upgrade when this program is older than the running release: it cannot rehearse on a schema that is
    /// newer than its own.
    fn refuse_older_program(&self, facts: &UpgradeFacts) -> Result<(), TargetError> {
        let schema = match &facts.database {
            Database::Applied(applied) => applied.iter().map(|(version, _)| *version).max().unwrap_or(0),
            Database::Damaged(_) => 0,
        };
        let program = stage::program_of(self.home, &facts.installed);
        let is_behind = facts.instance != Instance::Stopped && schema > facts.own_schema;
        match is_behind && program::about(&program).is_ok() {
            true => Err(TargetError::OlderProgram {
                own: self.program.version.clone(),
                installed: facts.installed.clone(),
                program,
            }),
            false => Ok(()),
        }
    }
}
