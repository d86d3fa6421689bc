//! The commands on an instance: running it, its status, its logs.

pub mod agent;
pub mod doctor;
mod doctor_report;
pub mod logs;
pub mod port;
pub mod psql;
pub mod reset_password;
pub mod restart;
pub mod run;
pub mod service;
pub mod start;
pub mod start_check;
pub mod status;
pub mod stop;

use crate::commands::backup::{backups, create, move_datastore, restore, restore_args};
use crate::commands::install::every_instance;
use crate::context::Context;
use crate::error::Error;
use clap::{Args, Subcommand};

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  leoflow lite                      run in this terminal; Ctrl-C stops it\n  leoflow lite --port 9000          run on another port\n  \
                  leoflow lite start                run in the background\n  leoflow lite logs -f server       follow the server's log"
)]
pub struct Lite {
    #[command(flatten)]
    pub run: run::LiteRun,
    #[command(subcommand)]
    pub command: Option<LiteCommand>,
}

#[derive(Subcommand, Debug)]
pub enum LiteCommand {
    /// Run in the background; returns once Leoflow is healthy, or reports why it is not
    #[command(after_help = "Example:\n  leoflow lite start --port 9000")]
    Start(run::LiteRun),
    /// Stop Leoflow; your data stays
    #[command(
        after_help = "Examples:\n  leoflow lite stop\n  leoflow lite stop --wait   wait until no task is running\n  leoflow lite stop --all    stop every instance"
    )]
    Stop(stop::LiteStop),
    /// Restart Leoflow, or start it if it is not running
    #[command(
        after_help = "Examples:\n  leoflow lite restart\n  leoflow lite restart --port 9000   use another port until the next stop\n  leoflow lite restart --if-needed   restart only when a changed setting requires it"
    )]
    Restart(restart::LiteRestart),
    /// Show the processes and their health; exits 0 only when all are healthy
    #[command(
        after_help = "Examples:\n  leoflow lite status\n  leoflow lite status --json\n  leoflow lite status --all    show every instance\n  leoflow lite status --disk   show the disk space by kind"
    )]
    Status(status::LiteStatus),
    /// Show the logs of the processes
    #[command(
        after_help = "Examples:\n  leoflow lite logs              the last lines of every log\n  leoflow lite logs -f server    follow the server's log"
    )]
    Logs(logs::Logs),
    /// Open psql on the datastore; arguments after -- are passed to psql
    #[command(after_help = "Examples:\n  leoflow lite psql\n  leoflow lite psql -- -c 'SELECT count(*) FROM dag_run'")]
    Psql(psql::Psql),
    /// Create a backup: one file with all your data
    Backup(create::Backup),
    /// List, verify and prune backups
    Backups(backups::Backups),
    /// Restore a backup, or undo the last restore
    Restore(restore_args::Restore),
    /// Move your data to another datastore; the old one is kept
    #[command(
        after_help = "Examples:\n  leoflow lite move-datastore --to env:DATABASE_URL   move to your own PostgreSQL\n  leoflow lite move-datastore --to managed            move back to the home\n  leoflow lite move-datastore --to docker --dry-run   print what would be done"
    )]
    MoveDatastore(move_datastore::MoveDatastore),
    /// Reset the admin password and end every session
    ResetPassword(reset_password::ResetPassword),
}

impl LiteCommand {
    /// True when the command acts on every instance of the user.
    pub fn is_for_all(&self) -> bool {
        match self {
            Self::Stop(args) => args.all.all,
            Self::Status(args) => args.all,
            Self::Backup(args) => args.all.all,
            _ => false,
        }
    }

    /// True when the command acts on an instance that exists.
    pub fn needs_instance(&self) -> bool {
        !matches!(self, Self::Start(_) | Self::Restore(_))
    }

    pub async fn run(self, context: &Context<'_>) -> Result<u8, Error> {
        match self {
            Self::Start(args) => start::run(context, &args),
            Self::Stop(args) if args.all.all => every_instance::stop(context, &args).await,
            Self::Stop(args) => stop::stop(context, &args),
            Self::Restart(args) => restart::restart(context, &args).await,
            Self::Status(args) => status::run(context, &args),
            Self::Logs(args) => logs::run(context, &args),
            Self::Psql(args) => psql::run(context, &args).await,
            Self::Backup(args) if args.all.all => every_instance::backup(context, &args).await,
            Self::Backup(args) => create::run(context, &args).await,
            Self::Backups(args) => backups::run(context, &args).await,
            Self::Restore(args) => restore::run(context, &args).await,
            Self::MoveDatastore(args) => move_datastore::run(context, &args).await,
            Self::ResetPassword(args) => reset_password::run(context, &args).await,
        }
    }
}
