//! The arguments of `leoflow lite`. Doc comments here are the text of `--help`.

use super::all::All;
use super::backup::{Backup, Backups, ResetPassword, Restore};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  leoflow lite                      run in this terminal; Ctrl-C stops it\n  leoflow lite --port 9000          run on another port\n  \
                  leoflow lite start                run in the background\n  leoflow lite logs -f server       follow the server's log"
)]
pub struct Lite {
    #[command(flatten)]
    pub run: LiteRun,
    #[command(subcommand)]
    pub command: Option<LiteCommand>,
}

#[derive(Args, Debug, Clone, Default)]
pub struct LiteRun {
    /// The TCP port for this run [default: the one in config.yaml, or 8088]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The folder with your projects [default: the one in config.yaml, or ~/leoflow]
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Started by `lite start`, which reads reports from stdout
    #[arg(long, hide = true)]
    pub report_to_stdout: bool,
    /// Started by a supervisor of another version that this process replaces
    #[arg(long, hide = true)]
    pub take_over: bool,
}

#[derive(Args, Debug)]
pub struct LiteStop {
    /// Stop running tasks without a confirmation prompt
    #[arg(long, short)]
    pub yes: bool,
    /// Wait until no task is running, then stop
    #[arg(long, conflicts_with = "yes")]
    pub wait: bool,
    #[command(flatten)]
    pub all: All,
}

#[derive(Args, Debug)]
pub struct LiteStatus {
    /// Show every instance of this user
    #[arg(long)]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct LiteRestart {
    /// The TCP port from now on, until the next stop [default: the current one]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Restart only when a changed setting requires it
    #[arg(long, conflicts_with = "port")]
    pub if_needed: bool,
    /// Not supported here; run `leoflow config set workspace DIR`
    #[arg(long, value_name = "DIR", hide = true)]
    pub workspace: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct MoveDatastore {
    /// The target: managed, docker, postgres://ROLE:PASSWORD@HOST/DATABASE, or file:/PATH or env:NAME that holds
    /// such a URL
    #[arg(long, value_name = "WHERE")]
    pub to: String,
    /// Check both datastores, print what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Skip the confirmation prompt
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Subcommand, Debug)]
pub enum LiteCommand {
    /// Run in the background; returns once Leoflow is healthy, or reports why it is not
    #[command(after_help = "Example:\n  leoflow lite start --port 9000")]
    Start(LiteRun),
    /// Stop Leoflow; your data stays
    #[command(
        after_help = "Examples:\n  leoflow lite stop\n  leoflow lite stop --wait   wait until no task is running\n  leoflow lite stop --all    stop every instance"
    )]
    Stop(LiteStop),
    /// Restart Leoflow, or start it if it is not running
    #[command(
        after_help = "Examples:\n  leoflow lite restart\n  leoflow lite restart --port 9000   use another port until the next stop\n  leoflow lite restart --if-needed   restart only when a changed setting requires it"
    )]
    Restart(LiteRestart),
    /// Show the processes and their health; exits 0 only when all are healthy
    #[command(
        after_help = "Examples:\n  leoflow lite status\n  leoflow lite status --json\n  leoflow lite status --all    show every instance"
    )]
    Status(LiteStatus),
    /// Show the logs of the processes
    #[command(
        after_help = "Examples:\n  leoflow lite logs              the last lines of every log\n  leoflow lite logs -f server    follow the server's log"
    )]
    Logs(Logs),
    /// Open psql on the datastore; arguments after -- are passed to psql
    #[command(after_help = "Examples:\n  leoflow lite psql\n  leoflow lite psql -- -c 'SELECT count(*) FROM dag_run'")]
    Psql(Psql),
    /// Create a backup: one file with all your data
    Backup(Backup),
    /// List, verify and prune backups
    Backups(Backups),
    /// Restore a backup, or undo the last restore
    Restore(Restore),
    /// Move your data to another datastore; the old one is kept
    #[command(
        after_help = "Examples:\n  leoflow lite move-datastore --to env:DATABASE_URL   move to your own PostgreSQL\n  leoflow lite move-datastore --to managed            move back to the home\n  leoflow lite move-datastore --to docker --dry-run   print what would be done"
    )]
    MoveDatastore(MoveDatastore),
    /// Reset the admin password and end every session
    ResetPassword(ResetPassword),
}

#[derive(Args, Debug)]
pub struct Logs {
    /// Keep printing new lines; Ctrl-C stops
    #[arg(long, short)]
    pub follow: bool,
    /// The number of last lines to print from each log
    #[arg(long, short = 'n', default_value_t = 50)]
    pub lines: usize,
    /// Only this process's log [default: all]
    #[arg(value_parser = ["supervisor", "postgres", "migrate", "server", "agent", "upgrade"])]
    pub process: Option<String>,
}

#[derive(Args, Debug)]
pub struct Psql {
    /// Arguments for psql, passed unchanged
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<std::ffi::OsString>,
}
