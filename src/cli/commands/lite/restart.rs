//! `leoflow lite restart`, and the restart after an operation that stopped the instance.

use super::run::LiteRun;
use super::service::run_by_manager;
use super::start;
use super::start_check::{self, Starter};
use super::stop::running_port;
use crate::commands::release::packaged;
use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::config::{self, Config, running_settings};
use leoflow_base::protocol::child::RESTORE_OF_ROLLBACK;
use leoflow_base::protocol::control;
use leoflow_base::sys::env_vars;
use leoflow_lifecycle::operation::instance;
use leoflow_lifecycle::operation::instance::StoppedInstance;
use leoflow_lifecycle::setup::service::{self, Service};
use std::path::PathBuf;

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

pub async fn restart(context: &Context<'_>, args: &LiteRestart) -> Result<u8, Error> {
    start::refuse_other_workspace(context, args.workspace.as_deref())?;
    let status = control::status_of(&context.home);
    if args.if_needed {
        if status.is_none() {
            context.printer.line("Leoflow is not running, and was not started");
            return Ok(0);
        }
        let changed = changed_settings(context)?;
        if changed.is_empty() {
            context.printer.line("No changed setting needs a restart");
            return Ok(0);
        }
        context.printer.note(format!("Changed since the start: {}", changed.join(", ")));
    }
    if let Some(service) = status.as_ref().and_then(|status| service::running_with_pid(&context.home, status.pid)) {
        let pid = status.map_or(0, |status| status.pid);
        return restart_service(context, args, (&service, pid)).await;
    }
    match status {
        Some(status) if !status.detached && args.port.is_some_and(|port| running_port(context) != Some(port)) => {
            Err(Error::failed("Leoflow runs in a terminal, where its port cannot be changed")
                .hint("press Ctrl-C there, and start it again with --port"))
        }
        Some(status) if !status.detached && serves_elsewhere(context)? => {
            Err(Error::failed("Leoflow runs in a terminal, and config.yaml has another host or port")
                .hint("press Ctrl-C there, and start it again"))
        }
        // An instance in the foreground belongs to its terminal, so only its children are restarted.
        Some(status) if !status.detached => restart_in_place(context, status.pid).await,
        Some(_) => {
            let port = args.port.or_else(|| instance::requested_port(&context.home));
            check_and_upgrade(context, Starter::ThisCommand, port).await?;
            instance::stop_running(&context.home)?;
            start::run(context, &LiteRun { port, ..LiteRun::default() })
        }
        None => {
            start_check::run(context, Starter::ThisCommand)?;
            instance::stop_running(&context.home)?;
            start::run(context, &LiteRun { port: args.port, ..LiteRun::default() })
        }
    }
}

/// Lists the settings whose values differ from those of the running instance.
pub fn changed_settings(context: &Context<'_>) -> Result<Vec<&'static str>, Error> {
    let Some(loaded) = config::load(&context.home.config())? else { return Ok(Vec::new()) };
    let mut changed = running_settings::changed_since(&context.home, &loaded);
    let is_from_file = |setting: &str| !running_settings::is_from_variable(&loaded, setting);
    if let Some(port) = running_port(context) {
        let is_requested = instance::requested_port(&context.home).is_some();
        changed.extend((is_from_file("host") && !is_same_host(context, &loaded.config)).then_some("host"));
        changed.extend((is_from_file("port") && !is_requested && port != loaded.config.port).then_some("port"));
    }
    Ok(changed)
}

/// Restarts an instance that a service manager started, without taking it from the service manager.
async fn restart_service(
    context: &Context<'_>,
    args: &LiteRestart,
    (service, pid): (&Service, i32),
) -> Result<u8, Error> {
    if args.port.is_some_and(|port| running_port(context) != Some(port)) {
        return Err(Error::failed(format!("Leoflow runs as the service {}, on the configured port", service.unit()))
            .hint("leoflow config set port PORT, then leoflow lite restart"));
    }
    if !serves_elsewhere(context)? {
        return restart_in_place(context, pid).await;
    }
    check_and_upgrade(context, Starter::ServiceManager, None).await?;
    run_by_manager(context, |home| service.restart(home))?;
    context.printer.line("Leoflow was restarted");
    Ok(0)
}

/// Checks what the next start needs, then upgrades the running instance to the release of a newer program.
async fn check_and_upgrade(context: &Context<'_>, starter: Starter, port: Option<u16>) -> Result<(), Error> {
    start_check::run(context, starter)?;
    start_check::address(context, starter, port)?;
    start_check::surroundings(context, starter).await?;
    packaged::upgrade_running(context).await
}

/// True when a start would use another address than the running instance.
fn serves_elsewhere(context: &Context<'_>) -> Result<bool, Error> {
    let Some(config) = context.config()?.map(|loaded| loaded.config) else { return Ok(false) };
    let next_port = instance::requested_port(&context.home).unwrap_or(config.port);
    Ok(instance::running_address(&context.home)
        .is_some_and(|(_, port)| port != next_port || !is_same_host(context, &config)))
}

/// True when the running instance uses the configured host, or when its host is unknown because a variable set it.
fn is_same_host(context: &Context<'_>, config: &Config) -> bool {
    running_settings::recorded_host(&context.home).is_none_or(|host| host == config.host)
}

/// Restarts the children; the supervisor keeps running.
async fn restart_in_place(context: &Context<'_>, supervisor: i32) -> Result<u8, Error> {
    start_check::run(context, Starter::Supervisor(supervisor))?;
    start_check::surroundings(context, Starter::Supervisor(supervisor)).await?;
    start::restart_children(context)?;
    context.printer.line("Leoflow was restarted");
    packaged::warn_of_older_release(context);
    Ok(0)
}

/// Fails if the running instance, which an operation stops, could not listen at its address again.
pub fn check_address(context: &Context<'_>) -> Result<(), Error> {
    match env_vars::is_set(RESTORE_OF_ROLLBACK) {
        true => Ok(()),
        false => start_check::address(context, Starter::ThisCommand, instance::requested_port(&context.home)),
    }
}

/// Starts the instance again that was stopped for an operation.
pub fn start_again(context: &Context<'_>, stopped: StoppedInstance) -> Result<(), Error> {
    if env_vars::is_set(RESTORE_OF_ROLLBACK) {
        // The rollback itself starts the older release afterwards.
        return Ok(());
    }
    start::start(context, &LiteRun { port: stopped.requested_port, ..LiteRun::default() }).map(drop).map_err(|error| {
        Error {
            message: format!("the operation succeeded, but Leoflow failed to start again: {}", error.message),
            ..error
        }
    })
}
