//! The arguments of `leoflow rollback`.

use clap::Args;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow rollback --dry-run         print what would be done, and what would be lost\n  \
                  leoflow rollback                   roll back to the release before the last upgrade\n  leoflow rollback --to 0.1.0        roll back to a release that `leoflow versions` lists"
)]
pub struct RollbackRelease {
    /// The version to roll back to [default: the one before the last upgrade]
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Print what would be done and what would be lost, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
    /// Started by `rollback`, which reads reports from stdout
    #[arg(long, hide = true)]
    pub worker: bool,
}
