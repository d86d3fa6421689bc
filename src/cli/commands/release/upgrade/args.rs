//! The arguments of `leoflow upgrade`.

use crate::args::all::All;
use clap::{Args, Subcommand};
use leoflow_lifecycle::upgrade::target_release::Request;
use semver::Version;
use std::ffi::OsString;

#[derive(Args, Debug, Clone, Default)]
pub struct From {
    /// Where to find releases: a folder, a URL, or a file in the folder [default: upgrade.from in config.yaml, or the
    /// source of the current release]
    #[arg(long, value_name = "DIR|FILE|URL")]
    pub from: Option<String>,
}

#[derive(Args, Debug, Default)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  leoflow upgrade                      upgrade to the newest release of your channel\n  \
                  leoflow upgrade 0.3.0                upgrade to this release\n  leoflow upgrade --dry-run            print the plan only\n  \
                  leoflow upgrade --from /media/usb    upgrade from a folder instead of the network\n  \
                  leoflow upgrade --all                upgrade every instance, one after another"
)]
pub struct Upgrade {
    /// `stable`, `rc`, or a version such as 0.3.0 [default: the newest of your channel]
    pub version: Option<String>,
    #[command(flatten)]
    pub from: From,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
    /// With --yes, also upgrade from a release host whose manifest has expired or is older than one seen before
    #[arg(long)]
    pub accept_old_manifest: bool,
    /// Keep a failed release in place for debugging instead of rolling back
    #[arg(long)]
    pub no_rollback: bool,
    #[command(flatten)]
    pub all: All,
    /// Resume an interrupted upgrade, or roll it back if it cannot be completed
    #[arg(long, conflicts_with_all = ["version", "abort", "dry_run", "all"])]
    pub resume: bool,
    /// Roll back an interrupted upgrade
    #[arg(long, conflicts_with_all = ["version", "dry_run", "all"])]
    pub abort: bool,
    /// Started by `upgrade`, which reads reports from stdout
    #[arg(long, hide = true)]
    pub worker: bool,
    /// Install into a home without an instance; used by install.sh
    #[arg(long, hide = true)]
    pub install: bool,
    #[command(subcommand)]
    pub command: Option<UpgradeCommand>,
}

impl Upgrade {
    pub fn request(&self) -> Request<'_> {
        let (version, from) = (self.version.as_deref(), self.from.from.as_deref());
        Request { version, from, no_rollback: self.no_rollback }
    }

    /// The arguments of the worker that upgrades to this release.
    pub fn for_worker(&self, to: &Version) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["upgrade".into(), to.to_string().into(), "--yes".into()];
        arguments.push("--worker".into());
        if self.no_rollback {
            arguments.push("--no-rollback".into());
        }
        arguments
    }
}

#[derive(Subcommand, Debug)]
pub enum UpgradeCommand {
    /// Print what an upgrade would do and change nothing
    #[command(after_help = "Examples:\n  leoflow upgrade plan\n  leoflow upgrade plan 0.3.0 --json")]
    Plan(PlanArgs),
}

#[derive(Args, Debug)]
pub struct PlanArgs {
    /// `stable`, `rc`, or a version such as 0.3.0 [default: the newest of your channel]
    pub version: Option<String>,
    #[command(flatten)]
    pub from: From,
}
