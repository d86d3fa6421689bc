//! `leoflow operation ID`: does what the server was asked for and has written down, in a process of its own that the server's
//! end does not end, and writes down what becomes of it.

use crate::commands::context::Context;
use crate::error::Error;
use crate::home::operations::{self, Record};
use crate::protocol::own_command::{self, Failure, LONG, Printed};
use crate::sys::env_vars;
use crate::sys::process::{self, ProcessId};
use serde_json::Value;
use std::cell::RefCell;
use std::time::Duration;

const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

pub fn run(context: &Context<'_>, id: u64) -> Result<u8, Error> {
    let home = &context.home;
    let mut record = operations::read(home, id).filter(|record| record.process.is_none()).ok_or_else(|| {
        Error::failed(format!("no operation {id} waits to be done")).hint("leoflow lite backup, or leoflow upgrade")
    })?;
    let unwritten = |error: std::io::Error| Error::io("write", &home.operations(), &error);
    record.process = ProcessId::current();
    operations::write(home, &record).map_err(unwritten)?;
    let is_for_all = record.arguments.iter().any(|argument| argument == "--all");
    // What the worker of an upgrade is to, whatever becomes of the command that has started it: the server ends strangers.
    process::become_subreaper().map_err(Error::failed)?;
    let program = env_vars::current_exe().map_err(Error::failed)?;
    // All of them together take as long as they take.
    let limit = if is_for_all { Duration::MAX } else { LONG };
    let mut own = own_command::command(&program, Some(home).filter(|_| !is_for_all));
    own.args(&record.arguments);
    let record = RefCell::new(record);
    // It goes on: what it does is worth more than what it says.
    let note = |record: &Record| drop(operations::write(home, record));
    let ended = own_command::run(
        &mut own,
        limit,
        &mut |pid| {
            let mut record = record.borrow_mut();
            record.command = ProcessId::of(pid);
            note(&record);
        },
        &mut |line| {
            let mut record = record.borrow_mut();
            record.say(line);
            note(&record);
        },
    );
    let (record, ended) = (record.into_inner(), outcome(ended));
    // A disk that is full may have room again.
    let mut written = operations::end(home, record.clone(), ended.clone());
    for pause in PAUSES {
        if written.is_ok() {
            break;
        }
        std::thread::sleep(pause);
        written = operations::end(home, record.clone(), ended.clone());
    }
    written.map(|()| 0).map_err(|error| unwritten(error).cause(format!("how it ended: {ended:?}")))
}

fn outcome(ended: Result<Printed, Failure>) -> Result<Value, (Option<Value>, String)> {
    match ended {
        Ok(printed) => match printed.problem() {
            None => Ok(printed.json),
            Some(failure) => Err((Some(printed.json), failure.to_string())),
        },
        Err(failure) => Err((None, failure.to_string())),
    }
}
