//! `leoflow lite stop`.

use crate::args::all::All;
use crate::context::{Confirmation, Context};
use crate::error::Error;
use crate::terminal::printer::counted;
use clap::Args;
use leoflow_base::home::Home;
use leoflow_base::home::lock::{self, Holder};
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::operation::instance;
use leoflow_postgres::location;
use leoflow_processes::agent;
use serde_json::json;
use std::io;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct LiteStop {
    /// Stop running tasks without a confirmation prompt
    #[arg(long, short)]
    pub yes: bool,
    /// Wait until no task is running, then stop
    #[arg(long, conflicts_with = "yes")]
    pub wait: bool,
    #[command(flatten)]
    pub all: All,
}

/// Interval at which `--wait` polls running tasks.
const TASKS_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long a stop waits for a backup or verification that fails because of it.
const BACKUP_LIMIT: Duration = Duration::from_secs(10);

pub fn stop(context: &Context<'_>, args: &LiteStop) -> Result<u8, Error> {
    let mut count = count_running_tasks(context, &context.home);
    if args.wait && count > 0 {
        context.printer.note(format!(
            "Waiting for {} to finish. New runs still start meanwhile; pause DAGs to prevent that. Press Ctrl-C to stop \
             waiting.",
            counted(count, "running task")
        ));
        while count > 0 {
            std::thread::sleep(TASKS_POLL_INTERVAL);
            count = agent::running(&context.home).0;
        }
    }
    if count > 0 && !args.yes {
        confirm_end_of_tasks(context, count, "Stop and end them?")?;
    }
    if let Some(holder) = lock::operation_holder(&context.home) {
        context.printer.note(format!("`{}`, pid {}, is in progress and fails now", holder.command, holder.process.pid));
    }
    let stopped = instance::stop_running(&context.home)?;
    wait_for_backup(&context.home);
    let (ended, read_error) = instance::end_tasks(&context.home);
    if let Some(error) = read_error {
        warn_of_unreadable_tasks(context, &context.home, "tasks may still be running", &error);
    }
    context.printer.show(&json!({"state": "stopped", "was_running": stopped, "ended_tasks": ended}), |printer| {
        if ended > 0 {
            printer.note(instance::ended_tasks(ended));
        }
        printer.line(if stopped { "Leoflow has stopped; your data stays" } else { "Leoflow is not running" });
    })
}

/// Waits for the end of a backup or verification, which fails without the datastore, so that the next command finds the
/// home unused. A datastore elsewhere does not stop with the instance.
fn wait_for_backup(home: &Home) {
    if !matches!(location::recorded(home), Ok(None)) {
        return;
    }
    let is_backup =
        |holder: &Holder| ["leoflow lite backup", "leoflow lite backups verify"].contains(&holder.command.as_str());
    if let Some(holder) = lock::operation_holder(home).filter(is_backup) {
        holder.process.wait_gone(BACKUP_LIMIT);
    }
}

/// The number of running tasks. Warns if the list of them cannot be read completely.
pub fn count_running_tasks(context: &Context<'_>, home: &Home) -> usize {
    let (count, read_error) = agent::running(home);
    if let Some(error) = read_error {
        warn_of_unreadable_tasks(context, home, "the list of running tasks is incomplete", &error);
    }
    count
}

fn warn_of_unreadable_tasks(context: &Context<'_>, home: &Home, consequence: &str, error: &io::Error) {
    let why = Error::io("read", &home.running_tasks(), error).message;
    context.printer.warning(format!("{consequence}: {why}"));
}

/// Asks whether a stop may end the running tasks.
pub fn confirm_end_of_tasks(context: &Context<'_>, count: usize, question: &str) -> Result<(), Error> {
    let tasks = counted(count, "running task");
    context.printer.note(format!("A stop ends {tasks}; `--wait` lets them finish first."));
    context.require_confirmation(question, Confirmation::Ask)
}

pub fn running_port(context: &Context<'_>) -> Option<u16> {
    instance::running_address(&context.home).map(|(_, port)| port)
}

/// Records the port that a start requested; `None` if it is the configured one.
pub fn note_requested_port(home: &Home, requested: Option<u16>) -> Result<(), Error> {
    let path = home.requested_port();
    let outcome = match requested {
        Some(port) => files::write_atomic(&path, port.to_string().as_bytes(), 0o600),
        None => files::remove_any(&path),
    };
    outcome.map_err(Error::cannot("write", &path))
}
