//! The arguments. What is written here is what a newcomer reads in `--help`.

use super::asset_args::Backfill as Backfills;
pub use super::asset_args::{Assets, AssetsCommand, BackfillCommand, Pools, PoolsCommand};
pub use super::backup_args::{
    Backup, Backups, BackupsCommand, Decryption, ResetPassword, Restore, Uninstall, VerifyBackups,
};
use super::cluster_args::{Export, Import};
pub use super::config_args::{Config, ConfigCommand};
pub use super::data_args::{AddConnection, Connections, ConnectionsCommand, OnExisting, Variables, VariablesCommand};
use super::data_migrate_args::DataMigrate;
use super::engine_args::{Dags, Init, Runs, Validate};
pub use super::env_args::{Add, Env, EnvCommand};
pub use super::hitl_args::{Hitl, HitlCommand, HitlRespond};
use super::instance_args::Instances;
pub use super::lite_args::{Lite, LiteCommand, LiteRestart, LiteRun, LiteStatus, LiteStop, Logs, MoveDatastore, Psql};
pub use super::output_args::OutputFormat;
use super::service_args::Service;
use super::task_args::{Tasks, Xcom};
use super::upgrade_args::{RollbackRelease, SetChannel, Smoke, Upgrade, Versions};
use crate::build_info;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Parser, Debug)]
#[command(
    name = "leoflow",
    about = "Airflow-style DAGs on your laptop, with a Postgres of its own",
    version = build_info::version(),
    arg_required_else_help = true,
    after_help = "Examples:\n  leoflow lite                 set up (the first time) and run, in this terminal\n  \
                  leoflow lite start           the same in the background\n  leoflow dags trigger hello --wait     run a DAG, and watch it\n  leoflow lite status          its processes and their health\n  \
                  leoflow doctor               what is wrong, and how to mend it"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Debug, Clone)]
pub struct Global {
    /// The folder that Leoflow keeps everything in [default: ~/.leoflow, or LEOFLOW_HOME]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The instance by its name: the home ~/.leoflow-NAME [default: LEOFLOW_INSTANCE, or ~/.leoflow]
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "home")]
    pub instance: Option<String>,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print times in UTC [default: the zone of this machine]
    #[arg(long, global = true)]
    pub utc: bool,
    /// Tell more about what is being done
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run Leoflow in this terminal; the first time, set it up
    Lite(Lite),
    /// `leoflow lite start`
    #[command(hide = true)]
    Start(LiteRun),
    /// `leoflow lite stop`
    #[command(hide = true)]
    Stop(LiteStop),
    /// `leoflow lite restart`
    #[command(hide = true)]
    Restart(LiteRestart),
    /// `leoflow lite status`
    #[command(hide = true)]
    Status(LiteStatus),
    /// `leoflow lite logs`
    #[command(hide = true)]
    Logs(Logs),
    /// Make everything ready, without starting it
    Setup(Setup),
    /// Look for what is wrong, and say how to mend it
    Doctor(Doctor),
    /// Start Leoflow when you log in, or with the machine
    Service(Service),
    /// Instances: list, create, clone, remove
    Instances(Instances),
    /// Settings: list, read, change
    Config(Config),
    /// Check config.yaml, and the leoflow.yaml of each project
    VerifyConfig(VerifyConfig),
    /// Bring the database's schema up to date, or back
    MigrateDb(MigrateDb),
    /// Data migrations: what an upgrade changes batch by batch, beside the running server
    DataMigrate(DataMigrate),
    /// DAGs: list, trigger, pause, test
    Dags(Dags),
    /// Runs of a DAG: list, show, watch, clear, cancel
    Runs(Runs),
    /// Tasks: list, logs, clear
    Tasks(Tasks),
    /// XComs: what tasks left for one another
    Xcom(Xcom),
    /// Import DAG files as the server would, and say what is wrong with them
    Validate(Validate),
    /// Make a project with a first DAG
    Init(Init),
    /// Variables: list, read, change, import, export
    Variables(Variables),
    /// Connections: list, read, change, import, export
    Connections(Connections),
    /// Export everything, for Apache Airflow
    Export(Export),
    /// Import from Apache Airflow
    Import(Import),
    /// Environments: what is installed for projects
    Env(Env),
    /// Add to what a project depends on, and install it
    Add(Add),
    /// Pools: how much may run at once of what shares something
    Pools(Pools),
    /// Assets: what tasks make, and what waits for it
    Assets(Assets),
    /// Human in the loop: what tasks ask people, and your answers
    Hitl(Hitl),
    /// Run a DAG for dates in the past
    Backfill(Backfills),
    /// Replace Leoflow by another release; what you have stays
    Upgrade(Upgrade),
    /// Go back to a release before, with your data
    Rollback(RollbackRelease),
    /// The releases that are kept on this machine
    Versions(Versions),
    /// Which releases `upgrade` looks for
    SetChannel(SetChannel),
    /// Try whether everything works, from a login to a task
    Smoke(Smoke),
    /// Remove Leoflow; your data stays unless it is a purge
    Uninstall(Uninstall),
    /// Print the version
    Version(Version),
    /// Print a completion script for a shell
    Completions(Completions),
    /// The server process (started by `leoflow lite`)
    #[command(hide = true)]
    Server(Server),
    /// The agent process (started by `leoflow lite`)
    #[command(hide = true)]
    Agent,
    /// Between the home's socket and a datastore that is elsewhere; started by the supervisor
    #[command(hide = true)]
    DatastoreRelay,
    /// What the server was asked for (started by it)
    #[command(hide = true)]
    Operation { id: u64 },
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow setup                  make everything ready\n  leoflow setup --dry-run        only say what would be done\n  leoflow setup --datastore env:DATABASE_URL    your data in a PostgreSQL of yours"
)]
pub struct Setup {
    /// The folder for your projects [default: ~/leoflow]
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// The port to write into config.yaml [default: 8088]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Where your data shall be: managed, docker, postgres://ROLE:PASSWORD@HOST/DATABASE, or file:/PATH or env:NAME with
    /// such a URL [default: managed]
    #[arg(long, value_name = "WHERE")]
    pub datastore: Option<String>,
    /// Never ask anything
    #[arg(long)]
    pub non_interactive: bool,
    /// Put `bin/` on the PATH, in your shell's files
    #[arg(long)]
    pub modify_path: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow doctor\n  leoflow doctor --fix --yes     do the mends that lose nothing")]
pub struct Doctor {
    /// Do the mends that lose nothing, after showing them
    #[arg(long)]
    pub fix: bool,
    /// Do not ask before mending
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow verify-config")]
pub struct VerifyConfig {}

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  leoflow migrate-db               apply what is pending\n  leoflow migrate-db status        compare database and binary\n  \
                  leoflow migrate-db rollback 2    undo version 2, the newest"
)]
pub struct MigrateDb {
    /// Print what would be applied and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take no backup before it
    #[arg(long)]
    pub no_backup: bool,
    /// Started by the supervisor
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// With --supervised: another database of the datastore, for a rehearsal
    #[arg(long, hide = true)]
    pub database: Option<String>,
    /// Started by the server: what comes after an upgrade, as far as it may come now
    #[arg(long, hide = true)]
    pub later: bool,
    #[command(subcommand)]
    pub command: Option<MigrateCommand>,
}

#[derive(Subcommand, Debug)]
pub enum MigrateCommand {
    /// The database's version, the binary's, and what is pending
    #[command(after_help = "Example:\n  leoflow migrate-db status --json")]
    Status,
    /// Undo the newest migration, by the SQL that came with it
    #[command(
        after_help = "Examples:\n  leoflow migrate-db rollback 2         undo version 2, which must be the newest\n  \
                            leoflow migrate-db rollback --to 1    undo all above version 1"
    )]
    Rollback(Rollback),
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("extent").required(true).args(["version", "to"]))]
pub struct Rollback {
    /// The version to undo; it must be the newest
    #[arg(value_name = "VERSION")]
    pub version: Option<i64>,
    /// Undo everything above this version, newest first
    #[arg(long, value_name = "VERSION")]
    pub to: Option<i64>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Take no backup before it
    #[arg(long)]
    pub no_backup: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow version --json")]
pub struct Version {}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow completions bash > ~/.local/share/bash-completion/completions/leoflow")]
pub struct Completions {
    pub shell: Shell,
}

#[derive(Args, Debug)]
pub struct Server {
    /// The port that the TCP listener has
    #[arg(long)]
    pub port: u16,
    /// Another database of the datastore, for a rehearsal
    #[arg(long)]
    pub database: Option<String>,
    /// The path of the listener `private`
    #[arg(long, value_name = "PATH")]
    pub private_socket: Option<PathBuf>,
}

impl Cli {
    /// Whether it is for every instance of the user.
    pub fn is_for_all(&self) -> bool {
        match &self.command {
            Command::Lite(Lite { command: Some(command), .. }) => match command {
                LiteCommand::Stop(args) => args.all.all,
                LiteCommand::Status(args) => args.all,
                LiteCommand::Backup(args) => args.all.all,
                _ => false,
            },
            Command::Stop(args) => args.all.all,
            Command::Status(args) => args.all,
            Command::Upgrade(args) => args.all.all,
            _ => false,
        }
    }

    pub fn format(&self) -> Option<OutputFormat> {
        let output = match &self.command {
            Command::Dags(args) => &args.output,
            Command::Runs(args) => &args.output,
            Command::Tasks(args) => &args.output,
            Command::Xcom(args) => &args.output,
            Command::Variables(args) => &args.output,
            Command::Connections(args) => &args.output,
            Command::Env(args) => &args.output,
            Command::Pools(args) => &args.output,
            Command::Assets(args) => &args.output,
            Command::Hitl(args) => &args.output,
            Command::Backfill(args) => &args.output,
            _ => return None,
        };
        output.output
    }
}
