//! `--all`: runs a command for every instance of this user, one after another, each with its own program. Prints a row
//! per instance. Stops at the first failure unless `--keep-going` is set; running it again does what is left.

use super::backup_progress::BackupProgress;
use crate::commands::backup::backup::Backup;
use crate::commands::lite::stop::{LiteStop, unreadable_tasks_error};
use crate::commands::upgrade::upgrade_args::Upgrade;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{counted, human_size};
use leoflow_base::config::{self, SETTINGS};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{Home, all_instances};
use leoflow_base::protocol::child::RELEASE_SOURCE;
use leoflow_base::protocol::own_command::{self, Failure};
use leoflow_base::sys::blocking;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::{Signal, signal_process};
use leoflow_lifecycle::upgrade::release::source::Source;
use leoflow_processes::agent;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;

type Instance = (String, Home);

/// Poll interval of an instance's command that is being interrupted.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The result of one instance.
#[derive(Debug)]
enum InstanceResult {
    Done(Value),
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
            Self::Done(result) => ("done", Some(result), None),
            Self::DoneBefore => ("done_before", None, None),
            Self::Failed { result, failure } => ("failed", result.as_ref(), Some(failure)),
            Self::NotStarted => ("left", None, None),
        };
        json!({"name": name, "status": status, "result": result, "error": error})
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
struct InstanceCommand<'a> {
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    keep_going: bool,
    /// Formats the command's JSON result for the table.
    describe: fn(&Value) -> String,
    /// The instances that an earlier run has already done.
    backup_progress: Option<&'a mut BackupProgress>,
}

/// Returns the selected instances; fails when there are none.
fn instances(only: &[String]) -> Result<Vec<Instance>, Error> {
    let mut instances = all_instances();
    if instances.is_empty() {
        return Err(Error::failed("this user has no instances on this machine").hint("leoflow lite start"));
    }
    if let Some(missing) = only.iter().find(|name| !instances.iter().any(|(other, _)| *name == other)) {
        return Err(Error::failed(format!(
            "instance {missing:?} does not exist; existing instances: {}",
            names(&instances)
        ))
        .hint("leoflow instances list"));
    }
    instances.retain(|(name, _)| only.is_empty() || only.contains(name));
    Ok(instances)
}

fn names(instances: &[Instance]) -> String {
    instances.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

pub async fn stop(context: &Context<'_>, args: &LiteStop) -> Result<u8, Error> {
    let instances = instances(&args.all.only)?;
    let mut running = 0;
    for (_, home) in &instances {
        let (count, unread) = agent::running(home);
        if let Some(error) = unread {
            context.printer.warning(format!(
                "the list of running tasks is incomplete: {}",
                unreadable_tasks_error(home, &error).message
            ));
        }
        running += count;
    }
    if running > 0 && !args.yes && !args.wait {
        let tasks = counted(running, "running task");
        context.printer.note(format!("A stop ends {tasks}; `--wait` lets them finish first."));
        if !context.confirm(&format!("Stop {} and end them?", names(&instances)), false)? {
            return Err(Error::failed(Context::DECLINED));
        }
    }
    let option = if args.wait { "--wait" } else { "--yes" };
    let describe = |result: &Value| match (result["was_running"] == true, result["ended_tasks"].as_u64()) {
        (false, _) => "was not running".to_owned(),
        (true, Some(ended @ 1..)) => format!("stopped, ended {}", counted(ended, "running task")),
        (true, _) => "stopped".to_owned(),
    };
    let arguments = ["lite", "stop", option].map(OsString::from).to_vec();
    let task = InstanceCommand {
        arguments,
        variables: Vec::new(),
        keep_going: args.all.keep_going,
        describe,
        backup_progress: None,
    };
    run_for_each(context, instances, task).await
}

pub async fn upgrade(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    let instances = instances(&args.all.only)?;
    if !args.dry_run {
        let version = args.version.as_deref().unwrap_or("the newest release");
        if !context.confirm(&format!("Upgrade {} one after another to {version}?", names(&instances)), args.yes)? {
            context.printer.note(Context::DECLINED);
            return Ok(1);
        }
    }
    let mut arguments = vec![OsString::from("upgrade")];
    arguments.extend(args.version.as_ref().map(OsString::from));
    let mut variables = Vec::new();
    match args.from.from.as_deref() {
        // A secret is not passed in argv, which every user of the machine can read.
        Some(from) if Source::parse(from).has_secret() => variables.push((RELEASE_SOURCE, from.into())),
        Some(from) => arguments.extend(["--from".into(), from.into()]),
        None => {}
    }
    arguments.push(if args.dry_run { "--dry-run" } else { "--yes" }.into());
    if args.no_rollback {
        arguments.push("--no-rollback".into());
    }
    let describe = |result: &Value| {
        let text = |name: &str| result[name].as_str().unwrap_or_default();
        match text("status") {
            "up_to_date" => format!("already at {}", text("version")),
            "" => format!("would upgrade from {} to {}", text("from"), text("to")),
            _ => format!("upgraded from {} to {}", text("previous_version"), text("new_version")),
        }
    };
    run_for_each(
        context,
        instances,
        InstanceCommand { arguments, variables, keep_going: args.all.keep_going, describe, backup_progress: None },
    )
    .await
}

/// `leoflow lite backup --all`.
pub async fn backup(context: &Context<'_>, args: &Backup) -> Result<u8, Error> {
    let instances = instances(&args.all.only)?;
    // Only a backup of all instances is resumed, not one of selected instances.
    let mut backup_progress = args.all.only.is_empty().then(|| BackupProgress::load(&instances[0].1));
    let describe = |result: &Value| {
        let size = human_size(result["size_bytes"].as_u64().unwrap_or(0));
        let skipped_text = match result["skipped"].as_array().map_or(0, Vec::len) {
            0 => String::new(),
            count => format!(", without {}", counted(count, "unreadable file")),
        };
        format!("{}, {size}{skipped_text}", result["path"].as_str().unwrap_or_default())
    };
    let arguments = ["lite", "backup"].map(OsString::from).to_vec();
    let keep_going = args.all.keep_going;
    run_for_each(
        context,
        instances,
        InstanceCommand {
            arguments,
            variables: Vec::new(),
            keep_going,
            describe,
            backup_progress: backup_progress.as_mut(),
        },
    )
    .await
}

/// Runs the command for each instance and prints its result.
async fn run_for_each(
    context: &Context<'_>,
    instances: Vec<Instance>,
    mut task: InstanceCommand<'_>,
) -> Result<u8, Error> {
    let printer = context.printer;
    let (mut cancel_signals, mut received_signal) = (CancelSignals::listen()?, None);
    let width = instances.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("INSTANCE".len());
    let print_row = |name: &str, text: &str| {
        if !printer.json {
            printer.line(format!("{name:<width$}  {text}"));
        }
    };
    print_row("INSTANCE", "RESULT");
    let (mut results, mut is_over): (Vec<(String, InstanceResult)>, bool) = (Vec::new(), false);
    for (name, home) in instances {
        let outcome = match &task.backup_progress {
            _ if is_over => InstanceResult::NotStarted,
            Some(backup_progress) if backup_progress.done.contains(&name) => InstanceResult::DoneBefore,
            _ => {
                let began = Instant::now();
                let (outcome, signal_number) = run_command(context, &name, &home, &task, &mut cancel_signals).await;
                received_signal = signal_number;
                is_over =
                    signal_number.is_some() || matches!(outcome, InstanceResult::Failed { .. }) && !task.keep_going;
                if let InstanceResult::Done(result) = &outcome {
                    let seconds = began.elapsed().as_secs_f64();
                    print_row(&name, &format!("{} ({seconds:.1} s)", (task.describe)(result)));
                }
                outcome
            }
        };
        match &outcome {
            InstanceResult::Done(_) => {
                if let Some(backup_progress) = &mut task.backup_progress {
                    backup_progress.add(&name).unwrap_or_else(|error| {
                        printer.warning(format!("failed to record that {name} is done: {error}"));
                    });
                }
            }
            InstanceResult::DoneBefore => print_row(&name, "already done by the last `--all`, which did not complete"),
            InstanceResult::Failed { failure, .. } => print_row(&name, &format!("failed: {}", failure.error)),
            InstanceResult::NotStarted => print_row(&name, "not started"),
        }
        results.push((name, outcome));
    }
    if printer.json {
        let entries: Vec<Value> = results.iter().map(|(name, outcome)| outcome.json(name)).collect();
        printer.json(&json!({"instances": entries}))?;
    }
    if let Some(number) = received_signal {
        let done_count = results
            .iter()
            .filter(|(_, outcome)| matches!(outcome, InstanceResult::Done(_) | InstanceResult::DoneBefore))
            .count();
        return Err(Error::signal(
            number,
            format!("cancelled: {done_count} of {} done", counted(results.len(), "instance")),
        )
        .hint("run the same command again to do what is left"));
    }
    summary(&results)?;
    task.backup_progress.map_or(Ok(0), |backup_progress| backup_progress.end().map(|()| 0))
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

/// Runs the command for one instance, with the program installed for it. Returns the result, and the signal that was
/// received meanwhile.
async fn run_command(
    context: &Context<'_>,
    name: &str,
    home: &Home,
    task: &InstanceCommand<'_>,
    cancel_signals: &mut CancelSignals,
) -> (InstanceResult, Option<i32>) {
    let installed = home.bin().join("leoflow");
    let program = match env_vars::current_exe() {
        _ if installed.exists() => installed,
        Ok(own_program) => own_program,
        Err(error) => return (InstanceResult::Failed { result: None, failure: Failure::new(error) }, None),
    };
    let mut child_command = own_command::command(&program, Some(home));
    child_command.args(&task.arguments);
    // Setting variables apply to the current instance, not to all.
    for name in SETTINGS.iter().filter_map(config::variable_of) {
        child_command.env_remove(name);
    }
    child_command.envs(task.variables.iter().cloned());
    let pid = Arc::new(AtomicI32::new(0));
    let (child_pid, (sender, mut lines)) = (pid.clone(), unbounded_channel());
    context.printer.report(Progress::Started(name.to_owned()));
    let mut command_task = blocking::begin(move || {
        let on_line = &mut |line: &str| drop(sender.send(line.to_owned()));
        own_command::run(&mut child_command, Duration::MAX, &mut |pid| child_pid.store(pid, Ordering::SeqCst), on_line)
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
    let ended = match ended.unwrap_or_else(|error| Err(Failure::new(error))) {
        Ok(output) => match output.problem() {
            None => InstanceResult::Done(output.json),
            Some(failure) => InstanceResult::Failed { result: Some(output.json), failure },
        },
        Err(failure) => InstanceResult::Failed { result: None, failure },
    };
    (ended, received_signal)
}
