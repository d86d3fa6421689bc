//! `leoflow lite status`.

use crate::backup::catalog;
use crate::commands::context::Context;
use crate::config::{self, DEFAULT_PORT};
use crate::error::Error;
use crate::home::{journal, lock, upkeep};
use crate::protocol::control;
use crate::protocol::status::{BackupsStatus, InstanceState, InstanceStatus, ProcessStatus};

pub fn run(context: &Context<'_>) -> Result<u8, Error> {
    let mut status = control::status_of(&context.home).unwrap_or_else(|| from_outside(context));
    status.change = journal::change_under_way(&context.home);
    if status.change.as_ref().is_some_and(|change| change.has_changed) && status.state == InstanceState::Healthy {
        status.state = InstanceState::Upgrading;
    }
    status.backups = Some(backups(context));
    if context.printer.json {
        context.printer.json(&status)?;
    } else {
        show(context, &status);
    }
    Ok(if status.state == InstanceState::Healthy { 0 } else { 1 })
}

fn backups(context: &Context<'_>) -> BackupsStatus {
    // No backup is opened for it: a status is asked often.
    let upkeep = upkeep::read(&context.home);
    let made = upkeep.as_ref().and_then(|upkeep| upkeep.backup.done_at);
    BackupsStatus {
        last_backup_at: made.map(|at| at.to_string()),
        last_verified_at: catalog::last_trial(&context.home),
        problems: upkeep.map(|upkeep| upkeep.problems()).unwrap_or_default(),
    }
}

/// What can be told of an instance whose supervisor does not answer.
fn from_outside(context: &Context<'_>) -> InstanceStatus {
    let home = &context.home;
    let config = config::load(&home.config()).ok().flatten().map(|loaded| loaded.config);
    let port = config.as_ref().map_or(DEFAULT_PORT, |config| config.port);
    let holder = lock::holder(home);
    let held = lock::is_held(home).unwrap_or(false);
    let (state, reason) = match &holder {
        _ if !held => (InstanceState::Stopped, "it is not running; `leoflow lite start` starts it".to_owned()),
        Some(holder) if holder.url.is_none() => (
            InstanceState::Stopped,
            format!("`{}` (pid {}) has the home for a moment", holder.command, holder.process.pid),
        ),
        Some(holder) if context.home.control_socket().exists() => {
            (InstanceState::Degraded, format!("the supervisor, pid {}, does not answer", holder.process.pid))
        }
        Some(holder) => (InstanceState::Starting, format!("being set up by pid {}", holder.process.pid)),
        None => (InstanceState::Starting, "the home is in use".to_owned()),
    };
    InstanceStatus {
        state,
        version: context.version.to_owned(),
        url: holder
            .as_ref()
            .and_then(|holder| holder.url.clone())
            .unwrap_or_else(|| context.url(config.as_ref(), port)),
        home: home.root().display().to_string(),
        schema_version: None,
        uptime_seconds: 0,
        processes: Vec::new(),
        reason: Some(reason),
        detached: false,
        change: None,
        pid: holder.filter(|_| held).map_or(0, |holder| holder.process.pid),
        backups: None,
    }
}

fn show(context: &Context<'_>, status: &InstanceStatus) {
    let printer = context.printer;
    let colour = match status.state {
        InstanceState::Healthy => "32;1",
        InstanceState::Starting | InstanceState::Degraded | InstanceState::Upgrading => "33;1",
        InstanceState::Damaged | InstanceState::Failed | InstanceState::Stopped => "31;1",
    };
    printer.line(format!("{} {}", printer.paint(colour, &status.state.to_string()), status.url));
    if let Some(reason) = &status.reason {
        printer.line(reason);
    }
    if let Some(change) = &status.change {
        printer.line(change.to_string());
    }
    if status.processes.is_empty() {
        show_backups(context, status);
        return;
    }
    let schema = status.schema_version.map_or_else(|| "unknown".to_owned(), |version| version.to_string());
    printer.line(format!("version {}, schema {schema}, up {}", status.version, duration(status.uptime_seconds)));
    let rows: Vec<Vec<String>> = status.processes.iter().map(row).collect();
    printer.table(&["PROCESS", "STATE", "PID", "RESTARTS", "MEMORY"], &rows);
    show_backups(context, status);
}

fn show_backups(context: &Context<'_>, status: &InstanceStatus) {
    let (Some(backups), printer) = (&status.backups, context.printer) else { return };
    if backups.last_backup_at.is_some() {
        let verified = match &backups.last_verified_at {
            Some(at) => format!("verified {}", printer.time(Some(at))),
            None => "never verified".to_owned(),
        };
        printer.line(format!("last backup {}, {verified}", printer.time(backups.last_backup_at.as_deref())));
    }
    for problem in &backups.problems {
        printer.warning(problem);
    }
}

fn row(process: &ProcessStatus) -> Vec<String> {
    vec![
        process.name.clone(),
        process.state_text(),
        process.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        process.restarts.to_string(),
        process.memory_text(),
    ]
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}
