//! The list of commands: their names and help, and the functions that run them.

use super::bring::{self, Bring};
use super::data::{connections, db, history, notify, pools, variables};
use super::engine::{add, assets, backfill, dags, dev, env, hitl, init, runs, tasks, test, validate, xcom};
use super::install::{completions, every_instance, instances, operation, setup, uninstall, version};
use super::lite::{self, Lite, LiteCommand, agent, doctor, logs, restart, run, service, status, stop};
use super::release::{data_migrate, migrate_db, rollback, set_channel, smoke, upgrade, versions};
use super::server::{Server, ServerProcess};
use super::{airflow, config, docs, tokens, verify_config};
use crate::airflow::export::{self, Export};
use crate::airflow::import::{self, Import};
use crate::args::help::Grouped;
use crate::args::output::WithOutput;
use crate::args::{Global, OutputFormat};
use crate::context::Context;
use crate::error::Error;
use clap::{Parser, Subcommand};
use leoflow_base::build_info;

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

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run Leoflow in this terminal; the first run sets it up
    Lite(Lite),
    /// Run in the background (same as `leoflow lite start`)
    #[command(hide = true)]
    Start(run::LiteRun),
    /// Stop Leoflow (same as `leoflow lite stop`)
    #[command(hide = true)]
    Stop(stop::LiteStop),
    /// Restart Leoflow (same as `leoflow lite restart`)
    #[command(hide = true)]
    Restart(restart::LiteRestart),
    /// Show the processes (same as `leoflow lite status`)
    #[command(hide = true)]
    Status(status::LiteStatus),
    /// Show the logs (same as `leoflow lite logs`)
    #[command(hide = true)]
    Logs(logs::Logs),
    /// Set up the home, the datastore and the workspace without starting Leoflow
    Setup(setup::Setup),
    /// Check the installation and show how to fix what is wrong
    Doctor(doctor::Doctor),
    /// Manage the service that starts Leoflow when you log in or the machine boots
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// List, create, clone and remove instances
    Instances(instances::Instances),
    /// List, read and change settings
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Manage API tokens for programs, such as coding agents
    Tokens(WithOutput<tokens::TokensCommand>),
    /// Open the documentation in a browser, or print it
    Docs(docs::Docs),
    /// Check config.yaml and the leoflow.yaml of each project
    VerifyConfig(verify_config::VerifyConfig),
    /// Apply pending schema migrations, or undo them
    MigrateDb(migrate_db::MigrateDb),
    /// Manage data migrations, which change rows in batches while the server runs
    DataMigrate(data_migrate::DataMigrate),
    /// List, trigger, pause and test DAGs
    Dags(WithOutput<dags::DagsCommand>),
    /// List, show, watch, clear and cancel DAG runs
    Runs(WithOutput<runs::RunsCommand>),
    /// List, clear and test tasks, and show their logs
    Tasks(WithOutput<tasks::TasksCommand>),
    /// List and read XComs, the values that tasks pass to one another
    Xcom(WithOutput<xcom::XcomCommand>),
    /// Import DAG files as the server does and report their errors
    Validate(validate::Validate),
    /// Import DAG files as they are saved, and show what changes in their DAGs
    Dev(dev::Dev),
    /// Run the tests of a project with pytest, and test its DAG files
    Test(test::Test),
    /// Create a project with a first DAG
    Init(init::Init),
    /// Run the DAGs of a repository that you have, as it is
    Bring(Bring),
    /// List, read, change, import and export variables
    Variables(WithOutput<variables::VariablesCommand>),
    /// List, read, change, test, import and export connections
    Connections(WithOutput<connections::ConnectionsCommand>),
    /// Export DAGs, variables, connections and history for Apache Airflow
    #[command(subcommand)]
    Export(Export),
    /// Import DAGs, variables, connections and pools from Apache Airflow
    #[command(subcommand)]
    Import(Import),
    /// Manage the Python environments of projects
    Env(WithOutput<env::EnvCommand>),
    /// Add packages to a project's dependencies and install them
    Add(add::Add),
    /// Manage pools, which limit how many tasks run at once
    Pools(WithOutput<pools::PoolsCommand>),
    /// Remove old history
    Db(WithOutput<db::DbCommand>),
    /// Bring removed history back
    History(WithOutput<history::HistoryCommand>),
    /// Test targets of notifications, and list their deliveries
    Notify(WithOutput<notify::NotifyCommand>),
    /// List assets and their events, and materialize an asset
    Assets(WithOutput<assets::AssetsCommand>),
    /// List and respond to human-in-the-loop tasks
    Hitl(WithOutput<hitl::HitlCommand>),
    /// Run a DAG for dates in the past
    Backfill(WithOutput<backfill::BackfillCommand>),
    /// Upgrade Leoflow to another release; your data stays
    Upgrade(upgrade::args::Upgrade),
    /// Roll back to an earlier release, with your data
    Rollback(rollback::args::RollbackRelease),
    /// List the releases kept on this machine
    Versions(versions::Versions),
    /// Set the channel that `upgrade` takes releases from
    SetChannel(set_channel::SetChannel),
    /// Test the running instance, from login to a task
    Smoke(smoke::SmokeArgs),
    /// Remove Leoflow; your data stays unless you add --purge
    Uninstall(uninstall::Uninstall),
    /// Print the version
    Version(version::Version),
    /// Print a shell completion script
    Completions(completions::Completions),
    /// Commands of Airflow that have no other form here (see `args/airflow`)
    #[command(hide = true)]
    Airflow(WithOutput<airflow::AirflowCommand>),
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

impl Grouped for Cli {
    const GROUPS: &'static [(&'static str, &'static [&'static str])] = &[
        ("Run", &["lite", "setup", "service", "instances"]),
        (
            "Author",
            &[
                "init", "bring", "add", "env", "validate", "dev", "test", "dags", "runs", "tasks", "backfill",
                "assets", "hitl",
            ],
        ),
        ("Operate", &["doctor", "smoke", "config", "verify-config", "notify", "tokens", "docs", "completions"]),
        ("Data", &["variables", "connections", "pools", "xcom", "db", "history", "export", "import"]),
        (
            "Release",
            &["upgrade", "rollback", "versions", "set-channel", "migrate-db", "data-migrate", "uninstall", "version"],
        ),
    ];
}

impl Command {
    /// True when the command acts on every instance of the user.
    pub(crate) fn is_for_all(&self) -> bool {
        match self {
            Self::Lite(Lite { command: Some(command), .. }) => command.is_for_all(),
            Self::Stop(args) => args.all.all,
            Self::Status(args) => args.all,
            Self::Upgrade(args) => args.all.all,
            _ => false,
        }
    }

    /// True when the command requires an existing instance, so that it does not report a misspelt name as a stopped
    /// instance.
    pub(crate) fn needs_instance(&self) -> bool {
        match self {
            Self::Lite(Lite { command, .. }) => command.as_ref().is_some_and(LiteCommand::needs_instance),
            Self::Stop(_) | Self::Restart(_) | Self::Status(_) | Self::Logs(_) => true,
            Self::Upgrade(_) | Self::Rollback(_) | Self::Versions(_) | Self::Smoke(_) => true,
            Self::Dags(_) | Self::Runs(_) | Self::Tasks(_) | Self::Xcom(_) | Self::Backfill(_) => true,
            Self::Assets(_)
            | Self::Hitl(_)
            | Self::Pools(_)
            | Self::Db(_)
            | Self::History(_)
            | Self::Notify(_)
            | Self::Variables(_)
            | Self::Connections(_) => true,
            Self::Env(_) | Self::Add(_) | Self::Tokens(_) | Self::Airflow(_) => true,
            Self::Bring(args) => !args.own,
            _ => false,
        }
    }

    /// True when the installed program of the instance runs the command. The other commands compare or change releases,
    /// act on no instance or on several, or are children of a process of a certain release.
    pub(crate) fn is_for_installed_program(&self) -> bool {
        match self {
            Self::Setup(_) | Self::Instances(_) | Self::Docs(_) => false,
            Self::Upgrade(_) | Self::Rollback(_) | Self::Versions(_) | Self::Uninstall(_) => false,
            Self::Version(_) | Self::Completions(_) => false,
            Self::Server(_) | Self::Agent | Self::DatastoreRelay | Self::Operation { .. } => false,
            Self::MigrateDb(args) => !args.supervised && !args.later,
            Self::Lite(args) if args.run.take_over => false,
            _ => !self.is_for_all(),
        }
    }

    /// True when the command starts the instance.
    pub(crate) fn starts_instance(&self) -> bool {
        match self {
            Self::Lite(Lite { command, .. }) => {
                matches!(command, None | Some(LiteCommand::Start(_) | LiteCommand::Restart(_)))
            }
            Self::Start(_) | Self::Restart(_) => true,
            _ => false,
        }
    }

    /// The value of `--output`.
    pub fn format(&self) -> Option<OutputFormat> {
        match self {
            Self::Dags(args) => args.output,
            Self::Runs(args) => args.output,
            Self::Tasks(args) => args.output,
            Self::Xcom(args) => args.output,
            Self::Variables(args) => args.output,
            Self::Connections(args) => args.output,
            Self::Env(args) => args.output,
            Self::Pools(args) => args.output,
            Self::Db(args) => args.output,
            Self::Notify(args) => args.output,
            Self::History(args) => args.output,
            Self::Assets(args) => args.output,
            Self::Hitl(args) => args.output,
            Self::Backfill(args) => args.output,
            Self::Airflow(args) => args.output,
            Self::Tokens(args) => args.output,
            _ => None,
        }
    }

    pub async fn run(self, context: &Context<'_>, server: &impl ServerProcess) -> Result<u8, Error> {
        match self {
            Self::Lite(Lite { run, command: None }) => lite::run::run(context, &run).await,
            Self::Lite(Lite { command: Some(command), .. }) => command.run(context).await,
            Self::Start(args) => LiteCommand::Start(args).run(context).await,
            Self::Stop(args) => LiteCommand::Stop(args).run(context).await,
            Self::Restart(args) => LiteCommand::Restart(args).run(context).await,
            Self::Status(args) => LiteCommand::Status(args).run(context).await,
            Self::Logs(args) => LiteCommand::Logs(args).run(context).await,
            Self::Setup(args) => setup::run(context, &args).await,
            Self::Doctor(args) => doctor::run(context, &args).await,
            Self::Service(args) => service::run(context, &args),
            Self::Instances(args) => instances::run(context, args.command.as_ref()).await,
            Self::Config(args) => config::run(context, &args),
            Self::Tokens(args) => tokens::run(context, &args.command),
            Self::Docs(args) => docs::run(context, &args),
            Self::VerifyConfig(_) => verify_config::run(context),
            Self::MigrateDb(args) => migrate_db::run(context, &args).await,
            Self::DataMigrate(args) => data_migrate::run(context, &args).await,
            Self::Dags(args) => dags::run(context, &args.command).await,
            Self::Runs(args) => runs::run(context, &args.command).await,
            Self::Tasks(args) => tasks::run(context, &args.command).await,
            Self::Xcom(args) => xcom::run(context, &args.command).await,
            Self::Validate(args) => validate::run(context, &args).await,
            Self::Dev(args) => dev::run(context, &args).await,
            Self::Test(args) => test::run(context, &args).await,
            Self::Init(args) => init::run(context, &args).await,
            Self::Variables(args) => variables::run(context, &args.command).await,
            Self::Connections(args) => connections::run(context, &args.command).await,
            Self::Export(Export::Airflow(args)) => export::airflow(context, &args).await,
            Self::Bring(args) => bring::run(context, &args).await,
            Self::Import(Import::Airflow(args)) => import::airflow(context, &args).await,
            Self::Env(args) => env::run(context, &args.command).await,
            Self::Add(args) => add::run(context, &args).await,
            Self::Pools(args) => pools::run(context, &args.command).await,
            Self::Db(args) => db::run(context, &args.command).await,
            Self::Notify(args) => notify::run(context, &args.command).await,
            Self::History(args) => history::run(context, &args.command).await,
            Self::Assets(args) => assets::run(context, &args.command).await,
            Self::Hitl(args) => hitl::run(context, &args.command).await,
            Self::Backfill(args) => backfill::run(context, &args.command).await,
            Self::Airflow(args) => airflow::run(context, &args.command).await,
            Self::Upgrade(args) if args.all.all => every_instance::upgrade(context, &args).await,
            Self::Upgrade(args) => upgrade::run(context, &args).await,
            Self::Rollback(args) => rollback::run(context, &args).await,
            Self::Versions(args) => versions::run(context, &args),
            Self::SetChannel(args) => set_channel::run(context, &args),
            Self::Smoke(_) => smoke::run(context).await,
            Self::Uninstall(args) => uninstall::run(context, &args),
            Self::Version(_) | Self::Completions(_) => {
                Err(Error::bug("a command that needs no home reached the dispatch of commands that need one"))
            }
            Self::Server(args) => server.run(context, &args).await,
            Self::Agent => agent::agent(context).await,
            Self::DatastoreRelay => agent::relay(context).await,
            Self::Operation { id } => operation::run(context, id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_program_runs_what_acts_on_its_instance() {
        let is_for_installed = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
            cli.command.is_for_installed_program()
        };
        for line in ["lite", "restart", "lite restore --input f", "migrate-db", "dags list", "config list", "doctor"] {
            assert!(is_for_installed(&format!("leoflow {line}")), "{line}");
        }
        for line in [
            "setup",
            "upgrade",
            "rollback",
            "versions",
            "uninstall",
            "lite --take-over",
            "lite stop --all",
            "migrate-db --supervised",
            "migrate-db --later",
            "agent",
        ] {
            assert!(!is_for_installed(&format!("leoflow {line}")), "{line}");
        }
    }
}
