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
use crate::protocol::control::{self, Answer, ControlClient, Request};
use crate::protocol::status::{InstanceState, InstanceStatus};
use crate::setup::{self, service};
use crate::supervisor;
use crate::sys::reaper::Exit;
use crate::sys::{command, env_vars, files};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An instance whose process has just ended is well again within this time.
const SETTLES: Duration = Duration::from_secs(5);
/// A restart may recover a database on its way.
const RESTART_LIMIT: Duration = Duration::from_secs(330);
/// A child that has closed its reports ends within this time.
const TO_END: Duration = Duration::from_secs(5);
/// Bytes, and lines, that are shown of what it wrote.
const LAST_WORDS: u64 = 64 * 1024;
const MOST_LINES: usize = 10;
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

fn show_running(context: &Context<'_>, status: &InstanceStatus) -> Result<u8, Error> {
    status.reason.iter().for_each(|reason| context.printer.warning(reason));
    if context.printer.json {
        context.printer.json(status)?;
    } else {
        context.printer.line(format!("Leoflow is already running at {} (pid {})", status.url, status.pid));
    }
    Ok(0)
}

/// An instance that runs and is not well: waits a moment, then starts its processes anew. `None` where it has stopped
/// meanwhile.
fn revive(context: &Context<'_>, mut status: InstanceStatus) -> Result<Option<u8>, Error> {
    let begun = Instant::now();
    let is_stopping = |status: &InstanceStatus| status.processes.iter().any(|process| process.state == "stopping");
    while status.state == InstanceState::Degraded
        && begun.elapsed() < if is_stopping(&status) { stop::STOP_LIMIT } else { SETTLES }
    {
        std::thread::sleep(Duration::from_millis(100));
        match control::status_of(&context.home) {
            Some(now) => status = now,
            None => return Ok(None),
        }
    }
    if status.state == InstanceState::Healthy {
        return show_running(context, &status).map(Some);
    }
    let reason = status.reason.clone().unwrap_or_else(|| format!("it is {}", status.state));
    if status.processes.iter().all(|process| process.state == "running") {
        // What keeps it from its work is outside: a restart may change nothing.
        let text = format!("Leoflow is already running at {}, and cannot do its work: {reason}", status.url);
        return Err(Error::failed(text).hint("leoflow lite status").hint("leoflow lite restart"));
    }
    context.printer.warning(format!("Leoflow runs at {}, but {reason}; its processes are started anew", status.url));
    restart_children(context)?;
    match control::status_of(&context.home) {
        Some(status) => show_running(context, &status).map(Some),
        None => Ok(None),
    }
}

/// Restarts the processes of the supervisor that runs, and waits until all are up.
pub fn restart_children(context: &Context<'_>) -> Result<(), Error> {
    let home = &context.home;
    let connected =
        ControlClient::connect(home).map_err(|error| Error::io("connect to", &home.control_socket(), &error))?;
    let mut client = connected.ok_or_else(crate::cli::api::not_running)?;
    match client.ask(&Request::Restart, RESTART_LIMIT) {
        Ok(Answer::Error(reason)) => Err(Error::from_child(&reason)
            .unwrap_or_else(|| Error::failed(reason).hint("leoflow lite status"))
            .hint("its processes are started again after growing pauses; leoflow lite logs says more")),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::failed("the supervisor does not answer").cause(error).hint("leoflow lite status")),
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
    let mut detached = Detached::spawn(context, args)?;
    let reports = detached.child.stdout.take().ok_or_else(|| Error::bug("a child with a piped stdout has none"))?;
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
    Err(detached.ended_early(context))
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

/// A `leoflow lite` in a session of its own.
struct Detached {
    child: Child,
    /// What it writes to its standard error, and where that begins.
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
        // A panic's last words belong into the log. Before the first setup there is none: then they are kept in memory.
        let log = context.home.logs().join("supervisor.log");
        let log = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(log);
        let errors = log.or_else(|_| files::in_memory("leoflow-start")).ok();
        let errors = errors.and_then(|file| Some((file.metadata().ok()?.len(), file))).map(|(from, file)| (file, from));
        let stderr = errors.as_ref().and_then(|(file, _)| file.try_clone().ok()).map_or_else(Stdio::null, Stdio::from);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        command::in_own_session(&mut command);
        let child = command.spawn().map_err(|error| Error::io("run", &program, &error))?;
        Ok(Self { child, errors })
    }

    /// Why it closed its reports before it was up.
    fn ended_early(mut self, context: &Context<'_>) -> Error {
        let exit = self.exit();
        let text = match exit {
            Some(exit) => format!("it ended before it was up: {exit}"),
            None => "it has closed its reports before it was up, and still runs".to_owned(),
        };
        let error = Error::failed(text).cause(self.last_words(context));
        let error = match exit {
            Some(Exit::Signal(SIGKILL)) => {
                error.hint("is there too little memory? the kernel's log says so: journalctl -k, or dmesg")
            }
            Some(Exit::Signal(_)) => error.hint("the limits in force: ulimit -a"),
            _ => error,
        };
        error.hint("leoflow lite logs supervisor")
    }

    fn exit(&mut self) -> Option<Exit> {
        let deadline = Instant::now() + TO_END;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status.into()),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                _ => return None,
            }
        }
    }

    /// What it wrote itself, not a run before it.
    fn last_words(&mut self, context: &Context<'_>) -> String {
        let mut bytes = Vec::new();
        let from = self.errors.as_ref().map_or(0, |(_, from)| *from);
        if let Some((file, from)) = &mut self.errors {
            // What can be read is what can be shown.
            let _ = file.seek(SeekFrom::Start(*from)).and_then(|_| file.take(LAST_WORDS).read_to_end(&mut bytes));
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        match lines.as_slice() {
            // It made its log itself.
            [] if from == 0 => supervisor::last_lines(&context.home, "supervisor", MOST_LINES).join("\n"),
            lines => lines[lines.len().saturating_sub(MOST_LINES)..].join("\n"),
        }
    }
}
