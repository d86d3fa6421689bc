//! A child, and the copying of its output to its log.

use super::logs::LogFile;
use crate::supervisor::spec::Spec;
use leoflow_base::home::Home;
use leoflow_base::sys::net::listener;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
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
    /// Begins to copy the output of a process to its log. `output` is the read end of its pipe.
    pub fn new(output: OwnedFd, log: &Rc<RefCell<LogFile>>) -> std::io::Result<Self> {
        listener::set_nonblocking(&output)?;
        let reader = pipe::Receiver::from_owned_fd(output.try_clone()?)?;
        let copy_task = tokio::task::spawn_local(copy_to_log(reader, log.clone()));
        Ok(Self { output, copy_task, probe: None })
    }
}

impl SupervisedChild {
    pub fn new(home: &Home, spec: Spec) -> Self {
        let log = Rc::new(RefCell::new(LogFile::new(home, spec.plan.name)));
        Self { spec, log, process: None }
    }

    /// Takes over the output of a child that the previous supervisor started.
    pub fn adopt(&mut self, output: OwnedFd) -> std::io::Result<()> {
        self.process = Some(ChildProcess::new(output, &self.log)?);
        Ok(())
    }

    pub fn stop_probe(&mut self) {
        if let Some(probe) = self.process.as_mut().and_then(|process| process.probe.take()) {
            probe.abort();
        }
    }

    /// Copies the remaining output of the process, which has exited.
    pub fn note_exit(&mut self) {
        let Some(process) = &self.process else { return };
        let mut buffer = vec![0; 8 * 1024];
        // After the exit, the pipe has all the remaining output. The number of reads is limited, because a surviving
        // grandchild may write without end.
        for _ in 0..MAX_READS {
            match nix::unistd::read(&process.output, &mut buffer) {
                Ok(length @ 1..) => self.log.borrow_mut().write(&buffer[..length]),
                _ => return,
            }
        }
    }
}

/// Maximum number of reads, of 8 KiB each.
const MAX_READS: usize = 1_000;

async fn copy_to_log(mut reader: pipe::Receiver, log: Rc<RefCell<LogFile>>) {
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        log.borrow_mut().write(&buffer[..length]);
    }
}
