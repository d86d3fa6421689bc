//! One file a command: glue between arguments, features and the printer.

mod assets;
mod backfill;
mod backup;
mod backups;
mod completions;
mod config;
mod connection_test;
mod connections;
mod connections_format;
mod context;
mod dags;
mod dags_report;
mod dags_test;
mod datastore;
mod doctor;
mod init;
mod lite_control;
mod lite_logs;
mod lite_run;
mod lite_start;
mod migrate_db;
mod pools;
mod processes;
mod psql;
mod recovery;
mod replaced;
mod reset_password;
mod restore;
mod restore_target;
mod restore_undo;
mod rollback;
mod run_inputs;
mod run_view;
mod runs;
mod set_channel;
mod setup;
mod smoke;
mod status;
mod task_logs;
mod task_names;
mod tasks;
mod test_planner;
mod transfer_file;
mod uninstall;
mod upgrade;
mod upgrade_facts;
mod upgrade_install;
mod upgrade_worker;
mod validate;
mod variables;
mod verify_config;
mod version;
mod versions;
mod worker;
mod xcom;

use crate::agent;
use crate::cli::args::{Cli, Command, Lite, LiteCommand};
use crate::cli::printer::Printer;
use crate::error::Error;
use context::Context;

/// Runs what was asked for. The code is 0, or what a command that only tells has to tell.
pub fn run(cli: Cli, printer: &Printer) -> Result<u8, Error> {
    match &cli.command {
        Command::Completions(args) => return completions::run(args, printer),
        Command::Version(_) => return version::run(printer),
        // Neither a runtime nor a home: whatever happens to those, a task goes on.
        Command::KeepTask { folder } => {
            return agent::keep_task(&agent::TaskFolder::at(folder.clone())).map_err(Error::bug);
        }
        _ => {}
    }
    // One thread: Postgres's end is tied to the one that starts it, and idle memory counts.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::failed)?;
    let tasks = tokio::task::LocalSet::new();
    let outcome = tasks.block_on(&runtime, dispatch(cli, printer));
    // What still blocks a thread must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(cli: Cli, printer: &Printer) -> Result<u8, Error> {
    let context = Context::new(&cli.global, printer)?;
    match cli.command {
        Command::Lite(Lite { run, command: None }) => lite_run::run(&context, &run).await,
        Command::Lite(Lite { command: Some(command), .. }) => match command {
            LiteCommand::Start(run) => lite_start::run(&context, &run),
            LiteCommand::Stop(args) => lite_control::stop(&context, &args),
            LiteCommand::Restart(args) => lite_control::restart(&context, &args),
            LiteCommand::Status => status::run(&context),
            LiteCommand::Logs(args) => lite_logs::run(&context, &args),
            LiteCommand::Psql(args) => psql::run(&context, &args).await,
            LiteCommand::Backup(args) => backup::run(&context, &args).await,
            LiteCommand::Backups(args) => backups::run(&context, &args).await,
            LiteCommand::Restore(args) => restore::run(&context, &args).await,
            LiteCommand::ResetPassword(args) => reset_password::run(&context, &args).await,
        },
        Command::Start(run) => lite_start::run(&context, &run),
        Command::Stop(args) => lite_control::stop(&context, &args),
        Command::Restart(args) => lite_control::restart(&context, &args),
        Command::Status => status::run(&context),
        Command::Logs(args) => lite_logs::run(&context, &args),
        Command::Upgrade(args) => upgrade::run(&context, &args).await,
        Command::Rollback(args) => rollback::run(&context, &args).await,
        Command::Versions(_) => versions::run(&context),
        Command::SetChannel(args) => set_channel::run(&context, &args),
        Command::Smoke(_) => smoke::run(&context).await,
        Command::Uninstall(args) => uninstall::run(&context, &args),
        Command::Setup(args) => setup::run(&context, &args).await,
        Command::Doctor(args) => doctor::run(&context, &args).await,
        Command::Config(args) => config::run(&context, &args),
        Command::VerifyConfig(_) => verify_config::run(&context),
        Command::MigrateDb(args) => migrate_db::run(&context, &args).await,
        Command::Dags(args) => dags::run(&context, &args.command).await,
        Command::Runs(args) => runs::run(&context, &args.command).await,
        Command::Tasks(args) => tasks::run(&context, &args.command).await,
        Command::Xcom(args) => xcom::run(&context, &args.command).await,
        Command::Validate(args) => validate::run(&context, &args).await,
        Command::Init(args) => init::run(&context, &args),
        Command::Variables(args) => variables::run(&context, &args.command).await,
        Command::Pools(args) => pools::run(&context, &args.command).await,
        Command::Assets(args) => assets::run(&context, &args.command).await,
        Command::Backfill(args) => backfill::run(&context, &args.command).await,
        Command::Connections(args) => connections::run(&context, &args.command).await,
        Command::Server(args) => processes::server(&context, &args).await,
        Command::Agent => processes::agent(&context).await,
        Command::Version(_) | Command::Completions(_) | Command::KeepTask { .. } => {
            Err(Error::bug("this command needs no home and was run without one"))
        }
    }
}
