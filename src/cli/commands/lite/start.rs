//! `leoflow lite start`: runs `leoflow lite` in its own session, and reads its reports from a pipe until it is
//! healthy or has failed.

use super::run::LiteRun;
use super::service::run_by_manager;
use super::stop;
use crate::commands::release::packaged;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::report::{Ready, Report, Sink};
use leoflow_base::config;
use leoflow_base::home::absolute_workspace;
use leoflow_base::home::progress::Reporter;
use leoflow_base::protocol::control::{self, Answer, ControlClient, Request};
use leoflow_base::protocol::status::{InstanceState, InstanceStatus};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::command;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_lifecycle::operation::instance::STOP_LIMIT;
use leoflow_lifecycle::setup::{self, service};
use leoflow_processes::supervisor;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time in which an instance restarts an exited process.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// Timeout of a restart, which may include a database recovery.
const RESTART_TIMEOUT: Duration = Duration::from_secs(330);
/// Time for a child to exit after it has closed its report pipe.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum numbers of bytes and lines of the child's stderr that are shown.
const STDERR_LIMIT: u64 = 64 * 1024;
const MAX_LINES: usize = 10;
const SIGKILL: i32 = 9;

pub fn run(context: &Context<'_>, args: &LiteRun) -> Result<u8, Error> {
    match control::status_of(&context.home) {
        Some(status) if matches!(status.state, InstanceState::Healthy | InstanceState::Damaged) => {
            refuse_other(context, args.port, args.workspace.as_deref())?;
            return show_running(context, &status);
        }
        Some(status) if matches!(status.state, InstanceState::Degraded | InstanceState::Failed) => {
            refuse_other(context, args.port, args.workspace.as_deref())?;
            if let Some(code) = revive(context, status)? {
                return Ok(code);
            }
        }
        _ => {}
    }
    let ready = start(context, args)?;
    context.printer.show(&ready, |printer| {
        printer.ready(&ready);
    })?;
    if ready.admin_password.is_some() && !context.printer.stdout_closed() {
        setup::mark_password_shown(&context.home)?;
    }
    Ok(0)
}

/// Refuses a start with another port or workspace than the running instance's.
fn refuse_other(context: &Context<'_>, port: Option<u16>, workspace: Option<&Path>) -> Result<(), Error> {
    refuse_other_workspace(context, workspace)?;
    let running = stop::running_port(context);
    match (port, running) {
        (Some(port), Some(running)) if port != running => {
            Err(Error::failed(format!("Leoflow is already running on port {running}"))
                .hint(format!("leoflow lite restart --port {port}"))
                .hint(format!("to change it permanently: leoflow config set port {port}, then leoflow lite restart")))
        }
        _ => Ok(()),
    }
}

fn show_running(context: &Context<'_>, status: &InstanceStatus) -> Result<u8, Error> {
    packaged::warn_of_older_release(context);
    status.reason.iter().for_each(|reason| context.printer.warning(reason));
    context.printer.show(status, |printer| {
        printer.line(format!("Leoflow is already running at {} (pid {})", status.url, status.pid));
    })
}

/// Waits a moment for an unhealthy instance, then restarts its processes. Returns `None` if it has stopped in the
/// meantime.
fn revive(context: &Context<'_>, mut status: InstanceStatus) -> Result<Option<u8>, Error> {
    let wait_start = Instant::now();
    let is_stopping = |status: &InstanceStatus| status.processes.iter().any(|process| process.state == "stopping");
    while status.state == InstanceState::Degraded
        && wait_start.elapsed() < if is_stopping(&status) { STOP_LIMIT } else { SETTLE_TIME }
    {
        std::thread::sleep(Duration::from_millis(100));
        match control::status_of(&context.home) {
            Some(current) => status = current,
            None => return Ok(None),
        }
    }
    if status.state == InstanceState::Healthy {
        return show_running(context, &status).map(Some);
    }
    let reason = status.reason.clone().unwrap_or_else(|| format!("it is {}", status.state));
    if status.processes.iter().all(|process| process.state == "running") {
        // The cause is outside its processes, so a restart may not help.
        let text = format!("Leoflow is already running at {}, but does not work: {reason}", status.url);
        return Err(Error::failed(text).hint("leoflow lite status").hint("leoflow lite restart"));
    }
    context.printer.warning(format!("Leoflow is running at {}, but {reason}; restarting its processes", status.url));
    restart_children(context)?;
    match control::status_of(&context.home) {
        Some(status) => show_running(context, &status).map(Some),
        None => Ok(None),
    }
}

/// Restarts the children of the running supervisor and waits until all are up.
pub fn restart_children(context: &Context<'_>) -> Result<(), Error> {
    let home = &context.home;
    let is_silent = |error| Error::failed("the supervisor does not respond").cause(error).hint("leoflow lite status");
    let mut client = ControlClient::connect(home).map_err(is_silent)?.ok_or_else(Error::not_running)?;
    match client.ask(&Request::Restart, RESTART_TIMEOUT) {
        Ok(Answer::Error(reason)) => Err(Error::from_child(&reason)
            .unwrap_or_else(|| Error::failed(reason).hint("leoflow lite status"))
            .hint("the supervisor keeps retrying with increasing pauses; see leoflow lite logs")),
        Ok(_) => Ok(()),
        Err(error) => Err(is_silent(error)),
    }
}

/// Refuses `--workspace` with another folder than the configured one.
pub fn refuse_other_workspace(context: &Context<'_>, workspace: Option<&Path>) -> Result<(), Error> {
    let configured = config::load(&context.home.config())?.and_then(|loaded| loaded.config.workspace);
    let requested = workspace.map(absolute_workspace).transpose()?;
    match (configured, requested) {
        (Some(configured), Some(requested)) if configured != requested => {
            Err(setup::Refusal::OtherWorkspace { configured, requested }.into())
        }
        _ => Ok(()),
    }
}

/// Starts the instance and waits until it is healthy.
pub fn start(context: &Context<'_>, args: &LiteRun) -> Result<Ready, Error> {
    if let Some(ready) = start_service(context, args)? {
        return Ok(ready);
    }
    let mut detached = Detached::spawn(context, args)?;
    let reports = detached.child.stdout.take().ok_or_else(|| Error::bug("a child with a piped stdout has none"))?;
    for line in BufReader::new(reports).lines() {
        let line = line.map_err(Error::failed)?;
        match serde_json::from_str(&line) {
            Ok(Report::Progress(progress)) => context.printer.report(progress),
            Ok(Report::Ready(ready)) => return Ok(ready),
            Ok(Report::Failed(error)) => return Err(error),
            // Other output of the child is shown to the user too.
            Ok(Report::Done { .. }) | Err(_) => context.printer.note(line),
        }
    }
    Err(detached.ended_early(context))
}

/// Starts an installed service, so that the service manager restarts it and stops it with the session. Returns `None`
/// when no service is installed, when the arguments differ from the service's, or when the manager is not reachable.
fn start_service(context: &Context<'_>, args: &LiteRun) -> Result<Option<Ready>, Error> {
    let service = service::installed(&context.home)?;
    let Some(service) = service.filter(|_| args.port.is_none() && args.workspace.is_none()) else { return Ok(None) };
    if let Err(error) = service.check_manager() {
        context.printer.warning(format!("{error}; starting without {}", service.unit()));
        return Ok(None);
    }
    let started = Instant::now();
    run_by_manager(context, |home| service.start(home))?;
    let config =
        context.config()?.ok_or_else(|| Error::failed("config.yaml is missing").hint("leoflow doctor"))?.config;
    let status = control::status_of(&context.home).ok_or_else(|| {
        Error::failed(format!("{} ended right after its start", service.unit())).hint("leoflow lite logs supervisor")
    })?;
    if !matches!(status.state, InstanceState::Healthy | InstanceState::Damaged) {
        let reason = status.reason.unwrap_or_else(|| format!("it is {}", status.state));
        return Err(Error::failed(reason).hint("leoflow lite restart").hint("leoflow lite logs"));
    }
    context.printer.note(format!("Started as the service {}", service.unit()));
    packaged::warn_of_older_release(context);
    Ok(Some(Ready {
        url: status.url,
        admin_email: config.admin_email,
        admin_password: None,
        workspace: config.workspace.map(|path| path.display().to_string()).unwrap_or_default(),
        seconds: started.elapsed().as_secs_f64(),
        path_hint: context.path_hint(),
    }))
}

/// A `leoflow lite` in its own session.
struct Detached {
    child: Child,
    /// The file of the child's stderr, and the byte offset at which its output begins.
    errors: Option<(File, u64)>,
}

impl Detached {
    fn spawn(context: &Context<'_>, args: &LiteRun) -> Result<Self, Error> {
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
        // The child's stderr, such as a panic message, goes to the log. Before the first setup there is no log folder,
        // so stderr goes to a file in memory.
        let log = context.home.logs().join("supervisor.log");
        let log = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(log);
        let errors = log.or_else(|_| files::in_memory("leoflow-start")).ok();
        let errors =
            errors.and_then(|file| Some((file.metadata().ok()?.len(), file))).map(|(offset, file)| (file, offset));
        let stderr = errors.as_ref().and_then(|(file, _)| file.try_clone().ok()).map_or_else(Stdio::null, Stdio::from);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        command::in_own_session(&mut command);
        let child = command::spawn(&mut command).map_err(Error::cannot("run", &program))?;
        Ok(Self { child, errors })
    }

    /// The error of a child that closed its report pipe before it was healthy.
    fn ended_early(mut self, context: &Context<'_>) -> Error {
        let exit = self.exit();
        let text = match exit {
            Some(exit) => format!("Leoflow ended during its start: {exit}"),
            None => "Leoflow closed its report pipe during its start, but is still running".to_owned(),
        };
        let error = Error::failed(text).cause(self.stderr_tail(context));
        let error = match exit {
            Some(Exit::Signal(SIGKILL)) => {
                error.hint("if memory ran out, the kernel's log says so: journalctl -k, or dmesg")
            }
            Some(Exit::Signal(_)) => error.hint("check the resource limits: ulimit -a"),
            _ => error,
        };
        error.hint("leoflow lite logs supervisor")
    }

    /// Waits for the child's exit; `None` if it still runs.
    fn exit(&mut self) -> Option<Exit> {
        let deadline = Instant::now() + EXIT_TIMEOUT;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status.into()),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                _ => return None,
            }
        }
    }

    /// The last lines of the child's stderr, without those of an earlier run.
    fn stderr_tail(&mut self, context: &Context<'_>) -> String {
        let mut bytes = Vec::new();
        let offset = self.errors.as_ref().map_or(0, |(_, offset)| *offset);
        if let Some((file, offset)) = &mut self.errors {
            // On a read error, the bytes read so far are shown.
            let _ = file.seek(SeekFrom::Start(*offset)).and_then(|_| file.take(STDERR_LIMIT).read_to_end(&mut bytes));
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        match lines.as_slice() {
            // Before the first setup, the child creates the log itself.
            [] if offset == 0 => supervisor::last_lines(&context.home, "supervisor", MAX_LINES).join("\n"),
            lines => lines[lines.len().saturating_sub(MAX_LINES)..].join("\n"),
        }
    }
}
