//! One file per command: its arguments, and glue between features and the printer. `command.rs` lists them.

mod airflow;
mod backup;
mod bring;
mod command;
mod config;
mod config_file;
mod data;
mod docs;
mod engine;
mod install;
mod installed_program;
mod lite;
mod newer_schema_hint;
mod release;
pub mod server;
mod tokens;
mod verify_config;

use crate::context::Context;
use crate::error::{Error, Kind};
use crate::terminal::printer::Printer;
pub use command::{Cli, Command};
use leoflow_base::home::{HomeError, instances};
use leoflow_base::protocol::child::{SERVICE, SERVICE_OF_LAUNCHD};
use leoflow_base::sys::env_vars;
use server::ServerProcess;

/// Runs a command. Returns its exit code: 0, or another one for a result that is not an error of the command, such as
/// an unhealthy instance.
pub fn run(cli: Cli, printer: &Printer, server: &impl ServerProcess) -> Result<u8, Error> {
    match &cli.command {
        Command::Completions(args) => return install::completions::run(args, printer),
        Command::Version(_) => return install::version::run(printer),
        _ => {}
    }
    // Read before an upgrade can change the links on the way to it.
    env_vars::running_program();
    // One thread: PDEATHSIG ties Postgres to the thread that starts it, and one thread keeps idle memory low.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::failed)?;
    let tasks = tokio::task::LocalSet::new();
    let is_lite = matches!(cli.command, Command::Lite(_));
    let outcome = tasks.block_on(&runtime, dispatch(cli, printer, server));
    // A blocked worker thread must not keep the process alive.
    runtime.shutdown_background();
    outcome.or_else(|error| if is_lite { service_exit_code(error, printer) } else { Err(error) })
}

/// launchd starts a service again after each exit code but 0; systemd's unit lists those after which a start cannot help.
fn service_exit_code(error: Error, printer: &Printer) -> Result<u8, Error> {
    let is_of_launchd = env_vars::text(SERVICE).as_deref() == Some(SERVICE_OF_LAUNCHD);
    if is_of_launchd && matches!(error.kind, Kind::Usage | Kind::Refused) {
        printer.error(&error);
        return Ok(0);
    }
    Err(error)
}

async fn dispatch(cli: Cli, printer: &Printer, server: &impl ServerProcess) -> Result<u8, Error> {
    if cli.command.is_for_all() && (cli.global.home.is_some() || cli.global.instance.is_some()) {
        return Err(Error::usage("--all cannot be used with --home or --instance")
            .hint("leave one of them out; --only NAMES selects some of all instances"));
    }
    if matches!(&cli.command, Command::Bring(args) if args.own)
        && (cli.global.home.is_some() || cli.global.instance.is_some())
    {
        return Err(Error::usage("--own cannot be used with --home or --instance")
            .hint("leave one of them out; --name NAME names the instance"));
    }
    let context = Context::new(&cli.global, printer)?;
    if cli.command.needs_instance()
        && !context.home.exists()
        && let Some(name) = instances::name_of(&context.home).filter(|name| name != instances::DEFAULT)
    {
        return Err(HomeError::NoInstance(name).into());
    }
    installed_program::exec_instead_of_another(&context, &cli.command)?;
    let outcome = cli.command.run(&context, server).await;
    outcome.map_err(|error| newer_schema_hint::with_hint_to_newer_release(&context.home, error))
}
