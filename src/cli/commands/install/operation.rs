//! `leoflow operation ID`: runs an operation that the server has recorded, in a separate process that outlives the
//! server, and records the result.

use crate::context::Context;
use crate::error::Error;
use leoflow_base::home::operations::{self, Record};
use leoflow_base::protocol::own_command::{self, CommandOutput, Failure, LONG};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::{self, ProcessId};
use serde_json::Value;
use std::cell::RefCell;
use std::time::Duration;

/// Pauses between attempts to record the result.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

pub fn run(context: &Context<'_>, id: u64) -> Result<u8, Error> {
    let home = &context.home;
    let mut record = operations::read(home, id).filter(|record| record.process.is_none()).ok_or_else(|| {
        Error::failed(format!("no operation {id} is pending")).hint("leoflow lite backup, or leoflow upgrade")
    })?;
    let write_error = |error: std::io::Error| Error::io("write", &home.operations(), &error);
    record.process = ProcessId::current();
    operations::write(home, &record).map_err(write_error)?;
    let is_for_all = record.arguments.iter().any(|argument| argument == "--all");
    // As a subreaper, this process stays an ancestor of an upgrade's worker even when the command that started the
    // worker ends. Otherwise the server would adopt the worker and end it as a process that it does not know.
    process::become_subreaper().map_err(Error::failed)?;
    let program = env_vars::current_exe().map_err(Error::failed)?;
    // All instances together have no time limit.
    let limit = if is_for_all { Duration::MAX } else { LONG };
    let mut child_command = own_command::command(&program, Some(home).filter(|_| !is_for_all));
    child_command.args(&record.arguments);
    let record = RefCell::new(record);
    let update = |change: &dyn Fn(&mut Record)| {
        let mut record = record.borrow_mut();
        change(&mut record);
        // Write errors of the progress are ignored, so that the operation continues.
        drop(operations::write(home, &record));
    };
    let on_start = &mut |pid| update(&|record| record.command = ProcessId::of(pid));
    let on_line = &mut |line: &str| update(&|record| record.add_progress(line));
    let command_result = own_command::run(&mut child_command, limit, on_start, on_line);
    let (record, command_result) = (record.into_inner(), outcome(command_result));
    // Recording the result is retried, because a full disk may have space again.
    let mut written = operations::end(home, record.clone(), command_result.clone());
    for pause in PAUSES {
        if written.is_ok() {
            break;
        }
        std::thread::sleep(pause);
        written = operations::end(home, record.clone(), command_result.clone());
    }
    written.map(|()| 0).map_err(|error| write_error(error).cause(format!("the result was: {command_result:?}")))
}

/// The result as it is recorded: the command's JSON, and the error if it failed.
fn outcome(command_result: Result<CommandOutput, Failure>) -> Result<Value, (Option<Value>, String)> {
    match command_result {
        Ok(output) => match output.problem() {
            None => Ok(output.json),
            Some(failure) => Err((Some(output.json), failure.to_string())),
        },
        Err(failure) => Err((None, failure.to_string())),
    }
}
