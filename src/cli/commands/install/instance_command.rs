//! Runs a command for several instances, one after another, each with its own program.

use super::backup_progress::BackupProgress;
use crate::args::all::All;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use leoflow_base::config::{self, SETTINGS};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::own_command::{self, Failure};
use leoflow_base::sys::blocking;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::{Signal, signal_process};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;

/// The name of an instance, and its home.
pub type Instance = (String, Home);

/// Poll interval of an instance's command that is being interrupted.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The result of one instance.
#[derive(Debug)]
enum InstanceResult {
    Done {
        result: Value,
        seconds: f64,
    },
    /// Done by an earlier, incomplete run of the same command.
    DoneBefore,
    Failed {
        result: Option<Value>,
        failure: Failure,
    },
    /// Not run, because an instance before it failed.
    NotStarted,
}

impl InstanceResult {
    fn json(&self, name: &str) -> Value {
        let (status, result, error) = match self {
            Self::Done { result, .. } => ("done", Some(result), None),
            Self::DoneBefore => ("done_before", None, None),
            Self::Failed { result, failure } => ("failed", result.as_ref(), Some(failure)),
            Self::NotStarted => ("left", None, None),
        };
        json!({"name": name, "status": status, "result": result, "error": error})
    }

    /// Formats the result for the table; `describe` formats the JSON result of a command that succeeded.
    fn text(&self, describe: fn(&Value) -> String) -> String {
        match self {
            Self::Done { result, seconds } => format!("{} ({seconds:.1} s)", describe(result)),
            Self::DoneBefore => "already done by the last `--all`, which did not complete".to_owned(),
            Self::Failed { failure, .. } => format!("failed: {}", failure.error),
            Self::NotStarted => "not started".to_owned(),
        }
    }
}

/// The signals that cancel the command.
struct CancelSignals([tokio::signal::unix::Signal; 3]);

impl CancelSignals {
    const KINDS: [SignalKind; 3] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];

    fn listen() -> Result<Self, Error> {
        let [interrupt, terminate, hangup] = Self::KINDS.map(signal);
        let listen = || Ok::<_, std::io::Error>(Self([interrupt?, terminate?, hangup?]));
        listen().map_err(Error::failed)
    }

    async fn next(&mut self) -> i32 {
        let [interrupt, terminate, hangup] = &mut self.0;
        let index = tokio::select! {
            _ = interrupt.recv() => 0,
            _ = terminate.recv() => 1,
            _ = hangup.recv() => 2,
        };
        Self::KINDS[index].as_raw_value()
    }
}

/// The command to run for each instance, and how to print its result.
pub struct InstanceCommand<'a> {
    pub arguments: &'a [&'a str],
    pub keep_going: bool,
    /// Formats the command's JSON result for the table.
    pub describe: fn(&Value) -> String,
    /// An environment variable for the command.
    pub variable: Option<(&'static str, String)>,
    /// The instances that an earlier, incomplete backup has done; `None` for other commands.
    pub backup_progress: Option<BackupProgress>,
}

impl<'a> InstanceCommand<'a> {
    pub fn new(arguments: &'a [&'a str], all: &All, describe: fn(&Value) -> String) -> Self {
        Self { arguments, keep_going: all.keep_going, describe, variable: None, backup_progress: None }
    }

    /// Runs the command for each instance and prints its result. Stops at the first failure unless `keep_going` is set.
    pub async fn run(mut self, context: &Context<'_>, instances: Vec<Instance>) -> Result<u8, Error> {
        let printer = context.printer;
        let (mut cancel_signals, mut received_signal) = (CancelSignals::listen()?, None);
        let width = instances.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("INSTANCE".len());
        let print_row =
            |name: &str, text: &str| printer.part(|printer| printer.line(format!("{name:<width$}  {text}")));
        print_row("INSTANCE", "RESULT");
        let (mut results, mut is_over): (Vec<(String, InstanceResult)>, bool) = (Vec::new(), false);
        for (name, home) in instances {
            let outcome = if is_over {
                InstanceResult::NotStarted
            } else if self.was_done_before(&name) {
                InstanceResult::DoneBefore
            } else {
                let (outcome, signal_number) = self.run_one(context, &name, &home, &mut cancel_signals).await;
                received_signal = signal_number;
                is_over =
                    signal_number.is_some() || matches!(outcome, InstanceResult::Failed { .. }) && !self.keep_going;
                outcome
            };
            print_row(&name, &outcome.text(self.describe));
            if matches!(outcome, InstanceResult::Done { .. }) {
                self.record_done(printer, &name);
            }
            results.push((name, outcome));
        }
        let entries: Vec<Value> = results.iter().map(|(name, outcome)| outcome.json(name)).collect();
        printer.show(&json!({"instances": entries}), |_| {})?;
        if let Some(number) = received_signal {
            return Err(cancelled(number, &results));
        }
        summary(&results)?;
        self.backup_progress.map_or(Ok(0), |backup_progress| backup_progress.end().map(|()| 0))
    }

    fn was_done_before(&self, name: &str) -> bool {
        self.backup_progress.as_ref().is_some_and(|progress| progress.done.iter().any(|done| done == name))
    }

    fn record_done(&mut self, printer: &Printer, name: &str) {
        if let Some(backup_progress) = &mut self.backup_progress {
            backup_progress.add(name).unwrap_or_else(|error| {
                printer.warning(format!("failed to record that {name} is done: {error}"));
            });
        }
    }

    /// Runs the command for one instance, with the program installed for it. Returns the result, and the signal that
    /// was received meanwhile.
    async fn run_one(
        &self,
        context: &Context<'_>,
        name: &str,
        home: &Home,
        cancel_signals: &mut CancelSignals,
    ) -> (InstanceResult, Option<i32>) {
        let began = Instant::now();
        let mut child_command = match program_for(home) {
            Ok(program) => self.child_command(&program, home),
            Err(error) => return (InstanceResult::Failed { result: None, failure: Failure::new(error) }, None),
        };
        let pid = Arc::new(AtomicI32::new(0));
        let (child_pid, (sender, mut lines)) = (pid.clone(), unbounded_channel());
        context.printer.report(Progress::Started(name.to_owned()));
        let mut command_task = blocking::begin(move || {
            let on_line = &mut |line: &str| drop(sender.send(line.to_owned()));
            let on_start = &mut |pid| child_pid.store(pid, Ordering::SeqCst);
            own_command::run(&mut child_command, Duration::MAX, on_start, on_line)
        });
        let mut received_signal = None;
        let ended = loop {
            tokio::select! {
                biased;
                Some(line) = lines.recv() => context.printer.report(Progress::Detail(format!("{name}: {line}"))),
                ended = &mut command_task => break ended,
                number = cancel_signals.next() => received_signal = Some(number),
                // The child has its own process group, so the terminal's signal does not reach it. Retried, because the
                // child may not have started yet.
                () = tokio::time::sleep(POLL_INTERVAL), if received_signal.is_some() => {
                    let pid = pid.swap(0, Ordering::SeqCst);
                    if pid > 0 {
                        signal_process(pid, Signal::Interrupt);
                    }
                }
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        let result = match ended.unwrap_or_else(|error| Err(Failure::new(error))) {
            Ok(output) => match output.problem() {
                None => InstanceResult::Done { result: output.json, seconds },
                Some(failure) => InstanceResult::Failed { result: Some(output.json), failure },
            },
            Err(failure) => InstanceResult::Failed { result: None, failure },
        };
        (result, received_signal)
    }

    fn child_command(&self, program: &Path, home: &Home) -> Command {
        let mut child_command = own_command::command(program, Some(home));
        child_command.args(self.arguments);
        // Environment variables of settings, such as LEOFLOW_PORT, apply to the current instance, not to all.
        for name in SETTINGS.iter().filter_map(config::variable_of) {
            child_command.env_remove(name);
        }
        child_command.envs(self.variable.iter().map(|(name, value)| (name, value)));
        child_command
    }
}

/// The program installed for an instance, else this program.
fn program_for(home: &Home) -> std::io::Result<PathBuf> {
    let installed = home.bin().join("leoflow");
    if installed.exists() { Ok(installed) } else { env_vars::current_exe() }
}

fn cancelled(signal_number: i32, results: &[(String, InstanceResult)]) -> Error {
    let done_count = results
        .iter()
        .filter(|(_, outcome)| matches!(outcome, InstanceResult::Done { .. } | InstanceResult::DoneBefore))
        .count();
    Error::signal(signal_number, format!("cancelled: {done_count} of {} done", counted(results.len(), "instance")))
        .hint("run the same command again to do what is left")
}

/// Fails with the reasons of all failed instances.
fn summary(results: &[(String, InstanceResult)]) -> Result<(), Error> {
    let failed: Vec<(&str, &Failure)> = results
        .iter()
        .filter_map(|(name, outcome)| match outcome {
            InstanceResult::Failed { failure, .. } => Some((name.as_str(), failure)),
            _ => None,
        })
        .collect();
    let Some((_, first_failure)) = failed.first() else { return Ok(()) };
    let message = format!("{} of {} failed", failed.len(), counted(results.len(), "instance"));
    let error = if first_failure.exit_code == Some(3) { Error::refused(message) } else { Error::failed(message) };
    let causes: Vec<String> = failed.iter().map(|(name, failure)| format!("{name}: {failure}")).collect();
    let error = error.cause(causes.join("\n")).hint("run the same command again to do what is left");
    let has_not_started = results.iter().any(|(_, outcome)| matches!(outcome, InstanceResult::NotStarted));
    Err(if has_not_started {
        error.hint("add --keep-going to continue with the others after a failure")
    } else {
        error
    })
}
