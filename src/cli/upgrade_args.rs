//! The arguments of upgrades. What is written here is what a newcomer reads in `--help`.

use super::all_args::All;
use clap::{Args, Subcommand};

#[derive(Args, Debug, Default)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  leoflow upgrade                      to the newest release of your channel\n  \
                  leoflow upgrade 0.3.0                to this one\n  leoflow upgrade --dry-run            only say what would be done\n  \
                  leoflow upgrade --from /media/usb    from a folder instead of the network\n  \
                  leoflow upgrade --all                every instance of yours, one after another"
)]
pub struct Upgrade {
    /// `stable`, `rc`, or a version as 0.3.0 [default: the newest of your channel]
    pub version: Option<String>,
    #[command(flatten)]
    pub from: From,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Leave a release that fails as it is, to look into it
    #[arg(long)]
    pub no_rollback: bool,
    #[command(flatten)]
    pub all: All,
    /// Go on with an upgrade that was interrupted, or take it back
    #[arg(long, conflicts_with_all = ["version", "abort", "dry_run", "all"])]
    pub resume: bool,
    /// Take back an upgrade that was interrupted
    #[arg(long, conflicts_with_all = ["version", "dry_run", "all"])]
    pub abort: bool,
    /// Started by `upgrade`, which reads reports from stdout
    #[arg(long, hide = true)]
    pub worker: bool,
    /// Into a home without an instance; used by install.sh
    #[arg(long, hide = true)]
    pub install: bool,
    #[command(subcommand)]
    pub command: Option<UpgradeCommand>,
}

#[derive(Args, Debug, Clone, Default)]
pub struct From {
    /// Where releases are: a folder, a URL, or a file in the folder [default: upgrade.from in config.yaml, or where this release came from]
    #[arg(long, value_name = "DIR|FILE|URL")]
    pub from: Option<String>,
}

#[derive(Subcommand, Debug)]
pub enum UpgradeCommand {
    /// What an upgrade would do; changes nothing
    #[command(after_help = "Examples:\n  leoflow upgrade plan\n  leoflow upgrade plan 0.3.0 --json")]
    Plan(PlanArgs),
}

#[derive(Args, Debug)]
pub struct PlanArgs {
    /// `stable`, `rc`, or a version as 0.3.0 [default: the newest of your channel]
    pub version: Option<String>,
    #[command(flatten)]
    pub from: From,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow versions\n  leoflow versions --json")]
pub struct Versions {}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow set-channel rc      release candidates too")]
pub struct SetChannel {
    #[arg(value_parser = ["stable", "rc"])]
    pub channel: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow smoke\n  leoflow smoke --json")]
pub struct Smoke {}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow rollback --dry-run         what going back would do, and what it would lose\n  \
                  leoflow rollback                   to the version before the last upgrade\n  leoflow rollback --to 0.1.0        to this one, which `leoflow versions` lists"
)]
pub struct RollbackRelease {
    /// The version to go back to [default: the one before the last upgrade]
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Print what would be done and lost, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Started by `rollback`, which reads reports from stdout
    #[arg(long, hide = true)]
    pub worker: bool,
}
