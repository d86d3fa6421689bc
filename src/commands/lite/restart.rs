//! `leoflow lite restart`, and the restart after what needed a stop.

use super::stop::{asked_port, running_address, running_port, stop_running};
use super::{run, start};
use crate::cli::args::{LiteRestart, LiteRun};
use crate::commands::context::Context;
use crate::config::{self, Config, in_force};
use crate::error::Error;
use crate::protocol::child::RESTORE_OF_ROLLBACK;
use crate::protocol::control;
use crate::setup::service::{self, Service};
use crate::sys::env_vars;
use crate::sys::listener;

pub fn restart(context: &Context<'_>, args: &LiteRestart) -> Result<u8, Error> {
    start::refuse_other_workspace(context, args.workspace.as_deref())?;
    let status = control::status_of(&context.home);
    if args.if_needed {
        if status.is_none() {
            context.printer.line("Leoflow is not running, and was not started");
            return Ok(0);
        }
        let changed = changed_settings(context)?;
        if changed.is_empty() {
            context.printer.line("No setting was changed that needs a restart");
            return Ok(0);
        }
        context.printer.note(format!("changed since the start: {}", changed.join(", ")));
    }
    if let Some(service) = status.as_ref().and_then(|status| service::running_as(&context.home, status.pid)) {
        return restart_service(context, args, &service);
    }
    match status {
        Some(status) if !status.detached && args.port.is_some_and(|port| running_port(context) != Some(port)) => {
            Err(Error::failed("Leoflow runs in a terminal, where its port stays what it is")
                .hint("end it there with Ctrl-C, and start it with --port"))
        }
        Some(status) if !status.detached && serves_elsewhere(context)? => {
            Err(Error::failed("config.yaml has another host or port, and Leoflow runs in a terminal")
                .hint("end it there with Ctrl-C, and start it again"))
        }
        // In the foreground it belongs to a terminal: its children are restarted in place.
        Some(status) if !status.detached => restart_in_place(context),
        Some(_) => {
            let port = args.port.or_else(|| asked_port(context));
            refuse_taken_port(context, port)?;
            stop_running(context)?;
            start::run(context, &LiteRun { port, ..LiteRun::default() })
        }
        None => {
            stop_running(context)?;
            start::run(context, &LiteRun { port: args.port, ..LiteRun::default() })
        }
    }
}

/// The settings that are another now than those that the instance runs with.
pub fn changed_settings(context: &Context<'_>) -> Result<Vec<&'static str>, Error> {
    let Some(loaded) = config::load(&context.home.config())? else { return Ok(Vec::new()) };
    let mut changed = in_force::changed_since(&context.home, &loaded);
    let is_of_file = |setting: &str| !in_force::is_of_variable(&loaded, setting);
    if let Some(port) = running_port(context) {
        let is_asked = asked_port(context).is_some();
        changed.extend((is_of_file("host") && !is_same_host(context, &loaded.config)).then_some("host"));
        changed.extend((is_of_file("port") && !is_asked && port != loaded.config.port).then_some("port"));
    }
    Ok(changed)
}

/// What a service manager has started stays its.
fn restart_service(context: &Context<'_>, args: &LiteRestart, service: &Service) -> Result<u8, Error> {
    if args.port.is_some_and(|port| running_port(context) != Some(port)) {
        return Err(Error::failed(format!("Leoflow runs as the service {}, on the configured port", service.unit()))
            .hint("leoflow config set port PORT, then leoflow lite restart"));
    }
    if !serves_elsewhere(context)? {
        return restart_in_place(context);
    }
    refuse_taken_port(context, None)?;
    service.restart()?;
    context.printer.line("Leoflow has restarted");
    Ok(0)
}

/// Whether a start would serve at another address than the instance that runs now.
fn serves_elsewhere(context: &Context<'_>) -> Result<bool, Error> {
    let Some(config) = context.config()?.map(|loaded| loaded.config) else { return Ok(false) };
    let next = asked_port(context).unwrap_or(config.port);
    Ok(running_address(context).is_some_and(|(_, port)| port != next || !is_same_host(context, &config)))
}

/// Where that is not known, because a variable said it, it is taken to be.
fn is_same_host(context: &Context<'_>, config: &Config) -> bool {
    in_force::host(&context.home).is_none_or(|host| host == config.host)
}

/// Before what works is stopped for it.
fn refuse_taken_port(context: &Context<'_>, asked: Option<u16>) -> Result<(), Error> {
    let Some(config) = context.config()?.map(|loaded| loaded.config) else { return Ok(()) };
    let port = asked.unwrap_or(config.port);
    match running_port(context) {
        Some(running) if running == port => Ok(()),
        _ => listener::bind_at(config.host, port)
            .map(drop)
            .map_err(|error| run::not_bound(config.host, port, &error).hint("nothing was stopped")),
    }
}

fn restart_in_place(context: &Context<'_>) -> Result<u8, Error> {
    start::restart_children(context)?;
    context.printer.line("Leoflow has restarted");
    Ok(0)
}

/// An instance that was stopped, and is to run again.
#[derive(Debug, Clone, Copy)]
pub struct WasRunning {
    /// When it was started with another port than the configured one.
    asked_port: Option<u16>,
}

impl WasRunning {
    /// What is to be known of it before it is stopped.
    pub fn of(context: &Context<'_>) -> Self {
        Self { asked_port: asked_port(context) }
    }

    pub fn restart(self, context: &Context<'_>) -> Result<(), Error> {
        if env_vars::is_set(RESTORE_OF_ROLLBACK) {
            // The rollback starts the release that is in force then.
            return Ok(());
        }
        start::start(context, &LiteRun { port: self.asked_port, ..LiteRun::default() }).map(drop).map_err(|error| {
            Error {
                message: format!("what was asked for is done, but Leoflow does not start again: {}", error.message),
                ..error
            }
        })
    }
}
