//! `leoflow lite stop`.

use crate::agent;
use crate::cli::args::LiteStop;
use crate::commands::context::Context;
use crate::error::Error;
use crate::home::Home;
use crate::home::lock::{self, Holder, HomeLock};
use crate::protocol::control::{Answer, ControlClient, Request};
use crate::sys::files;
use crate::sys::process::Signal;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How often it is looked whether tasks still run.
const TASKS_ROUND: Duration = Duration::from_millis(200);
/// The longest a clean stop takes: every child's deadlines, one after another.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(75);

pub fn stop(context: &Context<'_>, args: &LiteStop) -> Result<u8, Error> {
    let (mut count, unread) = agent::running(&context.home);
    if let Some(error) = unread {
        context
            .printer
            .warning(format!("not every task that runs is known: {}", unread_tasks(&context.home, &error).message));
    }
    if args.wait && count > 0 {
        context.printer.note(format!(
            "waiting until none of {count} running task(s) is left; what is due meanwhile still begins, so pause what \
             is not to. Ctrl-C waits no longer"
        ));
        while count > 0 {
            std::thread::sleep(TASKS_ROUND);
            count = agent::running(&context.home).0;
        }
    }
    if count > 0 && !args.yes {
        context.printer.note(format!("{count} task(s) run; a stop ends them. `--wait` lets them finish first."));
        if !context.confirm("Stop, and end them?", false)? {
            return Err(Error::failed("nothing was stopped"));
        }
    }
    let stopped = stop_running(context)?;
    let (ended, unread) = end_tasks(context);
    if let Some(error) = unread {
        context.printer.warning(format!("tasks may run on: {}", unread_tasks(&context.home, &error).message));
    }
    if ended > 0 && !context.printer.json {
        context.printer.note(ended_tasks(ended));
    }
    let text = if stopped { "Leoflow has stopped; your data stays" } else { "Leoflow is not running" };
    if context.printer.json {
        context.printer.json(&serde_json::json!({"state": "stopped", "was_running": stopped, "ended_tasks": ended}))?;
    } else {
        context.printer.line(text);
    }
    Ok(0)
}

/// Stops it and ends its tasks: nobody else uses the home afterwards.
pub fn stop_whole(context: &Context<'_>) -> Result<(), Error> {
    if stop_running(context)? {
        context.printer.note("Leoflow was stopped for this");
    }
    let (ended, unread) = end_tasks(context);
    if ended > 0 {
        context.printer.note(ended_tasks(ended));
    }
    unread.map_or(Ok(()), |error| Err(unread_tasks(&context.home, &error)))
}

/// Tasks outlive the processes that started them, and a restart; not a stop. Returns how many were ended, and the first error.
fn end_tasks(context: &Context<'_>) -> (usize, Option<std::io::Error>) {
    if !context.home.running_tasks().exists() {
        return (0, None);
    }
    // Another start has taken them over: then they are its.
    let Ok(_held) = HomeLock::take(&context.home, "leoflow lite stop", None) else { return (0, None) };
    agent::end_all(&context.home)
}

/// Which tasks run cannot be read.
pub fn unread_tasks(home: &Home, error: &std::io::Error) -> Error {
    Error::io("read", &home.running_tasks(), error)
}

pub fn ended_tasks(count: usize) -> String {
    format!(
        "ended {count} running task(s): those with retries left run again after the next start, the others have failed"
    )
}

/// Whether there was anything to stop.
pub fn stop_running(context: &Context<'_>) -> Result<bool, Error> {
    let home = &context.home;
    let holder = lock::holder(home).filter(|holder| holder.url.is_some());
    let connected =
        ControlClient::connect(home).map_err(|error| Error::io("connect to", &home.control_socket(), &error))?;
    if let Some(mut client) = connected {
        let asked = client.ask(&Request::Stop, Duration::from_secs(5));
        if matches!(asked, Ok(Answer::Accepted)) {
            client.wait_closed(STOP_LIMIT);
            return wait_released(context, holder).map(|()| true);
        }
    }
    if !lock::is_held(home).map_err(Error::failed)? {
        return Ok(false);
    }
    // It holds the home and its control socket is gone or silent: a signal says the same.
    match holder {
        Some(holder) => {
            holder.process.signal(Signal::Terminate);
            holder.process.signal(Signal::Continue);
            wait_released(context, Some(holder)).map(|()| true)
        }
        None => {
            Err(Error::failed("the home is in use by a process that is not a running instance")
                .hint("leoflow lite status"))
        }
    }
}

fn wait_released(context: &Context<'_>, holder: Option<Holder>) -> Result<(), Error> {
    if let Some(holder) = &holder
        && !holder.process.wait_gone(STOP_LIMIT)
    {
        let pid = holder.process.pid;
        return Err(
            Error::failed(format!("pid {pid} does not stop")).hint(format!("kill -9 {pid}; the next start recovers"))
        );
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while lock::is_held(&context.home).map_err(Error::failed)? && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Where the instance serves that runs now.
pub fn running_address(context: &Context<'_>) -> Option<(Ipv4Addr, u16)> {
    lock::holder(&context.home)?.address()
}

pub fn running_port(context: &Context<'_>) -> Option<u16> {
    running_address(context).map(|(_, port)| port)
}

/// A port that was given when it was started, and is not the configured one, stays when it is started again.
pub fn asked_port(context: &Context<'_>) -> Option<u16> {
    running_port(context)?;
    files::read_text(&context.home.asked_port(), 16).ok()??.trim().parse().ok()
}

/// `None` where it is the configured one, also of a new configuration.
pub fn note_asked_port(home: &Home, asked: Option<u16>) -> Result<(), Error> {
    let path = home.asked_port();
    let noted = match asked {
        Some(port) => files::write_atomic(&path, port.to_string().as_bytes(), 0o600),
        None => files::remove_any(&path),
    };
    noted.map_err(|error| Error::io("write", &path, &error))
}
