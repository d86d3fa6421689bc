//! One file per command: glue between arguments, features and the printer.

mod backup;
mod config;
mod data;
mod docs;
mod engine;
mod install;
mod lite;
mod newer_schema;
mod upgrade;
mod verify_config;

use crate::args::airflow::{Export, ExportCommand, Import, ImportCommand};
use crate::args::{Cli, Command, Lite, LiteCommand, LiteStop, Server};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::Printer;
use leoflow_base::home::{HomeError, instances};

/// Runs the server process: the program has it and this crate does not.
pub trait ServerProcess {
    fn run(&self, context: &Context<'_>, args: &Server) -> impl Future<Output = Result<u8, Error>>;
}

/// Runs a command. Returns its exit code: 0, or the result of a command that only reports a state.
pub fn run(cli: Cli, printer: &Printer, server: &impl ServerProcess) -> Result<u8, Error> {
    match &cli.command {
        Command::Completions(args) => return install::completions::run(args, printer),
        Command::Version(_) => return install::version::run(printer),
        _ => {}
    }
    // One thread: PDEATHSIG ties Postgres to the thread that starts it, and one thread keeps idle memory low.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::failed)?;
    let tasks = tokio::task::LocalSet::new();
    let outcome = tasks.block_on(&runtime, dispatch(cli, printer, server));
    // A blocked worker thread must not keep the process alive.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(cli: Cli, printer: &Printer, server: &impl ServerProcess) -> Result<u8, Error> {
    if cli.is_for_all() && (cli.global.home.is_some() || cli.global.instance.is_some()) {
        return Err(Error::usage("--all cannot be used with --home or --instance")
            .hint("leave one of them out; --only NAMES selects some of all instances"));
    }
    let context = Context::new(&cli.global, printer)?;
    if needs_instance(&cli.command)
        && !context.home.exists()
        && let Some(name) = instances::name_of(&context.home).filter(|name| name != instances::DEFAULT)
    {
        return Err(HomeError::NoInstance(name).into());
    }
    run_command(cli.command, &context, server)
        .await
        .map_err(|error| newer_schema::with_hint_to_newer_release(&context.home, error))
}

/// Whether the command acts on an instance that exists. Without one it would report a misspelt name as a stopped
/// instance.
fn needs_instance(command: &Command) -> bool {
    match command {
        Command::Lite(Lite { command, .. }) => {
            !matches!(command, None | Some(LiteCommand::Start(_) | LiteCommand::Restore(_)))
        }
        Command::Stop(_) | Command::Restart(_) | Command::Status(_) | Command::Logs(_) => true,
        Command::Upgrade(_) | Command::Rollback(_) | Command::Versions(_) | Command::Smoke(_) => true,
        _ => false,
    }
}

async fn run_command(command: Command, context: &Context<'_>, server: &impl ServerProcess) -> Result<u8, Error> {
    match command {
        Command::Lite(Lite { run, command: None }) => lite::run::run(context, &run).await,
        Command::Lite(Lite { command: Some(command), .. }) => match command {
            LiteCommand::Start(run) => lite::start::run(context, &run),
            LiteCommand::Stop(args) => stop(context, &args).await,
            LiteCommand::Restart(args) => lite::restart::restart(context, &args),
            LiteCommand::Status(args) => lite::status::run(context, &args),
            LiteCommand::Logs(args) => lite::logs::run(context, &args),
            LiteCommand::Psql(args) => lite::psql::run(context, &args).await,
            LiteCommand::Backup(args) if args.all.all => install::every_instance::backup(context, &args).await,
            LiteCommand::Backup(args) => backup::backup::run(context, &args).await,
            LiteCommand::Backups(args) => backup::backups::run(context, &args).await,
            LiteCommand::Restore(args) => backup::restore::run(context, &args).await,
            LiteCommand::MoveDatastore(args) => backup::move_datastore::run(context, &args).await,
            LiteCommand::ResetPassword(args) => lite::reset_password::run(context, &args).await,
        },
        Command::Start(run) => lite::start::run(context, &run),
        Command::Stop(args) => stop(context, &args).await,
        Command::Restart(args) => lite::restart::restart(context, &args),
        Command::Status(args) => lite::status::run(context, &args),
        Command::Logs(args) => lite::logs::run(context, &args),
        Command::Upgrade(args) if args.all.all => install::every_instance::upgrade(context, &args).await,
        Command::Upgrade(args) => upgrade::upgrade::run(context, &args).await,
        Command::Rollback(args) => upgrade::rollback::run(context, &args).await,
        Command::Versions(_) => upgrade::versions::run(context),
        Command::SetChannel(args) => upgrade::set_channel::run(context, &args),
        Command::Smoke(_) => upgrade::smoke::run(context).await,
        Command::Uninstall(args) => install::uninstall::run(context, &args),
        Command::Setup(args) => install::setup::run(context, &args).await,
        Command::Doctor(args) => lite::doctor::run(context, &args).await,
        Command::Service(args) => lite::service::run(context, &args.command),
        Command::Instances(args) => install::instances::run(context, args.command.as_ref()).await,
        Command::Docs(args) => docs::run(context, &args),
        Command::Config(args) => config::run(context, &args),
        Command::VerifyConfig(_) => verify_config::run(context),
        Command::MigrateDb(args) => upgrade::migrate_db::run(context, &args).await,
        Command::Export(Export { command: ExportCommand::Airflow(args) }) => {
            crate::airflow::export::airflow(context, &args).await
        }
        Command::Import(Import { command: ImportCommand::Airflow(args) }) => {
            crate::airflow::import::airflow(context, &args).await
        }
        Command::DataMigrate(args) => upgrade::data_migrate::run(context, &args).await,
        Command::Dags(args) => engine::dags::run(context, &args.command).await,
        Command::Runs(args) => engine::runs::run(context, &args.command).await,
        Command::Tasks(args) => engine::tasks::run(context, &args.command).await,
        Command::Xcom(args) => engine::xcom::run(context, &args.command).await,
        Command::Validate(args) => engine::validate::run(context, &args).await,
        Command::Init(args) => engine::init::run(context, &args).await,
        Command::Variables(args) => data::variables::run(context, &args.command).await,
        Command::Add(args) => engine::add::run(context, &args).await,
        Command::Env(args) => engine::env::run(context, &args.command).await,
        Command::Pools(args) => data::pools::run(context, &args.command).await,
        Command::Assets(args) => engine::assets::run(context, &args.command).await,
        Command::Hitl(args) => engine::hitl::run(context, &args.command).await,
        Command::Backfill(args) => engine::backfill::run(context, &args.command).await,
        Command::Connections(args) => data::connections::run(context, &args.command).await,
        Command::Server(args) => server.run(context, &args).await,
        Command::Operation { id } => install::operation::run(context, id),
        Command::DatastoreRelay => lite::agent::relay(context).await,
        Command::Agent => lite::agent::agent(context).await,
        Command::Version(_) | Command::Completions(_) => {
            Err(Error::bug("a command that needs no home reached the dispatch of those that do"))
        }
    }
}

async fn stop(context: &Context<'_>, args: &LiteStop) -> Result<u8, Error> {
    match args.all.all {
        true => install::every_instance::stop(context, args).await,
        false => lite::stop::stop(context, args),
    }
}
