//! Starting a child and reading what it prints.

use super::logs::LogFile;
use super::spec::Launch;
use crate::protocol::child::LIFELINE;
use crate::sys::listener;
use crate::sys::spawn::{Spawn, SpawnError};
use std::cell::RefCell;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

/// What every child is given beside its own.
pub struct Given<'a> {
    pub listeners: Vec<(&'static str, BorrowedFd<'a>)>,
    pub lifeline: &'a OwnedFd,
    pub notify_address: OsString,
}

/// Starts it with its output going to `log`. Returns its pid and the task that copies the output,
/// which ends when the last process that has it does.
pub fn start(
    launch: Launch,
    given: &Given<'_>,
    log: &Rc<RefCell<LogFile>>,
) -> Result<(i32, JoinHandle<()>), SpawnError> {
    let (reader, writer) = listener::pipe_with_async_reader().map_err(SpawnError::Fork)?;
    let mut passed = Vec::new();
    let mut names = Vec::new();
    if launch.listens {
        for (name, descriptor) in &given.listeners {
            names.push(*name);
            passed.push(*descriptor);
        }
    }
    let mut environment = launch.environment;
    if launch.speaks_protocol {
        names.push(LIFELINE);
        passed.push(given.lifeline.as_fd());
        let mut set = |name: &str, value: OsString| environment.push((name.into(), value));
        set("LISTEN_FDS", passed.len().to_string().into());
        set("LISTEN_FDNAMES", names.join(":").into());
        set("LISTEN_PID", "{PID}".into());
        set("NOTIFY_SOCKET", given.notify_address.clone());
    }
    log.borrow_mut().forget();
    let pid = Spawn {
        program: launch.program,
        called: launch.called,
        arguments: launch.arguments,
        environment,
        output: writer.as_fd(),
        errors: None,
        folder: None,
        passed,
        single_user: launch.single_user,
        parent_death: launch.parent_death,
    }
    .start()?;
    Ok((pid, tokio::task::spawn_local(copy_to_log(reader, log.clone()))))
}

async fn copy_to_log(mut reader: pipe::Receiver, log: Rc<RefCell<LogFile>>) {
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => log.borrow_mut().write(&buffer[..length]),
        }
    }
}
