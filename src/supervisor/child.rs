//! Starting a child and reading what it prints.

use super::logs::LogFile;
use super::spec::{Launch, Spec};
use crate::home::Home;
use crate::protocol::child::LIFELINE;
use crate::sys::listener;
use crate::sys::spawn::{Spawn, SpawnError};
use std::cell::RefCell;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::{AbortHandle, JoinHandle};

/// One of the processes that are looked after, whether it runs or not. What is to become of it is the policy's.
pub struct Child {
    pub spec: Spec,
    pub log: Rc<RefCell<LogFile>>,
    /// Asks whether it is ready.
    pub probe: Option<AbortHandle>,
    /// The read end of what it prints.
    pub output: Option<OwnedFd>,
    /// Copies that into its log.
    pub copying: Option<JoinHandle<()>>,
}

impl Child {
    pub fn new(home: &Home, spec: Spec) -> Self {
        let log = Rc::new(RefCell::new(LogFile::new(home, spec.plan.name)));
        Self { spec, log, probe: None, output: None, copying: None }
    }

    /// Takes on the output of one that another supervisor has started.
    pub fn adopt(&mut self, output: OwnedFd) -> std::io::Result<()> {
        self.copying = Some(copy(&output, &self.log)?);
        self.output = Some(output);
        Ok(())
    }
}

/// What every child is given beside its own.
pub struct Given<'a> {
    pub listeners: Vec<(&'static str, BorrowedFd<'a>)>,
    /// Arguments beside its own.
    pub arguments: Vec<OsString>,
    pub lifeline: &'a OwnedFd,
    pub notify_address: OsString,
}

/// A child that was started, and its output.
pub struct Started {
    pub pid: i32,
    /// The read end, for a supervisor that takes our place.
    pub output: OwnedFd,
    /// Ends when the last process that has the output does.
    pub copying: JoinHandle<()>,
}

/// Starts it with its output going to `log`.
pub fn start(launch: Launch, given: &Given<'_>, log: &Rc<RefCell<LogFile>>) -> Result<Started, SpawnError> {
    let (output, writer) = listener::pipe().map_err(SpawnError::Fork)?;
    let copied = copy(&output, log).map_err(SpawnError::Fork)?;
    let mut arguments = launch.arguments;
    let mut passed = Vec::new();
    let mut names = Vec::new();
    if launch.listens {
        arguments.extend(given.arguments.iter().cloned());
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
        arguments,
        environment,
        output: writer.as_fd(),
        errors: None,
        folder: None,
        passed,
        single_user: launch.single_user,
        parent_death: launch.parent_death,
        own_session: false,
    }
    .start()?;
    Ok(Started { pid, output, copying: copied })
}

/// Copies what comes out of `output` into the log.
fn copy(output: &OwnedFd, log: &Rc<RefCell<LogFile>>) -> std::io::Result<JoinHandle<()>> {
    listener::set_nonblocking(output)?;
    let reader = pipe::Receiver::from_owned_fd(output.try_clone()?)?;
    Ok(tokio::task::spawn_local(copy_to_log(reader, log.clone())))
}

/// Copies what is there by now: of a child that has ended, all that it said.
pub fn drain(output: &OwnedFd, log: &Rc<RefCell<LogFile>>) {
    let mut buffer = vec![0; 8 * 1024];
    // A child of its own that lives on may write without end.
    for _ in 0..MOST_PIECES {
        match nix::unistd::read(output, &mut buffer) {
            Ok(length @ 1..) => log.borrow_mut().write(&buffer[..length]),
            _ => return,
        }
    }
}

const MOST_PIECES: usize = 1_000;

async fn copy_to_log(mut reader: pipe::Receiver, log: Rc<RefCell<LogFile>>) {
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => log.borrow_mut().write(&buffer[..length]),
        }
    }
}
