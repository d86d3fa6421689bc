//! The arguments of `leoflow lite`. What is written here is what a newcomer reads in `--help`.

use super::all_args::All;
use super::backup_args::{Backup, Backups, ResetPassword, Restore};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  leoflow lite                      run; Ctrl-C stops it\n  leoflow lite --port 9000          on another port\n  \
                  leoflow lite start                run in the background\n  leoflow lite logs -f server       follow a log"
)]
pub struct Lite {
    #[command(flatten)]
    pub run: LiteRun,
    #[command(subcommand)]
    pub command: Option<LiteCommand>,
}

#[derive(Args, Debug, Clone, Default)]
pub struct LiteRun {
    /// Serve on this port, this time [default: 8088, or what config.yaml says]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The folder with your projects [default: ~/leoflow, or what config.yaml says]
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Started by `lite start`, which reads reports from stdout
    #[arg(long, hide = true)]
    pub report_to_stdout: bool,
    /// Executed by a supervisor of another version, in its place
    #[arg(long, hide = true)]
    pub take_over: bool,
}

#[derive(Args, Debug)]
pub struct LiteStop {
    /// End tasks that run, without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Wait until no task runs
    #[arg(long, conflicts_with = "yes")]
    pub wait: bool,
    #[command(flatten)]
    pub all: All,
}

#[derive(Args, Debug)]
pub struct LiteStatus {
    /// Of every instance of yours
    #[arg(long)]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct LiteRestart {
    /// Serve on this port [default: the one it has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Only when a setting was changed that is in force after a restart
    #[arg(long, conflicts_with = "port")]
    pub if_needed: bool,
    /// Not here: `leoflow config set workspace DIR`
    #[arg(long, value_name = "DIR", hide = true)]
    pub workspace: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct MoveDatastore {
    /// managed, docker, postgres://ROLE:PASSWORD@HOST/DATABASE, or file:/PATH or env:NAME with such a URL
    #[arg(long, value_name = "WHERE")]
    pub to: String,
    /// Look at both, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Subcommand, Debug)]
pub enum LiteCommand {
    /// Run in the background; returns when it is healthy, or says why it is not
    #[command(after_help = "Example:\n  leoflow lite start --port 9000")]
    Start(LiteRun),
    /// Stop Leoflow; your data stays
    #[command(
        after_help = "Examples:\n  leoflow lite stop\n  leoflow lite stop --wait   once no task runs\n  leoflow lite stop --all    every instance of yours"
    )]
    Stop(LiteStop),
    /// Stop and start again, or start if it does not run
    #[command(
        after_help = "Examples:\n  leoflow lite restart\n  leoflow lite restart --port 9000   on another port from now on, until it is stopped\n  leoflow lite restart --if-needed   after settings were changed"
    )]
    Restart(LiteRestart),
    /// Show the processes and their health; the exit code is 0 only when all is healthy
    #[command(
        after_help = "Examples:\n  leoflow lite status\n  leoflow lite status --json\n  leoflow lite status --all    every instance of yours"
    )]
    Status(LiteStatus),
    /// Show the logs of the processes
    #[command(
        after_help = "Examples:\n  leoflow lite logs              the last lines of all\n  leoflow lite logs -f server    follow one"
    )]
    Logs(Logs),
    /// Open the datastore's own psql; arguments after -- go to it
    #[command(after_help = "Examples:\n  leoflow lite psql\n  leoflow lite psql -- -c 'SELECT count(*) FROM dag_run'")]
    Psql(Psql),
    /// Copy everything you have into one file
    Backup(Backup),
    /// Backups: list those in the home, prove them
    Backups(Backups),
    /// Bring a backup back, or undo that
    Restore(Restore),
    /// Move your data to another datastore; the old one is kept
    #[command(
        after_help = "Examples:\n  leoflow lite move-datastore --to env:DATABASE_URL    to a PostgreSQL of yours\n  leoflow lite move-datastore --to managed            back under the home\n  leoflow lite move-datastore --to docker --dry-run   only say what would be done"
    )]
    MoveDatastore(MoveDatastore),
    /// Set a new admin password; every session ends
    ResetPassword(ResetPassword),
}

#[derive(Args, Debug)]
pub struct Logs {
    /// Go on with what is written from now on
    #[arg(long, short)]
    pub follow: bool,
    /// Begin with this many lines of each
    #[arg(long, short = 'n', default_value_t = 50)]
    pub lines: usize,
    /// Only this one
    #[arg(value_parser = ["supervisor", "postgres", "migrate", "server", "agent", "upgrade"])]
    pub process: Option<String>,
}

#[derive(Args, Debug)]
pub struct Psql {
    /// Given to psql as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<std::ffi::OsString>,
}
