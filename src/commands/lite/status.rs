//! `leoflow lite status`.

use super::restart::changed_settings;
use crate::backup::catalog;
use crate::cli::args::LiteStatus;
use crate::commands::context::Context;
use crate::config::{self, DEFAULT_PORT, Overdue};
use crate::error::Error;
use crate::home::upkeep::{self, Kind, Upkeep};
use crate::home::{all_instances, journal, lock};
use crate::postgres::place;
use crate::protocol::control;
use crate::protocol::status::{BackupsStatus, InstanceState, InstanceStatus, ProcessStatus};
use crate::recovery::rollback_record;
use crate::setup::{self, installed_version};
use jiff::{SignedDuration, Timestamp, Zoned};
use serde_json::{Value, json};

pub fn run(context: &Context<'_>, args: &LiteStatus) -> Result<u8, Error> {
    if args.all {
        return all(context);
    }
    let status = of(context);
    if context.printer.json {
        context.printer.json(&status)?;
    } else {
        show(context, &status);
    }
    Ok(u8::from(!status.is_well()))
}

/// A line each.
fn all(context: &Context<'_>) -> Result<u8, Error> {
    let all: Vec<(String, InstanceStatus)> =
        all_instances().into_iter().map(|(name, home)| (name, of_another(&Context { home, ..*context }))).collect();
    if context.printer.json {
        let shown: Vec<Value> = all.iter().map(|(name, status)| json!({"name": name, "status": status})).collect();
        context.printer.json(&json!({"instances": shown}))?;
    } else if all.is_empty() {
        context.printer.note("There is no instance of yours on this machine; `leoflow lite start` makes one.");
    } else {
        let rows: Vec<Vec<String>> = all.iter().map(|(name, status)| row_of_one(context, name, status)).collect();
        context.printer.table(&["INSTANCE", "STATE", "URL", "VERSION", "UP", "LAST BACKUP"], &rows);
        for (name, status) in &all {
            let problems = status.backups.iter().flat_map(|backups| &backups.problems);
            problems.for_each(|problem| context.printer.warning(format!("{name}: {problem}")));
        }
    }
    let are_well = all.iter().all(|(_, status)| status.is_well());
    Ok(u8::from(all.is_empty() || !are_well))
}

fn row_of_one(context: &Context<'_>, name: &str, status: &InstanceStatus) -> Vec<String> {
    let is_up = !status.processes.is_empty();
    let last = status.backups.as_ref().and_then(|backups| backups.last_backup_at.as_deref());
    vec![
        name.to_owned(),
        status.state.to_string(),
        status.url.clone(),
        status.version.clone(),
        if is_up { duration(status.uptime_seconds) } else { "-".to_owned() },
        context.printer.time(last),
    ]
}

fn of(context: &Context<'_>) -> InstanceStatus {
    let mut status = of_another(context);
    if !status.processes.is_empty() {
        // What is wrong with the file is told by whoever needs it.
        status.needs_restart = changed_settings(context).unwrap_or_default().into_iter().map(str::to_owned).collect();
    }
    status
}

/// Of a home that the variables of this process may not be for.
fn of_another(context: &Context<'_>) -> InstanceStatus {
    let mut status = control::status_of(&context.home).unwrap_or_else(|| from_outside(context));
    status.change = journal::change_under_way(&context.home);
    if status.change.as_ref().is_some_and(|change| change.has_changed) && status.state == InstanceState::Healthy {
        status.state = InstanceState::Upgrading;
    }
    status.backups = Some(backups(context, &status));
    status
}

fn backups(context: &Context<'_>, status: &InstanceStatus) -> BackupsStatus {
    // No backup is opened for it: a status is asked often.
    let upkeep = upkeep::read(&context.home);
    let overdue = overdue(context, upkeep.as_ref(), status);
    let mut problems = upkeep.as_ref().map(Upkeep::problems).unwrap_or_default();
    problems.extend(overdue.iter().map(ToString::to_string));
    let has_failed = upkeep.as_ref().is_some_and(|upkeep| upkeep.backup.problem.is_some());
    BackupsStatus {
        last_backup_at: upkeep.as_ref().and_then(|upkeep| upkeep.backup.done_at).map(|at| at.to_string()),
        last_verified_at: catalog::last_trial(&context.home),
        problems,
        are_missing: has_failed || overdue.iter().any(|one| one.kind == Kind::Backup),
    }
}

/// Only a running instance makes backups.
fn overdue(context: &Context<'_>, upkeep: Option<&Upkeep>, status: &InstanceStatus) -> Vec<Overdue> {
    let settings = config::load_files(&context.home.config()).ok().flatten().map(|loaded| loaded.config.backup);
    let Some(settings) = settings.filter(|_| !status.processes.is_empty()) else { return Vec::new() };
    let now = Zoned::now();
    let uptime = SignedDuration::from_secs(i64::try_from(status.uptime_seconds).unwrap_or(i64::MAX));
    let since = now.timestamp().checked_sub(uptime).unwrap_or(Timestamp::MIN);
    settings.overdue(upkeep, since, &now)
}

/// What can be told of an instance whose supervisor does not answer.
fn from_outside(context: &Context<'_>) -> InstanceStatus {
    let home = &context.home;
    let config = config::load_files(&home.config()).ok().flatten().map(|loaded| loaded.config);
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
        version: installed_version(home).unwrap_or_else(|| context.version.to_owned()),
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
        needs_restart: Vec::new(),
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
    if let Ok(Some(record)) = rollback_record(&context.home) {
        printer.line(match record.is_under_way() {
            true => format!("a rollback to {} is under way", record.to),
            false => format!("a rollback to {} was interrupted; finish it: leoflow rollback", record.to),
        });
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
    if let Ok(Some(place)) = place::recorded(&context.home) {
        printer.line(format!("datastore {}", place.shown));
    }
    let rows: Vec<Vec<String>> = status.processes.iter().map(row).collect();
    printer.table(&["PROCESS", "STATE", "PID", "RESTARTS", "MEMORY"], &rows);
    show_backups(context, status);
    if let Some(other) = setup::other_copy(&context.home) {
        printer.warning(other.warning(&context.home));
    }
    if !status.needs_restart.is_empty() {
        printer.warning(format!(
            "changed, and not in force yet: {}; leoflow lite restart --if-needed",
            status.needs_restart.join(", ")
        ));
    }
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
