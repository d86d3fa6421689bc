//! `leoflow lite start`: `leoflow lite` in a session of its own. Its reports come over a pipe until
//! it is healthy or has failed.

use super::stop;
use crate::cli::args::LiteRun;
use crate::cli::report::{Ready, Report, Sink};
use crate::commands::context::Context;
use crate::config;
use crate::error::Error;
use crate::home::absolute_workspace;
use crate::home::progress::Reporter;
use crate::protocol::control;
use crate::protocol::status::InstanceState;
use crate::setup::{self, service};
use crate::supervisor;
use crate::sys::{command, env_vars, files};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Instant;

pub fn run(context: &Context<'_>, args: &LiteRun) -> Result<u8, Error> {
    if let Some(status) = control::status_of(&context.home)
        && matches!(status.state, InstanceState::Healthy | InstanceState::Damaged)
    {
        refuse_other(context, args.port, args.workspace.as_deref())?;
        status.reason.iter().for_each(|reason| context.printer.warning(reason));
        if context.printer.json {
            context.printer.json(&status)?;
        } else {
            context.printer.line(format!("Leoflow is already running at {} (pid {})", status.url, status.pid));
        }
        return Ok(0);
    }
    let ready = start(context, args)?;
    if context.printer.json {
        context.printer.json(&ready)?;
    } else {
        context.printer.ready(&ready);
    }
    if ready.admin_password.is_some() && !context.printer.reader_left() {
        setup::mark_password_shown(&context.home)?;
    }
    Ok(0)
}

/// What runs does not change where it serves, or what, because it is started once more.
fn refuse_other(context: &Context<'_>, port: Option<u16>, workspace: Option<&Path>) -> Result<(), Error> {
    refuse_other_workspace(context, workspace)?;
    let running = stop::running_port(context);
    match (port, running) {
        (Some(port), Some(running)) if port != running => {
            Err(Error::failed(format!("Leoflow runs already, on port {running}"))
                .hint(format!("leoflow lite restart --port {port}"))
                .hint(format!("from every start on: leoflow config set port {port}, then leoflow lite restart")))
        }
        _ => Ok(()),
    }
}

/// Another workspace is another decision than a start.
pub fn refuse_other_workspace(context: &Context<'_>, workspace: Option<&Path>) -> Result<(), Error> {
    let configured = config::load(&context.home.config())?.and_then(|loaded| loaded.config.workspace);
    let asked = workspace.map(absolute_workspace).transpose()?;
    match (configured, asked) {
        (Some(configured), Some(asked)) if configured != asked => {
            Err(setup::Refusal::OtherWorkspace { configured, asked }.into())
        }
        _ => Ok(()),
    }
}

/// Starts it and waits until it is healthy.
pub fn start(context: &Context<'_>, args: &LiteRun) -> Result<Ready, Error> {
    if let Some(ready) = start_service(context, args)? {
        return Ok(ready);
    }
    let reports = spawn_detached(context, args)?;
    for line in BufReader::new(reports).lines() {
        let line = line.map_err(Error::failed)?;
        match serde_json::from_str(&line) {
            Ok(Report::Progress(progress)) => context.printer.report(progress),
            Ok(Report::Ready(ready)) => return Ok(ready),
            Ok(Report::Failed(error)) => return Err(error),
            // Something else that printed there; it belongs in front of the user too.
            Ok(Report::Done { .. }) | Err(_) => context.printer.note(line),
        }
    }
    let last = supervisor::last_lines(&context.home, "supervisor", 10);
    Err(Error::failed("it ended before it was up").cause(last.join("\n")).hint("leoflow lite logs supervisor"))
}

/// By the service manager, where Leoflow is installed as a service: so it is restarted by it, and stopped with the session.
/// `None` where it is not, where this start is to be another than the service's, or where the manager is not reached.
fn start_service(context: &Context<'_>, args: &LiteRun) -> Result<Option<Ready>, Error> {
    let service = service::installed(&context.home)?;
    let Some(service) = service.filter(|_| args.port.is_none() && args.workspace.is_none()) else { return Ok(None) };
    if let Err(error) = service.check_manager() {
        context.printer.warning(format!("{error}; it is started without {}", service.unit()));
        return Ok(None);
    }
    let started = Instant::now();
    let failure = context.home.service_failure();
    files::remove_any(&failure).map_err(|error| Error::io("remove", &failure, &error))?;
    if let Err(error) = service::start(&service) {
        // It has written down why, with what to do about it.
        let reason = files::read_text(&failure, 64 * 1024).ok().flatten();
        return Err(reason.and_then(|json| Error::from_child(&json)).unwrap_or_else(|| error.into()));
    }
    let config = context.config()?.ok_or_else(|| Error::failed("config.yaml is gone").hint("leoflow doctor"))?.config;
    let status = control::status_of(&context.home).ok_or_else(|| {
        Error::failed(format!("{} was started and has ended", service.unit())).hint("leoflow lite logs supervisor")
    })?;
    if !matches!(status.state, InstanceState::Healthy | InstanceState::Damaged) {
        let reason = status.reason.unwrap_or_else(|| format!("it is {}", status.state));
        return Err(Error::failed(reason).hint("leoflow lite restart").hint("leoflow lite logs"));
    }
    context.printer.note(format!("started as the service {}", service.unit()));
    Ok(Some(Ready {
        url: status.url,
        admin_email: config.admin_email,
        admin_password: None,
        workspace: config.workspace.map(|path| path.display().to_string()).unwrap_or_default(),
        seconds: started.elapsed().as_secs_f64(),
        path_hint: context.path_hint(),
    }))
}

fn spawn_detached(context: &Context<'_>, args: &LiteRun) -> Result<ChildStdout, Error> {
    let program = env_vars::current_exe().map_err(Error::failed)?;
    let mut command = Command::new(&program);
    command.arg("--home").arg(context.home.root()).args(["lite", "--report-to-stdout"]);
    if context.printer.verbose {
        command.arg("--verbose");
    }
    if let Some(port) = args.port {
        command.arg("--port").arg(port.to_string());
    }
    if let Some(workspace) = &args.workspace {
        command.arg("--workspace").arg(workspace);
    }
    // A panic's last words belong somewhere. Before the first setup there is no place for them yet.
    let log = context.home.logs().join("supervisor.log");
    let errors =
        OpenOptions::new().append(true).create(true).mode(0o600).open(log).map_or_else(|_| Stdio::null(), Stdio::from);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    command::in_own_session(&mut command);
    let mut child = command.spawn().map_err(|error| Error::io("run", &program, &error))?;
    child.stdout.take().ok_or_else(|| Error::bug("a child with a piped stdout has none"))
}
