//! The command-line arguments. Doc comments here are the text of `--help`.

pub mod airflow;
pub mod all;
pub mod asset;
pub mod backup;
pub mod complete;
pub mod config;
pub mod data;
pub mod data_migrate;
pub mod engine;
pub mod env;
pub mod help;
pub mod hitl;
pub mod instance;
pub mod lite;
pub mod output;
pub mod service;
pub mod task;
pub mod upgrade;

use airflow::{Export, Import};
use asset::Backfill as Backfills;
pub use asset::{Assets, AssetsCommand, BackfillCommand, Pools, PoolsCommand};
pub use backup::{Backup, Backups, BackupsCommand, Decryption, ResetPassword, Restore, Uninstall, VerifyBackups};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
pub use config::{Config, ConfigCommand};
pub use data::{AddConnection, Connections, ConnectionsCommand, OnExisting, Variables, VariablesCommand};
use data_migrate::DataMigrate;
use engine::{Dags, Init, Runs, Validate};
pub use env::{Add, Env, EnvCommand};
pub use hitl::{Hitl, HitlCommand, HitlRespond};
use instance::Instances;
use leoflow_base::build_info;
pub use lite::{Lite, LiteCommand, LiteRestart, LiteRun, LiteStatus, LiteStop, Logs, MoveDatastore, Psql};
pub use output::OutputFormat;
use service::Service;
use std::path::PathBuf;
use task::{Tasks, Xcom};
use upgrade::{RollbackRelease, SetChannel, Smoke, Upgrade, Versions};

#[derive(Parser, Debug)]
#[command(
    name = "leoflow",
    about = "Run Airflow-style DAGs on your laptop, with a built-in PostgreSQL",
    version = build_info::version(),
    arg_required_else_help = true,
    after_help = "Examples:\n  leoflow lite                        run in this terminal; the first run sets everything up\n  \
                  leoflow lite start                  run in the background\n  \
                  leoflow dags trigger hello --wait   run a DAG and follow it\n  \
                  leoflow lite status                 show the processes and their health\n  \
                  leoflow doctor                      find problems and how to fix them"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// The heading of the options that every command takes.
const GLOBAL: &str = "Global options";

#[derive(Args, Debug, Clone)]
pub struct Global {
    /// The home: the folder with all of Leoflow's files [default: LEOFLOW_HOME, or ~/.leoflow]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The name of the instance, whose home is ~/.leoflow-NAME [default: LEOFLOW_INSTANCE, or the default instance]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "NAME", conflicts_with = "home")]
    pub instance: Option<String>,
    /// Print the result as JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// Print times in UTC [default: this machine's time zone]
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub utc: bool,
    /// Print details of each step
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub verbose: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run Leoflow in this terminal; the first run sets it up
    Lite(Lite),
    /// Run in the background (same as `leoflow lite start`)
    #[command(hide = true)]
    Start(LiteRun),
    /// Stop Leoflow (same as `leoflow lite stop`)
    #[command(hide = true)]
    Stop(LiteStop),
    /// Restart Leoflow (same as `leoflow lite restart`)
    #[command(hide = true)]
    Restart(LiteRestart),
    /// Show the processes (same as `leoflow lite status`)
    #[command(hide = true)]
    Status(LiteStatus),
    /// Show the logs (same as `leoflow lite logs`)
    #[command(hide = true)]
    Logs(Logs),
    /// Set up the home, the datastore and the workspace without starting Leoflow
    Setup(Setup),
    /// Check the installation and show how to fix what is wrong
    Doctor(Doctor),
    /// Manage the service that starts Leoflow when you log in or the machine boots
    Service(Service),
    /// List, create, clone and remove instances
    Instances(Instances),
    /// List, read and change settings
    Config(Config),
    /// Open the documentation in a browser, or print it
    Docs(Docs),
    /// Check config.yaml and the leoflow.yaml of each project
    VerifyConfig(VerifyConfig),
    /// Apply pending schema migrations, or undo them
    MigrateDb(MigrateDb),
    /// Manage data migrations, which change rows in batches while the server runs
    DataMigrate(DataMigrate),
    /// List, trigger, pause and test DAGs
    Dags(Dags),
    /// List, show, watch, clear and cancel DAG runs
    Runs(Runs),
    /// List, clear and test tasks, and show their logs
    Tasks(Tasks),
    /// List and read XComs, the values that tasks pass to one another
    Xcom(Xcom),
    /// Import DAG files as the server does and report their errors
    Validate(Validate),
    /// Create a project with a first DAG
    Init(Init),
    /// List, read, change, import and export variables
    Variables(Variables),
    /// List, read, change, test, import and export connections
    Connections(Connections),
    /// Export DAGs, variables, connections and history for Apache Airflow
    Export(Export),
    /// Import DAGs, variables, connections and pools from Apache Airflow
    Import(Import),
    /// Manage the Python environments of projects
    Env(Env),
    /// Add packages to a project's dependencies and install them
    Add(Add),
    /// Manage pools, which limit how many tasks run at once
    Pools(Pools),
    /// List assets and their events, and materialize an asset
    Assets(Assets),
    /// List and respond to human-in-the-loop tasks
    Hitl(Hitl),
    /// Run a DAG for dates in the past
    Backfill(Backfills),
    /// Upgrade Leoflow to another release; your data stays
    Upgrade(Upgrade),
    /// Roll back to an earlier release, with your data
    Rollback(RollbackRelease),
    /// List the releases kept on this machine
    Versions(Versions),
    /// Set the channel that `upgrade` takes releases from
    SetChannel(SetChannel),
    /// Test the running instance, from login to a task
    Smoke(Smoke),
    /// Remove Leoflow; your data stays unless you add --purge
    Uninstall(Uninstall),
    /// Print the version
    Version(Version),
    /// Print a shell completion script
    Completions(Completions),
    /// Run the server process (started by `leoflow lite`)
    #[command(hide = true)]
    Server(Server),
    /// Run the agent process (started by `leoflow lite`)
    #[command(hide = true)]
    Agent,
    /// Relay between the home's socket and an external datastore (started by the supervisor)
    #[command(hide = true)]
    DatastoreRelay,
    /// Run an operation requested over the API (started by the server)
    #[command(hide = true)]
    Operation {
        /// The operation's id in the database
        id: u64,
    },
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow setup                                 set everything up\n  leoflow setup --dry-run                       print the plan only\n  leoflow setup --datastore env:DATABASE_URL    use your own PostgreSQL"
)]
pub struct Setup {
    /// The folder for your projects [default: ~/leoflow]
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// The TCP port to write to config.yaml [default: 8088]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The datastore: managed, docker, postgres://ROLE:PASSWORD@HOST/DATABASE, or file:/PATH or env:NAME that holds
    /// such a URL [default: managed]
    #[arg(long, value_name = "WHERE")]
    pub datastore: Option<String>,
    /// Never prompt
    #[arg(long)]
    pub non_interactive: bool,
    /// Add the home's `bin` folder to the PATH in your shell's startup files
    #[arg(long)]
    pub modify_path: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow doctor                 check only\n  leoflow doctor --fix --yes     apply the safe fixes"
)]
pub struct Doctor {
    /// Apply the safe fixes, which lose no data, after showing them
    #[arg(long)]
    pub fix: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow verify-config")]
pub struct VerifyConfig {}

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  leoflow migrate-db               apply pending migrations\n  leoflow migrate-db status        compare the database with this release\n  \
                  leoflow migrate-db rollback 2    undo version 2, the newest"
)]
pub struct MigrateDb {
    /// Print the migrations that would be applied and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not create a backup first
    #[arg(long)]
    pub no_backup: bool,
    /// Started by the supervisor
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// With --supervised: the database to migrate, for a rehearsal [default: the instance's own]
    #[arg(long, hide = true)]
    pub database: Option<String>,
    /// Started by the server: apply the post-deploy migrations that may run now
    #[arg(long, hide = true)]
    pub later: bool,
    #[command(subcommand)]
    pub command: Option<MigrateCommand>,
}

#[derive(Subcommand, Debug)]
pub enum MigrateCommand {
    /// Show the schema versions of the database and of this release, and pending migrations
    #[command(after_help = "Example:\n  leoflow migrate-db status --json")]
    Status,
    /// Undo the newest migration with its own rollback SQL
    #[command(
        after_help = "Examples:\n  leoflow migrate-db rollback 2         undo version 2, which must be the newest\n  \
                            leoflow migrate-db rollback --to 1    undo every version above 1"
    )]
    Rollback(Rollback),
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("extent").required(true).args(["version", "to"]))]
pub struct Rollback {
    /// The version to undo; it must be the newest
    #[arg(value_name = "VERSION")]
    pub version: Option<i64>,
    /// Undo every version above this one, newest first
    #[arg(long, value_name = "VERSION")]
    pub to: Option<i64>,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
    /// Do not create a backup first
    #[arg(long)]
    pub no_backup: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow docs                   open the table of contents\n  leoflow docs run-offline       open one page\n  \
                  leoflow docs run-offline --print | less"
)]
pub struct Docs {
    /// The name of a page, or the last part of it [default: the table of contents]
    pub page: Option<String>,
    /// Print the page as Markdown; without a browser or a running instance it is printed in any case
    #[arg(long)]
    pub print: bool,
    /// List every page with its title
    #[arg(long, conflicts_with_all = ["page", "print"])]
    pub list: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow version --json")]
pub struct Version {}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow completions bash > ~/.local/share/bash-completion/completions/leoflow")]
pub struct Completions {
    /// The shell to complete for
    pub shell: Shell,
}

#[derive(Args, Debug)]
pub struct Server {
    /// The port of the TCP listener
    #[arg(long)]
    pub port: u16,
    /// The database to serve, for a rehearsal [default: the instance's own]
    #[arg(long)]
    pub database: Option<String>,
    /// The path of the listener named `private`
    #[arg(long, value_name = "PATH")]
    pub private_socket: Option<PathBuf>,
}

impl Cli {
    /// True when the command acts on every instance of the user.
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
