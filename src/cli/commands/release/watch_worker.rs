//! Watches a worker in its own session, which continues when the terminal is closed. Its reports come over a pipe.
//! Ctrl-C asks the worker to cancel, which works as long as nothing was changed.

use crate::context::Context;
use crate::error::Error;
use crate::terminal::report::Report;
use leoflow_base::home::journal;
use leoflow_base::home::progress::Reporter;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::command;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::process::{Signal, signal_process};
use leoflow_lifecycle::setup;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// Starts `leoflow` with these arguments and variables, shows its reports, and prints its result.
pub async fn watch(context: &Context<'_>, arguments: &[OsString], variables: &[(&str, OsString)]) -> Result<u8, Error> {
    let (result, error) = run(context, arguments, variables, context.printer).await?;
    print_result(context, &result, error)
}

/// A worker's result, and its error if it failed after it had changed something.
type Outcome = (Value, Option<Error>);

/// Starts `leoflow` with these arguments and variables; `reporter` gets its reports.
pub async fn run(
    context: &Context<'_>,
    arguments: &[OsString],
    variables: &[(&str, OsString)],
    reporter: &dyn Reporter,
) -> Result<Outcome, Error> {
    let program = env_vars::current_exe().map_err(Error::failed)?;
    let log = context.home.logs().join("upgrade.log");
    files::create_private_dir(&context.home.logs()).map_err(Error::cannot("create", &context.home.logs()))?;
    let errors = OpenOptions::new().append(true).create(true).mode(0o600).open(&log);
    let errors = errors.map_err(Error::cannot("open", &log))?;
    let mut command = Command::new(&program);
    command.arg("--home").arg(context.home.root()).args(arguments).envs(variables.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    command::in_own_session(&mut command);
    let mut child = command::spawn(&mut command).map_err(Error::cannot("run", &program))?;
    let pid = child.id() as i32;
    let stdout = child.stdout.take().ok_or_else(|| Error::bug("a child with a piped stdout has none"))?;
    let reports = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout)).map_err(Error::failed)?;
    let mut was_interrupted = false;
    let outcome = follow(reporter, reports, pid, &mut was_interrupted).await;
    // The pipe is closed, so the worker is about to end.
    let ended = child.wait().map_or_else(|error| error.to_string(), |status| Exit::from(status).to_string());
    let no_report_error = || Error::failed(format!("the worker ended without a report: {ended}"));
    outcome.unwrap_or_else(|| match journal::change_under_way(&context.home) {
        None if was_interrupted => Err(Error::signal(2, "cancelled: nothing was changed")),
        None => Err(no_report_error().cause(format!("see {}", log.display()))),
        Some(change) => {
            Err(no_report_error().cause(format!("{change}\nsee {}", log.display())).hint("leoflow upgrade --resume"))
        }
    })
}

/// Shows the worker's reports until its result; `None` if the pipe closes without one.
async fn follow(
    reporter: &dyn Reporter,
    reports: pipe::Receiver,
    pid: i32,
    was_interrupted: &mut bool,
) -> Option<Result<Outcome, Error>> {
    let mut lines = BufReader::new(reports).lines();
    let mut interrupts = signal(SignalKind::interrupt()).ok()?;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line.ok()??,
            _ = interrupts.recv() => {
                let text = "Cancelling, unless changes were already made; then the operation continues";
                reporter.note(text.to_owned());
                signal_process(pid, Signal::Terminate);
                *was_interrupted = true;
                continue;
            }
        };
        match serde_json::from_str(&line) {
            Ok(Report::Progress(progress)) => reporter.report(progress),
            Ok(Report::Failed(error)) => return Some(Err(error)),
            Ok(Report::Done { result, error }) => return Some(Ok((result, error))),
            Ok(Report::Ready(_)) => {}
            // Other output of the worker is shown to the user too.
            Err(_) => reporter.note(line),
        }
    }
}

/// Prints the worker's result and returns the exit code, or its error.
fn print_result(context: &Context<'_>, result: &Value, error: Option<Error>) -> Result<u8, Error> {
    let printer = context.printer;
    printer.show(result, |printer| result["message"].as_str().into_iter().for_each(|text| printer.line(text)))?;
    if let Some(other) = setup::other_copy(&context.home) {
        printer.warning(other.warning(&context.home));
    }
    error.map_or(Ok(0), Err)
}
