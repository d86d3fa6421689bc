//! Starts a child and copies its output to its log.

use super::logs::LogFile;
use crate::supervisor::spec::{Launch, Spec};
use leoflow_base::home::Home;
use leoflow_base::protocol::child::LIFELINE;
use leoflow_base::sys::net::listener;
use leoflow_base::sys::process::spawn::{Spawn, SpawnError};
use std::cell::RefCell;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::{AbortHandle, JoinHandle};

/// A supervised process, running or not. `policy` decides when it starts and stops.
pub struct SupervisedChild {
    pub spec: Spec,
    pub log: Rc<RefCell<LogFile>>,
    /// `None` before the first start.
    pub process: Option<ChildProcess>,
}

/// The current or last process of a child.
pub struct ChildProcess {
    /// The read end of the process's output pipe, kept for a supervisor that takes over.
    pub output: OwnedFd,
    /// The task that copies the output to the log. Ends when the last process that holds the write end exits.
    pub copy_task: JoinHandle<()>,
    /// The task that probes whether the child is ready. `None` if the child itself reports that it is ready
    /// (`NOTIFY_SOCKET`), and for an adopted child.
    pub probe: Option<AbortHandle>,
}

impl ChildProcess {
    fn new(output: OwnedFd, copy_task: JoinHandle<()>) -> Self {
        Self { output, copy_task, probe: None }
    }
}

impl SupervisedChild {
    pub fn new(home: &Home, spec: Spec) -> Self {
        let log = Rc::new(RefCell::new(LogFile::new(home, spec.plan.name)));
        Self { spec, log, process: None }
    }

    /// Takes over the output of a child that the previous supervisor started.
    pub fn adopt(&mut self, output: OwnedFd) -> std::io::Result<()> {
        let copy_task = copy(&output, &self.log)?;
        self.process = Some(ChildProcess::new(output, copy_task));
        Ok(())
    }

    pub fn stop_probe(&mut self) {
        if let Some(probe) = self.process.as_mut().and_then(|process| process.probe.take()) {
            probe.abort();
        }
    }

    /// Copies the remaining output of the process, which has exited.
    pub fn note_exit(&mut self) {
        if let Some(process) = &self.process {
            drain(&process.output, &self.log);
        }
    }
}

/// The resources that the supervisor passes to a child.
pub struct ChildResources<'a> {
    /// The listeners with their names in the process protocol.
    pub listeners: Vec<(&'static str, BorrowedFd<'a>)>,
    /// Additional arguments of the child that gets the listeners.
    pub arguments: Vec<OsString>,
    /// Read end of a pipe that closes when the supervisor dies; the child then exits.
    pub lifeline: &'a OwnedFd,
    /// Address of the socket for notifications (`NOTIFY_SOCKET`).
    pub notify_address: OsString,
}

/// Starts a child with its output going to `log`; returns its pid.
pub fn start(
    Launch { spawn, speaks_protocol, listens }: Launch,
    resources: &ChildResources<'_>,
    log: &Rc<RefCell<LogFile>>,
) -> Result<(i32, ChildProcess), SpawnError> {
    let (output, writer) = listener::pipe().map_err(SpawnError::SystemLimit)?;
    let copy_task = copy(&output, log).map_err(SpawnError::SystemLimit)?;
    // A shorter lifetime than 'static: that of the passed descriptors.
    let mut spawn: Spawn<'_> = spawn;
    let mut names = Vec::new();
    if listens {
        spawn.arguments.extend(resources.arguments.iter().cloned());
        for (name, descriptor) in &resources.listeners {
            names.push(*name);
            spawn.passed.push(*descriptor);
        }
    }
    if speaks_protocol {
        names.push(LIFELINE);
        spawn.passed.push(resources.lifeline.as_fd());
        let mut set_variable = |name: &str, value: OsString| spawn.environment.push((name.into(), value));
        set_variable("LISTEN_FDS", spawn.passed.len().to_string().into());
        set_variable("LISTEN_FDNAMES", names.join(":").into());
        // `Spawn` replaces {PID} with the child's pid.
        set_variable("LISTEN_PID", "{PID}".into());
        set_variable("NOTIFY_SOCKET", resources.notify_address.clone());
    }
    // An error report must not contain lines of the previous start.
    log.borrow_mut().clear_remembered_lines();
    let pid = spawn.start(writer.as_fd())?;
    Ok((pid, ChildProcess::new(output, copy_task)))
}

/// Spawns a task that copies `output` to the log.
fn copy(output: &OwnedFd, log: &Rc<RefCell<LogFile>>) -> std::io::Result<JoinHandle<()>> {
    listener::set_nonblocking(output)?;
    let reader = pipe::Receiver::from_owned_fd(output.try_clone()?)?;
    Ok(tokio::task::spawn_local(copy_to_log(reader, log.clone())))
}

/// Copies the output that is available now. After the child has exited, that is all the remaining output.
fn drain(output: &OwnedFd, log: &Rc<RefCell<LogFile>>) {
    let mut buffer = vec![0; 8 * 1024];
    // The number of reads is limited, because a surviving grandchild may write without end.
    for _ in 0..MAX_READS {
        match nix::unistd::read(output, &mut buffer) {
            Ok(length @ 1..) => log.borrow_mut().write(&buffer[..length]),
            _ => return,
        }
    }
}

/// Maximum number of reads, of 8 KiB each.
const MAX_READS: usize = 1_000;

async fn copy_to_log(mut reader: pipe::Receiver, log: Rc<RefCell<LogFile>>) {
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => log.borrow_mut().write(&buffer[..length]),
        }
    }
}
