//! Stops the running instance for an operation.

use super::{OperationContext, OperationError};
use leoflow_base::counted::counted;
use leoflow_base::home::Home;
use leoflow_base::home::lock::{self, Holder, HomeLock, LockError};
use leoflow_base::protocol::control::{self, Answer, ControlClient, Request};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::Signal;
use leoflow_processes::agent;
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Longest duration of a clean stop: the sum of all children's deadlines.
pub const STOP_LIMIT: Duration = Duration::from_secs(75);

/// An instance that was stopped for an operation. The caller starts it again.
#[derive(Debug, Clone, Copy)]
pub struct StoppedInstance {
    /// The port that its start requested, if it differs from the configured one.
    pub requested_port: Option<u16>,
}

/// Refuses an instance in the foreground, which only the user of its terminal may stop. Also fails if another process
/// holds the home's lock.
pub fn refuse_in_terminal(home: &Home) -> Result<(), OperationError> {
    match control::status_of(home) {
        Some(status) if !status.detached => Err(OperationError::InTerminal(status.pid)),
        Some(_) => Ok(()),
        None => match lock::holder(home).filter(|_| lock::is_held(home).unwrap_or(false)) {
            Some(holder) => Err(LockError::Held { holder: Some(holder) }.into()),
            None => Ok(()),
        },
    }
}

/// Stops the instance and ends its tasks, so that no process uses the home afterwards. Sets `stopped` if an instance ran,
/// also if the end of its tasks then fails.
pub fn stop(context: &OperationContext<'_>, stopped: &mut Option<StoppedInstance>) -> Result<(), OperationError> {
    let home = context.home;
    let instance = StoppedInstance { requested_port: requested_port(home) };
    if stop_running(home)? {
        *stopped = Some(instance);
        context.note("Stopped Leoflow for this operation");
    }
    let (ended, read_error) = end_tasks(home);
    if ended > 0 {
        context.note(ended_tasks(ended));
    }
    match read_error {
        Some(error) => Err(OperationError::io("read", &home.running_tasks())(error)),
        None => Ok(()),
    }
}

/// Ends all tasks: they outlive the processes that started them and a restart, but not a stop. Returns the number of
/// ended tasks and the first error.
pub fn end_tasks(home: &Home) -> (usize, Option<io::Error>) {
    if !home.running_tasks().exists() {
        return (0, None);
    }
    // If the lock is held, another start has adopted the tasks.
    let Ok(_home_lock) = HomeLock::take(home, "leoflow lite stop", None) else { return (0, None) };
    agent::end_all(home)
}

/// The message about ended tasks.
pub fn ended_tasks(count: usize) -> String {
    format!(
        "Ended {}. After the next start, tasks with retries left run again; the others have failed.",
        counted(count, "running task")
    )
}

/// Stops a running instance. Returns false when none was running.
pub fn stop_running(home: &Home) -> Result<bool, OperationError> {
    let holder = lock::holder(home).filter(|holder| holder.url.is_some());
    let connected = match ControlClient::connect(home) {
        Err(error) if error.kind() != io::ErrorKind::TimedOut => {
            return Err(OperationError::io("connect to", &home.control_socket())(error));
        }
        connected => connected.ok().flatten(),
    };
    if let Some(mut client) = connected {
        let answer = client.ask(&Request::Stop, Duration::from_secs(5));
        if matches!(answer, Ok(Answer::Accepted)) {
            client.wait_closed(STOP_LIMIT);
            return wait_released(home, holder).map(|()| true);
        }
    }
    if !is_held(home)? {
        return Ok(false);
    }
    // The home is locked but the control socket does not respond, so the holder gets a signal.
    match holder {
        Some(holder) => {
            holder.process.signal(Signal::Terminate);
            // A process that is stopped (SIGSTOP) handles SIGTERM only after SIGCONT.
            holder.process.signal(Signal::Continue);
            wait_released(home, Some(holder)).map(|()| true)
        }
        None => Err(LockError::Held { holder: lock::holder(home) }.into()),
    }
}

fn is_held(home: &Home) -> Result<bool, OperationError> {
    lock::is_held(home).map_err(OperationError::Instance)
}

/// Waits until the holder has exited and the home's lock is free.
fn wait_released(home: &Home, holder: Option<Holder>) -> Result<(), OperationError> {
    if let Some(holder) = &holder
        && !holder.process.wait_gone(STOP_LIMIT)
    {
        return Err(OperationError::DoesNotStop(holder.process.pid));
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_held(home)? && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The address of the running instance.
pub fn running_address(home: &Home) -> Option<(Ipv4Addr, u16)> {
    lock::holder(home)?.address()
}

/// The port that the running instance's start requested, if it differs from the configured one. A restart keeps it.
pub fn requested_port(home: &Home) -> Option<u16> {
    running_address(home)?;
    files::read_text(&home.requested_port(), 16).ok()??.trim().parse().ok()
}
